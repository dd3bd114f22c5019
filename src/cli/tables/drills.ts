/** What is tried, and where it is written down. */
import type { OptionName } from "../options.ts";
import { type CommandFacts, database, store } from "./facts.ts";

const drill = [
  "drill-db-url",
  "drill-db-password-file",
  "drill-db-ca",
  "jobs",
  "source",
] as const satisfies readonly OptionName[];

export const drills = {
  "test-recovery": {
    summary: "prove that the newest backup and the change stream come back",
    about:
      "The drill `recovery`: the newest backup and all of the change stream after it into a new database, compared with the backup and the stream, then dropped again. On the server of --drill-db-url, else on that of --db-url, where the setting disk_mb leaves room. Time and loss are measured against the objectives; the evidence is signed. Exit 3 when something differs. pg_cron does the same each week.",
    words: [],
    options: [...drill, ...database, ...store],
    examples: [
      { line: "test-recovery", does: "on the server of the database itself" },
      {
        line: "test-recovery -- --drill-db-url postgresql://postgres@spare/postgres --json",
        does: "on another server, the result as a document",
      },
    ],
  },
  "drills": {
    summary: "what is tried how often, and what came of it",
    about:
      "`list`: the calendar, with what is due and for whom. `run`: one of it now; `disaster` and `complete` read from the second store, `complete` with the recovery key alone and on another server, `keys` and `runbooks` take a person. `show`, `report` (Markdown, with --json the evidence itself) and `verify` (its signature) take a drill's id, `verify` also a file of evidence that ends in .json.",
    words: [
      { name: "what", required: true, help: "`list`, `run`, `show`, `report` or `verify`" },
      {
        name: "which",
        required: false,
        help: "run: a name of the calendar; else a drill's id, or its first letters (4 or more)",
      },
    ],
    options: ["yes", "note", ...drill, ...database, ...store, "secondary"],
    examples: [
      { line: "drills list", does: "the calendar" },
      { line: "drills run full", does: "a full restore, proven and dropped" },
      { line: "drills run disaster -- --identities-file /media/usb/age.txt", does: "from the second store" },
      { line: "drills report 1b9d", does: "the evidence, for people" },
    ],
  },
  "runbooks": {
    summary: "when each runbook was last tested",
    about:
      "`last tested on … – result – notes`, from the maintenance log: by the drill that follows it, or as a person wrote it down.",
    words: [],
    options: [...database],
    examples: [{ line: "runbooks", does: "one line a runbook" }],
  },
  "log": {
    summary: "the maintenance log: what was tested and maintained",
    about:
      "Date, type, action, result, notes. Drills, incidents and other jobs write into it by themselves, people with `add` or in the SQL editor with backup.log_maintenance(…). Rows are never changed or removed. No names or addresses of users belong into it.",
    words: [
      { name: "what", required: true, help: "`list` or `add`" },
      { name: "type", required: false, help: "add: a word, such as test, maintenance or review" },
      { name: "action", required: false, help: "add: what was done; of a runbook that was tested, its name" },
      { name: "result", required: false, help: "add: Success, Failure, or what else came out" },
      { name: "notes", required: false, help: "add: what the next one should know" },
    ],
    options: ["kind", "limit", ...database],
    examples: [
      { line: "log list -- --kind test", does: "the tests, newest first" },
      { line: 'log add test a-person Success "the test account, 6 minutes"', does: "writes down what a person tested" },
    ],
  },
} as const satisfies Record<string, CommandFacts>;
