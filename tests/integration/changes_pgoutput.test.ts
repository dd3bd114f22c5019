import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { unchanged } from "../../src/shared/changes/decode/messages.ts";
import { freshDatabase, query, useCluster, withClient } from "../support/cluster.ts";
import { expectStreamIsJournal, peek, type StreamTransaction, transactionsOf, witnessSql } from "./changes_witness.ts";

/** Text that no compression makes small, so that it lives out of line. */
const bulky = (label: string) =>
  `(select string_agg(encode(sha512(('${label}' || i)::bytea), 'base64'), '') from generate_series(1, 150) as i)`;

describe.each([15, 17] as const)("the stream of PostgreSQL %i says what SQL says", (version) => {
  const cluster = useCluster({
    version,
    settings: { track_commit_timestamp: "on", max_prepared_transactions: "5" },
  });
  let url = "";

  beforeEach(async () => {
    const database = await freshDatabase(cluster(), { platform: false });
    await query(cluster().plainUrl(cluster().superuser), `alter database ${database} owner to postgres`);
    url = cluster().plainUrl("postgres", database);
    await query(url, witnessSql);
    expect(await query(url, "select rolsuper from pg_roles where rolname = current_user")).toEqual([
      { rolsuper: false },
    ]);
  });

  afterEach(async () => {
    await query(url, "select pg_drop_replication_slot(slot_name) from pg_replication_slots");
  });

  /** Publishes tables and watches them; `inserts` are published without updates and deletes. */
  async function publish(tables: readonly string[], inserts: readonly string[] = []): Promise<void> {
    const list = (names: readonly string[]) => names.length > 0 ? `for table ${names.join(", ")}` : "";
    const watched = [...tables, ...inserts].map((name) => `select witness.watch('${name.replaceAll("'", "''")}');`);
    await query(
      url,
      `create publication all_changes ${list(tables)};
       create publication inserts ${list(inserts)} with (publish = 'insert, truncate'); ${watched.join("\n")}`,
    );
    await query(url, "select pg_create_logical_replication_slot('s', 'pgoutput')");
  }

  const checked = () => expectStreamIsJournal(url, "s", "all_changes,inserts");
  const changesOf = (transactions: readonly StreamTransaction[]) => transactions.flatMap(({ changes }) => changes);

  it("for every replica identity, with keys that change and keys that stay", async () => {
    await query(
      url,
      `create table by_key (a int, b text, c int, primary key (c, a));
       create table by_index (id int primary key, code text not null unique, note text);
       alter table by_index replica identity using index by_index_code_key;
       create table whole (a int, b text); alter table whole replica identity full;
       create table nothing (id int primary key, v text); alter table nothing replica identity nothing;
       create table keyless (v text);
       create table later (id int primary key deferrable, v text);
       create table columnless ();`,
    );
    await publish(["by_key", "by_index", "whole"], ["nothing", "keyless", "later", "columnless"]);
    for (const table of ["by_key (a, b, c)", "by_index (id, code, note)"]) {
      await query(url, `insert into ${table} select i, 'v' || i, i * 10 from generate_series(1, 6) as i`);
    }
    await query(
      url,
      `insert into whole values (1, 'x'), (1, 'x'), (null, null), (2, '');
       insert into nothing values (1, 'a'), (2, null); insert into keyless values ('a'), (null), ('');
       insert into later values (1, 'a'); insert into columnless default values`,
    );
    await query(url, "update by_key set b = b || '!' where a < 3; update by_key set a = a + 100 where a = 3");
    await query(url, "update by_key set c = 7, b = null where a = 4; update by_key set a = a where a = 5");
    await query(url, "update by_index set id = id + 50 where id = 1; update by_index set code = 'new' where id = 2");
    await query(url, "update whole set b = 'y' where a = 1; update whole set a = 5 where a is null");
    await query(
      url,
      "update nothing set v = 'b'; delete from keyless; update later set id = 9; delete from columnless",
    );
    await query(url, "delete from by_key where a > 4; delete from by_index; delete from whole where a = 1");
    const changes = changesOf(await checked());
    const kinds = new Set(changes.map(({ change, relation }) => `${relation.identity} ${change.kind}`));
    expect([...kinds].sort()).toEqual(
      ["default delete", "default insert", "default update", "full delete", "full insert", "full update"]
        .concat(["index delete", "index insert", "index update", "nothing insert"]),
    );
    const olds = changes.map(({ change }) => change.kind === "update" ? change.old?.what ?? "none" : "");
    expect(new Set(olds)).toEqual(new Set(["", "none", "key", "row"]));
  });

  it("about large values that an update left alone, and about those that it changed", async () => {
    await query(
      url,
      `create table by_key (id int primary key, small text, big text, other text);
       create table whole (id int, small text, big text, other text); alter table whole replica identity full;`,
    );
    await publish(["by_key", "whole"]);
    for (const table of ["by_key", "whole"]) {
      await query(
        url,
        `insert into ${table} select 1, 'a', ${bulky("one")}, ${bulky("two")};
         insert into ${table} values (2, 'b', 'short', null);
         update ${table} set small = 'c' where id = 1;
         update ${table} set big = ${bulky("three")} where id = 1;
         update ${table} set big = other, other = null where id = 1;
         update ${table} set id = 10 where id = 1;
         update ${table} set big = null where id = 10;
         update ${table} set big = ${bulky("four")}, small = '' where id in (2, 10);
         delete from ${table} where id = 10;`,
      );
    }
    expect(await query(url, "select length(big) > 10000 and pg_column_size(big) > 10000 as big from by_key")).toEqual([
      { big: true },
    ]);
    const changes = changesOf(await checked());
    for (const table of ["by_key", "whole"]) {
      const kept = changes.filter(({ relation }) => relation.name === table).map(({ change }) =>
        change.kind === "delete" ? "" : change.row.map((value) => value === unchanged ? "u" : ".").join("")
      );
      expect(kept).toEqual(["....", "....", "..uu", "...u", "....", "..u.", "....", "....", "....", ""]);
    }
  });

  it("about nulls, empty texts, every sign, and the text of every kind of type", async () => {
    await query(
      url,
      `create type mood as enum ('happy', 'a ''quoted'' "one"'); create domain short as varchar(7);
       create type pair as (a int, b text);
       create schema "Käse ""ö""";
       create table "Käse ""ö"""."Tage ""buch"" 日" ("grö ße" text, "ID" int primary key, "'" text);
       create table typed (id bigint primary key, b bool, c char(5), v short, n numeric(12, 4), r real, d double precision,
         x bytea, j json, jb jsonb, a text[], m mood, ms mood[], p pair, t timestamptz, i interval, u uuid, rg int4range,
         nm name, bits bit varying, ip inet, ch "char", o oid, rc regclass);
       alter table typed replica identity full;`,
    );
    await publish([`"Käse ""ö"""."Tage ""buch"" 日"`, "typed"]);
    await query(
      url,
      `insert into "Käse ""ö"""."Tage ""buch"" 日" values
         (null, 1, ''), ('', 2, null), (e'tab\\t nl\\n cr\\r \\\\ bell\\x07 ü 日本 \\U0001F600', 3, '''"'),
         (e'\\uFEFFmark', 4, e'\\u200d'), (repeat('é', 3000), 5, '\\N'), ('${"x".repeat(48)}', 6, '${"x".repeat(49)}');
       update "Käse ""ö"""."Tage ""buch"" 日" set "ID" = "ID" + 100, "'" = null;
       insert into typed values
         (9223372036854775807, true, 'ab', ' x ', 12.5, 0.1, 1e-200, '\\x00ff', '{"a" :  1}', '{"b": null}',
          '{"a,b",null,"",NULL}', 'happy', '{"a ''quoted'' \\"one\\""}', '(1,)', '2026-01-01 00:00:00.000001+02', '1 mon -1 day',
          'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '[1,5)', 'nm', B'101', '10.0.0.1/8', 'c', 4294967295, 'pg_class'),
         (-1, false, '', '', 'NaN', '-0', 'NaN', '', 'null', 'null', '{}', null, '{}', '(,"")', 'infinity', '0', null,
          'empty', '', B'', '::1', '', 0, null);
       insert into typed (id, p) values (0, row(null, null));
       update typed set b = not b, m = 'a ''quoted'' "one"'; delete from typed;`,
    );
    const transactions = await checked();
    expect(changesOf(transactions).length).toBe(6 + 6 + 3 + 3 + 3);
    const types = transactions.flatMap(({ others }) => others).filter((message) => message.kind === "type");
    // Of a domain the server gives its own oid with the name of its base type.
    const named = await query(
      url,
      `select 'type' as kind, t.oid::int as oid, n.nspname as schema, coalesce(b.typname, t.typname) as name
       from pg_type t left join pg_type b on b.oid = t.typbasetype
       join pg_namespace n on n.oid = coalesce(b.typnamespace, t.typnamespace)
       where t.typname in ('mood', 'short', 'pair', '_mood')`,
    );
    const byName = (a: { name?: unknown }, b: { name?: unknown }) => String(a.name) < String(b.name) ? -1 : 1;
    expect(types.sort(byName)).toEqual(named.sort(byName));
  });

  it("about tables with generated and with dropped columns, and tables altered and renamed between changes", async () => {
    await query(
      url,
      `create table t (id int primary key, gone text, twice int generated always as (id * 2) stored, v varchar(9),
         at bigint generated always as identity);
       alter table t drop column gone;`,
    );
    await publish(["t"]);
    await query(url, "insert into t (id, v) values (1, 'a'); update t set v = 'b'");
    await query(
      url,
      `begin; insert into t (id, v) values (2, 'in'); alter table t add column added text default 'late';
       update t set v = 'after' where id = 2; alter table t rename to renamed; insert into renamed (id) values (3);
       alter table renamed drop column v; delete from renamed where id = 2; commit`,
    );
    await query(url, "create schema other; alter table renamed set schema other");
    await query(
      url,
      "alter table other.renamed rename column added to added2; alter table other.renamed alter at type int",
    );
    await query(url, "insert into other.renamed (id, added2) values (4, null)");
    await query(url, "alter table other.renamed replica identity full; update other.renamed set added2 = 'x'");
    const changes = changesOf(await checked());
    const names = changes.map(({ relation }) => `${relation.schema}.${relation.name} ${relation.columns.length}`);
    expect([...new Set(names)]).toEqual([
      "public.t 3",
      "public.t 4",
      "public.renamed 4",
      "public.renamed 3",
      "other.renamed 3",
    ]);
  });

  it("about partitions, as leaves, rows that move between them included", async () => {
    await query(
      url,
      `create table p (id int, region text, v text, primary key (id, region)) partition by list (region);
       create table p_a partition of p for values in ('a');
       create table p_rest partition of p default partition by range (id);
       create table p_low partition of p_rest for values from (0) to (100);
       create table p_high (v text, region text not null, id int not null);
       alter table p_rest attach partition p_high for values from (100) to (200);`,
    );
    await publish(["p"]);
    await query(url, "insert into p values (1, 'a', 'x'), (2, 'b', 'y'), (150, 'c', 'z')");
    await query(url, "update p set v = v || '2'; update p set id = id + 100 where region = 'b'");
    await query(url, "update p set region = 'q' where id = 1; delete from p where id = 150");
    const oids = await query(
      url,
      "select oid::int as oid, relname as name from pg_class where relname ~ '^p_(a|low|high)$'",
    );
    const changes = changesOf(await checked());
    const seen = new Map(changes.map(({ relation }) => [relation.oid, relation.name]));
    expect(seen).toEqual(new Map(oids.map(({ oid, name }) => [Number(oid), String(name)])));
    await query(url, "truncate p");
    const truncated = transactionsOf(await peek(url, "s", "all_changes")).at(-1)?.others.find(({ kind }) =>
      kind === "truncate"
    );
    expect(truncated).toMatchObject({ cascade: false, restartIdentity: false });
    expect(truncated?.kind === "truncate" ? [...truncated.relations].sort() : []).toEqual([...seen.keys()].sort());
  });

  it("about truncates: every table reached, cascade and restart", async () => {
    await query(
      url,
      `create table parent (id int primary key); create table child (id int primary key references parent);
       create table a (id serial primary key); create table keyless (v text); create table outside (id int references a);`,
    );
    await publish(["parent", "child", "a"], ["keyless"]);
    const oid = async (name: string) =>
      Number((await query(url, `select '${name}'::regclass::oid::int as oid`))[0]?.["oid"]);
    const [parent, child, a, keyless] = [await oid("parent"), await oid("child"), await oid("a"), await oid("keyless")];
    await query(url, "truncate parent cascade");
    await query(url, "truncate a, outside, keyless restart identity");
    await query(url, "truncate only child; truncate a restart identity cascade");
    await query(url, "begin; truncate a cascade; rollback");
    await query(url, "truncate outside");
    const truncates = transactionsOf(await peek(url, "s", "all_changes,inserts")).flatMap(({ others }) => others)
      .flatMap((message) =>
        message.kind === "truncate" ? [{ ...message, relations: [...message.relations].sort() }] : []
      );
    const wanted = (relations: number[], cascade: boolean, restartIdentity: boolean) => ({
      kind: "truncate",
      relations: relations.sort(),
      cascade,
      restartIdentity,
    });
    expect(truncates).toEqual([
      wanted([parent, child], true, false),
      wanted([a, keyless], false, true),
      wanted([child], false, false),
      wanted([a], true, true),
    ]);
  });

  it("about savepoints that were rolled back, prepared and concurrent transactions, in the order of their commits", async () => {
    await query(url, "create table t (id int primary key, v text)");
    await publish(["t"]);
    await query(
      url,
      `begin; insert into t values (1, 'kept'); savepoint s; insert into t values (2, 'lost'); update t set v = 'lost';
       rollback to s; savepoint s2; insert into t values (3, 'kept'); savepoint s3; delete from t; rollback to s3;
       release s2; insert into t values (2, 'second'); commit`,
    );
    await query(url, "begin; insert into t values (99, 'never'); rollback");
    await withClient(url, async (first) => {
      await first.query("begin");
      await first.query("insert into t values (10, 'first')");
      await withClient(url, async (second) => {
        await second.query("begin");
        await second.query("insert into t values (20, 'second')");
        await first.query("update t set v = 'first again' where id = 10");
        await second.query("commit");
      });
      await first.query("commit");
    });
    await query(url, "begin; insert into t values (30, 'prepared'); prepare transaction 'p1'");
    await query(url, "begin; insert into t values (31, 'undone'); prepare transaction 'p2'");
    await query(url, "insert into t values (40, 'between')");
    await query(url, "rollback prepared 'p2'");
    const open = changesOf(transactionsOf(await peek(url, "s", "all_changes"))).map(({ change }) => change);
    await query(url, "commit prepared 'p1'");
    const transactions = await checked();
    const ids = changesOf(transactions).map(({ change }) => change.kind === "insert" ? change.row[0] : change.kind);
    expect(ids).toEqual(["1", "3", "2", "20", "10", "update", "40", "30"]);
    expect(open.length).toBe(ids.length - 1);
    const commits = transactions.map(({ commit }) => commit.commitLsn);
    expect(commits).toEqual([...commits].sort((x, y) => x < y ? -1 : 1));
  });

  it("about positions: each commit lies between those the server gave before and after it", async () => {
    await query(url, "create table t (id int primary key)");
    await publish(["t"]);
    const positions: bigint[] = [];
    const look = async () => {
      const [row] = await query(url, "select pg_current_wal_insert_lsn()::text as lsn");
      positions.push(parseLsn(String(row?.["lsn"])));
    };
    for (let id = 0; id < 5; id++) {
      await look();
      await query(url, `insert into t values (${id})`);
    }
    await look();
    const transactions = await checked();
    expect(transactions.length).toBe(5);
    transactions.forEach(({ commit }, index) => {
      expect(commit.commitLsn >= (positions[index] ?? 0n)).toBe(true);
      expect(commit.endLsn <= (positions[index + 1] ?? 0n)).toBe(true);
    });
  });

  it("about messages, within a transaction and outside of one", async () => {
    await query(url, "create table t (id int primary key)");
    await publish(["t"]);
    const [row] = await query(
      url,
      `select pg_logical_emit_message(true, 'holdfast ü', 'text 日')::text as "inside",
         pg_logical_emit_message(false, '', '\\x00ff80'::bytea)::text as outside`,
    );
    await query(url, "begin; select pg_logical_emit_message(true, 'lost', 'x'); rollback");
    await query(url, `begin; select pg_logical_emit_message(false, 'stays', ${bulky("m")}); rollback`);
    // What is outside of transactions is not written through by itself.
    await query(url, "insert into t values (1)");
    const peeked = await peek(url, "s", "all_changes");
    const messages = peeked.flatMap(({ lsn, message }) => message.kind === "message" ? [{ lsn, message }] : []);
    for (const { lsn, message } of messages) expect(message.lsn).toBe(lsn);
    const by = (prefix: string) => messages.find(({ message }) => message.prefix === prefix)?.message;
    expect(messages.length).toBe(3);
    expect(by("holdfast ü")).toMatchObject({ transactional: true, content: new TextEncoder().encode("text 日") });
    expect(by("")).toMatchObject({ transactional: false, content: Uint8Array.of(0, 255, 128) });
    const [long] = await query(url, `select ${bulky("m")} as text`);
    expect(new TextDecoder().decode(by("stays")?.content)).toBe(long?.["text"]);
    expect([by("holdfast ü")?.lsn, by("")?.lsn]).toEqual([
      parseLsn(String(row?.["inside"])),
      parseLsn(String(row?.["outside"])),
    ]);
  });

  it("about an idle slot: nothing", async () => {
    await query(url, "create table t (id int primary key)");
    await publish(["t"]);
    expect(await peek(url, "s", "all_changes")).toEqual([]);
  });
});
