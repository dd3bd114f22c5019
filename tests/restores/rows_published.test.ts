/** Rows of tables that publications of the user's send, and whose rows have no replica identity. */
import { beforeAll, describe, expect, it } from "vitest";
import { requireDeletable } from "../../src/shared/rows/apply/published_deletes.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { besideOf, bringBack, type Past, pastOf, patient, rowsOf } from "./rows_fixture.ts";
import { shrinkDifference } from "../../src/shared/rows/apply/put_back_steps.ts";

const cluster = useCluster();

/** Each has rows 1 to 9 with texts. */
const tables = ["bare", "of_nothing", "of_lost_index", "by_condition", "leaves", "in_schema"];

const made = `
create schema own;
create table own.bare (id integer, t text);
create table own.of_nothing (id integer primary key, t text);
alter table own.of_nothing replica identity nothing;
create table own.of_lost_index (id integer not null, t text);
create unique index lost on own.of_lost_index (id);
alter table own.of_lost_index replica identity using index lost;
drop index own.lost;
create table own.by_condition (id integer primary key, t text);
create table own.leaves (id integer, t text) partition by range (id);
create table own.leaf_1 partition of own.leaves for values from (0) to (5);
create table own.leaf_2 (id integer primary key, t text);
alter table own.leaves attach partition own.leaf_2 for values from (5) to (100);
create schema wide;
create table wide.in_schema (id integer, t text);
create table own.some_columns (id integer, t text);
create table own.of_another (id integer, t text);
`;

const schemaOf = (table: string) => table === "in_schema" ? "wide" : "own";
const all = [...tables, "some_columns", "of_another"].map((table) => `${schemaOf(table)}.${table}`);

let past: Past;
let was: Record<string, string[]>;
beforeAll(async () => {
  past = await pastOf(
    cluster(),
    made + all.map((name) => `insert into ${name} select i, 'row ' || i from generate_series(1, 9) i;`).join("\n"),
  );
  was = Object.fromEntries(await Promise.all(all.map(async (name) => [name, await rowsOf(past.url, name)])));
  await query(
    past.url,
    all.map((name) =>
      `update ${name} set t = 'other' where id in (2, 7); delete from ${name} where id = 3; insert into ${name} values (20, 'new');`
    ).join("\n") + `
     create publication theirs for table own.bare, own.of_nothing, own.of_lost_index, own.leaves, own.by_condition where (t <> 'x')
       with (publish_via_partition_root);
     create publication of_columns for table own.some_columns (t), own.of_another`,
  );
  const superuser = cluster().plainUrl(cluster().superuser, new URL(past.url).pathname.slice(1));
  await query(
    superuser,
    `create publication of_schema for tables in schema wide; create role stranger; alter table own.of_another owner to stranger;
     grant all on own.of_another to postgres`,
  );
  await query(superuser, "select pg_create_logical_replication_slot('heard', 'pgoutput')");
}, clusterMs);

const identities = () =>
  query(
    past.url,
    `select c.oid::regclass::text as name, c.relreplident as identity from pg_class as c
      where c.relnamespace in ('own'::regnamespace, 'wide'::regnamespace) and c.relkind in ('r', 'p') order by 1`,
  );

/** Deletes and updates that a subscriber of these tables hears of. */
async function changesHeard(): Promise<number> {
  const [row] = await query(
    past.url,
    `select count(*)::int as n from pg_logical_slot_get_binary_changes('heard', null, null, 'proto_version', '1',
       'publication_names', 'theirs,of_schema') as m where get_byte(m.data, 0) in (ascii('D'), ascii('U'))`,
  );
  return Number(row?.["n"]);
}

describe("rows of a table that is published without a replica identity", () => {
  it("cannot be deleted by the app itself", async () => {
    for (const table of tables) {
      await expect(query(past.url, `delete from ${schemaOf(table)}.${table} where id = 2`)).rejects.toMatchObject({
        code: table === "by_condition" ? "42P10" : "55000",
      });
    }
  });

  it.each(tables)("come back, with its identity as it was and subscribers told of each: %s", async (table) => {
    const name = `${schemaOf(table)}.${table}`;
    const before = await identities();
    await changesHeard();
    const { result } = await bringBack(past, await besideOf(past, schemaOf(table), table), "replace");
    expect(await rowsOf(past.url, name)).toEqual(was[name]);
    expect(await changesHeard()).toBe(result.updated + result.deleted);
    const lost = (row: Record<string, unknown>) => ({
      ...row,
      // An identity by an index that is gone cannot be said in SQL; none at all is the same.
      identity: row["name"] === name && row["identity"] === "i" ? "n" : row["identity"],
    });
    expect(await identities()).toEqual(before.map(lost));
  });

  it.each(["insert, update, delete", "insert, update"])("come back in steps as well, published %s", async (sent) => {
    const name = "own.bare";
    await query(
      past.url,
      `alter publication theirs set (publish = '${sent}'); alter table ${name} drop constraint if exists bare_pkey`,
    );
    await query(
      past.url,
      `alter publication theirs drop table ${name}; alter table ${name} add primary key (id)`,
    );
    await query(past.url, `update ${name} set t = 'again'; alter table ${name} replica identity nothing`);
    await query(past.url, `alter publication theirs add table ${name}`);
    const beside = await besideOf(past, "own", "bare");
    const done = await shrinkDifference(past.connection, beside.pairs, beside.keys, {
      ...patient,
      mode: "replace",
      capBytes: 1,
    });
    expect(done.updated).toBe(9);
    expect(await rowsOf(past.url, name)).toEqual(was[name]);
    expect(await identities()).toContainEqual({ name, identity: "n" });
  });

  it.each([
    ["some_columns", "a publication sends some of its columns only"],
    ["of_another", "it belongs to stranger"],
  ])(
    "are refused with the ways out where whole rows cannot identify them, and nothing is changed: %s",
    async (table, reason) => {
      const [before, there] = [await identities(), await rowsOf(past.url, `own.${table}`)];
      const beside = await besideOf(past, "own", table);
      const refusal = {
        code: "definitions_stuck",
        message: expect.stringContaining(reason),
        hint: expect.stringMatching(/primary key|replica identity/),
      };
      await expect(bringBack(past, beside, "replace")).rejects.toMatchObject(refusal);
      await expect(requireDeletable(past.connection, beside.pairs.map(({ fit }) => fit.live.oid))).rejects
        .toMatchObject(refusal);
      expect([await identities(), await rowsOf(past.url, `own.${table}`)]).toEqual([before, there]);
      // What only inserts needs no identity.
      await bringBack(past, beside, "missing");
      expect(await rowsOf(past.url, `own.${table}`)).toHaveLength(there.length + 3);
    },
  );

  it("come back where somebody publishes all tables there are, those of the restore too", async () => {
    const name = "own.of_nothing";
    await query(
      past.url,
      `insert into ${name} values (30, 'new'); alter table ${name} drop constraint of_nothing_pkey`,
    );
    await query(
      cluster().plainUrl(cluster().superuser, new URL(past.url).pathname.slice(1)),
      "create publication everything for all tables",
    );
    await bringBack(past, await besideOf(past, "own", "of_nothing"), "replace");
    expect(await rowsOf(past.url, name)).toEqual(was[name]);
  });
});
