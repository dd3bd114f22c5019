/**
 * Tables as the catalog tells them, damaged in ways that fit any table, by plain SQL. Copies of the rows stay: `o.then_rows` as
 * they were, `o.now_rows` after the damage, `o.less_rows` with rows gone that others refer to as well.
 */
import type pg from "pg";
import { quoteIdent } from "../../src/shared/schema/quote.ts";

/** After the damage; less: with rows gone that others refer to. */
export type Now = "now_rows" | "less_rows";

export interface ScopedTable {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly sql: string;
  /** Its own rows: `only` unless it is partitioned. */
  readonly rows: string;
  /** Columns that are no expression of others, in their order. */
  readonly columns: readonly {
    readonly name: string;
    readonly type: string;
    readonly base: string;
    /** `pg_type.typtype` and `typcategory`. */
    readonly kind: string;
    readonly nullable: boolean;
  }[];
  readonly key: readonly string[] | null;
  readonly uniques: readonly string[];
  /** Foreign keys of it. */
  readonly refers: readonly {
    readonly columns: readonly string[];
    readonly to: string;
    readonly toColumns: readonly string[];
  }[];
  /** Foreign keys to it. */
  readonly referred: readonly {
    readonly from: string;
    readonly fromColumns: readonly string[];
    readonly columns: readonly string[];
  }[];
  /** What checks are to be made again by the server: foreign keys on both ends, deferrable keys. */
  readonly checks: readonly { readonly table: string; readonly name: string; readonly definition: string }[];
  /** Oids of tables that have the same rows: itself and its partitions. */
  readonly family: readonly string[];
  /** The role postgres may not write to it. */
  readonly closed: boolean;
  /** Triggers fire whatever a session says. */
  readonly alwaysTriggers: boolean;
  /** What of its definition a restore of its rows has to know, beside the above. */
  readonly marks: readonly string[];
}

/** What of the table a restore of rows has to treat otherwise than it treats most. */
export function kindsOf(table: ScopedTable): string[] {
  const { key, columns, refers, referred, checks, closed, alwaysTriggers } = table;
  const isOwn = ({ to }: { readonly to: string }) => to === table.sql;
  const kinds: readonly (readonly [boolean, string])[] = [
    [key === null, "no key"],
    [key !== null && key.length > 1, "a key of several columns"],
    [columns.length === 0, "no columns"],
    [table.rows === table.sql, "partitioned"],
    [refers.some(isOwn), "refers to itself"],
    [refers.some((one) => !isOwn(one)), "refers to another"],
    [refers.some((one) => one.columns.length > 1), "refers by several columns"],
    [referred.length > 0, "is referred to"],
    [checks.some(({ definition }) => definition.includes("DEFERRABLE")), "deferrable"],
    [checks.some(({ definition }) => definition.startsWith("EXCLUDE")), "excludes"],
    [closed, "closed"],
    [alwaysTriggers, "triggers that always fire"],
    [publicationOf(table) !== null, "published"],
  ];
  return [...kinds.flatMap(([is, kind]) => is ? [kind] : []), ...table.marks];
}

const attributes = (relation: string, numbers: string) =>
  `(select jsonb_agg(a.attname order by u.place) from unnest(${numbers}) with ordinality as u (attnum, place)
      join pg_attribute as a on a.attrelid = ${relation} and a.attnum = u.attnum)`;

