/** A source whose change stream is read through a slot, a target of the same definitions, and random work between. */
import type { RowGroup } from "../../src/shared/changes/replay/apply_rows.ts";
import type { Message, Relation } from "../../src/shared/changes/decode/messages.ts";
import { decodeMessage } from "../../src/shared/changes/decode/pgoutput.ts";
import { openSession } from "../../src/shared/backup/session.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { type Cluster, freshDatabase, query } from "../support/cluster.ts";

export type Below = (bound: number) => number;

/** Types get other oids here than in a database where nothing was dropped before. */
const otherOids = `create type public.spent as enum ('x'); drop type public.spent; create table public.spent ();
drop table public.spent;`;

const definitions = `
create schema app; create schema extensions; create extension citext schema extensions;
create type app.mood as enum ('sad', 'so so', 'happy "x"');
create type app.pair as (a int, b text);
create domain app.code as text collate "C" not null check (value <> '');
create domain app.codes as int[];
create domain app.long_text as text not null;
create collation app.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

create table app.typed (
  id uuid primary key, e app.mood, d app.code, c app.pair, arr text[], dom_arr app.codes, pairs app.pair[], j jsonb, n numeric(20,3),
  ts timestamptz, b bytea, ci extensions.citext, ip inet, ch char(5), ok boolean, q "char", x xml, f float8, m money,
  boxes box[], bx box, r int4range, iv interval, js json, bits bit(4), nm name, big text,
  twice numeric generated always as (n * 2) stored);
alter table app.typed alter column big set storage external;
create table app."Wéird ""T\\able""" (
  "k ey" extensions.citext, v text, "Select" app.mood, "d" app.code, "bö\\d'y" text, primary key ("Select", "k ey", d));
alter table app."Wéird ""T\\able""" alter column "bö\\d'y" set storage external;
create table app.parted (id bigint, region text, v text, primary key (id, region)) partition by list (region);
create table app.parted_a partition of app.parted for values in ('a');
create table app.parted_b (v text, gone int, region text not null, id bigint not null);
alter table app.parted_b drop column gone;
alter table app.parted attach partition app.parted_b for values in ('b');
create table app.whole (a int, t text, ok boolean, ch char(4), ip inet, js json, pt point, x xml, f float8, c app.pair, big text);
alter table app.whole replica identity full; alter table app.whole alter column big set storage external;
create table app.whole_pk (id int primary key, v text, big text);
alter table app.whole_pk replica identity full; alter table app.whole_pk alter column big set storage external;
create table app.swapped (id int primary key, u int not null unique, big text, exclude using btree (u with =));
alter table app.swapped alter column big set storage external;
create table app.indexed (
  n int generated always as identity, k text collate app.loose not null, arr int[] not null, v text, len int generated always as (length(v)) stored);
create unique index indexed_identity on app.indexed (arr, k) include (v);
alter table app.indexed replica identity using index indexed_identity;
create table app.long_key (k text primary key, n int, pad app.long_text);
alter table app.long_key alter column k set storage external, alter column pad set storage external;
create table app.appended (n int, t text);
create table app.empty (); alter table app.empty replica identity full;
create table app.base (id int primary key, v text);
create table app.derived (primary key (id)) inherits (app.base);
create table app.parent (id int primary key);
create table app.child (id int primary key, parent int references app.parent);
`;

/** What is compared, leaves apart. */
export const tables = [
  "app.typed",
  `app."Wéird ""T\\able"""`,
  "app.parted_a",
  "app.parted_b",
  "app.whole",
  "app.whole_pk",
  "app.swapped",
  "app.indexed",
  "app.long_key",
  "app.appended",
  "app.empty",
  "app.base",
  "app.derived",
  "app.parent",
  "app.child",
];

export interface Pair {
  readonly sourceUrl: string;
  readonly targetUrl: string;
  /** With the session settings of a replay. */
  readonly target: Connection;
  /** The stream since the last call. */
  pull(): Promise<Message[]>;
  /** All rows of a table on both sides, as text, sorted. */
  rows(table: string): Promise<{ readonly source: string[]; readonly target: string[] }>;
  close(): Promise<void>;
}

