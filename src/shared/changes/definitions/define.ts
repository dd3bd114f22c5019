/** Makes objects of a target what the DDL log says that they were after a command. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { accessStatements, grantOn } from "../../schema/privileges.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import type { DdlRow } from "./ddl_replay.ts";
import {
  type DescribedAccess,
  describedAccess,
  type DescribedSequence,
  type DescribedTable,
  describedTable,
  type Description,
} from "./definition_format.ts";
import { accessListsSql, describeTableSql } from "./describe_sql.ts";
import { createDescribed, isSameTable, sequenceText, tableDifference } from "./table_difference.ts";

/**
 * In the caller's transaction, with an empty `search_path`. `dropped`: columns that the same transaction dropped. `former`:
 * the name of the row's table before it, where that was another.
 * Errors: `ddl_not_replayable` where the target does not become what the log says; those of the server.
 */
export async function define(
  connection: Connection,
  row: DdlRow,
  dropped: ReadonlySet<string>,
  former: string | null,
): Promise<void> {
  const alters = /^ALTER /.test(row.tag);
  for (const { made, identity } of row.objects) {
    if (made == null || "part" in made) continue;
    if ("table" in made) {
      await defineTable(connection, made.table, { alters, dropped, former, renamed: made.renamed ?? null });
    } else if ("access" in made) await defineAccess(connection, made.access);
    else await asOwner(connection, made.owner, () => defineOther(connection, made, identity ?? "", alters));
  }
  // Each is as it was in the end: a sequence is owned by a column that comes after it.
  for (const { made, identity } of row.objects) {
    if (made == null || !("sequence" in made)) continue;
    await connection.execute(`alter sequence ${identity ?? ""} owned by ${made.sequence.ownedBy ?? "none"}`);
  }
}

type Other = Exclude<Description, { table: unknown } | { access: unknown } | { part: unknown }>;

async function defineOther(connection: Connection, made: Other, identity: string, alters: boolean): Promise<void> {
  if ("labels" in made) return await defineEnum(connection, identity, made.labels, alters);
  if ("sequence" in made) return await defineSequence(connection, identity, made.sequence);
  await connection.execute(made.sql);
  if (made.populated === undefined) return;
  const [view] = await connection.query(
    `select c.relispopulated as is_populated from pg_catalog.pg_class as c
      where c.oid = pg_catalog.to_regclass(${quoteLiteral(identity)})`,
  );
  if ((view?.["is_populated"] === "t") === made.populated) return;
  // What its rows are is seen to in the end, for all that have any.
  await connection.execute(`refresh materialized view ${identity}${made.populated ? "" : " with no data"}`);
}

async function asOwner(connection: Connection, owner: string | undefined, work: () => Promise<void>): Promise<void> {
  if (owner !== undefined) await connection.execute(`set local role ${quoteIdent(owner)}`);
  await work();
  if (owner !== undefined) await connection.execute("reset role");
}

/** Are the row's tables in the target what the log says? */
export async function isDefined(connection: Connection, row: DdlRow): Promise<boolean> {
  for (const { made } of row.objects) {
    if (made == null || !("table" in made)) continue;
    const found = await describe(connection, made.table.name);
    if (found === null || !isSameTable(found, made.table)) return false;
  }
  return true;
}

interface TableHints {
  readonly alters: boolean;
  readonly former: string | null;
  readonly dropped: ReadonlySet<string>;
  readonly renamed: string | null;
}

async function defineTable(connection: Connection, table: DescribedTable, hints: TableHints): Promise<void> {
  let before = await describe(connection, hints.former ?? table.name);
  if (before !== null && hints.former !== null) {
    if (before.schema !== table.schema) {
      await connection.execute(`alter table ${hints.former} set schema ${table.schema}`);
    }
    if (before.bareName !== table.bareName) {
      await connection.execute(`alter table ${table.schema}.${before.bareName} rename to ${table.bareName}`);
    }
    before = await describe(connection, table.name);
  }
  if (before === null) {
    if (hints.alters) throw notReplayable(table.name, "it is not in the target");
    await asOwner(connection, table.owner, () => connection.execute(createDescribed(table)));
    before = await describe(connection, table.name);
  }
  if (before === null) throw notReplayable(table.name, "it was not made");
  for (const statement of tableDifference(before, table, hints)) await connection.execute(statement);
  const after = await describe(connection, table.name);
  if (after === null || !isSameTable(after, table)) throw notReplayable(table.name, "the target has another table now");
}

