/** A table as it was onto the table that there is now: which column goes where, and what people have to know. Pure. */
import { quoteQualified } from "../../schema/quote.ts";
import type { KeyColumn, LiveTable } from "./live_tables.ts";
import type { PastTable } from "../past/past.ts";

export interface FitColumn {
  /** Name in the past, and in the side table. */
  readonly past: string;
  readonly live: string;
  readonly liveType: string;
  /** The type was another one: values pass through their text. */
  readonly retyped: boolean;
}

/** How a table's rows go into a live one. */
export interface Fit {
  readonly past: PastTable;
  readonly live: LiveTable;
  /** In the order of the past; what only one of the two has is not among them, nor what the server computes. */
  readonly columns: readonly FitColumn[];
  /** Live names of what tells rows apart, all of them in `columns`; null: whole rows do. */
  readonly key: readonly KeyColumn[] | null;
  /** Live columns that the past did not have: new rows get their defaults, rows that are put back keep what they have. */
  readonly added: readonly string[];
  /** Past columns that are not there any more. */
  readonly lost: readonly string[];
  readonly notes: readonly string[];
}

/** What cannot be put back into the table that there is, in one sentence; null: nothing. */
export interface Unfit {
  readonly past: PastTable;
  readonly reason: string;
}

/**
 * By name, and where `sameDatabase` (the live database is the one that the rows are from, so that oids mean the same) a table
 * or a column that was renamed by its identity. A name that is taken by another table today is that table.
 */
export function fitTable(past: PastTable, live: readonly LiveTable[], sameDatabase: boolean): Fit | Unfit {
  const byName = live.find((table) => table.schema === past.schema && table.name === past.name);
  const byOid = sameDatabase ? live.find((table) => table.oid === past.oid) : undefined;
  const table = byName ?? byOid;
  const was = quoteQualified(past.schema, past.name);
  if (table === undefined) return { past, reason: `table ${was} is not there any more` };
  const notes: string[] = [];
  const is = quoteQualified(table.schema, table.name);
  if (is !== was) notes.push(`table ${was} is called ${is} now`);
  else if (sameDatabase && past.oid !== "0" && table.oid !== past.oid) {
    const moved = byOid === undefined
      ? ""
      : `; the one of then is called ${quoteQualified(byOid.schema, byOid.name)} now`;
    notes.push(`table ${was} was made anew since then${moved}`);
  }
  const named = sameDatabase ? sameColumns(past, table, live) : [];
  const columns: FitColumn[] = [];
  const lost: string[] = [];
  // A column that is still there first: another may be called today what one that is gone was called.
  const byAttnum = new Map(named);
  if (sameDatabase && table.partitioned && past.leaf !== undefined && named.length === 0) {
    notes.push(
      `columns of ${is} go by their names, renamed or not: the partition that could tell is not there any more`,
    );
  }
  const taken = new Set(past.columns.flatMap(({ attnum }) => byAttnum.get(attnum)?.name ?? []));
  for (const column of past.columns) {
    const same = byAttnum.get(column.attnum);
    const found = same ?? table.columns.find((one) => one.name === column.name);
    if (found === undefined || (same === undefined && taken.has(found.name))) {
      lost.push(column.name);
      continue;
    }
    taken.add(found.name);
    if (found.name !== column.name) notes.push(`column ${column.name} of ${is} is called ${found.name} now`);
    if (found.generated) {
      notes.push(`column ${found.name} of ${is} is computed now; its values are not taken`);
      continue;
    }
    const retyped = found.type !== column.type;
    if (retyped) notes.push(`column ${found.name} of ${is} was ${column.type} and is ${found.type} now`);
    columns.push({ past: column.name, live: found.name, liveType: found.type, retyped });
  }
  const added = table.columns.filter((one) => !one.generated && !taken.has(one.name));
  if (lost.length > 0) notes.push(`${is} has no ${list("column", lost)} any more; their values are not taken`);
  if (added.length > 0) {
    notes.push(
      `${is} got ${list("column", added.map((one) => one.name))} since then; rows that come new have the default`,
    );
  }
  const stuck = added.filter((one) => one.notNull && !one.filled).map((one) => one.name);
  if (stuck.length > 0) {
    notes.push(`new rows cannot go in: ${list("column", stuck)} of ${is} must have a value and has no default`);
  }
  const fitting = new Set(columns.map((one) => one.live));
  const key = table.key !== null && table.key.every(({ name }) => fitting.has(name)) ? table.key : null;
  if (key === null) {
    notes.push(
      `${is} has no primary key that tells rows of then from those of now: whole rows are compared, and merge does no more than missing`,
    );
  }
  return { past, live: table, columns, key, added: added.map((one) => one.name), lost, notes };
}

/** Columns of the table that the past had, by the attnums that the past knows them by: none where it was made anew. */
function sameColumns(
  past: PastTable,
  table: LiveTable,
  live: readonly LiveTable[],
): (readonly [number, LiveTable["columns"][number]])[] {
  if (table.oid === past.oid) return table.columns.map((one) => [one.attnum, one] as const);
  const leaf = past.leaf === undefined
    ? undefined
    : live.find(({ oid, root }) => oid === past.leaf && root === table.oid);
  return (leaf?.columns ?? []).flatMap(({ attnum, name }) => {
    const own = table.columns.find((one) => one.name === name);
    return own === undefined ? [] : [[attnum, own] as const];
  });
}

export function isUnfit(fit: Fit | Unfit): fit is Unfit {
  return "reason" in fit;
}

function list(noun: string, names: readonly string[]): string {
  return `${noun}${names.length === 1 ? "" : "s"} ${names.join(", ")}`;
}
