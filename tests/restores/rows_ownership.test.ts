import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { TableName } from "../../src/shared/restore/project_rows.ts";
import { nameOf } from "../../src/shared/rows/past/fold_partitions.ts";
import type { Graph } from "../../src/shared/rows/past/graph.ts";
import { liveGraph } from "../../src/shared/rows/ownership/live_graph.ts";
import { type BackupMap, emptyMap, readBackupMap } from "../../src/shared/rows/ownership/map_file.ts";
import { ownedTables, type OwnershipPlan, planOwnership } from "../../src/shared/rows/ownership/ownership.ts";
import { readEqualities } from "../../src/shared/rows/ownership/equalities.ts";
import { liveRelation, ownershipSql, type RelationOf } from "../../src/shared/rows/ownership/ownership_sql.ts";
import { type OwnershipStep, ownershipSteps } from "../../src/shared/rows/ownership/ownership_steps.ts";
import { quoteIdent } from "../../src/shared/schema/quote.ts";
import { useCluster } from "../support/cluster.ts";
import { seeded } from "../support/sample_app/words.ts";
import { judge, randomWorld, type Values, type World, type WorldUser } from "./rows_ownership_world.ts";

const cluster = useCluster({ platform: false });
let connection: Connection;

const random = seeded(77);
const users: WorldUser[] = [0, 1, 2, 3, 4].map((n) => ({ id: random.uuid(), email: `person ${n}@example.org` }));

beforeAll(async () => {
  connection = await openDatabase({ url: cluster().plainUrl(cluster().superuser) }).connect("ownership-test");
  await connection.execute(
    `set search_path = ''; create schema auth; create table auth.users (id uuid primary key, email text unique)`,
  );
  for (const { id, email } of users) {
    await connection.query("insert into auth.users values ($1, $2)", [id, email]);
  }
});

afterAll(async () => {
  await connection?.close();
});

const worlds = 40;

/** What was met in all worlds together. */
const met = { owned: 0, shared: 0, others: 0, cycles: 0, closed: 0, leftBehind: 0 };

describe("rows of random tables", () => {
  for (let seed = 1; seed <= worlds; seed++) {
    it(`are owned, shared or others' as a look at every row says, live and beside (seed ${seed})`, async () => {
      const world = randomWorld(seed, users);
      await connection.execute(world.sql);
      try {
        const graph = await liveGraph(connection);
        const plan = planOwnership(graph, world.map);
        met.cycles += plan.groups.filter(({ cyclic }) => cyclic).length;
        met.closed += plan.notFollowed.length;
        for (const user of users.slice(0, 2)) {
          const expected = judge(world, user.id);
          for (const verdict of expected.flat()) met[verdict ?? "others"] += 1;
          const live = relationsOf(graph);
          expect(await verdictsOf(world, plan, live, user.id), `live, seed ${seed}`).toEqual(expected);
          const beside = await loadBeside(world, plan, user);
          expect(await verdictsOf(world, plan, beside, user.id), `beside, seed ${seed}`).toEqual(expected);
        }
      } finally {
        await connection.execute(`drop schema ${world.schema} cascade; drop schema if exists side cascade`);
      }
    });
  }

  it("had all that is hard: cycles, keys that are not followed, rows of both kinds, rows that stay behind", () => {
    expect(met.owned).toBeGreaterThan(100);
    expect(met.shared).toBeGreaterThan(100);
    expect(met.others).toBeGreaterThan(100);
    expect(met.cycles).toBeGreaterThan(8);
    expect(met.closed).toBeGreaterThan(10);
    expect(met.leftBehind).toBeGreaterThan(100);
  });
});

