/** What people and documents see of a restore of rows. */
import type { PastRows } from "../shared/rows/past/past.ts";
import type { Beside } from "../shared/rows/beside/beside.ts";
import { liveName, type Pair } from "../shared/rows/apply/difference.ts";
import type { RowsPlan } from "../shared/rows/apply/plan_rows.ts";
import type { PutBackResult } from "../shared/rows/apply/put_back.ts";
import type { RowsWork } from "../shared/rows/work.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { columns } from "./output.ts";
import { amount, duration } from "./progress.ts";

const verbs = {
  missing: "what is gone comes back",
  merge: "what is gone or differs comes back",
  replace: "made equal",
} as const;

/** `1 row`, `3,000 rows`. */
export function rowsText(rows: number): string {
  return rows === 1 ? "1 row" : `${rows.toLocaleString("en-GB")} rows`;
}

export function planLines(
  plan: RowsPlan,
  facts: {
    readonly subject: string;
    readonly at: string;
    readonly database: string;
    readonly rows: number;
    readonly loadMs: number;
    /** By its name: no safety backup comes first. */
    readonly safetySkipped: boolean;
  },
): string[] {
  const changes = plan.tables.reduce((sum, table) => sum + table.insert + 2 * table.update + table.delete, 0);
  // As fast as the rows came beside; a row that is put back costs more than one that is loaded.
  const perRowMs = facts.rows === 0 ? 0.1 : Math.max(0.02, (2 * facts.loadMs) / facts.rows);
  return [
    `${facts.subject} as of ${facts.at} into ${facts.database}, ${plan.mode} (${verbs[plan.mode]}):`,
    ...columns([
      ["  table", "insert", "put back", "delete", "as it is"],
      ...plan.tables.map((table) => [
        `  ${table.table}`,
        ...[table.insert, table.update, table.delete, table.unchanged].map((n) => n.toLocaleString("en-GB")),
      ]),
    ]),
    ...plan.tables.flatMap((table) => [
      ...table.conflicts.map((one) =>
        `  conflict in ${table.table}: ${rowsText(one.rows)}, ${one.what} (${one.name}${
          one.other === null ? "" : ` with ${one.other}`
        })`
      ),
      ...(table.alwaysTriggers.length === 0
        ? []
        : [`  triggers of ${table.table} that fire all the same: ${table.alwaysTriggers.join(", ")}`]),
      ...table.notes.map((note) => `  note: ${note}`),
    ]),
    ...(plan.tables.some((table) => table.conflicts.length > 0)
      ? ["  so it would be refused, and nothing changed"]
      : []),
    `  about ${amount(plan.bytes, "bytes")} of room and ${duration(Math.max(1000, changes * perRowMs))}${
      facts.safetySkipped ? ", without a safety backup" : ", after the safety backup"
    }`,
  ];
}

/** `{id, ok, inserted, updated, deleted, warnings[], …}`. */
export function rowsDocument(
  { source, work, target }: { readonly source: PastRows; readonly work: RowsWork; readonly target: Database },
  plan: RowsPlan,
  warnings: readonly string[],
  more: object,
): object {
  return {
    id: source.backupId,
    ok: false,
    inserted: 0,
    updated: 0,
    deleted: 0,
    warnings: [...warnings, ...plan.tables.flatMap((table) => table.notes)],
    restore: work.lease?.id ?? null,
    mode: plan.mode,
    at: source.at,
    sideSchema: work.schema,
    database: target.label,
    plan: plan.tables,
    bytes: plan.bytes,
    ...more,
  };
}

/** Where the rows are that went, or were put back as they had been. */
export function keptLines(
  kept: ReadonlyMap<Pair, readonly string[]>,
  result: Pick<PutBackResult, "tables">,
): string[] {
  return [...kept].map(([pair, names]) => {
    const counts = result.tables.find(({ table }) => table === liveName(pair));
    const rows = (counts?.updated ?? 0) + (counts?.deleted ?? 0);
    return `${rowsText(rows)} of ${liveName(pair)} as before: ${names.join(", ")}, until that expires.`;
  });
}

/** Rows of other tables went with these, perhaps, and do not come back with them. */
export function referringLines(beside: Beside, plan: RowsPlan): string[] {
  const own = new Set(beside.pairs.map(({ fit }) => fit.live.oid));
  const inserts = new Set(plan.tables.filter(({ insert }) => insert > 0).map(({ table }) => table));
  const parents = new Set(beside.pairs.filter((pair) => inserts.has(liveName(pair))).map(({ fit }) => fit.live.oid));
  const referring = beside.keys.filter(({ childOid, parentOid }) => parents.has(parentOid) && !own.has(childOid))
    .map(({ child, pairs }) => `${child} (${pairs.map((pair) => pair.child).join(", ")})`);
  return referring.length === 0
    ? []
    : [`  rows that refer to these are no part of this: ${[...new Set(referring)].join(", ")}`];
}
