/** Backups: making them, looking at them, keeping them, copying them. */
import { type CommandFacts, database, id, store, target } from "./facts.ts";

const quarantinedId = { name: "id", required: true, help: "the backup's id, or its first letters (4 or more)" };

export const backups = {
  "init": {
    summary: "install the schema `backup` and make the store ready",
    about:
      "Applies the migrations that are missing, each in one transaction, and records them as `supabase db push` does. Works on any PostgreSQL 15 or newer; where pg_cron, pg_net or Vault are absent it says what that leaves out. Safe to repeat.",
    words: [],
    options: [...database, ...store, "secondary"],
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
      "With --project-url the functions of the project do it; else it is read from --db-url and written to --store from here. A backup that runs already is joined. Ctrl-C cancels it cleanly. One that was read from here is copied to --secondary at its end, where that is set and no function is at it; what fails there is a warning.",
    words: [],
    options: ["tier", "wait", "jobs", "max-memory", ...database, ...store, "secondary", "project-url"],
    examples: [
      { line: "create", does: "backs up the database of BACKUP_DB_URL into BACKUP_STORE" },
      { line: "create -- --tier weekly --jobs 4 --json", does: "with 4 workers, the result as a document" },
      { line: "create -- --project-url https://ref.supabase.co --wait", does: "through the functions of a project" },
    ],
  },
  "list": {
    summary: "list the backups",
    about:
      "From the database when --db-url is set, with the hourly incrementals that their tier keeps: the span of each, and the full backup that its end is restored from. Else from the store and the keys alone: full backups; `timeline` shows what lies between them.",
    words: [],
    options: ["all", "limit", ...database, ...store],
    examples: [
      { line: "list", does: "newest first" },
      { line: "list -- --store s3://bucket/prefix --json", does: "when the project is gone" },
    ],
  },
  "verify": {
    summary: "read, open, hash and count every object of a backup",
    about:
      "Needs the store and the keys only; --jobs threads read at the same time. Exit 3 when a problem is found; each is listed.",
    words: [id],
    options: ["jobs", ...database, ...store],
    examples: [
      { line: "verify latest", does: "the newest backup" },
      {
        line: "verify latest -- --store second --identities-file /media/usb/age.txt",
        does: "the copy at the second provider",
      },
    ],
  },
  "validate": {
    summary: "compare what was restored with what it should be",
    about:
      "With a backup's id and --target-db-url: definitions, owners, grants, policies, counts, row hashes, sequences and foreign keys of that database against the backup itself; the source may be gone. With a restore's id, or without one for the latest that --db-url has recorded: its target, or its rows against the live ones. Nothing is changed. Exit 3 when something differs; each difference is listed.",
    words: [{ name: "id", required: false, help: "of a restore or of a backup, or its first letters (4 or more)" }],
    options: [...target, ...database, ...store],
    examples: [
      { line: "validate", does: "the latest restore that is recorded" },
      { line: "validate latest -- --target-db-url postgresql://postgres@host/copy", does: "a copy against the backup" },
    ],
  },
  "accept": {
    summary: "accept a quarantined backup",
    about: "For a backup that became much smaller and is right all the same. The reason is audited.",
    words: [quarantinedId],
    options: ["reason", ...database],
    examples: [{ line: 'accept 1b9d -- --reason "old events were archived"', does: "counts it as a backup again" }],
  },
  "download": {
    summary: "take a backup, or rows or files of it, out of the store",
    about:
      "Into a file with --out. Without it the file is laid into a private bucket of the project, and a signed link to it is printed: whoever has the link can read it until it ends, then the file is removed. Each download and each link stands in the audit before it is there. `list` shows what lies there, `remove` ends one before its time. Rows in plain text and files are of use to everybody who gets hold of them: keep them short.",
    words: [
      {
        ...id,
        required: false,
        help: `${id.help}; or the id of an incremental; or \`list\` or \`remove\`; not with --at`,
      },
      { name: "download", required: false, help: "with `remove`: the id of the download" },
    ],
    options: [
      "format",
      "table",
      "files",
      "out",
      "expires",
      "at",
      "dry-run",
      "all",
      "limit",
      ...target,
      ...database,
      ...store,
      "project-url",
    ],
    examples: [
      { line: "download latest -- --out .", does: "all that restores the newest backup, with stock tools" },
      { line: "download latest -- --table public.notes --expires 1h", does: "a link to one table as CSV" },
      { line: "download latest -- --format sql --dry-run", does: "how large every table is together, for psql" },
      { line: "download latest -- --files voice-notes/ --out .", does: "all files of a bucket, as an archive" },
      { line: "download remove 1b4e28ba-2fa1-11d2-883f-0016d3cca427", does: "ends a link before its time" },
    ],
  },
  "replicate": {
    summary: "copy what the second store lacks",
    about:
      "From --store to --secondary: each object is checked, wrapped for BACKUP_RECIPIENTS, put and read back; a manifest comes after all that it names. The functions do it by themselves after each backup, and so do `create`, `incremental` and `follow`; this is for the first time, and for what failed. What was broken off goes on. The setting egress_mb_per_day bounds what is sent in a day.",
    words: [],
    options: ["dry-run", ...database, ...store, "secondary"],
    examples: [
      { line: "replicate -- --dry-run", does: "what is missing there, with its size" },
      { line: "replicate -- --json", does: "copies it, the result as a document" },
    ],
  },
  "retention": {
    summary: "show how long backups are kept, and set it",
    about:
      "Without a word: each tier, how many backups it has, what is missing of it and what should be gone, and when it was pruned last. `standard`: hourly 24 h, daily 30 d, weekly 90 d. `short`: hourly 24 h, daily 7 d, weekly 30 d. `gfs` (grandfather, father, son): daily 7 d, weekly 35 d, the first backup of each month 366 d. --keep sets single tiers; a policy that contradicts itself is refused. Nothing is removed before the next prune.",
    words: [{ name: "preset", required: false, help: "`standard`, `short` or `gfs`" }],
    options: ["keep", ...database],
    examples: [
      { line: "retention", does: "shows the policy, what it keeps, what is missing" },
      { line: "retention gfs", does: "sets all tiers at once" },
      { line: "retention -- --keep daily=14d --keep yearly=2557d", does: "sets two tiers" },
    ],
  },
  "prune": {
    summary: "remove the backups that the policy does not keep",
    about:
      "Prints what would go and what stays, each with its reason, and does it once confirmed. Never the newest that is verified, nothing that a kept moment needs, nothing on hold or in use; and nothing at all where a store cannot be listed to its end, a clock was moved, or the newest backup is not verified. Objects that no backup names any more go two days later. The function `retention` does the same each day.",
    words: [],
    options: ["dry-run", "yes", ...database, ...store, "secondary"],
    examples: [
      { line: "prune -- --dry-run", does: "what would go, and why the rest stays" },
      { line: "prune -- --yes --json", does: "does it, the result as a document" },
    ],
  },
} as const satisfies Record<string, CommandFacts>;
