/** Makes objects of a target what the DDL log says that they were after a command. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { accessStatements, grantOn } from "../../schema/privileges.ts";
import { arrayText, quoteIdent, quoteLiteral } from "../../schema/quote.ts";
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
import {
  createDescribed,
  droppedAndBack,
  hasSameTexts,
  type Hints,
  isSameTable,
  sequenceText,
  tableDifference,
} from "./table_difference.ts";

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
  for (const { made, identity, type } of row.objects) {
    if (made == null || "part" in made) continue;
    if ("table" in made) {
      const { role } = row;
      const hints = {
        dropped,
        renamed: made.renamed ?? null,
        missing: row.objects.flatMap((one) => one.missing ?? []),
      };
      await defineTable(connection, made.table, { alters, former, role, ...hints });
    } else if ("given" in made) {
      await connection.execute(`alter ${ownerWord(type)} ${identity ?? ""} owner to ${quoteIdent(made.given)}`);
    } else if ("access" in made) await defineAccess(connection, made.access);
    else if ("members" in made) await defineMembers(connection, made.extension, made.members);
    else {
      const work = () => defineOther(connection, made, identity ?? "", alters);
      if (made.owner === undefined || ownerless.has(type)) {
        await asOneOf(connection, [row.role, made.owner, null], work);
      } else await asOwner(connection, { ...made, owner: made.owner, type, identity, role: row.role, alters }, work);
    }
  }
  // Each is as it was in the end: a sequence is owned by a column that comes after it.
  for (const { made, identity } of row.objects) {
    if (made == null || !("sequence" in made)) continue;
    await connection.execute(`alter sequence ${identity ?? ""} owned by ${made.sequence.ownedBy ?? "none"}`);
  }
}

type Other = Extract<Description, { sql: unknown } | { sequence: unknown } | { labels: unknown }>;

async function defineOther(connection: Connection, made: Other, identity: string, alters: boolean): Promise<void> {
  if ("labels" in made) return await defineEnum(connection, identity, made.labels, alters);
  if ("sequence" in made) return await defineSequence(connection, identity, made.sequence);
  await connection.execute(made.sql + await versionOf(connection, made, identity));
  if (made.populated === undefined) return;
  const [view] = await connection.query(
    `select c.relispopulated as is_populated from pg_catalog.pg_class as c
      where c.oid = pg_catalog.to_regclass(${quoteLiteral(identity)})`,
  );
  if ((view?.["is_populated"] === "t") === made.populated) return;
  // What its rows are is seen to in the end, for all that have any.
  await connection.execute(`refresh materialized view ${identity}${made.populated ? "" : " with no data"}`);
}

/** That of the source, where the target has it. */
async function versionOf(connection: Connection, made: Other, identity: string): Promise<string> {
  if (!("version" in made) || made.version === undefined) return "";
  const version = quoteLiteral(made.version);
  const [row] = await connection.query(
    `select exists (
       select from pg_catalog.pg_available_extension_versions as v
        where pg_catalog.quote_ident(v.name) = ${quoteLiteral(identity)} and v.version = ${version}
     ) as is_there`,
  );
  return row?.["is_there"] === "t" ? ` version ${version}` : "";
}

/** What hangs on another object and has its owner. Its maker need not be that one. */
const ownerless = new Set(["trigger", "rule", "policy", "index"]);

/**
 * As the first of these roles that can: the one that did it on the source, an owner, the restoring one (null). Which of them
 * may is not told by any catalog. Errors: the last one's.
 */
async function asOneOf(
  connection: Connection,
  roles: readonly (string | null | undefined)[],
  work: (role: string | null) => Promise<void>,
): Promise<void> {
  const candidates = [...new Set(roles)].filter((role) => role !== undefined);
  for (const [index, role] of candidates.entries()) {
    await connection.execute("savepoint holdfast_role");
    try {
      if (role !== null) await connection.execute(`set local role ${quoteIdent(role)}`);
      await work(role);
      await connection.execute("reset role; release savepoint holdfast_role");
      return;
    } catch (error) {
      // A session that is gone, or a definition that cannot be, is so for the next one as well.
      if (sqlstateOf(error) === null || index === candidates.length - 1) throw error;
      await connection.execute("rollback to savepoint holdfast_role; release savepoint holdfast_role");
    }
  }
}

/** How ALTER … OWNER names it, by the type that the log has. */
const ownerWords: Readonly<Record<string, string>> = {
  view: "view",
  "materialized view": "materialized view",
  sequence: "sequence",
  function: "function",
  procedure: "procedure",
  type: "type",
  domain: "domain",
  "statistics object": "statistics",
};

