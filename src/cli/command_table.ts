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
const store = ["store", "keys-file", "identities-file"] as const satisfies readonly OptionName[];
const target = [
  "target-db-url",
  "target-db-password-file",
  "target-db-ca",
] as const satisfies readonly OptionName[];
const drill = [
  "drill-db-url",
  "drill-db-password-file",
  "drill-db-ca",
  "jobs",
  "source",
] as const satisfies readonly OptionName[];
const id = {
  name: "id",
  required: true,
  help:
    "a backup's id, its first letters (4 or more), or `latest`: the newest but for safety backups and those in quarantine",
};
const quarantinedId = { name: "id", required: true, help: "the backup's id, or its first letters (4 or more)" };

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

export const commands = {
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
  "status": {
    summary: "say whether backups are as they should be",
    about:
      "The verdict in one line, ok, warning or critical, with its gravest reason; then all reasons and what they stand on. From the database and from which stores are set; exit 3 when it is critical. The dashboard's view public.backup_status and the function `monitor` say the same.",
    words: [],
    options: ["strict", ...database, "store", "secondary", "project-url"],
    examples: [
      { line: "status", does: "how backups stand, in one line and in all" },
      { line: "status -- --strict", does: "exit 3 for a warning too, for a monitor" },
    ],
  },
  "metrics": {
    summary: "print figures for Prometheus",
    about:
      "In its text format, from the database: verdict, ages, sizes, stores and their quotas, the replication slot, runs, alerts, schedules. For a textfile collector, or a look; the function `monitor` serves the same to a scraper with a token of its own (docs/monitoring.md).",
    words: [],
    options: [...database],
    examples: [
      { line: "metrics", does: "all figures" },
      { line: "metrics -- --json", does: "the samples as a document" },
    ],
  },
  "schedules": {
    summary: "show what runs when, change it, pause it, run it now",
    about:
      "`list` (the default): each schedule, when it is due next (UTC), when its job began last, and whether it is paused. `set <name> <cron>`: another time, five fields in UTC. `pause <name>`: it rests --for a time or --until a moment, a week at most (the setting pause_at_most_hours), then the watchdog resumes it; `status` says so meanwhile, and nothing of it counts as missing. The watchdog itself is never paused. `resume <name>` ends a pause before its time. `run <name>` does now what is due then. Each change is in the audit. A job that somebody changed in cron.job is taken as it is.",
    words: [
      { name: "what", required: false, help: "`list`, `set`, `pause`, `resume` or `run`" },
      { name: "name", required: false, help: "of the schedule" },
      { name: "cron", required: false, help: 'with `set`: five fields, such as "30 2 * * *"' },
    ],
    options: ["for", "until", "reason", ...database],
    examples: [
      { line: "schedules list", does: "what runs when" },
      { line: 'schedules set daily "30 2 * * *"', does: "the daily backup at half past two (UTC)" },
      { line: 'schedules pause daily -- --for 3h --reason "big import"', does: "no backup in the next three hours" },
      { line: "schedules resume daily", does: "ends the pause" },
      { line: "schedules run retention", does: "prunes now, where that is due" },
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
  "restore-full": {
    summary: "restore a backup into an empty database, or in place",
    about:
      "Prints the plan and does nothing until it is confirmed. Cron jobs, webhooks and subscriptions come back switched off; `release` turns them on. Started again after a failure it goes on where it stopped. With --at it does what restore-point does. With --apply it goes into the very database: maintenance mode, a safety backup, then definitions (with `replace`) and rows by their difference, checks.",
    words: [orId],
    options: [
      "at",
      "yes",
      "jobs",
      "apply",
      "dry-run",
      ...inPlaceOnly,
      "max-memory",
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
      "Takes the newest full backup before the moment and replays the change stream up to it, from the store and the keys alone. Prints the plan and does nothing until it is confirmed. Started again after a failure it goes on where it stopped. Exit 3 when a table was left out.",
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
    options: ["scope", "where", "all", "sql", "as", "credentials", "shared", "map", ...rows],
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
      "Lays the rows as they were beside the live ones, in a schema `restore_…` of the same database, for 7 days. With --apply it prints what it would insert, put back and delete, and does it once the database's name is typed, after a safety backup, in one transaction.",
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
      "The user of auth.users and every row that foreign keys lead to from there, as they were then. Rows that lead to other users as well are named and stay out. Sessions and tokens never come back, password and second factors of a user who is there only with --credentials.",
    words: [{ name: "user", required: true, help: "the id in auth.users" }, orId],
    options: ["as", "credentials", "shared", "map", ...rows],
    examples: [
      { line: "restore-user 5b0d…  latest -- --apply missing --dry-run", does: "shows what of theirs is gone" },
      { line: "restore-user 5b0d… latest -- --as 77aa… --apply missing --yes", does: "gives it to their new account" },
    ],
  },
  "erase": {
    summary: "erase a person from the live project, for good",
    about:
      "Prints whose rows go, by table, and does it once the person's id was typed: the ledger first (keyed hashes, in the stores), then rows, files and the account, then a second look. Rows that are others' as well stop it until backup.map.json decides. Every later restore leaves the person out. `hold` and an id: a law keeps the data, with --reason; `release` ends that. `departed`: users who were deleted otherwise and are still in backups; `pass` and an id: leave them. `list`: every erasure and how far it is. Broken off, the same command goes on. Backups that are kept still hold the person until they age out.",
    words: [
      { name: "user", required: true, help: "the id in auth.users; or `hold`, `release`, `departed`, `pass`, `list`" },
      { name: "id", required: false, help: "of whom to hold, release or pass over" },
    ],
    options: ["dry-run", "yes", "map", "reason", ...database, ...store, "secondary"],
    examples: [
      { line: "erase 5b0d… -- --dry-run", does: "what would go, what stays, and what has to be decided" },
      { line: "erase 5b0d… -- --yes --json", does: "does it, the result as a document" },
      { line: 'erase hold 5b0d… -- --reason "a court order of 3 May"', does: "nobody erases them until `release`" },
    ],
  },
  "incremental": {
    summary: "store what has changed since the last time",
    about:
      "Reads the change stream of --db-url to its end and writes it to --store. The first one begins the stream; what it holds can be restored once a full backup was taken after that. Another drainer at work is waited for. Where --secondary is set, what the second store lacks is copied at the end; what fails there is a warning.",
    words: [],
    options: [...database, ...store, "secondary"],
    examples: [{ line: "incremental -- --json", does: "the changes up to now, the result as a document" }],
  },
  "follow": {
    summary: "store changes as they happen, until Ctrl-C",
    about:
      "Drains the change stream without pause, so that a restore can reach to a few seconds ago. Trouble that passes is told and waited out. Where --secondary is set, what is new is copied there each minute, and every 15 minutes what is missing.",
    words: [],
    options: ["interval", ...database, ...store, "secondary"],
    examples: [{ line: "follow", does: "from this machine, every 2 seconds" }],
  },
  "timeline": {
    summary: "show which moments can be restored",
    about:
      "From the store and the keys alone: spans that are covered, gaps between them, full backups, and a picture. With --db-url set it also says why there is a gap.",
    words: [],
    options: ["source", ...database, ...store],
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
  "maintenance": {
    summary: "refuse writes while work goes on: on, off, status",
    about:
      "While it is on, writes through the API, to Storage and of accounts are refused; reading and signing in go on, and cron jobs are paused. `on` shows what it does and does not reach, and does it once confirmed; then it is proven by real writes, or taken back. `off` puts everything back. With --project-url (and SUPABASE_SERVICE_ROLE_KEY) the proof goes through the project's API, else through the database alone.",
    words: [{ name: "what", required: true, help: "`on`, `off` or `status`" }],
    options: ["message", "until", "yes", ...database, "project-url", "store"],
    examples: [
      {
        line: 'maintenance on -- --message "Back at noon" --until 2024-01-09T12:00:00Z --yes',
        does: "closes the project to writes",
      },
      { line: "maintenance status", does: "whether it is on, since when, and what is not reached" },
      { line: "maintenance off", does: "opens it and puts everything back" },
    ],
  },
  "alerts": {
    summary: "what a person should look at: list, show, ack, test, deliver",
    about:
      "`list`: what is not over, the worst first. `show`: one alert, whom it was told to, and every try. `ack`: says that you have seen it, which ends reminders and escalation; it stays until its cause is gone. `test`: sends a real message by each channel, or by one, and says what came of it. `deliver`: sends what is due from here, with the channels of this environment, and acts as the watchdog where no job does: for a plain PostgreSQL, each minute. docs/alerts.md has the channels and every kind of alert.",
    words: [
      { name: "what", required: false, help: "`list` (the default), `show`, `ack`, `test` or `deliver`" },
      { name: "which", required: false, help: "the id of an alert; with `test` a channel" },
    ],
    options: ["all", "limit", ...database],
    examples: [
      { line: "alerts", does: "what is not over" },
      { line: "alerts ack 12", does: "no reminder and no escalation of alert 12 any more" },
      { line: "alerts test", does: "whether anybody would hear of a failure" },
      { line: "alerts deliver", does: "for a crontab: `* * * * *`, where the database has no pg_cron" },
    ],
  },
  "settings": {
    summary: "settings in the database: list, set; the emergency contact",
    about:
      "What may be tuned, each with its bounds, who gets mail (mail_to, mail_from), and whom to ask in an emergency (contact_name, contact_email, contact_phone), who stands in alerts and, for everybody, in windows of maintenance. Secrets are no settings: they are in the environment of the functions. Every change stands in the audit and is told as an alert that asks for nothing; names and addresses are in the audit as keyed hashes.",
    words: [
      { name: "what", required: false, help: "`list` (the default), `set` or `contact`" },
      { name: "name", required: false, help: "of a setting" },
      { name: "value", required: false, help: 'with `set`; "" for nothing' },
    ],
    options: [...database],
    examples: [
      { line: "settings", does: "all of them" },
      { line: 'settings set contact_phone "+44 20 7946 0000"', does: "whom to call" },
      { line: 'settings set mail_to "ops@example.org anna@example.org"', does: "who gets mail about alerts" },
      { line: "settings contact", does: "the emergency contact in one line" },
    ],
  },
  "incident": {
    summary: "something went wrong: open, show, list, note, offer, close, report, page",
    about:
      "`open` runs the emergency procedure: it stops writes by maintenance mode (unless --without-maintenance), tells the channels and the status page, says what changed since --since (else the last 24 hours) and which transactions may have done it, names what can be gone back to, and prints the commands for each way back. It restores nothing: you run what you choose. While one is open it is joined, and goes on where it was broken off. Where the database cannot be reached it says what the stores know, and exits with 3. `offer` looks again, with --before-xid for one transaction. `note` adds to the timeline: --note for those who work on it, --message for the public. `close` ends it; it opens no project that is closed to writes. `report` is the post-recovery report. `page` puts the status page (BACKUP_STATUS_PAGE) in its place, or prints it.",
    words: [
      { name: "what", required: true, help: "`open`, `show`, `list`, `note`, `offer`, `close`, `report` or `page`" },
      { name: "incident", required: false, help: "its number; without it the open one, else the newest" },
    ],
    options: [
      "reason",
      "message",
      "next-update",
      "until",
      "without-maintenance",
      "since",
      "before-xid",
      "note",
      "out",
      "print",
      "limit",
      "dry-run",
      "yes",
      "source",
      ...database,
      ...store,
      "secondary",
      "project-url",
    ],
    examples: [
      {
        line: 'incident open -- --reason "notes are gone" --message "Some notes are missing, we are on it" --yes',
        does: "stops writes, tells people, finds what happened and prints the ways back",
      },
      { line: 'incident open -- --reason "a look" --since 2024-01-09T12:00:00Z --dry-run', does: "only looks" },
      {
        line: 'incident note -- --message "Your notes are being brought back" --next-update 30m',
        does: "tells the public",
      },
      { line: 'incident close -- --note "all rows are back" --message "All notes are back"', does: "ends it" },
      { line: "incident report 3 -- --out incident-3.md", does: "what happened when, by whom, and what is left" },
      { line: "incident page -- --print", does: "the status page as it would be put there" },
    ],
  },
  "doctor": {
    summary: "check settings, database, both stores, keys, alerts and clock",
    about: "One line a check: ok, warn or fail, with the way out. Exit 1 when a check fails. Writes only a probe.",
    words: [],
    options: [...database, ...store, "secondary", "project-url"],
    examples: [{ line: "doctor", does: "everything that is set" }],
  },
  "keys": {
    summary: "keys of the backups: list, rotate, recovery, check, shred",
    about:
      "`list`: which keys open which epoch. `rotate`: wraps every epoch of --store, and of --secondary where that is set, for exactly the keys of BACKUP_KEYS, and removes what their files held before where a bucket keeps versions; objects are not touched. To replace a key, put the new one first, rotate, then take the old one out and rotate again. `recovery`: makes a pair whose private half stays offline. `check`: opens every epoch and the newest backup with each key that is there, one by one. `shred`: removes the key file of an epoch that is not the newest, so that nothing it sealed opens again; refused while a backup or a segment needs it, unless --with-backups names it as well; needs --db-url, whose database it has to be that writes there: a copy has keys of its own below its prefix. What was done stands in the audit where --db-url is given.",
    words: [
      { name: "what", required: true, help: "`list`, `rotate`, `recovery`, `check` or `shred`" },
      { name: "epoch", required: false, help: "with `shred`: its id, as `list` shows it" },
    ],
    options: ["dry-run", "yes", "with-backups", ...database, ...store, "secondary"],
    examples: [
      { line: "keys rotate -- --dry-run", does: "which keys would open what" },
      { line: "keys recovery", does: "a key for paper: prints both halves once" },
      {
        line: "keys check -- --keys-file /media/usb/recovery.key",
        does: "whether the paper key still opens everything",
      },
      { line: "keys shred e20260101T000000Z-0a1b2c3d -- --dry-run", does: "what would become unreadable with it" },
    ],
  },
  "adopt": {
    summary: "say that a copy is the original now",
    about:
      "A database that is a copy, or may be one, writes below a prefix of its own, `clone-…`, which `status` tells. After this it takes the original's place and store, once the prefix is typed; the original, if it is alive, is the copy from then on. With --keep-prefix it stays where it is and counts as an original of its own. Its backups of meanwhile are restored by their address, `<store>/clone-…`.",
    words: [],
    options: ["keep-prefix", "dry-run", "yes", ...database, ...store],
    examples: [
      { line: "adopt -- --dry-run", does: "who this is, who wrote to the store last, and what would be done" },
      { line: "adopt", does: "takes the place of the original, for good" },
      { line: "adopt -- --keep-prefix --yes", does: "two databases from now on, each with its own backups" },
    ],
  },
  "admins": {
    summary: "who may administrate the backups: list, add, remove",
    about:
      "Administrators are users of the project. They see what is recorded here and call the functions, once signed in with a second factor. The last one cannot be removed. Every change stands in the audit.",
    words: [
      { name: "what", required: true, help: "`list`, `add` or `remove`" },
      { name: "who", required: false, help: "a user's id or address" },
    ],
    options: ["note", ...database],
    examples: [
      { line: 'admins add anna@example.com -- --note "on call"', does: "lets Anna in, with her second factor" },
      { line: "admins list", does: "who they are, and who has no second factor yet" },
      { line: "admins remove anna@example.com", does: "lets her in no more, from now on" },
    ],
  },
  "download": {
    summary: "take a backup, or rows of it, out of the store",
    about:
      "Into a file with --out. Without it the file is laid into a private bucket of the project, and a signed link to it is printed: whoever has the link can read it until it ends, then the file is removed. Each download and each link stands in the audit before it is there. `list` shows what lies there, `remove` ends one before its time. Rows in plain text are of use to everybody who gets hold of them: keep them short.",
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
      { line: "download remove 1b4e28ba-2fa1-11d2-883f-0016d3cca427", does: "ends a link before its time" },
    ],
  },
  "audit": {
    summary: "show, export or verify the audit log; look for open doors",
    about:
      "`show` (the default): newest first. `export`: all of it, oldest first, one JSON object a line. `verify`: computes the chain of hashes anew and compares it with every anchor in both stores; exit 3 where a row was changed, removed, added or moved, or where the database was put back to an earlier moment. People appear as keyed hashes. `security`: looks at access, our own objects, buckets, administrators, keys and jobs, as a job does each month; exit 3 where something has to be done.",
    words: [{ name: "what", required: false, help: "`show`, `export`, `verify` or `security`" }],
    options: ["limit", "kind", ...database, ...store, "secondary"],
    examples: [
      { line: "audit -- --limit 200", does: "the last 200 rows" },
      {
        line: "audit export -- --kind change",
        does: "every change of administrators, schedules, policies, settings and keys",
      },
      { line: "audit verify", does: "whether anything was changed, by chain and anchors" },
      { line: "audit security", does: "what is open that should not be" },
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
      "Without a word: each tier, how many backups it has, and when it was pruned last. `standard`: hourly 24 h, daily 30 d, weekly 90 d. `short`: hourly 24 h, daily 7 d, weekly 30 d. `gfs` (grandfather, father, son): daily 7 d, weekly 35 d, the first backup of each month 366 d. --keep sets single tiers; a policy that contradicts itself is refused. Nothing is removed before the next prune.",
    words: [{ name: "preset", required: false, help: "`standard`, `short` or `gfs`" }],
    options: ["keep", ...database],
    examples: [
      { line: "retention", does: "shows the policy and what it keeps" },
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
  "checks": {
    summary: "make the daily or weekly checks, and show what they found",
    about:
      "`list`, also without a word: each check with its newest result. `show` and a name: its results with their evidence. `run daily`: the newest backup is recent and verified, its size and rows are as expected, both stores hold what is recorded, every manifest opens, a share of the objects opens (all of them within 30 days), the change stream has no hole. `run weekly`: logs are reviewed, failures documented. The functions do both by themselves; where there is no pg_cron, call `run` from a scheduler of your own. Exit 3 when a check has failed; what cannot be made yet is named, and no failure.",
    words: [
      { name: "action", required: false, help: "`list`, `show` or `run`" },
      { name: "which", required: false, help: "for `show`: a check; for `run`: `daily` or `weekly`" },
    ],
    options: ["limit", ...database, ...store, "secondary"],
    examples: [
      { line: "checks", does: "each check with its newest result" },
      { line: "checks run daily -- --json", does: "makes the daily ones, the results as a document" },
      { line: "checks show objects -- --limit 7", does: "what was opened in the last week" },
    ],
  },
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
