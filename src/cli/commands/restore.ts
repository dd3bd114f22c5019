import { HoldfastError } from "../../shared/errors.ts";
import type { CommandName } from "../command_table.ts";
import type { Command, Context } from "../context.ts";
import { requireTaken } from "../needless.ts";
import { namedState } from "../open_past.ts";
import type { Outcome } from "../output.ts";
import * as full from "./restore_full.ts";
import * as record from "./restore_record.ts";
import * as table from "./restore_table.ts";
import * as user from "./restore_user.ts";

interface Scope {
  readonly run: Command;
  readonly command: CommandName;
  /** What the second word names; null: nothing. */
  readonly names: string | null;
  readonly question: string;
}

const scopes: Readonly<Record<string, Scope>> = {
  table: { run: table.run, command: "restore-table", names: "a table", question: "Which table (schema.table)?" },
  record: {
    run: record.run,
    command: "restore-record",
    names: "a table",
    question: "Rows of which table (schema.table)?",
  },
  user: { run: user.run, command: "restore-user", names: "a user", question: "Which user (the id in auth.users)?" },
  full: { run: full.run, command: "restore-full", names: null, question: "" },
};

/** The document: that of the command for the scope. */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  // With --at no backup is named: the first word is what is to come back.
  const [subject, id] = settings.get("at") === undefined ? [context.words[1], context.words[0]] : context.words;
  const words = id === undefined ? [] : [id];
  namedState(settings, id);
  const chosen = settings.get("scope") ?? await context.ask(`What is to come back: ${Object.keys(scopes).join(", ")}?`);
  if (chosen === null) {
    throw new HoldfastError("usage", "no --scope says what is to come back", {
      hint: `Give --scope with ${Object.keys(scopes).join(", ")}; at a terminal it is asked for.`,
    });
  }
  const scope = scopes[chosen];
  if (scope === undefined) {
    throw new HoldfastError("usage", `--scope is one of ${Object.keys(scopes).join(", ")}`);
  }
  requireTaken(settings, "restore", scope.command, ["scope"]);
  if (scope.names === null) {
    if (subject !== undefined) {
      throw new HoldfastError("usage", `${subject} is one word too many: all of it comes back`);
    }
    return await scope.run({ ...context, words });
  }
  const named = subject ?? await context.ask(scope.question);
  if (named === null || named === "") {
    throw new HoldfastError("usage", `--scope ${chosen} wants ${scope.names} behind the id, or alone with --at`);
  }
  return await scope.run({ ...context, words: [named, ...words] });
}
