import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  beginRestore,
  claimRestore,
  finishRestore,
  readRestore,
  restoreProgress,
} from "../../src/shared/jobs/restore_queries.ts";
import type { RestoreMode, RestoreScope, RestoreTable } from "../../src/shared/jobs/restore_row.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import { validateBackup, type Validation } from "../../src/shared/restore/validate.ts";
import { validateRows } from "../../src/shared/restore/validate_rows.ts";
import { createMemoryStore, type MemoryStore } from "../contract/memory_store.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { installedDatabase } from "./backup_fixture.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "./restore_fixture.ts";

const cluster = useCluster();

const world = `
  create table public.people (id integer primary key, name text, weight float8, tags jsonb,
    loud text generated always as (upper(name)) stored);
  create table public.pets (owner integer references public.people, name text);
  create table public.logs (at timestamptz, owner integer) partition by range (at);
  create table public.logs_old partition of public.logs for values from (minvalue) to ('2025-01-01Z');
  create table public.logs_new partition of public.logs for values from ('2025-01-01Z') to (maxvalue);
  create table public.pairs (a integer, b integer, primary key (a, b));
  create table public.fully (a integer, b integer, foreign key (a, b) references public.pairs match full);
  create type public.mood as enum ('calm', 'wild');
  create table public.moods (id integer primary key, mood public.mood);
  create table public.nothing ();
  create index on public.pets (name);
  create sequence public.tickets;
  alter table public.people enable row level security;
  create policy own on public.people using (name = current_user);
  grant select on public.people to authenticated;
  insert into public.people select i, 'p' || i, i * 1.5, jsonb_build_object('n', i) from generate_series(1, 900) as i;
  update public.people set weight = '-0', tags = 'null' where id = 7;
  insert into public.pets select 1 + i % 50, 'pet ' || i from generate_series(1, 80) as i;
  insert into public.pets select * from public.pets where name = 'pet 3';
  insert into public.logs select '2024-12-01Z'::timestamptz + i * interval '1 day', i from generate_series(1, 60) as i;
  insert into public.pairs values (1, 1), (2, 2);
  insert into public.fully values (1, 1), (null, null);
  insert into public.moods values (1, 'calm'), (2, 'wild');
  insert into public.nothing default values;
  select setval('public.tickets', 9);
`;

let store: MemoryStore;
let written: WrittenBackup;
let name = "";
/** A session with the target that may do everything, and one with the source. */
let target: Connection;
let live: Connection;

beforeAll(async () => {
  store = createMemoryStore();
  const url = await installedDatabase(cluster());
  await query(url, world);
  const source = databaseOf(cluster(), "postgres", new URL(url).pathname.slice(1));
  written = await writeBackup(source, store);
  name = await freshDatabase(cluster());
  await restoreBackup(await restoreDeps(store, written.ring, databaseOf(cluster(), "postgres", name)), written.id);
  target = await databaseOf(cluster(), cluster().superuser, name).connect("test");
  live = await source.connect("test");
}, clusterMs);

afterAll(async () => {
  await target?.close();
  await live?.close();
});

async function validate(): Promise<Validation> {
  const deps = await restoreDeps(store, written.ring, databaseOf(cluster(), "postgres", name));
  return await validateBackup(deps, written.id, { inPlace: false });
}

const found = ({ differences }: Pick<Validation, "differences">) => differences.map((one) => `${one.kind} ${one.name}`);

