import { beforeAll, describe, expect, it } from "vitest";
import { ownSchemas } from "../../src/shared/backup/tables.ts";
import { platformTreatments, projectTables } from "../../src/shared/rows/ownership/auth_map.ts";
import { captureGraph } from "../../src/shared/rows/past/capture_graph.ts";
import { nameOf } from "../../src/shared/rows/past/fold_partitions.ts";
import type { Edge, Graph, GraphTable } from "../../src/shared/rows/past/graph.ts";
import { liveGraph } from "../../src/shared/rows/ownership/live_graph.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { planOwnership } from "../../src/shared/rows/ownership/ownership.ts";
import { captureSettings } from "../../src/shared/schema/apply_settings.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { fillWithCorpus, withSession } from "../integration/schema_fixture.ts";

const cluster = useCluster();

/** What the corpus leaves out. */
const oddities = `
  create schema "Graph's";
  create table "Graph's".target (id integer primary key, code text unique, "Two words" integer, b integer, unique (b, "Two words"));
  create table "Graph's".leafy (
    "a,b" text collate "C" default E'x, \\'not null\\') \\\\', n numeric(10, 2) default ((1 + 2)) not null, constraint fine check (n > 0 and "a,b" <> ')'),
    "not" integer, doubled numeric generated always as (n * 2) stored, at timestamp(3) with time zone, "constraint" integer[],
    plain integer, primary key (n)
  ) partition by range (n);
  create table "Graph's".leaf_1 partition of "Graph's".leafy for values from (0) to (10);
  create table "Graph's".middle partition of "Graph's".leafy for values from (10) to (20) partition by range (n);
  create table "Graph's".leaf_2 (plain integer, at timestamp(3) with time zone, "constraint" integer[], "not" integer,
    n numeric(10, 2) not null, doubled numeric generated always as (n * 2) stored, "a,b" text collate "C", constraint fine check (n > 0 and "a,b" <> ')'));
  alter table "Graph's".middle attach partition "Graph's".leaf_2 for values from (10) to (15);
  alter table "Graph's".leafy add constraint whole foreign key ("not") references "Graph's".target on update cascade on delete set null;
  alter table "Graph's".leaf_2 add constraint of_leaf foreign key (plain) references "Graph's".target (id) on delete restrict;
  alter table "Graph's".leaf_1 add constraint same_key foreign key (plain) references "Graph's".target (id) on delete restrict;
  create table "Graph's".keyed (id integer primary key) partition by range (id);
  create table "Graph's".leaf_keyed partition of "Graph's".keyed for values from (0) to (100);
  create table "Graph's".refers (
    id integer, "On Delete" integer, "x y" integer, code text default 'a',
    constraint "to (leaf)" foreign key (id) references "Graph's".leaf_keyed on delete cascade deferrable initially deferred,
    constraint "pair, full" foreign key ("x y", "On Delete") references "Graph's".target (b, "Two words") match full on delete set default on update set null,
    constraint by_code foreign key (code) references "Graph's".target (code) on delete set default (code)
  );
  create type "Graph's".shape as (id integer, owner text);
  create table "Graph's".typed of "Graph's".shape (id with options not null) partition by list (id);
  create table "Graph's".typed_1 partition of "Graph's".typed for values in (1);
  create table "Graph's".computed (a integer, b integer generated always as (a + 1) stored references "Graph's".target (id));
  create unlogged table "Graph's".flat (id integer primary key);
  create schema restore_0123abcd;
  create table restore_0123abcd.side (id integer primary key);`;

let fromCapture: Graph;
let live: Graph;

beforeAll(async () => {
  const database = await freshDatabase(cluster());
  await fillWithCorpus(cluster(), database);
  await loadSampleApp({
    owner: { connectionString: cluster().plainUrl("postgres", database) },
    admin: { connectionString: cluster().plainUrl(cluster().superuser, database) },
  }, { scale: 0.01 });
  await query(cluster().plainUrl("postgres", database), oddities);
  ({ fromCapture, live } = await withSession(cluster(), "postgres", database, async (connection) => {
    const capture = await captureSchema(connection, { leaveOutSchemas: [...ownSchemas, "restore_0123abcd"] });
    const graph = captureGraph(capture);
    await connection.execute(captureSettings.join("; "));
    return { fromCapture: graph, live: await liveGraph(connection) };
  }));
}, clusterMs);

