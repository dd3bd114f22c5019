/** Every command of the CLI, as data, by subject. --help, docs/cli.md and the parser are made from it. */
import type { OptionName } from "./options.ts";
import { access } from "./tables/access.ts";
import { backups } from "./tables/backups.ts";
import { changes } from "./tables/changes.ts";
import { drills } from "./tables/drills.ts";
import { operation } from "./tables/operation.ts";
import { restores } from "./tables/restores.ts";
import type { CommandFacts } from "./tables/facts.ts";

/** Every command takes these. */
export const everywhere = ["json", "help", "env-file", "local"] as const satisfies readonly OptionName[];

export const commands = { ...backups, ...restores, ...changes, ...operation, ...access, ...drills };

export type CommandName = keyof typeof commands;

export const commandNames = Object.keys(commands) as CommandName[];

/** Facts of a command by name, in the wider type that reads the same for all of them. */
export function commandFacts(name: CommandName): CommandFacts {
  return commands[name];
}

/** All options that a command takes. */
export function optionsOf(name: CommandName): OptionName[] {
  return [...commandFacts(name).options, ...everywhere];
}
