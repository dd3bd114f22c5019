/** A database with odd tables, a backup of it, and rows of the backup laid beside what became of it. */
import { randomBytes } from "node:crypto";
import { openSession } from "../../src/shared/backup/session.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { openBackupRows } from "../../src/shared/rows/past/backup_rows.ts";
import { layAsked, pairAsked, type RowsAsked } from "../../src/shared/rows/asked.ts";
import type { Beside } from "../../src/shared/rows/beside/beside.ts";
import { parseCondition } from "../../src/shared/rows/beside/conditions.ts";
import type { RestoreMode } from "../../src/shared/rows/apply/difference.ts";
import type { PastRows } from "../../src/shared/rows/past/past.ts";
import { LegOver } from "../../src/shared/rows/beside/side_tables.ts";
import { planRows, type RowsPlan } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack, type PutBackOptions, type PutBackResult } from "../../src/shared/rows/apply/put_back.ts";
import { type Cluster, query } from "../support/cluster.ts";
import { backup, world } from "../integration/backup_fixture.ts";

export interface Past {
  readonly url: string;
  readonly source: PastRows;
  readonly connection: Connection;
}

/** Runs `sql` in a fresh database and backs it up. */
export async function pastOf(cluster: Cluster, sql: string): Promise<Past> {
  const { url, deps } = await world(cluster);
  await query(url, sql);
  const run = await backup(deps);
  const source = await openBackupRows(deps, run.id);
  return { url, source, connection: await openSession(openDatabase({ url }), "holdfast:restore") };
}

export function sideName(): string {
  return `restore_${randomBytes(4).toString("hex")}`;
}

export async function besideOf(
  past: Past,
  schema: string,
  name: string,
  where: readonly string[] = [],
): Promise<Beside> {
  const table = { schema, name };
  return await lay(
    past,
    where.length === 0 ? { scope: "table", table } : { scope: "record", table, where: where.map(parseCondition) },
  );
}

/** `inLegs`: by as many calls as there are pieces, each of which may read one. */
export async function lay(past: Past, asked: RowsAsked, inLegs = false): Promise<Beside> {
  const { connection, source } = past;
  const deps = { connection, source, sameDatabase: true, schema: sideName() };
  for (;;) {
    const budget = { spendText: () => {}, spent: () => inLegs };
    try {
      return await pairAsked(deps, asked, await layAsked({ ...deps, budget }, asked, "test"));
    } catch (error) {
      if (!(error instanceof LegOver)) throw error;
    }
  }
}

export const patient = { wholeTables: true, fireTriggers: false, lockMs: 2000 } as const satisfies Omit<
  PutBackOptions,
  "mode"
>;

/** Plans and applies. */
export async function bringBack(
  past: Past,
  beside: Beside,
  mode: RestoreMode,
  more: Partial<PutBackOptions> = {},
): Promise<{ readonly plan: RowsPlan; readonly result: PutBackResult }> {
  const plan = await planRows(past.connection, beside.pairs, beside.keys, mode);
  const result = await putBack(past.connection, beside.pairs, beside.keys, { ...patient, mode, ...more });
  return { plan, result };
}

/** Every row of a table as text, in an order of its own. */
export async function rowsOf(url: string, table: string): Promise<string[]> {
  const rows = await query(url, `select whole_row::text as row from ${table} as whole_row order by 1`);
  return rows.map((row) => String(row["row"]));
}
