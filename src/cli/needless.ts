/** Options that were given and would do nothing: whoever typed them is told, as they meant something by them. */
import { HoldfastError } from "../shared/errors.ts";
import { type CommandName, optionsOf } from "./command_table.ts";
import type { OptionName } from "./options.ts";
import type { Settings } from "./settings.ts";

/** Errors: `usage` for the first of these options that stands on the command line while --apply does not. */
export function requireApply(settings: Settings, options: readonly OptionName[]): void {
  const needless = settings.get("apply") === undefined ? options.find((name) => settings.isFlag(name)) : undefined;
  if (needless === undefined) return;
  throw new HoldfastError("usage", `--${needless} does nothing without --apply`, {
    hint: "Leave it out, or say with --apply how the rows go into place.",
  });
}

/** Errors: `usage` for the first option of `given` on the command line that `chosen`, which does its work, does not take. */
export function requireTaken(
  settings: Settings,
  given: CommandName,
  chosen: CommandName,
  own: readonly OptionName[],
): void {
  const taken = new Set([...optionsOf(chosen), ...own]);
  const strange = optionsOf(given).find((name) => settings.isFlag(name) && !taken.has(name));
  if (strange === undefined) return;
  throw new HoldfastError("usage", `--${strange} is no option of ${chosen}`, {
    hint: `holdfast ${chosen} --help shows what it takes.`,
  });
}