describe("rows as apps have them", () => {
  const [a, b] = [users[0]?.id ?? "", users[1]?.id ?? ""];
  const key = "references auth.users (id) on delete cascade";

  beforeAll(async () => {
    await connection.execute(`
      create schema app; create schema more; create extension citext schema more;
      create table app.names (name more.citext primary key, user_id uuid ${key});
      create table app.posts (id integer primary key, by more.citext references app.names);
      insert into app.names values ('Ann', '${a}'), ('Bob', '${b}');
      insert into app.posts values (1, 'ANN'), (2, 'bob'), (3, 'Ann'), (4, null);
      create table app.profiles (id uuid primary key ${key}, referred_by uuid references app.profiles on delete cascade);
      create table app.messages (id integer primary key, sender_id uuid ${key}, recipient_id uuid ${key});
      create table app.attachments (id integer primary key, message_id integer references app.messages on delete cascade);
      create table app.entries (id integer primary key, user_id uuid not null ${key}, reviewed_by uuid references auth.users (id) on delete set null);
      create table app.comments (id integer primary key, entry_id integer references app.entries on delete cascade, user_id uuid ${key});
      create table app.tags (shared integer primary key, user_id uuid ${key});
      create table app.entry_tags (entry_id integer references app.entries on delete cascade, tag_id integer references app.tags on delete cascade,
        primary key (entry_id, tag_id));
      create table app.teams (id integer primary key, owner_id uuid ${key});
      create table app.members (team_id integer references app.teams on delete cascade, user_id uuid ${key});
      create table app.settings (id integer primary key, user_id uuid ${key}, profile_id uuid references app.profiles on delete cascade);
      create table app.log (id integer primary key, actor text);
      create table app.chain (id integer primary key, code text unique, next text references app.chain (code), user_id uuid ${key});
      insert into app.chain values (1, null, null, '${a}'), (2, 'x', null, '${b}'), (3, 'y', 'x', '${a}'), (4, 'z', 'y', null);
      insert into app.profiles values ('${a}', '${b}'), ('${b}', '${a}');
      insert into app.messages values (1, '${a}', '${a}'), (2, '${a}', '${b}'), (3, '${b}', '${a}'), (4, '${b}', '${b}'), (5, '${a}', null), (6, null, null);
      insert into app.attachments values (1, 1), (2, 2), (4, 4), (6, 6), (7, null);
      insert into app.entries values (1, '${a}', null), (2, '${a}', '${b}'), (3, '${b}', '${a}');
      insert into app.comments values (1, 1, '${a}'), (2, 3, '${a}'), (3, 1, '${b}'), (4, 3, '${b}'), (5, 1, null), (6, null, '${a}');
      insert into app.tags values (1, '${a}'), (2, '${b}');
      insert into app.entry_tags values (1, 1), (1, 2), (3, 1), (3, 2);
      insert into app.teams values (1, '${a}'), (2, '${b}'), (3, null);
      insert into app.members values (1, '${a}'), (1, '${b}'), (2, '${a}'), (3, '${a}'), (3, '${b}');
      insert into app.settings values (1, '${a}', '${a}'), (2, '${b}', '${b}'), (3, '${a}', '${b}'), (4, null, '${a}');
      insert into app.log values (1, '${a}'), (2, '${b}'), (3, 'system'), (4, null)`);
  });

  afterAll(async () => {
    await connection.execute("drop schema app, more cascade");
  });

  const look = async (map: BackupMap = emptyMap) => {
    const graph = await liveGraph(connection);
    const plan = planOwnership(graph, map);
    const live = relationsOf(graph);
    const sql = ownershipSql(plan, live, "$1", await readEqualities(connection, graph.tables));
    const found: Record<string, { owned: string[]; shared: string[] }> = {};
    for (const table of ownedTables(plan)) {
      const rows = await connection.query(
        `select t::text as row, q.shared from (${sql(table)}) q join ${live(table)} t on ${
          (table.key ?? ["tableoid", "ctid"]).map((column, index) => `t.${column} = q.i${index}`).join(" and ")
        } order by 1`,
        [a],
      );
      // Rows without a number are known by whose they are.
      const short = (text: string | null) =>
        (text ?? "").replaceAll(a, "A").replaceAll(b, "B").replace(/^\((\d+),.*[AB].*\)$/, "$1");
      const of = (shared: string) =>
        rows.filter((row) => row["shared"] === shared).map((row) => short(row["row"] ?? null)).toSorted();
      found[table.name] = { owned: of("f"), shared: of("t") };
    }
    return { plan, found };
  };

  it("are mine where they reach me alone, shared where they reach somebody else too", async () => {
    const { found } = await look();
    expect(found).toEqual({
      users: { owned: ['(A,"person 0@example.org")'], shared: [] },
      profiles: { owned: ["(A,B)"], shared: [] },
      messages: { owned: ["1", "5"], shared: ["2", "3"] },
      attachments: { owned: ["(1,1)"], shared: ["(2,2)"] },
      entries: { owned: ["1", "2"], shared: [] },
      comments: { owned: ["(5,1,)", "1", "6"], shared: ["2", "3"] },
      tags: { owned: ["1"], shared: [] },
      entry_tags: { owned: ["(1,1)"], shared: ["(1,2)", "(3,1)"] },
      teams: { owned: ["1"], shared: [] },
      members: { owned: ["1", "3"], shared: ["1", "2"] },
      settings: { owned: ["1", "4"], shared: ["3"] },
      names: { owned: ["(Ann,A)"], shared: [] },
      posts: { owned: ["1", "3"], shared: [] },
      chain: { owned: ["1", "3"], shared: [] },
    });
  });

  it("follow neither a table's key to itself nor keys whose rows outlive the user, and say so", async () => {
    const { plan } = await look();
    expect(plan.notFollowed.map(({ from, columns, reason }) => `${nameOf(from)} (${columns}): ${reason}`)).toEqual([
      "app.chain (next): it leads to its own table",
      "app.entries (reviewed_by): the row outlives what it refers to (on delete set null)",
      "app.profiles (referred_by): it leads to its own table",
    ]);
  });

  it("are decided by the map: keys, columns that hold a user, tables", async () => {
    const { plan, found } = await look(readBackupMap(JSON.stringify({
      version: 1,
      keys: [
        { table: "app.profiles", columns: ["referred_by"], follow: true },
        { table: "app.comments", columns: ["entry_id"], follow: false },
        { table: "app.entries", columns: ["reviewed_by"], follow: true },
        { table: "app.chain", columns: ["next"], follow: true },
        { table: "app.nothing", columns: ["x"], follow: true },
      ],
      users: [{ table: "app.log", column: "actor" }],
      tables: [
        { table: "app.messages", rows: "owned" },
        { table: "app.tags", rows: "shared" },
        { table: "app.teams", rows: "never" },
      ],
    })));
    expect(found).toMatchObject({
      profiles: { owned: [], shared: ["(A,B)", "(B,A)"] },
      comments: { owned: ["1", "2", "6"], shared: [] },
      entries: { owned: ["1"], shared: ["2", "3"] },
      chain: { owned: ["1"], shared: ["(4,z,y,)", "3"] },
      log: { owned: ["1"], shared: [] },
      messages: { owned: ["1", "2", "3", "5"], shared: [] },
      attachments: { owned: ["(1,1)", "(2,2)"], shared: [] },
      tags: { owned: [], shared: ["1"] },
      members: { owned: ["1", "2", "3"], shared: [] },
    });
    expect(found).not.toHaveProperty("teams");
    expect(plan.unmatched).toEqual(["keys[4]: app.nothing has no such foreign key over (x)"]);
  });
});