describe("a restored database against its backup", () => {
  it("is what the backup says, down to each row, and every foreign key was asked", async () => {
    const result = await validate();
    expect(found(result)).toEqual([]);
    expect(result).toMatchObject({ id: written.id, ok: true });
    expect(result.rows).toBeGreaterThan(1_000);
    const [keys] = await target.query(
      "select count(*) as n from pg_constraint where contype = 'f' and conparentid = 0",
    );
    expect(result.foreignKeys).toBe(Number(keys?.["n"]));
  });

  it("is not changed by the comparison: no transaction of it writes anything that stays", async () => {
    const state = async () =>
      await target.query(
        `select (select md5(string_agg(c.oid::text || c.relname || c.xmin::text || coalesce(c.relfilenode, 0), ',' order by c.oid))
                   from pg_class as c) as relations,
                (select count(*) from pg_namespace where nspname !~ '^pg_(toast_)?temp') as schemas,
                (select n_tup_ins + n_tup_upd + n_tup_del from pg_stat_database as d
                   join lateral (select sum(n_tup_ins) as n_tup_ins, sum(n_tup_upd) as n_tup_upd, sum(n_tup_del) as n_tup_del
                                   from pg_stat_user_tables) as t on true
                  where d.datname = current_database()) as written`,
      );
    const before = await state();
    await validate();
    expect(await state()).toEqual(before);
  });

  /** In each round every change is of another object: what is found is each of them and nothing else. */
  const rounds:
    readonly (readonly [what: string, changes: readonly (readonly [change: string, undo: string, found: string])[]])[] =
      [
        ["a value, a row twice, a sequence, an index", [
          [
            "update people set name = 'x' where id = 1",
            "update people set name = 'p1' where id = 1",
            "rows table public.people",
          ],
          [
            "insert into pets values (1, 'twin'), (1, 'twin')",
            "delete from pets where name = 'twin'",
            "rows table public.pets",
          ],
          ["select setval('tickets', 10)", "select setval('tickets', 9)", "sequence sequence public.tickets"],
          ["drop index pets_name_idx", "create index on pets (name)", "missing index public.pets_name_idx"],
        ]],
        ["0 for -0, a row of a partition, a row without columns, a table more", [
          [
            "update people set weight = 0 where id = 7",
            "update people set weight = '-0' where id = 7",
            "rows table public.people",
          ],
          [
            "insert into logs values ('2026-01-01Z', 1)",
            "delete from logs where at = '2026-01-01Z'",
            "rows table public.logs_new",
          ],
          [
            "insert into nothing default values",
            "delete from nothing; insert into nothing default values",
            "rows table public.nothing",
          ],
          ["create table more ()", "drop table more", "extra table public.more"],
        ]],
        ["null for a JSON null, a grant, an owner, a policy", [
          [
            "update people set tags = null where id = 7",
            "update people set tags = 'null' where id = 7",
            "rows table public.people",
          ],
          [
            "revoke select on people from authenticated",
            "grant select on people to authenticated",
            "privileges table public.people",
          ],
          ["alter table pets owner to supabase_admin", "alter table pets owner to postgres", "owner table public.pets"],
          [
            "alter policy own on people using (true)",
            "alter policy own on people using (name = current_user)",
            "definition policy own on public.people",
          ],
        ]],
        ["values of two rows swapped, rows without their parents", [
          [
            "update people set name = case id when 1 then 'p2' else 'p1' end where id in (1, 2)",
            "update people set name = 'p' || id where id in (1, 2)",
            "rows table public.people",
          ],
          ["set session_replication_role = replica", "set session_replication_role = origin", ""],
          ["insert into pets values (4711, 'o')", "delete from pets where owner = 4711", "rows table public.pets"],
          ["", "", "foreign key constraint pets_owner_fkey on public.pets"],
          ["delete from pairs where a = 2", "insert into pairs values (2, 2)", "rows table public.pairs"],
          [
            "insert into fully values (1, null)",
            "delete from fully where b is null and a = 1",
            "rows table public.fully",
          ],
          ["", "", "foreign key constraint fully_a_b_fkey on public.fully"],
        ]],
        ["a type that does not know a value any more", [
          ["alter table moods alter column mood type text; drop type mood; create type mood as enum ('calm')", "", ""],
          ["delete from moods where id = 2", "", "rows table public.moods"],
          [
            "alter table moods alter column mood type mood using mood::mood",
            "alter type mood owner to postgres",
            "owner type public.mood",
          ],
          [
            "",
            "alter type mood add value 'wild'; insert into moods values (2, 'wild')",
            "definition type public.mood",
          ],
        ]],
      ];
  it.each(rounds)("differs by %s", async (_, changes) => {
    await target.execute("set search_path = public");
    for (const [change] of changes) await target.execute(change);
    try {
      const result = await validate();
      expect(found(result).sort()).toEqual(changes.map((one) => one[2]).filter((name) => name !== "").sort());
      expect(result.ok).toBe(false);
      expect(JSON.stringify(result)).not.toContain("4711");
    } finally {
      // A value that was added to a type is of use in the next transaction.
      for (const undo of changes.flatMap((one) => one[1].split("; "))) await target.execute(undo);
    }
  });

  it("is the same again once all of that is undone", async () => {
    expect(found(await validate())).toEqual([]);
  });

  it("a chunk that is damaged is an error, not a difference", async () => {
    const chunk = written.manifest.tables.find((table) => table.name === "people")?.chunks[0]?.object ?? "";
    const bytes = await store.read(chunk);
    await store.remove([chunk]);
    try {
      await expect(validate()).rejects.toMatchObject({ code: "object_missing" });
    } finally {
      await store.create(chunk, bytes);
    }
  });
});

