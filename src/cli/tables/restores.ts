/** What brings something back. */
import type { OptionName } from "../options.ts";
import { type CommandFacts, database, id, store, target } from "./facts.ts";

const orId = { ...id, required: false, help: `${id.help}; or the id of an incremental; not with --at` };
const tableWord = {
  name: "table",
  required: true,
  help: "schema.table; names with capitals or signs in double quotes",
};
const rows = [
  "at",
  "apply",
  "dry-run",
  "yes",
  "fire-triggers",
  "skip-safety-backup",
  ...target,
  ...database,
  ...store,
  "project-url",
  "jobs",
  "max-memory",
] as const satisfies readonly OptionName[];

/** What a full restore into another database has no use for: taken in silence, it would look as if it had been done. */
export const inPlaceOnly = [
  "drop-extra",
  "credentials",
  "fire-triggers",
  "without-maintenance",
  "critical",
  "check-user",
  "check-table",
  "smoke",
  "message",
  "until",
  "skip-safety-backup",
] as const satisfies readonly OptionName[];

export const restores = {
  "restore-full": {
    summary: "restore a backup into an empty database, or in place",
    about:
      "Prints the plan and does nothing until it is confirmed. Cron jobs, webhooks and subscriptions come back switched off; `release` turns them on. Started again after a failure it goes on where it stopped. With --at it does what restore-point does. With --apply it goes into the very database: maintenance mode, a safety backup, then definitions (with `replace`) and rows by their difference, checks. Files of Storage come after the rows where the target's Storage can be reached (SUPABASE_URL and SUPABASE_SECRET_KEY in place, --target-project-url and BACKUP_TARGET_SECRET_KEY else); where not that is said, and restore-file brings them. None is removed. Exit 3 where the backup has no content of some.",
    words: [orId],
    options: [
      "at",
      "yes",
      "jobs",
      "apply",
      "dry-run",
      ...inPlaceOnly,
      "max-memory",
      "without-files",
      "target-project-url",
      "project-url",
      ...target,
      ...database,
      ...store,
    ],
    examples: [
      { line: "restore-full latest", does: "plans a restore into a new database beside the source" },
      { line: "restore-full latest -- --target-db-url postgresql://postgres@host/postgres --yes", does: "restores" },
      {
        line: "restore-full -- --at 2024-01-09T12:00:00Z --dry-run",
        does: "shows what a restore to a moment would make",
      },
      { line: "restore-full latest -- --apply replace --dry-run", does: "shows what an in-place restore would change" },
    ],
  },
  "restore-point": {
    summary: "restore a database as it was at a moment",
    about:
      "Takes the newest full backup before the moment and replays the change stream up to it, from the store and the keys alone. Prints the plan and does nothing until it is confirmed. Started again after a failure it goes on where it stopped. Files of Storage come as with restore-full, as of the moment. Exit 3 when a table was left out, or where there is no content of a file.",
    words: [{
      name: "moment",
      required: false,
      help:
        "2024-01-09T12:00:00Z (with a zone), a position in the log such as 16/B374D848, or `latest`: all that is stored",
    }],
    options: [
      "yes",
      "dry-run",
      "jobs",
      "before-xid",
      "without-table",
      "at-full",
      "accepted",
      "source",
      "without-files",
      "target-project-url",
      ...target,
      ...database,
      ...store,
    ],
    examples: [
      { line: "restore-point 2024-01-09T12:00:00Z", does: "plans a restore into a new database beside the source" },
      { line: "restore-point latest -- --target-db-url postgresql://postgres@host/postgres --yes", does: "restores" },
      { line: "restore-point -- --before-xid 7421 --at-full public.visits --yes", does: "undoes that transaction" },
    ],
  },
  "restore": {
    summary: "bring something back, and ask what",
    about:
      "Asks at a terminal; in scripts --scope says it. Each scope is a command of its own, whose --help says more.",
    words: [
      orId,
      {
        name: "what",
        required: false,
        help: "with the scopes table and record a table, with user a user's id; the first word with --at",
      },
    ],
    options: [
      "scope",
      "where",
      "all",
      "sql",
      "as",
      "credentials",
      "shared",
      "map",
      "without-files",
      "target-project-url",
      ...rows,
    ],
    examples: [
      { line: "restore latest", does: "asks what" },
      { line: "restore latest public.notes -- --scope table --apply missing --dry-run", does: "as restore-table" },
      {
        line: "restore public.notes -- --at 2024-01-09T12:00:00Z --scope table",
        does: "as of a moment, without an id",
      },
    ],
  },
  "restore-table": {
    summary: "bring back the rows of one table",
    about:
      "Lays the rows as they were beside the live ones, in a schema `restore_…` of the same database, for 7 days. With --apply it prints what it would insert, put back and delete, and does it once the database's name is typed, after a safety backup, in one transaction. A table that was dropped is made again with its keys, policies and grants.",
    words: [tableWord, orId],
    options: rows,
    examples: [
      { line: "restore-table public.notes latest", does: "beside, to look at" },
      { line: "restore-table public.notes latest -- --apply missing --dry-run", does: "shows what has gone since" },
      { line: "restore-table public.notes -- --at 2024-01-09T12:00:00Z --apply replace --yes", does: "makes it equal" },
    ],
  },
  "restore-record": {
    summary: "bring back one row, or a few",
    about:
      "As restore-table, for the rows that fit every --where. Several are listed with their keys, and taken with --all. Afterwards each is read again as its owner, under row-level security.",
    words: [tableWord, orId],
    options: ["where", "all", "sql", ...rows],
    examples: [
      { line: "restore-record public.notes latest -- --where id=42 --sql", does: "prints the INSERT" },
      { line: "restore-record public.notes latest -- --where id=42 --apply missing --yes", does: "brings it back" },
    ],
  },
  "restore-user": {
    summary: "bring back one person with all that is theirs",
    about:
      "The user of auth.users and every row that foreign keys lead to from there, as they were then. Rows that lead to other users as well are named and stay out. Sessions and tokens never come back, password and second factors of a user who is there only with --credentials. With --apply their files of Storage come after the rows, as with restore-full; under --as they are the new account's, with their names as they were.",
    words: [{ name: "user", required: true, help: "the id in auth.users" }, orId],
    options: ["as", "credentials", "shared", "map", "without-files", "target-project-url", ...rows],
    examples: [
      { line: "restore-user 5b0d…  latest -- --apply missing --dry-run", does: "shows what of theirs is gone" },
      { line: "restore-user 5b0d… latest -- --as 77aa… --apply missing --yes", does: "gives it to their new account" },
    ],
  },
  "restore-file": {
    summary: "bring back files of Storage",
    about:
      "One file, a bucket or all, of a full backup or a moment (--at), into the project's Storage: bytes first, read back and compared, then owner and dates in the row. Without --apply it only shows what would be done. Files that came after the backup are listed and stay; so do those that differ unless --apply merge. Into another project with --target-db-url, --target-project-url and BACKUP_TARGET_SECRET_KEY; into a folder with --out.",
    words: [
      { name: "files", required: true, help: "`bucket/name`, `bucket/` for all of a bucket, or `all`" },
      orId,
    ],
    options: ["at", "source", "apply", "dry-run", "yes", "out", "target-project-url", ...target, ...database, ...store],
    examples: [
      { line: "restore-file voice-notes/ latest", does: "shows which voice notes are gone or differ" },
      { line: "restore-file voice-notes/a.webm latest -- --apply missing --yes", does: "puts one back" },
      { line: "restore-file all latest -- --out ./files", does: "all of them into a folder" },
      {
        line: "restore-file voice-notes/ -- --at 2024-01-09T12:00:00Z --apply missing --yes",
        does: "those of a moment",
      },
    ],
  },
  "erase": {
    summary: "erase a person from the live project, for good",
    about:
      "Prints whose rows go, by table, and does it once the person's id was typed: the ledger first (keyed hashes, in the stores), then rows, files and the account, then a second look. Rows that are others' as well stop it until backup.map.json decides. Every later restore leaves the person out. `hold` and an id: a law keeps the data, with --reason; `release` ends that. `departed`: users who were deleted otherwise and are still in backups; `pass` and an id: leave them. `list`: every erasure and how far it is. Broken off, the same command goes on. `rewrite`: backups and segments from before are sealed again without everybody who was erased, by --jobs threads, plan first; it goes on where it was broken off, and is due within 30 days. `certificate` and the id of an erasure: once nothing is left, all that is kept is searched for the person, and the result signed.",
    words: [
      {
        name: "user",
        required: true,
        help: "the id in auth.users; or `hold`, `release`, `departed`, `pass`, `list`, `rewrite`, `certificate`",
      },
      { name: "id", required: false, help: "of whom to hold, release or pass over; or of the erasure" },
    ],
    options: ["dry-run", "yes", "map", "reason", "jobs", ...database, ...store, "secondary"],
    examples: [
      { line: "erase 5b0d… -- --dry-run", does: "what would go, what stays, and what has to be decided" },
      { line: "erase 5b0d… -- --yes --json", does: "does it, the result as a document" },
      { line: 'erase hold 5b0d… -- --reason "a court order of 3 May"', does: "nobody erases them until `release`" },
      { line: "erase rewrite -- --jobs 2 --yes", does: "backups from before lose everybody who was erased" },
      { line: "erase certificate 0b1f… -- --json", does: "proves that nothing that is kept holds the person" },
    ],
  },
  "release": {
    summary: "turn on what a restore left switched off",
    about: "Shows what would be turned on and does it once confirmed.",
    words: [{
      name: "what",
      required: true,
      help: "`all`, `cron`, `webhook`, `subscription`, `login`, or a listed name",
    }],
    options: ["yes", ...target],
    examples: [{ line: "release cron -- --yes", does: "the cron jobs of the target" }],
  },
} as const satisfies Record<string, CommandFacts>;
