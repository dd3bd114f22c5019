/** Every command of the CLI, as data. --help, docs/cli.md and the parser are made from it. */
import type { OptionName } from "./options.ts";

export interface CommandFacts {
  readonly summary: string;
  /** Sentences below the summary in --help. */
  readonly about: string;
  readonly words: readonly { readonly name: string; readonly required: boolean; readonly help: string }[];
  readonly options: readonly OptionName[];
  /** After `npm run -s backup:`, with what it does. */
  readonly examples: readonly { readonly line: string; readonly does: string }[];
}

/** Every command takes these. */
export const everywhere = ["json", "help", "env-file", "local"] as const satisfies readonly OptionName[];

const database = ["db-url", "db-password-file", "db-ca"] as const satisfies readonly OptionName[];
const store = ["store", "keys-file"] as const satisfies readonly OptionName[];
const target = [
  "target-db-url",
  "target-db-password-file",
  "target-db-ca",
] as const satisfies readonly OptionName[];
const id = {
  name: "id",
  required: true,
  help: "a backup's id, its first letters (4 or more), or `latest`: the newest that was not quarantined",
};
const quarantinedId = { name: "id", required: true, help: "the backup's id, or its first letters (4 or more)" };

export const commands = {
  "init": {
    summary: "install the schema `backup` and make the store ready",
    about:
      "Applies the migrations that are missing, each in one transaction, and records them as `supabase db push` does. Works on any PostgreSQL 15 or newer; where pg_cron, pg_net or Vault are absent it says what that leaves out. Safe to repeat.",
    words: [],
    options: [...database, ...store],
    examples: [{ line: "init -- --store file:///srv/backups", does: "prepares the database of BACKUP_DB_URL" }],
  },
  "keygen": {
    summary: "make a key",
    about:
      "Prints a new key once. Keep it outside of the project: without it no backup opens, and with it every backup does. Several keys in BACKUP_KEYS are separated by commas, the first is current.",
    words: [],
    options: [],
    examples: [{ line: "keygen", does: "prints the line for BACKUP_KEYS" }],
  },
  "create": {
    summary: "take a full backup",
    about:
      "With --project-url the functions of the project do it; else it is read from --db-url and written to --store from here. A backup that runs already is joined. Ctrl-C cancels it cleanly.",
    words: [],
    options: ["tier", "wait", "jobs", "max-memory", ...database, ...store, "project-url"],
    examples: [
      { line: "create", does: "backs up the database of BACKUP_DB_URL into BACKUP_STORE" },
      { line: "create -- --tier weekly --jobs 4 --json", does: "with 4 workers, the result as a document" },
      { line: "create -- --project-url https://ref.supabase.co --wait", does: "through the functions of a project" },
    ],
  },
  "list": {
    summary: "list the backups",
    about: "From the database when --db-url is set, else from the store and the keys alone.",
    words: [],
    options: ["all", "limit", ...database, ...store],
    examples: [
      { line: "list", does: "newest first" },
      { line: "list -- --store s3://bucket/prefix --json", does: "when the project is gone" },
    ],
  },
  "status": {
    summary: "say whether backups are as they should be",
    about: "Verdict ok, warning or critical, from the database; exit 3 when it is critical.",
    words: [],
    options: ["strict", ...database],
    examples: [{ line: "status -- --strict", does: "exit 3 for a warning too, for a monitor" }],
  },
  "verify": {
    summary: "read, open, hash and count every object of a backup",
    about: "Needs the store and the keys only. Exit 3 when a problem is found; each is listed.",
    words: [id],
    options: ["jobs", ...database, ...store],
    examples: [{ line: "verify latest", does: "the newest backup" }],
  },
  "restore-full": {
    summary: "restore a backup into an empty database",
    about:
      "Prints the plan and does nothing until it is confirmed. Cron jobs, webhooks and subscriptions come back switched off; `release` turns them on. Started again after a failure it goes on where it stopped.",
    words: [id],
    options: ["yes", "jobs", ...target, ...database, ...store],
    examples: [
      { line: "restore-full latest", does: "plans a restore into a new database beside the source" },
      { line: "restore-full latest -- --target-db-url postgresql://postgres@host/postgres --yes", does: "restores" },
    ],
  },
  "restore-point": {
    summary: "restore a database as it was at a moment",
    about:
      "Takes the newest full backup before the moment and replays the change stream up to it, from the store and the keys alone. Prints the plan and does nothing until it is confirmed. Started again after a failure it goes on where it stopped. Exit 3 when a table was left out.",
    words: [{
      name: "moment",
      required: false,
      help:
        "2024-01-09T12:00:00Z (with a zone), a position in the log such as 16/B374D848, or `latest`: all that is stored",
    }],
    options: ["yes", "jobs", "before-xid", "without-table", "at-full", "accepted", ...target, ...database, ...store],
    examples: [
      { line: "restore-point 2024-01-09T12:00:00Z", does: "plans a restore into a new database beside the source" },
      { line: "restore-point latest -- --target-db-url postgresql://postgres@host/postgres --yes", does: "restores" },
      { line: "restore-point -- --before-xid 7421 --at-full public.visits --yes", does: "undoes that transaction" },
    ],
  },
  "incremental": {
    summary: "store what has changed since the last time",
    about:
      "Reads the change stream of --db-url to its end and writes it to --store. The first one begins the stream; what it holds can be restored once a full backup was taken after that. Another drainer at work is waited for.",
    words: [],
    options: [...database, ...store],
    examples: [{ line: "incremental -- --json", does: "the changes up to now, the result as a document" }],
  },
  "follow": {
    summary: "store changes as they happen, until Ctrl-C",
    about:
      "Drains the change stream without pause, so that a restore can reach to a few seconds ago. Trouble that passes is told and waited out.",
    words: [],
    options: ["interval", ...database, ...store],
    examples: [{ line: "follow", does: "from this machine, every 2 seconds" }],
  },
  "timeline": {
    summary: "show which moments can be restored",
    about:
      "From the store and the keys alone: spans that are covered, gaps between them, full backups, and a picture. With --db-url set it also says why there is a gap.",
    words: [],
    options: [...database, ...store],
    examples: [{ line: "timeline -- --store s3://bucket/prefix", does: "when the project is gone" }],
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
  "accept": {
    summary: "accept a quarantined backup",
    about: "For a backup that became much smaller and is right all the same. The reason is audited.",
    words: [quarantinedId],
    options: ["reason", ...database],
    examples: [{ line: 'accept 1b9d -- --reason "old events were archived"', does: "counts it as a backup again" }],
  },
  "doctor": {
    summary: "check settings, database, store, keys and clock",
    about: "One line a check: ok, warn or fail, with the way out. Exit 1 when a check fails. Writes only a probe.",
    words: [],
    options: [...database, ...store, "project-url"],
    examples: [{ line: "doctor", does: "everything that is set" }],
  },
  "audit": {
    summary: "show the audit log",
    about: "Newest first. People appear as keyed hashes.",
    words: [],
    options: ["limit", ...database],
    examples: [{ line: "audit -- --limit 200", does: "the last 200 rows" }],
  },
} as const satisfies Record<string, CommandFacts>;

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
