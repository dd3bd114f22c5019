/** Every option of the CLI: its type, its environment variable, its words for --help. The one place where they stand. */

export interface OptionFacts {
  readonly type: "string" | "boolean";
  /** Placeholder of the value in --help. */
  readonly value?: string;
  /** Read when the flag is not given; then the same name in .env. */
  readonly variable?: string;
  readonly preset?: string;
  /** May be given several times; values are then joined with commas, or with `separator`. */
  readonly multiple?: true;
  readonly separator?: string;
  readonly help: string;
}

/** No argument can hold it, while values may hold commas and lines. */
export const whereSeparator = "\0";

export const options = {
  "json": { type: "boolean", help: "print one JSON document on stdout; progress stays on stderr" },
  "help": { type: "boolean", help: "print this text" },
  "env-file": {
    type: "string",
    value: "file",
    preset: ".env",
    help: "read settings from this file after the environment",
  },
  "local": { type: "boolean", help: "use the embedded stack that `npm start` runs, and none of the settings around" },
  "db-url": {
    type: "string",
    value: "url",
    variable: "BACKUP_DB_URL",
    help: "the database, as postgresql://user@host:5432/name; its password belongs into PGPASSWORD or a file",
  },
  "db-password-file": {
    type: "string",
    value: "file",
    variable: "BACKUP_DB_PASSWORD_FILE",
    help: "file with the database password",
  },
  "db-ca": {
    type: "string",
    value: "file",
    variable: "BACKUP_DB_CA",
    help: "certificate authority (PEM) of the database server",
  },
  "store": {
    type: "string",
    value: "url",
    variable: "BACKUP_STORE",
    help:
      "where backups are kept: file:///folder, s3://bucket/prefix?endpoint=…, supabase://bucket/prefix; `second`: the store of BACKUP_SECONDARY",
  },
  "secondary": {
    type: "string",
    value: "url",
    variable: "BACKUP_SECONDARY",
    help:
      "the second store, at another provider; its credentials are in BACKUP_SECONDARY_S3_…, its recipients in BACKUP_RECIPIENTS",
  },
  "keys-file": {
    type: "string",
    value: "file",
    variable: "BACKUP_KEYS_FILE",
    help: "file with the keys, as an alternative to BACKUP_KEYS in the environment or .env",
  },
  "identities-file": {
    type: "string",
    value: "file",
    variable: "BACKUP_IDENTITIES_FILE",
    help: "file that `age-keygen` wrote, as an alternative to BACKUP_IDENTITIES: opens what lies in the second store",
  },
  "project-url": {
    type: "string",
    value: "url",
    variable: "BACKUP_PROJECT_URL",
    help: "work through the functions of this project; needs BACKUP_WORKER_SECRET",
  },
  "tier": {
    type: "string",
    value: "tier",
    preset: "manual",
    help: "what the backup is kept by: daily, weekly, manual, safety",
  },
  "wait": { type: "boolean", help: "with --project-url: wait for the end of the run (a direct backup always waits)" },
  "jobs": {
    type: "string",
    value: "number",
    preset: "3",
    help: "how many workers read, or write, at the same time (1 to 16)",
  },
  "max-memory": {
    type: "string",
    value: "MiB",
    preset: "768",
    help: "bound for the buffers of all workers; a single row has to fit into a worker's part",
  },
  "all": {
    type: "boolean",
    help:
      "list: every run, not only backups; restore-record: every row that fits; export list: those that are gone too",
  },
  "limit": { type: "string", value: "number", preset: "50", help: "at most this many, newest first" },
  "strict": { type: "boolean", help: "exit 3 for warnings too" },
  "target-db-url": {
    type: "string",
    value: "url",
    variable: "BACKUP_TARGET_DB_URL",
    help:
      "the database of the restore; without it `restore-full` and `restore-point` make a new one on the server of --db-url, and rows go into the database of --db-url",
  },
  "target-db-ca": {
    type: "string",
    value: "file",
    variable: "BACKUP_TARGET_DB_CA",
    help: "certificate authority (PEM) of the target's server",
  },
  "target-db-password-file": {
    type: "string",
    value: "file",
    variable: "BACKUP_TARGET_DB_PASSWORD_FILE",
    help: "file with the target's password",
  },
  "drill-db-url": {
    type: "string",
    value: "url",
    variable: "BACKUP_DRILL_DB_URL",
    help:
      "any database of the server that drills make their databases on; without it that of --db-url, where disk_mb leaves room",
  },
  "drill-db-password-file": {
    type: "string",
    value: "file",
    variable: "BACKUP_DRILL_DB_PASSWORD_FILE",
    help: "file with the password for that server",
  },
  "drill-db-ca": {
    type: "string",
    value: "file",
    variable: "BACKUP_DRILL_DB_CA",
    help: "certificate authority (PEM) of that server",
  },
  "yes": { type: "boolean", help: "do what the plan says without asking" },
  "before-xid": {
    type: "string",
    value: "id",
    help:
      "instead of a moment: all that was committed before this transaction (64 bits, as pg_current_xact_id() tells it)",
  },
  "without-table": {
    type: "string",
    value: "schema.table",
    multiple: true,
    help:
      "leave this table empty, for one whose changes are not all in the stream; several with commas or repeated; exit 3",
  },
  "accepted": {
    type: "string",
    multiple: true,
    value: "id",
    help: "start from this full backup although it was quarantined; several with commas or repeated",
  },
  "source": {
    type: "string",
    value: "name",
    help: "which database's backups, where the store holds those of several: a name as the refusal lists it",
  },
  "at-full": {
    type: "string",
    value: "schema.table",
    multiple: true,
    help: "keep this table as the full backup has it; several with commas or repeated",
  },
  "at": {
    type: "string",
    value: "moment",
    help: "instead of a backup: as it was at this moment, 2024-01-09T12:00:00Z; needs the change stream",
  },
  "target-project-url": {
    type: "string",
    value: "url",
    variable: "BACKUP_TARGET_PROJECT_URL",
    help: "the project of --target-db-url, whose Storage files go into; its key is in BACKUP_TARGET_SECRET_KEY",
  },
  "apply": {
    type: "string",
    value: "mode",
    help:
      "put the rows into place: `missing` inserts what is gone, `merge` also puts back what differs, `replace` also deletes what was not there; of an import `all`, refused where anything is there, or `missing`",
  },
  "dry-run": { type: "boolean", help: "print the plan, change nothing" },
  "scope": { type: "string", value: "scope", help: "what is to come back: table, record, user, full" },
  "keep": {
    type: "string",
    value: "tier=time",
    multiple: true,
    help: "how long a tier is kept, as daily=14d or hourly=24h; monthly and yearly may be set to 0; repeated",
  },
  "only": {
    type: "string",
    value: "schema.table",
    multiple: true,
    help: "rows of these tables alone, and no files; several with commas or repeated; with --where of one table",
  },
  "where": {
    type: "string",
    value: "column=value",
    multiple: true,
    separator: whereSeparator,
    help: "which rows are meant, compared in the column's type; repeated: all have to hold",
  },
  "sql": { type: "boolean", help: "print the rows as INSERTs for the SQL editor, change nothing" },
  "as": { type: "string", value: "id", help: "the rows become this user's, for somebody who signed up again" },
  "credentials": {
    type: "boolean",
    help: "also put back what lets a user who is there in: password, second factors, identities that are gone",
  },
  "shared": { type: "boolean", help: "also rows that are other users' as well; not with `replace`" },
  "map": {
    type: "string",
    value: "file",
    preset: "backup.map.json",
    help: "whose rows they are where keys do not say it",
  },
  "fire-triggers": { type: "boolean", help: "go on although triggers that always fire would run for every row" },
  "drop-extra": { type: "boolean", help: "also drop tables and other objects that came after the backup" },
  "without-maintenance": { type: "boolean", help: "do not close the project to writes meanwhile" },
  "critical": {
    type: "string",
    value: "schema.table",
    multiple: true,
    help: "count the rows of these tables after the restore; without it of all",
  },
  "check-user": {
    type: "string",
    value: "e-mail",
    help: "sign this user in afterwards, who has to see a row of their own; the password is in BACKUP_CHECK_PASSWORD",
  },
  "check-table": { type: "string", value: "schema.table", help: "the table from which the check user reads" },
  "smoke": {
    type: "string",
    value: "file",
    help: "queries of yours (SQL) that have to go through afterwards, and each hour of the next day",
  },
  "skip-safety-backup": {
    type: "string",
    value: "database",
    help: "take no backup before the change; the name of the database that is changed",
  },
  "with-backups": {
    type: "string",
    value: "epoch",
    help: "what needs the epoch goes with it, for ever; its id once more",
  },
  "interval": {
    type: "string",
    value: "seconds",
    preset: "2",
    help: "pause between two drains (1 to 3600)",
  },
  "message": { type: "string", value: "text", help: "what users are told, in one line; public" },
  "until": {
    type: "string",
    value: "moment",
    help:
      "when it is to be over, such as 2024-01-09T12:00:00Z; maintenance does not end by itself, but an alert tells; a pause of a schedule does",
  },
  "since": {
    type: "string",
    value: "moment",
    help: "look at changes from this moment on, 2024-01-09T12:00:00Z; without it of the last 24 hours",
  },
  "next-update": {
    type: "string",
    value: "when",
    help: "when people hear next: a span such as 30m or 2h, or a moment; public",
  },
  "print": { type: "boolean", help: "show the status page, put it nowhere" },
  "for": { type: "string", value: "span", help: "how long a schedule rests: 30m, 3h, 2d" },
  "keep-prefix": { type: "boolean", help: "stay for good where the copy writes now, as an original of its own" },
  "kind": { type: "string", value: "kind", help: "only rows of this kind; of the audit: `change`" },
  "format": {
    type: "string",
    value: "format",
    help:
      "`bundle` (the default): the sealed objects with what restores them by hand; csv (with --table the default), json, sql: rows in plain text; files: with --files",
  },
  "files": {
    type: "string",
    value: "bucket/name",
    help: "a file of Storage as it is; `bucket/`: those of a bucket, as a tar archive",
  },
  "table": {
    type: "string",
    value: "schema.table",
    help: "the rows of this table; without it of all of them, as a zip archive",
  },
  "out": { type: "string", value: "file", help: "write it into this file, or this folder, and make no link" },
  "without-files": { type: "boolean", help: "leave files in Storage where they are; an export names them" },
  "expires": {
    type: "string",
    value: "span",
    preset: "15m",
    help:
      "how long the link lasts and the file lies there: 90s, 15m, 2h, 3d; a bundle 7 days at most, the others 24 hours",
  },
  "note": { type: "string", value: "text", help: "who this is, what was seen, or what happened, for the others" },
  "reason": { type: "string", value: "text", help: "why; it is written to the audit log" },
} as const satisfies Record<string, OptionFacts>;

export type OptionName = keyof typeof options;

/** Facts of an option by name, in the wider type that reads the same for all of them. */
export function optionFacts(name: OptionName): OptionFacts {
  return options[name];
}
