import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { proveCopy, type ProveExpectations } from "../../src/shared/restore/prove.ts";
import { hashRows } from "../../src/shared/restore/row_hash.ts";
import { type Cluster, clusterMs, freshDatabase, startTestCluster } from "../support/cluster.ts";
import { databaseOf } from "./restore_fixture.ts";

const definitions = `
  create table people (id integer primary key, name text, weight float8, tags jsonb, born timestamptz);
  create table pets (owner integer references people, name text);
  create index on pets (name);
  create sequence tickets;
  create function shout(text) returns text language sql as 'select upper($1)';
  create view grown as select id from people where weight > 50;
  create policy own on people using (name = current_user);
  create trigger check_pets before insert on pets for each row execute function suppress_redundant_updates_trigger();
  alter table pets disable trigger check_pets;
  grant select on people to prove_reader;
  comment on table pets is 'animals';
`;
const rows = `
  insert into people select i, 'p' || i, i * 1.5, jsonb_build_object('n', i), '2024-01-01Z'::timestamptz + i * interval '1 day'
    from generate_series(1, 50) i;
  update people set weight = '-0', tags = 'null' where id = 7;
  update people set weight = 'NaN', born = 'infinity', tags = null where id = 8;
  insert into pets select 1 + i % 50, 'pet ' || i from generate_series(1, 80) i;
  insert into pets select * from pets where name = 'pet 3';
  select setval('tickets', 9);
`;

const nothingAnnounced: ProveExpectations = {
  target: "bare",
  skipped: [],
  rolesCreated: [],
  ownersKept: [],
  settingsLost: [],
};

describe("a copy is compared with its source", () => {
  let cluster: Cluster;
  let source: Connection;
  let copy: Connection;

  beforeAll(async () => {
    cluster = await startTestCluster({ platform: false });
    const [one, other] = [await freshDatabase(cluster), await freshDatabase(cluster)];
    source = await databaseOf(cluster, "postgres", one).connect("prove");
    copy = await databaseOf(cluster, "postgres", other).connect("prove");
    await source.execute("create role prove_reader; create role prove_owner");
    for (const connection of [source, copy]) await connection.execute(definitions);
    await source.execute(rows);
    // The same rows in another physical order, and rows that came and went.
    await copy.execute(`${rows}; insert into people (id) values (99); delete from people where id = 99;
      create temp table held as select * from pets order by name desc; delete from pets; insert into pets select * from held;
      drop table held`);
  }, clusterMs);

  afterAll(async () => {
    await source?.close();
    await copy?.close();
    await cluster?.destroy();
  }, clusterMs);

  it("and is the same, whatever the order of its rows", async () => {
    expect(await proveCopy(source, copy, nothingAnnounced)).toEqual([]);
  });

  const cases: readonly (readonly [change: string, undo: string, found: readonly string[]])[] = [
    ["update people set name = 'P1' where id = 1", "update people set name = 'p1' where id = 1", [
      "rows table public.people",
    ]],
    [
      "update people set name = case id when 1 then 'p2' else 'p1' end where id in (1, 2)",
      "update people set name = 'p' || id where id in (1, 2)",
      ["rows table public.people"],
    ],
    ["update people set weight = 0 where id = 7", "update people set weight = '-0' where id = 7", [
      "rows table public.people",
    ]],
    ["update people set tags = 'null' where id = 8", "update people set tags = null where id = 8", [
      "rows table public.people",
    ]],
    ["update people set name = '' where id = 3", "update people set name = 'p3' where id = 3", [
      "rows table public.people",
    ]],
    [
      "update people set born = born + interval '1 microsecond' where id = 4",
      "update people set born = born - interval '1 microsecond' where id = 4",
      ["rows table public.people"],
    ],
    // Two equal rows more: an exclusive or alone would not see them.
    [
      "insert into pets values (1, 'twin'), (1, 'twin')",
      "delete from pets where name = 'twin'",
      ["rows table public.pets"],
    ],
    ["select setval('tickets', 10)", "select setval('tickets', 9)", ["sequence sequence public.tickets"]],
    ["select setval('tickets', 9, false)", "select setval('tickets', 9)", ["sequence sequence public.tickets"]],
    ["drop index pets_name_idx", "create index on pets (name)", ["missing index public.pets_name_idx"]],
    ["create table more ()", "drop table more", ["extra table public.more"]],
    [
      "revoke select on people from prove_reader",
      "grant select on people to prove_reader",
      ["privileges table public.people"],
    ],
    ["alter table pets owner to prove_owner", "alter table pets owner to postgres", ["owner table public.pets"]],
    [
      "alter policy own on people using (true)",
      "alter policy own on people using (name = current_user)",
      ["definition policy own on public.people"],
    ],
    [
      "alter table pets enable trigger check_pets",
      "alter table pets disable trigger check_pets",
      ["definition trigger check_pets on public.pets"],
    ],
    [
      "create or replace function shout(text) returns text language sql as 'select lower($1)'",
      "create or replace function shout(text) returns text language sql as 'select upper($1)'",
      ["definition function public.shout(pg_catalog.text)"],
    ],
    ["comment on table pets is 'beasts'", "comment on table pets is 'animals'", ["definition table public.pets"]],
  ];
  for (const [change, undo, found] of cases) {
    it(`finds: ${change}`, async () => {
      const path = "set search_path = public; ";
      await copy.execute(path + change);
      const differences = await proveCopy(source, copy, nothingAnnounced);
      await copy.execute(path + undo);
      expect(differences.map((one) => `${one.kind} ${one.name}`)).toEqual(found);
    });
  }

  it("leaves out what the restore announced, and nothing else", async () => {
    await copy.execute("set search_path = public; drop index pets_name_idx; alter table pets owner to prove_owner");
    const announced = { skipped: [{ identity: "index public.pets_name_idx" }], ownersKept: ["table public.pets"] };
    expect(await proveCopy(source, copy, { ...nothingAnnounced, ...announced })).toEqual([]);
    expect(await proveCopy(source, copy, nothingAnnounced)).toHaveLength(2);
    await copy.execute("set search_path = public; alter table pets owner to postgres; create index on pets (name)");
  });

  it("tells no value of a row", async () => {
    await copy.execute("set search_path = public; update people set name = 'secret name' where id = 1");
    const differences = await proveCopy(source, copy, nothingAnnounced);
    await copy.execute("set search_path = public; update people set name = 'p1' where id = 1");
    expect(differences).toHaveLength(1);
    expect(JSON.stringify(differences)).not.toContain("secret name");
  });

  it("hashes tables without rows and without columns", async () => {
    await copy.execute("create table public.bare (); insert into public.bare select from generate_series(1, 3)");
    const table = { schema: "public", name: "bare", columns: [], rowFilter: null };
    const three = await hashRows(copy, table);
    await copy.execute("delete from public.bare");
    expect(three.rows).toBe("3");
    expect(await hashRows(copy, table)).toEqual({ rows: "0", sum: "0", xor: "0" });
    await copy.execute("drop table public.bare");
  });
});