/** Other types by their own names. */
function ownerWord(type: string): string {
  return ownerWords[type] ?? (type === "foreign-data wrapper" ? "foreign data wrapper" : type);
}

interface Owned {
  readonly owner: string;
  readonly type: string;
  readonly identity: string | null;
  readonly role: string;
  readonly alters: boolean;
}

/** An object with an owner of its own: made by it, or by somebody who may and then gives it away. */
async function asOwner(connection: Connection, owned: Owned, work: () => Promise<void>): Promise<void> {
  const { owner, role, type, identity, alters } = owned;
  const word = ownerWords[type];
  await asOneOf(connection, [owner, role, null], async (acting) => {
    await work();
    if (acting === owner || alters || word === undefined || identity === null) return;
    await connection.execute(`alter ${word} ${identity} owner to ${quoteIdent(owner)}`);
  });
}

/**
 * Are the row's tables and enums in the target what the log says? Texts of expressions too, where both servers write them the
 * same way.
 */
export async function isDefined(connection: Connection, row: DdlRow): Promise<boolean> {
  for (const { made, identity } of row.objects) {
    if (made == null) continue;
    if ("labels" in made) {
      const labels = await labelsOf(connection, identity ?? "");
      if (JSON.stringify(labels) !== JSON.stringify(made.labels)) return false;
    }
    if (!("table" in made)) continue;
    const found = await describe(connection, made.table.name);
    if (found === null || !isSameTable(found, made.table) || !hasSameTexts(found, made.table)) return false;
    // Event triggers of users give away what was made, before it is described.
    if (found.owner !== made.table.owner) return false;
  }
  return true;
}

interface TableHints extends Hints {
  readonly alters: boolean;
  readonly former: string | null;
  readonly role: string;
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
    // The owner is part of the difference.
    await asOneOf(connection, [table.owner, hints.role, null], () => connection.execute(createDescribed(table)));
    before = await describe(connection, table.name);
  }
  const gone = before === null ? [] : droppedAndBack(before, table, hints.dropped);
  for (const statement of gone) await connection.execute(statement);
  if (gone.length > 0) before = await describe(connection, table.name);
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
  const before = await labelsOf(connection, name);
  const [isThere] = await connection.query(
    `select pg_catalog.to_regtype(${quoteLiteral(name)}) is not null as is_there`,
  );
  if (isThere?.["is_there"] !== "t") {
    if (alters) throw notReplayable(name, "it was renamed, or is not in the target");
    return await connection.execute(`create type ${name} as enum (${labels.map(quoteLiteral).join(", ")})`);
  }
  for (const statement of enumDifference(name, before, labels)) await connection.execute(statement);
}

async function labelsOf(connection: Connection, name: string): Promise<string[]> {
  const rows = await connection.query(
    `select e.enumlabel as label from pg_catalog.pg_enum as e
      where e.enumtypid = pg_catalog.to_regtype(${quoteLiteral(name)}) order by e.enumsortorder`,
  );
  return rows.map((row) => row["label"] ?? "");
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

/** Others' objects, extensions among them, may be no part of the backup. */
async function defineMembers(connection: Connection, extension: string, members: readonly string[]): Promise<void> {
  const rows = await connection.query(
    `select pg_catalog.format('%s %s', m.type, m.identity) as member
       from pg_catalog.pg_extension as e
       left join pg_catalog.pg_depend as d on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
         and d.refobjid = e.oid and d.deptype = 'e'
       left join lateral pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) as m on true
      where pg_catalog.quote_ident(e.extname) = ${quoteLiteral(extension)}`,
  );
  const present = new Set(rows.map((row) => row["member"]));
  for (const member of rows.length === 0 ? [] : members) {
    if (!present.has(member)) await connection.execute(`alter extension ${extension} add ${member}`);
  }
}

async function defineAccess(connection: Connection, lists: readonly DescribedAccess[]): Promise<void> {
  const rows = await connection.query(
    `select l.* from (select null::integer as max_age, 0::bigint as command, 'all' as kind) as x,
            lateral (${accessListsSql}) as l (subject, column_name, owner, acl)
      where l.subject = any ($1::text[])`,
    [arrayText([...new Set(lists.map(({ subject }) => subject))])],
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
  for (const { subject, column_name: column, owner, acl } of lists) {
    const base = present.get(subject);
    // Others' objects, extensions among them, may be no part of the backup.
    if (base === undefined) continue;
    const list = { owner, actual: acl, base: base.get(column)?.acl ?? [], column };
    for (const statement of accessStatements(list, grantOn(subject))) await connection.execute(statement);
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