describe("the graph of the sample app, the platform and the corpus", () => {
  it("is the same from a capture's statements as from the catalog", () => {
    expect(fromCapture.tables.length).toBeGreaterThan(80);
    expect(fromCapture.edges.length).toBeGreaterThan(30);
    const byName = (graph: Graph) => new Map(graph.tables.map((table) => [nameOf(table), table]));
    expect(byName(fromCapture)).toEqual(byName(live));
    expect(fromCapture).toEqual(live);
  });

  it("has columns with their types, in their order, without computed ones, and keys in theirs", () => {
    expect(table("public", "attachments")).toEqual({
      schema: "public",
      name: "attachments",
      columns: [
        { name: "id", type: "bigint", notNull: true },
        { name: "entry_id", type: "uuid", notNull: true },
        { name: "name", type: "text", notNull: true },
        { name: "mime", type: "text", notNull: true },
        { name: "content", type: "bytea", notNull: true },
        { name: "transcript", type: "text", notNull: false },
      ],
      key: ["id"],
      partitions: [],
    });
    expect(table("public", "entry_tags").key).toEqual(["entry_id", "tag_id"]);
    expect(table("public", "mood_samples").key).toBeNull();
  });

  it("folds partitions of every level into their table, whose definition it reads", () => {
    expect(table("Graph's", "leafy")).toEqual({
      schema: "Graph's",
      name: "leafy",
      columns: [
        { name: "a,b", type: "text", notNull: false },
        { name: "n", type: "numeric(10,2)", notNull: true },
        { name: "not", type: "integer", notNull: false },
        { name: "at", type: "timestamp(3) with time zone", notNull: false },
        { name: "constraint", type: "integer[]", notNull: false },
        { name: "plain", type: "integer", notNull: false },
      ],
      key: ["n"],
      partitions: [{ schema: "Graph's", name: "leaf_1" }, { schema: "Graph's", name: "leaf_2" }],
    });
    expect(table("Graph's", "typed").columns.map(({ name }) => name)).toEqual(["id", "owner"]);
    const names = fromCapture.tables.map(nameOf);
    for (const left of [`"Graph's".leaf_1`, `"Graph's".middle`, "restore_0123abcd.side"]) {
      expect(names).not.toContain(left);
    }
    expect(table("corpus_partitions", "events").partitions.map(({ name }) => name)).toEqual([
      "events old",
      "events_2023",
      "events_2024_a",
      "events_2024_other",
      "events_rest",
    ]);
  });

  it("has the keys of leaves and to leaves as their table's, each once, with what a deletion does", () => {
    expect(edgesOf("Graph's", "leafy")).toEqual([
      `of_leaf (plain) → "Graph's".target (id) restrict`,
      `whole (not) → "Graph's".target (id) set null`,
    ]);
    expect(edgesOf("Graph's", "refers")).toEqual([
      `by_code (code) → "Graph's".target (code) set default`,
      `pair, full (x y,On Delete) → "Graph's".target (b,Two words) set default`,
      `to (leaf) (id) → "Graph's".keyed (id) cascade`,
    ]);
    expect(edgesOf("corpus_partitions", "refers_to_itself")).toEqual([
      "refers_to_itself_other_fkey (other) → corpus_partitions.refers_to_itself (id) no action",
    ]);
  });

  it("gives the plan that people of the sample app expect, and names columns that look like a user's id", () => {
    const plan = planOwnership(fromCapture, emptyMap);
    const own = plan.groups.flatMap(({ tables }) => tables).filter(({ schema }) => schema === "public")
      .map(({ name, upward }) => `${name} ← ${upward.map(({ to }) => to.name).join(", ")}`);
    expect(own.toSorted()).toEqual([
      "attachments ← journal_entries",
      "entry_tags ← journal_entries, tags",
      "journal_entries ← users",
      "profiles ← users",
      "tags ← users",
    ]);
    expect(own.indexOf("attachments ← journal_entries")).toBeGreaterThan(own.indexOf("journal_entries ← users"));
    expect(plan.groups.every(({ cyclic }) => !cyclic)).toBe(true);
    expect(plan.suspects.filter(({ table }) => table.schema === "public")).toEqual([
      { table: { schema: "public", name: "events" }, column: "user_id" },
      { table: { schema: "public", name: "mood_samples" }, column: "user_id" },
    ]);
  });

  it("has no table of auth or storage of which the built-in map does not know what a restore does", () => {
    const known = new Set([...Object.keys(platformTreatments), ...projectTables]);
    const met = live.tables.filter(({ schema }) => schema === "auth" || schema === "storage").map(nameOf);
    expect(met.length).toBeGreaterThan(18);
    expect(met.filter((name) => !known.has(name))).toEqual([]);
  });
});

function table(schema: string, name: string): GraphTable {
  const found = fromCapture.tables.find((one) => one.schema === schema && one.name === name);
  if (found === undefined) throw new Error(`${schema}.${name} is not in the graph`);
  return found;
}

function edgesOf(schema: string, name: string): string[] {
  const text = ({ constraint, columns, to, toColumns, onDelete }: Edge) =>
    `${constraint} (${columns}) → ${nameOf(to)} (${toColumns}) ${onDelete}`;
  return fromCapture.edges.filter(({ from }) => from.schema === schema && from.name === name).map(text);
}