/** Both sides get `sql` beside the definitions before the stream begins. */
export async function makePair(cluster: Cluster, sql: string = ""): Promise<Pair> {
  const urls = [];
  for (const before of ["", otherOids]) {
    const url = cluster.plainUrl("postgres", await freshDatabase(cluster, { platform: false }));
    await query(url, before + definitions + sql);
    urls.push(url);
  }
  const [sourceUrl = "", targetUrl = ""] = urls;
  const slot = `apply_${sourceUrl.slice(-8)}`;
  await query(sourceUrl, "create publication of_rows for all tables with (publish = 'insert, truncate')");
  const changing = tables.filter((table) => table !== "app.appended").join(", ");
  await query(sourceUrl, `create publication of_changes for table ${changing}`);
  const source = await openSession(openDatabase({ url: sourceUrl }), "holdfast:test");
  await source.query("select pg_create_logical_replication_slot($1, 'pgoutput')", [slot]);
  const target = await openSession(openDatabase({ url: targetUrl }), "holdfast:test");
  await target.execute("set session_replication_role = replica");
  return {
    sourceUrl,
    targetUrl,
    target,
    pull: async () => {
      const rows = await source.query(
        `select data from pg_logical_slot_get_binary_changes($1, null, null,
           'proto_version', '1', 'publication_names', 'of_rows,of_changes')`,
        [slot],
      );
      return rows.map((row) => decodeMessage(fromHex(row["data"] ?? "")));
    },
    rows: async (table) => {
      const text = `select whole_row::text as row from only ${table} as whole_row order by 1`;
      const read = async (connection: Connection) => (await connection.query(text)).map((row) => row["row"] ?? "");
      return { source: await read(source), target: await read(target) };
    },
    close: async () => {
      await source.query("select pg_drop_replication_slot($1)", [slot]);
      await source.close();
      await target.close();
    },
  };
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 - 1 }, (_, at) => parseInt(text.slice(2 * at + 2, 2 * at + 4), 16));
}

/** Applies messages; after each transaction `flush` says whether the group ends. What is left over is applied too. */
export async function applyMessages(
  target: Connection,
  group: RowGroup,
  messages: readonly Message[],
  flush: (group: RowGroup) => boolean,
): Promise<{ readonly groups: number; readonly inserted: number; readonly updated: number; readonly deleted: number }> {
  const relations = new Map<number, Relation>();
  const of = (oid: number): Relation => {
    const relation = relations.get(oid);
    if (relation === undefined) throw new Error("a change of a table that was not announced");
    return relation;
  };
  const sum = { groups: 0, inserted: 0, updated: 0, deleted: 0 };
  const apply = async () => {
    if (group.changes === 0) return;
    await target.execute("begin");
    try {
      const counts = await group.apply(target);
      await target.execute("commit");
      sum.groups++;
      sum.inserted += counts.inserted;
      sum.updated += counts.updated;
      sum.deleted += counts.deleted;
    } catch (error) {
      await target.execute("rollback");
      throw error;
    }
    group.clear();
  };
  for (const message of messages) {
    if (message.kind === "relation") relations.set(message.relation.oid, message.relation);
    else if (message.kind === "truncate") group.truncate(message.relations.map(of), message);
    else if (message.kind === "insert" || message.kind === "update" || message.kind === "delete") {
      group.add(of(message.relation), message);
    } else if (message.kind === "commit" && flush(group)) await apply();
  }
  await apply();
  return sum;
}