describe("restored rows against the live ones", () => {
  /** Rows of then in the side schema of a recorded restore that has ended. */
  async function restored(mode: RestoreMode, scope: RestoreScope, tables: readonly string[]): Promise<string> {
    const names = tables.map((table): RestoreTable => ({ schema: "public", name: table }));
    const request = { scope, mode, sourceBackup: written.id, pointAt: null, targetLabel: "here", targetIsHere: true };
    const begun = await beginRestore(live, { ...request, userId: null, worker: "test", leaseSeconds: 90 });
    await live.execute(`create schema ${begun.sideSchema}`);
    for (const table of tables) {
      await live.execute(`create table ${begun.sideSchema}.${table} as select * from public.${table}`);
    }
    await finishRestore(live, begun, { tables: names });
    return begun.id;
  }
  const differences = async (id: string) => {
    const { differences, ok } = await validateRows(live, await readRestore(live, id));
    expect(ok).toBe(differences.length === 0);
    return differences.map(({ name, detail }) => `${name}: ${detail}`);
  };
  /** In a change that is taken back afterwards. */
  const after = async (id: string, change: string, undo: string) => {
    await live.execute(change);
    try {
      return await differences(id);
    } finally {
      await live.execute(undo);
    }
  };
  const gone = ["delete from public.moods where id = 2", "insert into public.moods values (2, 'wild')"] as const;
  const other = [
    "update public.moods set mood = 'wild' where id = 1",
    "update public.moods set mood = 'calm' where id = 1",
  ] as const;
  const more = ["insert into public.moods values (3, 'calm')", "delete from public.moods where id = 3"] as const;
  const moods = "table public.moods";

  it("`missing` wants each key there, `merge` also each row as it was, `replace` of a table also no other", async () => {
    for (const [mode, sees] of [["missing", 1], ["merge", 2], ["replace", 3]] as const) {
      const id = await restored(mode, "table", ["moods"]);
      expect(await differences(id), mode).toEqual([]);
      expect(await after(id, ...gone), mode).toEqual([`${moods}: 1 rows of then are not there`]);
      expect(await after(id, ...other), mode).toEqual(sees < 2 ? [] : [`${moods}: 1 rows have other contents`]);
      expect(await after(id, ...more), mode).toEqual(sees < 3 ? [] : [`${moods}: 1 rows are there that were not then`]);
      await live.query("select backup.drop_side($1::uuid)", [id]);
    }
  });

  it("rows without a key are compared as often as they are there", async () => {
    const id = await restored("replace", "table", ["pets"]);
    expect(await differences(id)).toEqual([]);
    const twin = "select ctid from public.pets where name = 'pet 3' limit 1";
    expect(
      await after(id, `delete from public.pets where ctid = (${twin})`, `insert into public.pets values (4, 'pet 3')`),
    )
      .toEqual(["table public.pets: 1 rows of then are not there"]);
    expect(
      await after(id, "insert into public.pets values (4, 'pet 3')", `delete from public.pets where ctid = (${twin})`),
    )
      .toEqual(["table public.pets: 1 rows are there that were not then"]);
    await live.query("select backup.drop_side($1::uuid)", [id]);
  });

  it("a partitioned table is one, and what the server computes is not compared", async () => {
    const id = await restored("replace", "table", ["logs", "people"]);
    expect(await differences(id)).toEqual([]);
    expect(
      await after(id, "delete from public.logs where owner = 3", "insert into public.logs values ('2024-12-04Z', 3)"),
    )
      .toEqual(["table public.logs: 1 rows of then are not there"]);
    await live.query("select backup.drop_side($1::uuid)", [id]);
  });

  it("beside they differ from nothing; what was lost in between, the schema or the restore, is said", async () => {
    const id = await restored("beside", "record", ["moods"]);
    expect(await after(id, ...gone)).toEqual([]);
    await live.query("select backup.drop_side($1::uuid)", [id]);
    await expect(differences(id)).rejects.toMatchObject({ code: "run_state" });
    const begun = await beginRestore(live, {
      ...{ scope: "record", mode: "merge", sourceBackup: written.id, pointAt: null, targetLabel: "here" },
      ...{ targetIsHere: true, userId: null, worker: "test", leaseSeconds: 90 },
    });
    await expect(differences(begun.id)).rejects.toMatchObject({ code: "run_state" });
  });

  it("a foreign key that a restore under replica role broke is found", async () => {
    const id = await restored("merge", "table", ["moods"]);
    const orphan =
      "set session_replication_role = replica; insert into public.pets values (4711, 'o'); set session_replication_role = origin";
    const { differences } = await live.execute(orphan).then(async () =>
      await validateRows(live, await readRestore(live, id))
    )
      .finally(() => live.execute("delete from public.pets where owner = 4711"));
    expect(found({ differences })).toEqual(["foreign key constraint pets_owner_fkey on public.pets"]);
  });
});