/** Foreign keys of a partitioned table are those of its partitions too. */
export async function readTables(client: pg.Client): Promise<ScopedTable[]> {
  const { rows } = await client.query<{ document: string }>(`
    select jsonb_build_object(
      'oid', c.oid::text, 'schema', n.nspname, 'name', c.relname, 'sql', format('%I.%I', n.nspname, c.relname),
      'rows', case c.relkind when 'p' then '' else 'only ' end || format('%I.%I', n.nspname, c.relname),
      'columns', (select coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
          'base', case t.typtype when 'd' then format_type(t.typbasetype, -1) else format_type(t.oid, -1) end,
          'kind', t.typtype::text || t.typcategory::text,
          'nullable', not a.attnotnull) order by a.attnum), '[]')
        from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''),
      'key', (select ${attributes("c.oid", "i.indkey")} from pg_index as i where i.indrelid = c.oid and i.indisprimary),
      'uniques', array(select distinct a.attname from pg_index as i join pg_attribute as a on a.attrelid = c.oid and a.attnum = any (i.indkey)
        where i.indrelid = c.oid and (i.indisunique or i.indisexclusion)),
      'refers', (select coalesce(jsonb_agg(jsonb_build_object('columns', ${attributes("k.conrelid", "k.conkey")},
          'to', k.confrelid::regclass::text, 'toColumns', ${attributes("k.confrelid", "k.confkey")})), '[]')
        from pg_constraint as k where k.contype = 'f' and k.conrelid = c.oid),
      'referred', (select coalesce(jsonb_agg(jsonb_build_object('from', k.conrelid::regclass::text, 'fromColumns', ${
    attributes("k.conrelid", "k.conkey")
  }, 'columns', ${attributes("k.confrelid", "k.confkey")})), '[]')
        from pg_constraint as k where k.contype = 'f' and k.confrelid in (select relid from pg_partition_ancestors(c.oid) union select c.oid)
          and k.conparentid = 0),
      'checks', (select coalesce(jsonb_agg(jsonb_build_object('table', k.conrelid::regclass::text, 'name', quote_ident(k.conname),
          'definition', pg_get_constraintdef(k.oid))), '[]')
        from pg_constraint as k where k.conparentid = 0 and k.convalidated and (
          (k.contype = 'f' and (k.conrelid in (select relid from pg_partition_ancestors(c.oid) union select c.oid)
            or k.confrelid in (select relid from pg_partition_ancestors(c.oid) union select c.oid)))
          or (k.contype in ('u', 'p', 'x') and k.condeferrable and k.conrelid = c.oid))),
      'family', (select jsonb_agg(f.oid::text) from (select c.oid union select relid from pg_partition_tree(c.oid)
         union select relid from pg_partition_ancestors(c.oid)) as f (oid)),
      'closed', not has_table_privilege('postgres', c.oid, 'insert') or not has_table_privilege('postgres', c.oid, 'delete'),
      'alwaysTriggers', exists (select from pg_trigger as g where g.tgrelid = c.oid and not g.tgisinternal and g.tgenabled in ('A', 'R')),
      'marks', array(
        select 'a column is gone' from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and a.attisdropped
        union select 'computed' from pg_attribute as a where a.attrelid = c.oid and a.attgenerated <> ''
        union select 'identity ' || a.attidentity::text from pg_attribute as a where a.attrelid = c.oid and a.attidentity <> ''
        union select 'row security' || case when c.relforcerowsecurity then ', forced' else '' end where c.relrowsecurity
        union select 'inherits' from pg_inherits as i where c.relkind = 'r' and not c.relispartition and c.oid in (i.inhrelid, i.inhparent)
        union select 'unlogged' where c.relpersistence = 'u'
        union select 'replica identity ' || c.relreplident::text where c.relreplident <> 'd'
      )
    )::text as document
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and c.relpersistence <> 't' and (c.relkind = 'r' or not c.relispartition)
     and (n.nspname in ('public') or n.nspname ~ '^corpus_|^Odd ')
     and not exists (select from pg_depend as d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'e')
   order by n.nspname, c.relname`);
  return rows.map(({ document }) => JSON.parse(document) as ScopedTable);
}

const list = (names: readonly string[]) => names.map(quoteIdent).join(", ");
export const columnList = (table: ScopedTable) => list(table.columns.map(({ name }) => name));

/** A value of the column's type that no row has so far, as SQL; null: none is known. */
function freshValue({ type, base }: ScopedTable["columns"][number], n: number): string | null {
  const values: readonly (readonly [RegExp, string])[] = [
    [/^(smallint|integer|bigint|numeric|real|double precision|money|oid)$/, String(n)],
    [/^(text|character varying|name|citext|extensions\.citext|bpchar)$/, `'v${n}@x'`],
    [/^uuid$/, `md5('${n}')`],
    [/^boolean$/, n % 2 === 0 ? "'t'" : "'f'"],
    [/^(date|timestamp)/, `timestamptz '2030-01-01Z' + interval '${n} days'`],
    [/^jsonb?$/, `'{"n": ${n}}'`],
    [/^bytea$/, `'\\x${n.toString(16).padStart(6, "0")}'`],
    [
      /^tstzrange$/,
      `tstzrange(timestamptz '2030-01-01Z' + interval '${n} days', timestamptz '2030-01-01Z' + interval '${n} days 3 h')`,
    ],
    [/^interval$/, `interval '${n} min'`],
  ];
  const found = values.find(([pattern]) => pattern.test(base))?.[1];
  return found === undefined ? null : `(${found})::text::${type}`;
}

