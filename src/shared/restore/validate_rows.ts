/** Whether live rows are what a restore of rows put back, by the rows that still stand in its side schema. */
import { HoldfastError } from "../errors.ts";
import type { RestoreRow, RestoreTable } from "../jobs/restore_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { platformTreatments } from "../rows/ownership/auth_map.ts";
import { readLiveTables } from "../rows/beside/live_tables.ts";
import { applySettings } from "../schema/apply_settings.ts";
import { quoteIdent, quoteQualified } from "../schema/quote.ts";
import { checkForeignKeys } from "./orphans.ts";
import type { Difference } from "./prove.ts";
import type { Validation } from "./validate.ts";
import { ownSchema, stateSchema } from "./target.ts";

/**
 * In the sense of the mode: `missing`: each key of then is there; `merge`: each row of then is there as it was; `replace`: also,
 * for a whole table, no other row. Beside: the side tables hold the rows that were counted. Then every foreign key of the
 * database. One snapshot, nothing is changed; rows that were written since show as differences.
 * Errors: `run_state` for a restore that has not ended well or whose side schema is gone; those of the connection.
 */
export async function validateRows(
  connection: Connection,
  restore: RestoreRow,
): Promise<Omit<Validation, "durationMs">> {
  const side = restore.sideSchema;
  if ((restore.status !== "beside" && restore.status !== "succeeded") || !restore.targetIsHere || side === null) {
    throw new HoldfastError("run_state", `restore ${restore.id} is ${restore.status}: there is nothing to compare`);
  }
  if (restore.sideDroppedAt !== null || !(await exists(connection, side))) {
    throw new HoldfastError("run_state", `the side schema of restore ${restore.id} is gone`, {
      hint: "Restore the rows beside once more to see how they differ.",
    });
  }
  await connection.execute(applySettings.join(";\n"));
  await connection.execute("begin isolation level repeatable read read only");
  const differences: Difference[] = [];
  const notCompared: { identity: string; reason: string }[] = [];
  let rows = 0;
  try {
    for (const table of restore.tables) {
      const pair = await readPair(connection, side, table);
      const identity = `table ${quoteQualified(table.schema, table.name)}`;
      if (pair === null) {
        notCompared.push({ identity, reason: "it was renamed or dropped since" });
        continue;
      }
      const found = await comparePair(connection, restore, pair);
      rows += found.rows;
      differences.push(...found.details.map((detail) => ({ kind: "rows" as const, name: identity, detail })));
      notCompared.push(...found.notCompared.map((reason) => ({ identity, reason })));
    }
    const keys = await checkForeignKeys(connection, [ownSchema, stateSchema, side]);
    differences.push(...keys.differences);
    return {
      id: restore.id,
      ok: differences.length === 0,
      differences,
      notCompared,
      tables: restore.tables.length,
      rows,
      foreignKeys: keys.checked,
    };
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}

interface Column {
  readonly name: string;
  /** What makes a side value one of the live column's type. */
  readonly cast: string;
}

interface ValidatedPair {
  readonly table: RestoreTable;
  /** Quoted; the live one with ONLY unless it is partitioned. */
  readonly side: string;
  readonly live: string;
  /** Side columns that the live table does not have. */
  readonly lost: readonly string[];
  /** On both sides, without what the server computes. */
  readonly columns: readonly Column[];
  /** With the index's own equality. Null: there is none, or the rows of then lack a part of it. */
  readonly key: readonly (Column & { readonly equals: string })[] | null;
}

async function exists(connection: Connection, schema: string): Promise<boolean> {
  const [row] = await connection.query("select pg_catalog.to_regnamespace($1) is not null as yes", [schema]);
  return row?.["yes"] === "t";
}

/** Null: the live table, or the one of then, does not have this name. */
async function readPair(connection: Connection, schema: string, table: RestoreTable): Promise<ValidatedPair | null> {
  const [live] = await readLiveTables(connection, [{ schema: table.schema, name: table.name, oid: "0" }]);
  if (live === undefined) return null;
  // Where two tables have the same name, theirs is with their schema.
  for (const name of [table.name, `${table.schema}.${table.name}`]) {
    const side = quoteQualified(schema, name);
    const rows = await connection.query(
      `select a.attname as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type
         from pg_catalog.pg_attribute as a
        where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped`,
      [side],
    );
    if (rows.length === 0) continue;
    const types = new Map(rows.map((row) => [row["name"], row["type"]]));
    const columns = live.columns.filter((column) => !column.generated && types.has(column.name))
      .map(({ name: column, type }) => ({ name: column, cast: types.get(column) === type ? "" : `::text::${type}` }));
    const key = (live.key ?? []).flatMap(({ name: part, equals }) =>
      columns.filter((column) => column.name === part).map((column) => ({ ...column, equals }))
    );
    const relation = quoteQualified(live.schema, live.name);
    const there = new Set(live.columns.map((column) => column.name));
    return {
      table,
      lost: [...types.keys()].map((column) => column ?? "").filter((column) => !there.has(column)),
      side,
      live: live.partitioned ? relation : `only ${relation}`,
      columns,
      key: live.key === null || key.length < live.key.length ? null : key,
    };
  }
  return null;
}

async function comparePair(
  connection: Connection,
  restore: RestoreRow,
  pair: ValidatedPair,
): Promise<{ readonly rows: number; readonly details: string[]; readonly notCompared: string[] }> {
  const rows = await count(connection, `from ${pair.side} as s`);
  const details: string[] = [];
  const notCompared: string[] = [];
  if (pair.table.rows !== undefined && pair.table.rows !== rows) {
    details.push(`${rows} rows stand beside, ${pair.table.rows} were put there`);
  }
  if (restore.mode === "beside") return { rows, details, notCompared };
  details.push(...pair.lost.map((column) => `column ${quoteIdent(column)} of then is not there under its name`));
  const treatment = platformTreatments[`${pair.table.schema}.${pair.table.name}`];
  if (treatment !== undefined && treatment.restore !== "rows") {
    notCompared.push(`not restored in place: ${treatment.why}`);
    return { rows, details, notCompared };
  }
  const own = new Set([...treatment?.credentials ?? [], ...treatment?.tokens ?? []]);
  if (own.size > 0) notCompared.push("credentials may stay as they are");
  const columns = pair.columns.filter((column) => !own.has(column.name));
  if (pair.key === null) {
    const lost = await count(connection, bagSql(pair, columns, "side", "live"), "n");
    if (lost > 0) details.push(`${lost} rows of then are not there`);
    if (restore.mode === "replace" && restore.scope === "table") {
      const more = await count(connection, bagSql(pair, columns, "live", "side"), "n");
      if (more > 0) details.push(`${more} rows are there that were not then`);
    }
    return { rows, details, notCompared };
  }
  const same = sameKey(pair.key);
  const gone = await count(
    connection,
    `from ${pair.side} as s where not exists (select from ${pair.live} as l where ${same})`,
  );
  if (gone > 0) details.push(`${gone} rows of then are not there`);
  if (restore.mode !== "missing" && columns.length > 0) {
    const [now, then] = ["l", "s"].map((alias) => rowOf(columns, alias));
    const other = await count(
      connection,
      `from ${pair.side} as s join ${pair.live} as l on ${same} where pg_catalog.record_image_ne(${now}, ${then})`,
    );
    if (other > 0) details.push(`${other} rows have other contents`);
  }
  if (restore.mode === "replace" && restore.scope === "table") {
    const more = await count(
      connection,
      `from ${pair.live} as l where not exists (select from ${pair.side} as s where ${same})`,
    );
    if (more > 0) details.push(`${more} rows are there that were not then`);
  }
  return { rows, details, notCompared };
}

function rowOf(columns: ValidatedPair["columns"], alias: string): string {
  const values = columns.map(({ name, cast }) => `${alias}.${quoteIdent(name)}${alias === "s" ? cast : ""}`);
  return `row(${values.join(", ")})`;
}

function sameKey(key: NonNullable<ValidatedPair["key"]>): string {
  return key.map(({ name, cast, equals }) => `l.${quoteIdent(name)} ${equals} s.${quoteIdent(name)}${cast}`).join(
    " and ",
  );
}

/** Rows of one side that the other has fewer times. */
function bagSql(
  pair: ValidatedPair,
  columns: ValidatedPair["columns"],
  of: "side" | "live",
  than: "side" | "live",
): string {
  const bag = (which: "side" | "live") => {
    const [relation, alias] = which === "side" ? [pair.side, "s"] : [pair.live, "l"];
    return `(select ${
      rowOf(columns, alias)
    }::text collate "C" as r, count(*) as n from ${relation} as ${alias} group by 1)`;
  };
  return `from (select a.n - coalesce(b.n, 0) as n from ${bag(of)} as a left join ${
    bag(than)
  } as b on b.r = a.r) as d where d.n > 0`;
}

async function count(connection: Connection, from: string, summed: string | null = null): Promise<number> {
  const what = summed === null ? "count(*)" : `coalesce(sum(d.${quoteIdent(summed)}), 0)`;
  const [row] = await connection.query(`select ${what} as n ${from}`);
  return Number(row?.["n"]);
}
