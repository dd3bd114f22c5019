/**
 * The one error class and its closed set of codes.
 *
 * A code never changes its meaning once released. `docs/errors.md` lists the same codes and is checked by a test.
 */

/** May the same call be made again? `never`: it cannot heal. `backoff`: later, unchanged. `after_fix`: once a person acted. */
export type Retry = "never" | "backoff" | "after_fix";

/** Exit codes of the CLI. */
export type ExitCode = 1 | 2 | 3;

interface CodeFacts {
  readonly status: number;
  readonly exit: ExitCode;
  readonly sqlstate: string;
  readonly retry: Retry;
  /** The way out, used when the place that raises the error knows nothing better. */
  readonly hint: string;
}

/** HTTP status, exit code, SQLSTATE (class HF), retry and default hint of every code. Total by construction. */
export const errorTable = {
  usage: f(400, 2, "HF001", "after_fix", "Run the command with --help to see what it takes."),
  setting_missing: f(500, 2, "HF002", "after_fix", "Give the setting as a flag, in the environment or in .env."),
  payload_invalid: f(400, 2, "HF003", "after_fix", "Compare the request with docs/http.md."),
  payload_too_large: f(413, 2, "HF004", "after_fix", "Send a smaller request."),
  method_not_allowed: f(405, 2, "HF005", "after_fix", "Use POST."),
  unauthorised: f(401, 1, "HF006", "after_fix", "Sign the call with the worker secret, or sign in."),
  forbidden: f(403, 1, "HF007", "after_fix", "Ask an administrator of the backups."),
  not_found: f(404, 1, "HF008", "after_fix", "Check the name."),
  packages_missing: f(500, 1, "HF009", "after_fix", "Run it as root on Debian 12, or install what the message names."),
  project_unreachable: f(503, 1, "HF010", "backoff", "Check --project-url and that the functions are deployed."),
  too_many_refusals: f(429, 1, "HF011", "backoff", "Wait, then call with what is accepted."),
  second_factor_missing: f(403, 1, "HF012", "after_fix", "Sign in with your second factor."),
  second_factor_old: f(403, 1, "HF013", "after_fix", "Use your second factor again, then repeat the call."),
  payload_late: f(408, 1, "HF014", "backoff", "Send the whole request at once."),
  too_many_calls: f(429, 1, "HF015", "backoff", "Wait a few seconds, then call again."),

  key_missing: f(500, 2, "HF101", "after_fix", "Set BACKUP_KEYS; `holdfast keygen` makes a key."),
  key_malformed: f(500, 2, "HF102", "after_fix", "BACKUP_KEYS is `id:base64url`, several separated by commas."),
  key_wrong: f(500, 1, "HF103", "after_fix", "Put the key named in the message into BACKUP_KEYS."),
  identity_missing: f(
    500,
    2,
    "HF104",
    "after_fix",
    "Give the identity of one of BACKUP_RECIPIENTS, in BACKUP_IDENTITIES or with --identities-file.",
  ),
  identity_wrong: f(
    500,
    1,
    "HF105",
    "after_fix",
    "Give the identity of a recipient that stood in BACKUP_RECIPIENTS when it was written, or use the first store.",
  ),
  age_key_malformed: f(
    500,
    2,
    "HF106",
    "after_fix",
    "BACKUP_RECIPIENTS holds `age1…`, BACKUP_IDENTITIES holds `AGE-SECRET-KEY-1…`, as `age-keygen` prints them.",
  ),
  epoch_needed: f(
    409,
    1,
    "HF107",
    "after_fix",
    "Let retention drop what needs the epoch, or name it to let that go too.",
  ),

  store_unreachable: f(503, 1, "HF201", "backoff", "Check the address and the network, then run it again."),
  store_full: f(507, 1, "HF202", "after_fix", "Make room in the store, then run it again."),
  store_read_only: f(403, 1, "HF203", "after_fix", "Give the credentials the right to write."),
  store_denied: f(403, 1, "HF204", "after_fix", "Check the store's credentials."),
  store_missing: f(
    404,
    1,
    "HF205",
    "after_fix",
    "Check the store's address; `holdfast init` creates the bucket or the folder.",
  ),
  store_name_refused: f(400, 1, "HF206", "never", "Object names are plain ASCII paths without dots or special signs."),
  store_lied: f(
    502,
    1,
    "HF207",
    "backoff",
    "The store answered something else than was asked; check what is in between.",
  ),
  object_missing: f(404, 1, "HF208", "after_fix", "Restore from the other store or from another backup."),
  object_damaged: f(422, 1, "HF209", "after_fix", "Restore from the other store or from another backup."),
  object_conflict: f(409, 1, "HF210", "never", "An object of this name holds other bytes; nothing was overwritten."),

  format_newer: f(422, 1, "HF301", "after_fix", "This backup was written by a newer Holdfast; use that one."),
  manifest_damaged: f(422, 1, "HF302", "after_fix", "Restore from the other store or from another backup."),
  backup_not_found: f(404, 1, "HF303", "after_fix", "`holdfast list` shows what there is."),
  backup_ambiguous: f(409, 2, "HF304", "after_fix", "Give more letters of the id."),
  backup_quarantined: f(409, 1, "HF305", "after_fix", "Look at it, then `holdfast accept <id> --reason …`."),

  database_unreachable: f(503, 1, "HF401", "backoff", "Check the database URL and that the server runs."),
  database_denied: f(403, 1, "HF402", "after_fix", "Check user and password, or grant what the message names."),
  database_failed: f(500, 1, "HF403", "after_fix", "The server's message says why."),
  server_unsupported: f(500, 1, "HF404", "after_fix", "Holdfast needs PostgreSQL 15 or newer."),
  standby_refused: f(500, 1, "HF405", "after_fix", "Back up the primary; a standby's snapshots are incomplete."),
  schema_missing: f(500, 1, "HF406", "after_fix", "Run `holdfast init` (or `supabase db push`) first."),
  table_unreadable: f(403, 1, "HF407", "after_fix", "Grant SELECT on the table to the role that takes the backup."),
  row_too_large: f(422, 1, "HF408", "after_fix", "Take this backup with the CLI and a larger --max-memory."),
  lock_timeout: f(503, 1, "HF409", "backoff", "Another session holds the table; run it again later."),
  catalog_changed: f(503, 1, "HF410", "backoff", "Definitions kept changing while the backup ran; run it again later."),
  counts_differ: f(
    500,
    1,
    "HF411",
    "after_fix",
    "What was read is not what is there; nothing was recorded as a success.",
  ),
  keeper_lost: f(503, 1, "HF412", "backoff", "The snapshot is gone; the run takes a new one."),
  lease_lost: f(409, 1, "HF413", "never", "Another worker took this task over; its result counts."),
  run_not_found: f(404, 1, "HF414", "after_fix", "`holdfast list --all` shows every run."),
  run_state: f(409, 1, "HF415", "after_fix", "The run is not in a state that allows this."),
  cancelled: f(409, 1, "HF416", "never", "Start it again if you still want it."),
  run_stalled: f(503, 1, "HF417", "after_fix", "Look at the functions' logs and at the alerts, then start it again."),
  place_changed: f(409, 1, "HF420", "backoff", "Run it again: it writes to a place of its own, as the alert says."),
  policy_refused: f(
    422,
    2,
    "HF421",
    "after_fix",
    "`holdfast retention` shows the policy; rarer tiers are kept longer.",
  ),
  object_going: f(503, 1, "HF422", "backoff", "A sweep removes the object; run it again, and it is written anew."),
  drill_database_exists: f(409, 1, "HF435", "after_fix", "Drop it if nobody needs it, then run the drill again."),
  drill_keys_wrong: f(409, 2, "HF436", "after_fix", "Set BACKUP_KEYS to the private half of the recovery key alone."),
  evidence_unsigned: f(422, 1, "HF437", "never", "The drill's row and the audit say what is known of it."),

  cron_refused: f(
    400,
    2,
    "HF440",
    "after_fix",
    "Five fields in UTC, such as `30 2 * * *`: numbers, ranges, lists, steps and `*`.",
  ),
  pause_refused: f(409, 2, "HF441", "after_fix", "`holdfast schedules pause --help` says what a pause takes."),

  channel_unreachable: f(503, 1, "HF445", "backoff", "Check the channel's address and the network; it is tried again."),
  channel_refused: f(
    502,
    1,
    "HF446",
    "backoff",
    "Check the channel's address and credentials; what waits is tried again.",
  ),
  channel_malformed: f(500, 2, "HF447", "after_fix", "Compare the setting with docs/alerts.md."),
  channels_failed: f(502, 1, "HF448", "after_fix", "Each channel's line says why; docs/alerts.md has the ways out."),

  incident_not_found: f(404, 1, "HF450", "after_fix", "`holdfast incident list` shows every incident."),
  incident_state: f(409, 1, "HF451", "after_fix", "The incident is closed; open a new one."),

  export_too_often: f(429, 1, "HF465", "after_fix", "Take the one that is there, or wait for the next day."),
  export_undone: f(
    503,
    1,
    "HF466",
    "after_fix",
    "Look at the alerts and at the bucket data-exports, then order it again.",
  ),
  export_unsigned: f(
    422,
    3,
    "HF467",
    "never",
    "The document was changed, or is of another project; order a new export.",
  ),

  import_foreign: f(
    409,
    1,
    "HF476",
    "after_fix",
    "Import it where it was made, or adopt that project's place in the store with `holdfast adopt`.",
  ),
  import_not_agreed: f(
    403,
    1,
    "HF477",
    "after_fix",
    "An administrator asks by the function import-export, another one or the person agrees; docs/imports.md says how.",
  ),
  rows_exist: f(
    409,
    1,
    "HF478",
    "after_fix",
    "Name tables or rows with --only and --where, or leave what is there as it is: --apply missing.",
  ),
  sign_in_old: f(403, 1, "HF479", "after_fix", "Sign out and in again, then repeat the call."),

  erasure_undecided: f(
    409,
    1,
    "HF470",
    "after_fix",
    "Decide in backup.map.json what becomes of the rows that are named; docs/erasure.md says how.",
  ),
  erasure_held: f(
    409,
    1,
    "HF471",
    "after_fix",
    "`holdfast erase release <user>` ends the hold once nothing forbids it.",
  ),
  last_administrator: f(
    409,
    1,
    "HF472",
    "after_fix",
    "Make somebody else an administrator first: `holdfast admins add`.",
  ),
  user_erased: f(409, 1, "HF473", "never", "The person was erased; what was lawfully erased does not come back."),
  ledger_unreadable: f(
    500,
    1,
    "HF474",
    "after_fix",
    "Copy v1/erasures/ and v1/keys/ from the other store, or give the key that is named, then run the same command.",
  ),
  erasure_incomplete: f(
    500,
    3,
    "HF475",
    "after_fix",
    "What is left is named; run the same command again, it goes on where it is.",
  ),
  rewriting_waits: f(
    409,
    1,
    "HF480",
    "after_fix",
    "Wait for the backup's end, or drain the stream with `holdfast incremental`; then run the same command again.",
  ),
  rewrite_unlawful: f(
    500,
    1,
    "HF481",
    "after_fix",
    "Read from the other store, or copy the object from there; `holdfast verify` tells which store has it whole.",
  ),
  certificate_not_due: f(
    409,
    1,
    "HF482",
    "after_fix",
    "Run `holdfast erase rewrite`, which goes on; what is locked or not swept yet is named with its day.",
  ),

  target_not_empty: f(409, 1, "HF501", "after_fix", "Restore into an empty database."),
  target_is_source: f(409, 1, "HF502", "after_fix", "Name another database as the target."),
  target_full: f(
    507,
    1,
    "HF503",
    "after_fix",
    "Make room on the target's disk, then run the same command: it goes on.",
  ),
  target_differs: f(
    422,
    3,
    "HF504",
    "after_fix",
    "The differences are listed; look at them before you rely on the copy.",
  ),
  confirmation_missing: f(409, 2, "HF505", "after_fix", "Read the plan, then add --yes."),
  verification_failed: f(
    422,
    3,
    "HF506",
    "after_fix",
    "The problems are listed; restore from another backup or store.",
  ),
  table_not_found: f(
    404,
    1,
    "HF507",
    "after_fix",
    "Write it as schema.table; names with capitals or signs stand in double quotes.",
  ),
  row_not_found: f(404, 1, "HF508", "after_fix", "Try an older backup, or another condition."),
  rows_ambiguous: f(409, 1, "HF509", "after_fix", "Narrow the condition, or take all of them with --all."),
  user_not_found: f(
    404,
    1,
    "HF510",
    "after_fix",
    "Give the id of the user as it stands in auth.users, or try an older backup.",
  ),
  rows_conflict: f(
    409,
    1,
    "HF511",
    "after_fix",
    "The conflicts are listed; resolve them, or restore beside and take the rows by hand.",
  ),
  value_unfit: f(422, 1, "HF512", "after_fix", "Restore beside, where rows keep the types that they had."),
  confirmation_wrong: f(409, 2, "HF513", "after_fix", "Type the name of the target exactly as it is shown."),
  space_missing: f(507, 1, "HF514", "after_fix", "Make room, or restore into another server with --target-db-url."),
  maintenance_unproven: f(
    500,
    1,
    "HF515",
    "after_fix",
    "The message says what was not refused; maintenance mode was taken back.",
  ),
  triggers_would_fire: f(409, 1, "HF516", "after_fix", "Look at the triggers; --fire-triggers goes on all the same."),
  ownership_unclear: f(409, 1, "HF517", "after_fix", "Decide in backup.map.json which keys are followed."),
  definitions_stuck: f(409, 1, "HF518", "after_fix", "Restore into a new database instead."),

  stream_unavailable: f(500, 1, "HF601", "after_fix", "Set wal_level to logical and leave a replication slot free."),
  stream_busy: f(409, 1, "HF602", "backoff", "Another drainer is at work; what it stores counts as well."),
  chain_broken: f(422, 1, "HF603", "after_fix", "Restore to a moment before the break, or from the other store."),
  point_uncovered: f(422, 1, "HF604", "after_fix", "`holdfast timeline` shows what can be restored."),
  ddl_not_replayable: f(
    422,
    1,
    "HF605",
    "after_fix",
    "Restore to a moment before it, or a full backup that was taken after it.",
  ),
  tables_uncovered: f(
    422,
    1,
    "HF606",
    "after_fix",
    "Leave the tables out with --without-table, or take them as of the full backup with --at-full.",
  ),

  internal: f(500, 1, "HF999", "after_fix", "This is a defect in Holdfast; please report it with the message."),
} as const satisfies Record<string, CodeFacts>;