function relationsOf(graph: Graph): RelationOf {
  return (table) => {
    const found = graph.tables.find((one) => nameOf(one) === nameOf(table));
    return found === undefined ? null : liveRelation(found);
  };
}

async function verdictsOf(world: World, plan: OwnershipPlan, relationOf: RelationOf, user: string) {
  const sql = ownershipSql(
    plan,
    relationOf,
    "$1",
    await readEqualities(connection, (await liveGraph(connection)).tables),
  );
  const planned = new Set(ownedTables(plan).map(nameOf));
  const verdicts: ("owned" | "shared" | null)[][] = [];
  for (const { name, key, rows } of world.tables) {
    const list: ("owned" | "shared" | null)[] = rows.map(() => null);
    verdicts.push(list);
    const table = { schema: world.schema, name };
    const relation = relationOf(table);
    if (!planned.has(nameOf(table)) || relation === null) continue;
    const same = (key ?? ["tableoid", "ctid"]).map((column, index) => `t.${quoteIdent(column)} = q.i${index}`);
    const found = await connection.query(
      `select t.n, q.shared from (${sql(table)}) q left join ${relation} t on ${same.join(" and ")}`,
      [user],
    );
    for (const row of found) {
      const n = Number(row["n"]);
      expect(list[n], "a row is answered once").toBeNull();
      list[n] = row["shared"] === "t" ? "shared" : "owned";
    }
  }
  return verdicts;
}

/** Takes rows as the steps of the plan say, from the world's own rows, into tables of schema `side`. */
async function loadBeside(world: World, plan: OwnershipPlan, user: WorldUser): Promise<RelationOf> {
  const all = new Map<string, readonly Values[]>([
    ["auth.users", users.map(({ id, email }, n) => ({ id, email, n: String(n) }))],
    ...world.tables.map((table) => [nameOf({ schema: world.schema, name: table.name }), table.rows] as const),
  ]);
  const taken = new Map([...all.keys()].map((name) => [name, new Set<Values>()]));
  const textOf = (row: Values, columns: readonly string[]) => {
    const values = columns.map((column) => row[column] ?? null);
    return values.includes(null) ? null : JSON.stringify(values);
  };
  const take = ({ table, conditions }: OwnershipStep): boolean => {
    const into = taken.get(nameOf(table));
    const before = into?.size;
    for (const { columns, from, fromColumns } of conditions) {
      const wanted = new Set(
        from === null
          ? [JSON.stringify([user.id])]
          : [...taken.get(nameOf(from)) ?? []].flatMap((row) => textOf(row, fromColumns) ?? []),
      );
      for (const row of all.get(nameOf(table)) ?? []) if (wanted.has(textOf(row, columns) ?? "")) into?.add(row);
    }
    return into?.size !== before;
  };
  const steps = ownershipSteps(plan);
  for (const group of [...steps.candidates, ...steps.referred]) {
    for (let more = true; more;) more = group.steps.filter(take).length > 0 && group.repeat;
  }
  await connection.execute("drop schema if exists side cascade; create schema side");
  const sides = new Map<string, string>();
  for (const [name, rows] of taken) {
    met.leftBehind += (all.get(name)?.length ?? 0) - rows.size;
    if (rows.size === 0) continue;
    const side = `side.s${sides.size}`;
    const which = name === "auth.users" ? "id::text" : "n::text";
    const wanted = [...rows].map((row) => name === "auth.users" ? row["id"] : row["n"]);
    await connection.query(
      `create table ${side} as select * from ${name} where ${which} = any ('{${wanted.join(",")}}')`,
    );
    sides.set(name, side);
  }
  return (table: TableName) => sides.get(nameOf(table)) ?? null;
}