function notReplayable(name: string, why: string): HoldfastError {
  return new HoldfastError("ddl_not_replayable", `the definition of ${name} cannot be replayed: ${why}`);
}

async function describe(connection: Connection, name: string): Promise<DescribedTable | null> {
  const [row] = await connection.query(
    `select d.made from (select pg_catalog.to_regclass(${quoteLiteral(name)})::pg_catalog.oid as described) as x,
            lateral (${describeTableSql}) as d (made)`,
  );
  return row?.["made"] == null ? null : describedTable.parse(JSON.parse(row["made"]));
}

async function defineEnum(
  connection: Connection,
  name: string,
  labels: readonly string[],
  alters: boolean,
): Promise<void> {
  const rows = await connection.query(
    `select e.enumlabel as label from pg_catalog.pg_enum as e
      where e.enumtypid = pg_catalog.to_regtype(${quoteLiteral(name)}) order by e.enumsortorder`,
  );
  const before = rows.map((row) => row["label"] ?? "");
  const [isThere] = await connection.query(
    `select pg_catalog.to_regtype(${quoteLiteral(name)}) is not null as is_there`,
  );
  if (isThere?.["is_there"] !== "t") {
    if (alters) throw notReplayable(name, "it was renamed, or is not in the target");
    return await connection.execute(`create type ${name} as enum (${labels.map(quoteLiteral).join(", ")})`);
  }
  for (const statement of enumDifference(name, before, labels)) await connection.execute(statement);
}

/** Labels are renamed one at a time, or added; none goes. */
function enumDifference(name: string, before: readonly string[], after: readonly string[]): string[] {
  if (before.length === after.length) {
    return after.flatMap((label, index) => {
      const old = before[index] ?? "";
      return old === label ? [] : [`alter type ${name} rename value ${quoteLiteral(old)} to ${quoteLiteral(label)}`];
    });
  }
  const known = new Set(before);
  return after.flatMap((label, index) => {
    if (known.has(label)) return [];
    const previous = after[index - 1];
    const [first] = before;
    const place = previous !== undefined
      ? ` after ${quoteLiteral(previous)}`
      : first === undefined
      ? ""
      : ` before ${quoteLiteral(first)}`;
    return [`alter type ${name} add value ${quoteLiteral(label)}${place}`];
  });
}

async function defineSequence(connection: Connection, name: string, made: DescribedSequence): Promise<void> {
  const unlogged = made.persistence === "u" ? "unlogged " : "";
  await connection.execute(`create ${unlogged}sequence if not exists ${name} as ${made.type} ${sequenceText(made)}`);
  await connection.execute(`alter sequence ${name} as ${made.type} ${sequenceText(made)}`);
}

async function defineAccess(connection: Connection, lists: readonly DescribedAccess[]): Promise<void> {
  const rows = await connection.query(
    `select l.* from (select null::integer as max_age) as x,
            lateral (${accessListsSql}) as l (subject, column_name, owner, acl)`,
  );
  const present = bySubject(
    rows.map((row) =>
      describedAccess.parse({
        subject: row["subject"],
        column_name: row["column_name"],
        owner: row["owner"],
        acl: JSON.parse(row["acl"] ?? "[]"),
      })
    ),
  );
  for (const [subject, wanted] of bySubject(lists)) {
    const base = present.get(subject);
    // Others' objects, extensions among them, may be no part of the backup.
    if (base === undefined) continue;
    const owner = wanted.get(null)?.owner ?? null;
    for (const column of new Set([...wanted.keys(), ...base.keys()])) {
      const list = { owner, actual: wanted.get(column)?.acl ?? [], base: base.get(column)?.acl ?? [], column };
      for (const statement of accessStatements(list, grantOn(subject))) await connection.execute(statement);
    }
  }
}

function bySubject(lists: readonly DescribedAccess[]): Map<string, Map<string | null, DescribedAccess>> {
  const found = new Map<string, Map<string | null, DescribedAccess>>();
  for (const list of lists) {
    const columns = found.get(list.subject) ?? new Map<string | null, DescribedAccess>();
    found.set(list.subject, columns.set(list.column_name, list));
  }
  return found;
}