function f(status: number, exit: ExitCode, sqlstate: string, retry: Retry, hint: string): CodeFacts {
  return { status, exit, sqlstate, retry, hint };
}

export type ErrorCode = keyof typeof errorTable;

/** What leaves the process: no stack, no cause, no secret. */
export interface ErrorDocument {
  readonly error: { readonly code: ErrorCode; readonly message: string; readonly hint: string };
}

/** Every failure Holdfast reports. `message` and `hint` never carry a secret, a row's value or an object's content. */
export class HoldfastError extends Error {
  override readonly name = "HoldfastError";
  readonly code: ErrorCode;
  readonly hint: string;
  readonly retry: Retry;
  /** How long the caller has to wait at least; null where nobody knows. */
  readonly waitSeconds: number | null;

  constructor(
    code: ErrorCode,
    message: string,
    options: { hint?: string; retry?: Retry; waitSeconds?: number; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint ?? errorTable[code].hint;
    this.retry = options.retry ?? errorTable[code].retry;
    this.waitSeconds = options.waitSeconds ?? null;
  }

  get status(): number {
    return errorTable[this.code].status;
  }

  get exit(): ExitCode {
    return errorTable[this.code].exit;
  }

  toDocument(): ErrorDocument {
    return { error: { code: this.code, message: this.message, hint: this.hint } };
  }
}

/** `error` itself when it is ours, else an `internal` error with it as the cause; the foreign text stays in the cause. */
export function asHoldfastError(error: unknown): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const kind = error instanceof Error ? error.name : typeof error;
  return new HoldfastError("internal", `unexpected ${kind}`, { cause: error });
}