describe("the calls of a restore's record", () => {
  it("go from its begin to its end, and on from there", async () => {
    const begun = await beginRestore(live, {
      ...{
        scope: "table",
        mode: "beside",
        sourceBackup: written.id,
        pointAt: "2026-11-01T00:00:00Z",
        targetLabel: "here",
      },
      ...{ targetIsHere: true, userId: null, worker: "test", leaseSeconds: 90, state: { step: "one" } },
    });
    await restoreProgress(live, begun, { status: "loading", stepsDone: 1, stepsTotal: 2, rowsDone: 10 });
    expect(await claimRestore(live, begun.id, { worker: "other", leaseSeconds: 90 })).toBeNull();
    expect(await finishRestore(live, begun, { tables: [{ schema: "public", name: "moods", rows: 2 }] })).toBe("beside");
    expect(await readRestore(live, begun.id)).toMatchObject({
      status: "beside",
      pointAt: "2026-11-01T00:00:00.000000Z",
      sideSchema: begun.sideSchema,
      state: { step: "one" },
      stepsDone: 1,
      tables: [{ schema: "public", name: "moods", rows: 2 }],
      objectiveSeconds: 14400,
      withinObjective: true,
    });
    const next = await claimRestore(live, begun.id, { worker: "other", leaseSeconds: 90, apply: "merge" });
    expect(next).not.toBeNull();
    await expect(restoreProgress(live, begun, {})).rejects.toMatchObject({ code: "lease_lost" });
    if (next !== null) await finishRestore(live, next, {});
    expect(await readRestore(live, begun.id)).toMatchObject({ status: "succeeded", mode: "merge" });
  });
});
