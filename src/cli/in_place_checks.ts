/** The checks after a full restore in place, as the settings choose them. */
import { HoldfastError } from "../shared/errors.ts";
import type { Database } from "../shared/postgres/connection.ts";
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

/** As people would try it; the project is opened whatever comes of it, since closed it serves nobody. */
export async function runChosenChecks(
  context: Context,
  database: Database,
  subject: CheckChoice,
): Promise<CheckResult[]> {
  const { clock, log, signal } = context;
  const { project } = await maintenanceDeps(context);
  return await runChecks({ database, project, clock, log, signal }, subject);
}