/** Of a new row, as SQL expressions: keys to other tables lead to rows that are there. */
function freshRow(table: ScopedTable, n: number): string[] {
  const keys = table.refers.flatMap(({ columns }) => columns);
  return table.columns.map((column) => {
    const refers = table.refers.filter(({ columns }) => columns.includes(column.name));
    const [only] = refers;
    if (only === undefined) return freshValue(column, n) ?? "null";
    // Two keys over one column, or over parts of another: no row may fit both.
    if (only.columns.some((name) => keys.filter((one) => one === name).length > 1)) return "null";
    const to = quoteIdent(only.toColumns[only.columns.indexOf(column.name)] ?? "");
    return `(select whole_row.${to} from ${only.to} as whole_row order by whole_row::text collate "C" limit 1 offset ${n} % (select greatest(count(*), 1) from ${only.to}))`;
  });
}

/** Whether the statements went through; if not, nothing was done. In a transaction. */
async function tried(client: pg.Client, sql: string): Promise<boolean> {
  await client.query("savepoint tried");
  try {
    await client.query(sql);
    await client.query("release savepoint tried");
    return true;
  } catch {
    await client.query("rollback to savepoint tried");
    return false;
  }
}

/** A publication that sends deletes of rows without a key, which the server would refuse. */
export function publicationOf({ sql, schema }: ScopedTable): string | null {
  if (schema === "corpus_tables") return "corpus_schema";
  return sql === "corpus_constraints.parent" || sql === "corpus_views.people" ? "corpus_list" : null;
}

/** Rows that a test is about: keys are not checked meanwhile, and nothing fires. */
export async function quietly<T>(client: pg.Client, table: ScopedTable, work: () => Promise<T>): Promise<T> {
  const published = publicationOf(table);
  await client.query(`begin; set local session_replication_role = replica`);
  try {
    if (published !== null) await client.query(`alter publication ${published} set (publish = 'insert')`);
    const result = await work();
    if (published) {
      await client.query("alter publication corpus_schema set (publish = 'insert, update, delete, truncate')");
    }
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback");
    throw error;
  }
}

const enough = 7;

/** Rows for tables that have few. */
export async function growTables(client: pg.Client, tables: readonly ScopedTable[]): Promise<void> {
  for (const table of [...tables, ...tables]) {
    if (table.columns.length === 0) continue;
    await quietly(client, table, async () => {
      const { rows: [there] } = await client.query<{ n: number }>(
        `select case when pg_table_size(${table.oid}) > 1e6 then ${enough} else count(*)::int end as n from ${table.rows}`,
      );
      let count = there?.n ?? 0;
      for (let n = 11; n < 20 && count < enough; n++) {
        for (const sign of [1, -1]) {
          if (count < enough && await tried(client, insertFresh(table, n * sign))) count++;
        }
      }
    });
  }
}

const insertFresh = (table: ScopedTable, n: number) =>
  `insert into ${table.sql} (${columnList(table)}) overriding system value values (${freshRow(table, n).join(", ")})`;

const insertFrom = (table: ScopedTable, select: string) =>
  table.columns.length === 0
    ? `insert into ${table.sql} select from (${select}) as q`
    : `insert into ${table.sql} (${columnList(table)}) overriding system value select ${
      columnList(table)
    } from (${select}) as q`;

/** All rows of the table, exchanged for those of a copy. */
export const loadFrom = (table: ScopedTable, ...selects: readonly string[]) =>
  [`delete from ${table.rows}`, ...selects.map((select) => insertFrom(table, select))].join("; ");

export async function reset(
  client: pg.Client,
  table: ScopedTable,
  to: "then_rows" | Now,
): Promise<void> {
  await quietly(client, table, () => client.query(loadFrom(table, `select * from o.${to}`)));
}

export interface Damage {
  readonly rows: number;
  readonly gone: number;
  readonly changed: number;
  readonly own: number;
}

/**
 * A third of the rows is gone, a third has values of other rows or none, up to three rows are the table's own since then.
 * What is left holds to every constraint, and so do its union with what is gone and the rows of then with what is new.
 */
