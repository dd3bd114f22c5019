/** The checks after a full restore in place, as the settings choose them. */
import { openSession } from "../shared/backup/session.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import type { Connection, Database } from "../shared/postgres/connection.ts";
import { inTransaction } from "../shared/postgres/in_transaction.ts";
import { type CheckChoice, type CheckResult, runChecks } from "../shared/restore/in_place/checks/checks.ts";
import type { Context } from "./context.ts";
import { maintenanceDeps } from "./maintenance_deps.ts";
import { readSettingFile } from "./settings.ts";
import { parseTableNames, tableOf } from "./table_names.ts";

export type ChosenChecks = Pick<CheckChoice, "critical" | "user" | "table" | "smoke">;

/** Before anything is done. Errors: `setting_missing` for a user without a password or a file that is not there, `usage`. */
export async function chooseChecks({ settings }: Context): Promise<ChosenChecks> {
  const email = settings.get("check-user");
  const smoke = settings.get("smoke");
  const table = settings.get("check-table");
  const critical = parseTableNames(settings.get("critical"), "critical").map(tableOf);
  const password = settings.variable("BACKUP_CHECK_PASSWORD");
  if (email !== undefined && password === undefined) {
    throw new HoldfastError("setting_missing", "--check-user is set and BACKUP_CHECK_PASSWORD is not");
  }
  return {
    critical: critical.length === 0 ? null : critical,
    user: email === undefined || password === undefined ? null : { email, password },
    table: table === undefined ? null : tableOf(table),
    smoke: smoke === undefined ? null : await readSettingFile(smoke, "smoke"),
  };
}

/**
 * As people would try it; the project is opened whatever comes of it, since closed it serves nobody. `other`: as of
 * `maintenanceDeps`. What the sign-in leaves on the account is put back, so that the rows are the backup's still.
 */
export async function runChosenChecks(
  context: Context,
  database: Database,
  other: Database | null,
  subject: CheckChoice,
): Promise<CheckResult[]> {
  const { clock, log, signal } = context;
  const { project } = await maintenanceDeps(context, other);
  const run = async () => await runChecks({ database, project, clock, log, signal }, subject);
  const { user } = subject;
  if (user === null || project === null) return await run();
  const session = await openSession(database, "holdfast:checks");
  try {
    const before = await signInsOf(session, user.email).catch((error: unknown) => asHoldfastError(error));
    const results = await run();
    const failure = before instanceof HoldfastError
      ? before
      : await putBackSignIns(session, before).then(() => null, asHoldfastError);
    if (failure !== null) {
      context.note(`warning: auth.users tells of the check user's sign-in: ${failure.code}: ${failure.message}`);
    }
    return results;
  } finally {
    await session.close();
  }
}

/** What a sign-in changes of its account; JSON, as the server writes it. */
async function signInsOf(session: Connection, email: string): Promise<string> {
  const [row] = await session.query(
    `select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
         'id', u.id, 'last_sign_in_at', u.last_sign_in_at, 'updated_at', u.updated_at)), '[]')::text as accounts
       from auth.users as u where pg_catalog.lower(u.email) = pg_catalog.lower($1)`,
    [email],
  );
  return row?.["accounts"] ?? "[]";
}

async function putBackSignIns(session: Connection, before: string): Promise<void> {
  await inTransaction(session, async () => {
    await session.execute("set local session_replication_role = replica");
    await session.query(
      `update auth.users as u set last_sign_in_at = b.last_sign_in_at, updated_at = b.updated_at
         from pg_catalog.jsonb_to_recordset($1::jsonb) as b (id uuid, last_sign_in_at timestamptz, updated_at timestamptz)
        where b.id = u.id`,
      [before],
    );
  });
}