/** Statements of random work on every table, as one transaction's texts. */
export function randomStatement(below: Below): string {
  const pick = (...items: string[]): string => items[below(items.length)] ?? "null";
  const int = (bound: number) => String(below(bound));
  const words = () =>
    pick("''", "'\\N'", "'\\.'", "e'a\\tb\\nc\\r\\\\'", "'ü \"日本\" 😀'", "'x'", "'{NULL,\"}'", "null");
  const large = () => `(select string_agg(md5(i::text || '${int(1e6)}'), '') from generate_series(1, 90) i)`;
  const maybeLarge = () => pick(large(), words());
  const mood = () => pick("'sad'", "'so so'", "'happy \"x\"'");
  const uuid = () => `('00000000-0000-0000-0000-0000000000' || lpad(${int(25)}::text, 2, '0'))::uuid`;
  const pair = () => pick(`row(${int(9)}, 'q "(,)\\ ')::app.pair`, "row(null, null)::app.pair", "null");
  const typed: Record<string, () => string> = {
    e: mood,
    d: () => pick("'a'", "'B c'", "'\\'"),
    c: pair,
    arr: () => pick(`array['a,b', null, '', 'NULL', '"\\']`, "'{}'", "'[0:1]={x,y}'", "null"),
    dom_arr: () => pick("'{1,2}'", "'{{1},{2}}'", "null"),
    pairs: () => pick("array[row(1,'x,\"')::app.pair, null]", "null"),
    j: () => pick(`'{"a": [1, null, "\\u00e9"]}'`, "'null'", "null", "jsonb_build_object('t', repeat('z', 3000))"),
    n: () => pick("1.5", "'NaN'", "-0.001", "99999999999999999.999"),
    ts: () => pick("'infinity'", "'-infinity'", "'0044-03-15 BC'", "'2026-01-01 00:00:00.000001+03'"),
    b: () => pick("'\\x00ff5c'", "''", "null", `decode(repeat('${int(9)}a', 4000), 'hex')`),
    ci: () => pick("'Ab'", "'aB'", "'ab'"),
    ip: () => pick("'10.0.0.1'", "'10.0.0.0/8'", "'::1'"),
    ch: () => pick("'a'", "'ab '", "''"),
    ok: () => pick("true", "false", "null"),
    q: () => pick("'a'", "'\\200'", "''"),
    x: () => pick("'<a>&amp;</a>'", "'text'", "null"),
    f: () => pick("0.1", "'-0'", "'NaN'", "1e-307", "'-infinity'"),
    m: () => pick("'12.34'", "'-5'", "null"),
    boxes: () => pick("array['(1,2),(3,4)', '(5,6),(7,8)']::box[]", "null"),
    bx: () => pick("'(1,2),(3,4)'", "null"),
    r: () => pick("'[1,5)'", "'empty'", "'(,)'"),
    iv: () => pick("'1 mon -2 days 03:00:00.5'", "'-1 year'"),
    js: () => pick(`'{"b": 1,  "b": 2}'`, "null"),
    bits: () => pick("b'0101'", "b'0000'"),
    nm: () => pick("'n1'", `'N "2'`),
    big: maybeLarge,
  };
  const columns = Object.keys(typed);
  const value = (column: string) => typed[column]?.() ?? "null";
  const some = columns.filter(() => below(4) === 0);
  const set = (some.length === 0 ? ["f"] : some).map((column) => `${column} = ${value(column)}`).join(", ");
  const weird = `app."Wéird ""T\\able"""`;
  const key = () => pick("'Abc'", "'abc'", "'x\"y'", "'zz'");
  const wholeRow = () =>
    `${int(2)}, ${pick("'a'", "''", "null")}, ${pick("true", "false", "null")}, ${pick("'a'", "' b'")}, ${
      pick("'10.0.0.1'", "'10.0.0.0/8'")
    }, ${pick(`'{"a":1}'`, `'{"a": 1}'`)}, ${pick("'(1,2)'", "'(-0,1)'")}, ${pick("'<a/>'", "null")}, ${
      pick("'-0'", "0", "0.1")
    }, ${pick("row(1,'x')::app.pair", "row(null,null)::app.pair", "null")}, ${pick("null", "repeat('w', 3000)")}`;
  const one = "ctid = (select ctid from app.whole order by a, t, ok, ch, ip, js::text, f, c limit 1 offset";
  const statements: (() => string)[] = [
    () =>
      `insert into app.typed (id, ${columns.join(", ")}) values (${uuid()}, ${columns.map(value).join(", ")})
           on conflict do nothing`,
    () => `update app.typed set ${set} where id = ${uuid()}`,
    () => {
      const to = uuid();
      return `update app.typed set id = ${to}, ok = not ok where id = ${uuid()}
              and not exists (select from app.typed as o where o.id = ${to})`;
    },
    () => `delete from app.typed where id in (${uuid()}, ${uuid()})`,
    () =>
      `insert into ${weird} values (${key()}, ${words()}, ${mood()}, ${value("d")}, ${maybeLarge()})
           on conflict do nothing`,
    () => `update ${weird} set v = ${words()} where "Select" = ${mood()}`,
    () => `update ${weird} set "k ey" = upper("k ey"), v = ${words()} where "Select" = ${mood()}`,
    () => `update ${weird} set d = d || '+' where "k ey" operator(extensions.=) ${key()} and length(d) < 9`,
    () => `delete from ${weird} where "Select" = ${mood()} and "k ey" operator(extensions.=) ${key()}`,
    () => `insert into app.parted values (${int(30)}, ${pick("'a'", "'b'")}, ${words()}) on conflict do nothing`,
    () => `update app.parted set v = ${words()} where id < ${int(30)}`,
    () =>
      `update app.parted as p set region = ${pick("'a'", "'b'")} where id = ${int(30)}
           and not exists (select 1 from app.parted as o where o.id = p.id and o.region <> p.region)`,
    () => `delete from app.parted where id % 7 = ${int(7)}`,
    () => `insert into app.whole values (${wholeRow()}), (${wholeRow()})`,
    () => `insert into app.whole select w.* from app.whole as w where w.a = ${int(2)} limit 2`,
    () => `update app.whole set f = ${pick("0", "'-0'", "0.1")} where ${one} ${int(9)})`,
    () => `update app.whole set ok = ${pick("true", "null")} where a = ${int(2)} and t = 'a'`,
    () => `delete from app.whole where ${one} ${int(9)})`,
    () => `insert into app.whole_pk values (${int(20)}, ${words()}, ${maybeLarge()}) on conflict do nothing`,
    () => `update app.whole_pk set v = ${words()} where id < ${int(20)}`,
    () =>
      `update app.whole_pk set id = id + 100 where id = ${int(20)} and id + 100 not in (select id from app.whole_pk)`,
    () => `delete from app.whole_pk where id % 5 = ${int(5)}`,
    () => `insert into app.swapped values (${int(20)}, ${int(20)}, ${maybeLarge()}) on conflict do nothing`,
    () => swap(below),
    () => swap(below),
    () => `update app.swapped set id = -id where id = ${int(20)} and -id not in (select id from app.swapped)`,
    () => `delete from app.swapped where id % 6 = ${int(6)}`,
    () =>
      `insert into app.indexed (k, arr, v) values (${key()}, array[${
        int(4)
      }, null], ${words()}) on conflict do nothing`,
    () => `update app.indexed set v = ${words()} where arr = array[${int(4)}, null]::int[]`,
    () =>
      `update app.indexed set k = swap.k from (values ('Abc'), ('abc')) as swap(k)
           where app.indexed.k = swap.k collate app.loose and app.indexed.arr = array[${int(4)}, null]::int[]`,
    () => `delete from app.indexed where n % 4 = ${int(4)}`,
    () =>
      `insert into app.long_key select md5('${int(9)}') || repeat('k', 2200), ${int(9)}, repeat(md5('p'), 80)
           on conflict do nothing`,
    () => `update app.long_key set n = n + 1 where n < ${int(9)}`,
    () => `update app.long_key set pad = repeat(md5('${int(99)}'), 70) where n % 3 = ${int(3)}`,
    () => `delete from app.long_key where n = ${int(9)}`,
    () => `insert into app.appended values (${int(9)}, ${words()}), (null, ${words()})`,
    () => `insert into app.empty default values`,
    () => `delete from app.empty where ctid = (select ctid from app.empty limit 1)`,
    () => `insert into app.${pick("base", "derived")} values (${int(9)}, ${words()}) on conflict do nothing`,
    () => `update app.base set v = ${words()} where id = ${int(9)}`,
    () => `update only app.base set v = ${words()} where id = ${int(9)}`,
    () => `delete from only app.${pick("base", "derived")} where id = ${int(9)}`,
    () => `insert into app.parent values (${int(20)}) on conflict do nothing`,
    () => `insert into app.child select ${int(20)}, id from app.parent limit 1 on conflict do nothing`,
  ];
  const rare: (() => string)[] = [
    () => "truncate app.parent, app.child",
    () => "truncate app.parent cascade",
    () => "truncate app.parted",
    () => "truncate only app.base",
    () => "truncate app.indexed restart identity",
    () => `truncate ${weird}`,
    () => "truncate app.appended, app.whole",
  ];
  if (below(60) === 0) return rare[below(rare.length)]?.() ?? "";
  return statements[below(statements.length)]?.() ?? "";
}

/** Two rows exchange their unique values, and sometimes keep a large one. */
function swap(below: Below): string {
  const [a, b] = [below(20), below(20)];
  return `do $$ declare x int; y int; begin
    select u into x from app.swapped where id = ${a}; select u into y from app.swapped where id = ${b};
    if x is null or y is null or x = y then return; end if;
    update app.swapped set u = -1 where id = ${a}; update app.swapped set u = x where id = ${b};
    update app.swapped set u = y where id = ${a}; end $$`;
}

/** A transaction of random statements; a part of it may be rolled back, or all. */
export function randomTransaction(below: Below): string {
  const statements = Array.from({ length: 1 + below(6) }, () => randomStatement(below));
  if (below(5) === 0) {
    statements.splice(below(statements.length), 0, `savepoint s; ${randomStatement(below)}; rollback to savepoint s`);
  }
  return `begin; ${statements.join(";\n")}; ${below(15) === 0 ? "rollback" : "commit"}`;
}
