import { describe, expect, it } from "vitest";
import { parseArguments } from "../../src/cli/arguments.ts";
import type { Command, Context } from "../../src/cli/context.ts";
import * as restore from "../../src/cli/commands/restore.ts";
import * as full from "../../src/cli/commands/restore_full.ts";
import * as record from "../../src/cli/commands/restore_record.ts";
import * as table from "../../src/cli/commands/restore_table.ts";
import { Progress } from "../../src/cli/progress.ts";
import { Settings } from "../../src/cli/settings.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { createLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";

const commands: Readonly<Record<string, Command>> = {
  "restore": restore.run,
  "restore-full": full.run,
  "restore-record": record.run,
  "restore-table": table.run,
};

/** No terminal, and no settings but what stands on the line. */
function contextOf(argv: readonly string[]): Context {
  const parsed = parseArguments(argv);
  if ("help" in parsed) throw new Error("a question for help");
  return {
    settings: new Settings(parsed.flags, () => undefined),
    words: parsed.words,
    clock: systemClock,
    random: webCryptoRandom,
    log: createLog(() => {}, "warn"),
    logLevel: "warn",
    progress: new Progress({ isTerminal: false, columns: 80, write: () => {} }, systemClock),
    columns: 80,
    signal: new AbortController().signal,
    note: () => {},
    ask: () => Promise.resolve(null),
    confirm: () => Promise.resolve(false),
  };
}

const moment = "2026-11-20T14:03:27Z";

describe("a restore that was asked for in a way that cannot be meant", () => {
  it.each([
    // Nobody can be asked, and no state is named.
    [["restore", "latest"], "no --scope"],
    [["restore", "latest", "--scope", "planet"], "--scope is one of"],
    [["restore", "latest", "--scope", "table"], "--scope table wants a table"],
    [["restore", "latest", "public.x", "--scope", "full"], "one word too many"],
    [["restore", "--scope", "full"], "no backup and no --at"],
    [["restore", "public.t", "latest", "--scope", "table", "--at", moment], "a backup and --at"],
    [["restore", "public.t", "--scope", "full", "--at", moment], "one word too many"],
    [["restore-table", "public.tags"], "no backup and no --at"],
    [["restore-table", "public.tags", "latest", "--at", moment], "a backup and --at"],
    [["restore-full"], "no backup and no --at"],
    [["restore-full", "latest", "--at", moment], "a backup and --at"],
    // A moment is no backup that could go into place; the backup's rows are not the moment's.
    [["restore-full", "--at", moment, "--apply", "replace"], "--at and --apply"],
    [["restore", "--scope", "full", "--at", moment, "--apply", "missing"], "--at and --apply"],
    // Options of another scope.
    [["restore", "latest", "public.t", "--scope", "table", "--where", "id=3"], "--where is no option of restore-table"],
    [["restore", "latest", "public.t", "--scope", "table", "--sql"], "--sql is no option of restore-table"],
    [["restore", "latest", "public.t", "--scope", "record", "--as", "x"], "--as is no option of restore-record"],
    [["restore", "latest", "x", "--scope", "user", "--all"], "--all is no option of restore-user"],
    [["restore", "latest", "--scope", "full", "--map", "x"], "--map is no option of restore-full"],
    // Options that only a restore in place looks at.
    ...[
      ["--drop-extra"],
      ["--credentials"],
      ["--fire-triggers"],
      ["--without-maintenance"],
      ["--critical", "public.t"],
      ["--check-user", "x"],
      ["--check-table", "public.t"],
      ["--smoke", "/nonexistent"],
      ["--message", "m"],
      ["--until", moment],
      ["--skip-safety-backup", "other"],
    ].map((option): [string[], string] => [
      ["restore-full", "latest", ...option],
      `${option[0]} does nothing without --apply`,
    ]),
    [["restore-table", "public.t", "latest", "--fire-triggers"], "--fire-triggers does nothing without --apply"],
    [
      ["restore-table", "public.t", "latest", "--skip-safety-backup", "x"],
      "--skip-safety-backup does nothing without --apply",
    ],
    [
      ["restore-record", "public.t", "latest", "--where", "id=1", "--sql", "--apply", "missing"],
      "--sql prints the rows",
    ],
  ])("is refused before anything is opened, naming what is wrong: %j", async (argv, named) => {
    const context = contextOf(argv);
    await expect(commands[argv[0] ?? ""]?.(context)).rejects.toMatchObject({
      code: "usage",
      message: expect.stringContaining(named),
    });
  });
});