export async function damage(client: pg.Client, table: ScopedTable): Promise<Damage> {
  const { key, columns } = table;
  const names = columns.map(({ name }) => name);
  const own = key ?? names.slice(0, Math.ceil(names.length / 2));
  const moving = names.filter((name) => !own.includes(name));
  const fixed = new Set([
    ...table.referred.flatMap((one) => one.columns),
    ...table.refers.flatMap((one) => one.columns),
  ]);
  return await quietly(client, table, async () => {
    await client.query(`
      drop schema if exists o cascade; create schema o;
      create table o.then_rows as select * from ${table.rows};
      create table o.own as select * from o.then_rows limit 0;
      create table o.changed as select * from o.then_rows limit 0;
      create table o.pick as select tid, n, n % 3 = 0 or (count < 3 and n = count) as gone,
          n % 3 = 1 and not (count < 3 and n = count) as changed
        from (select ctid as tid, row_number() over (order by whole_row::text collate "C") as n, count(*) over () as count from o.then_rows as whole_row) as q;
      create view o.staying as select t.* from o.then_rows as t join o.pick as p on p.tid = t.ctid where not p.gone and not p.changed;
      create view o.leaving as select t.*, t.ctid as tid from o.then_rows as t join o.pick as p on p.tid = t.ctid where p.gone`);
    for (let n = 901; n < 904; n++) await addOwn(client, table, own, n);
    // Values wander from one changed row to the next, so that every one is still there once.
    const wandering = (empty: string | null, moves: boolean) => `
      truncate o.changed;
      insert into o.changed (${list(names)})
      select ${
      names.map((name) =>
        name === empty
          ? `case when n = 1 then null else w.${quoteIdent(name)} end`
          : moves && moving.includes(name)
          ? `x.${quoteIdent(name)}`
          : `w.${quoteIdent(name)}`
      ).join(", ")
    } from (select t.*, p.n, coalesce(lead(t.ctid) over (order by p.n), first_value(t.ctid) over (order by p.n)) as next_tid
              from o.then_rows as t join o.pick as p on p.tid = t.ctid where p.changed) as w
        join o.then_rows as x on x.ctid = w.next_tid;`;
    const empties = columns.filter(({ name, nullable }) => nullable && moving.includes(name) && !fixed.has(name))
      .slice(0, 4).map(({ name }) => name);
    const ways: [string | null, boolean][] = [
      ...empties.map((name): [string, boolean] => [name, true]),
      [null, true],
      ...empties.map((name): [string, boolean] => [name, false]),
      [null, false],
    ];
    if (names.length > 0) {
      for (const [empty, moves] of ways) {
        const load = loadFrom(
          table,
          "select * from o.staying",
          "select * from o.leaving",
          "select * from o.own",
          "select * from o.changed",
        );
        if (await tried(client, `${wandering(empty, moves)} ${load}`)) break;
      }
    } else await client.query(`delete from o.pick where changed`);
    const free = table.referred.map(({ from, fromColumns, columns: to }) =>
      `not exists (select from ${from} as c where ${
        fromColumns.map((name, at) => `c.${quoteIdent(name)} = l.${quoteIdent(to[at] ?? "")}`).join(" and ")
      })`
    ).join(" and ");
    await client.query(
      `create table o.held as select * from o.leaving as l where ${free === "" ? "false" : `not (${free})`}`,
    );
    await client.query(loadFrom(table, "select * from o.staying", "select * from o.own", "select * from o.changed"));
    await client.query(`create table o.less_rows as select * from ${table.rows}`);
    if (names.length > 0) await client.query(insertFrom(table, "select * from o.held"));
    await client.query(`create table o.now_rows as select * from ${table.rows}`);
    const { rows: [counts] } = await client.query<Damage>(`
      select (select count(*)::int from o.then_rows) as rows, (select count(*)::int from o.pick where gone) as gone,
             (select count(*)::int from (select whole_row::text from o.changed as whole_row except select whole_row::text from o.then_rows as whole_row) as q) as changed,
             (select count(*)::int from o.own) as own`);
    if (counts === undefined) throw new Error("no counts");
    return counts;
  });
}

async function addOwn(client: pg.Client, table: ScopedTable, own: readonly string[], n: number): Promise<void> {
  const { columns } = table;
  if (columns.length === 0) {
    await client.query(`insert into o.own select from generate_series(1, ${n === 901 ? 1 : 0})`);
    return;
  }
  const fresh = freshRow(table, n);
  const copied = (isFresh: (name: string) => boolean) =>
    `select ${
      columns.map(({ name }, at) => isFresh(name) ? `${fresh[at]} as ${quoteIdent(name)}` : `t.${quoteIdent(name)}`)
        .join(", ")
    }
       from (select t.* from o.then_rows as t join o.pick as p on p.tid = t.ctid where p.n = ${n} % (select greatest(count(*), 1) from o.pick) + 1) as t`;
  const ways = [
    copied((name) => own.includes(name)),
    copied((name) => own.includes(name) || table.uniques.includes(name)),
    `select ${fresh.map((value, at) => `${value} as ${quoteIdent(columns[at]?.name ?? "")}`).join(", ")}`,
  ];
  for (const select of ways) {
    const sql = `with new as (insert into ${table.sql} (${
      columnList(table)
    }) overriding system value ${select} returning *)
      insert into o.own select * from new`;
    if (await tried(client, sql)) {
      const { rows: [count] } = await client.query<{ n: number }>("select count(*)::int as n from o.own");
      if ((count?.n ?? 0) >= n - 900) return;
    }
  }
}
