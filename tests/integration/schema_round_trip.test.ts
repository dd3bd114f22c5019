import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { definitionSections, type SchemaCapture, schemaCaptureFormat } from "../../src/shared/schema/capture_format.ts";
import { corpusFiles } from "../corpus/load.ts";
import { type Cluster, clusterMs, query, startTestCluster } from "../support/cluster.ts";
import { catalogRows } from "./schema_catalog_rows.ts";
import { apply, capture, dumpLines, fillWithCorpus, isSharedRole, plainDatabase } from "./schema_fixture.ts";

/** A case of its own below: its inherited columns become local so that their order stays. */
const isReordered = (text: string) => text.includes("corpus_inheritance_order");

for (const version of [15, 17] as const) {
  describe(`the corpus on PostgreSQL ${version}`, () => {
    let cluster: Cluster | undefined;
    let source = "";
    let copy = "";
    let files: string[] = [];
    let failures: string[] = [];
    let captured: SchemaCapture;
    let recaptured: SchemaCapture;
    const running = (): Cluster => {
      if (cluster === undefined) throw new Error("no cluster");
      return cluster;
    };

    const asked = (database: string) => (text: string, values: readonly unknown[] = []) =>
      query(running().plainUrl(running().superuser, database), text, values);

    beforeAll(async () => {
      cluster = await startTestCluster({ version });
      source = await plainDatabase(cluster);
      copy = await plainDatabase(cluster);
      files = await fillWithCorpus(cluster, source);
      captured = await capture(cluster, source);
      failures = await apply(cluster, copy, captured, { role: cluster.superuser, skip: isSharedRole });
      recaptured = await capture(cluster, copy);
    }, clusterMs);

    afterAll(async () => {
      await cluster?.destroy();
    }, clusterMs);

    it("was loaded whole and is not empty", async () => {
      expect(files).toEqual(await corpusFiles());
      expect(files.length).toBeGreaterThan(10);
      expect(captured.definitions.length).toBeGreaterThan(450);
      expect(captured.tables.length).toBeGreaterThan(60);
    });

    it("gives a capture of the documented format, each identity once", () => {
      expect(schemaCaptureFormat.safeParse(JSON.parse(JSON.stringify(captured))).error).toBeUndefined();
      const identities = captured.definitions.map((definition) => definition.identity);
      expect(new Set(identities).size).toBe(identities.length);
    });

    it("puts no definition before what it depends on, and names only definitions that are there", () => {
      const seen = new Set<string>();
      const misplaced: string[] = [];
      let section = 0;
      for (const definition of captured.definitions) {
        for (const need of definition.dependsOn) {
          if (!seen.has(need)) misplaced.push(`${definition.identity} ← ${need}`);
        }
        seen.add(definition.identity);
        const at = definitionSections.indexOf(definition.section);
        if (at < section) misplaced.push(`${definition.identity} is in an earlier section`);
        section = at;
      }
      expect(misplaced).toEqual([]);
    });

    it("makes an empty database by its statements, without one failure", () => {
      expect(failures).toEqual([]);
    });

    it("captures the copy as it captured the source", () => {
      const comparable = (schema: SchemaCapture) =>
        new Map(schema.definitions.map((definition) => {
          // The copy's extensions were made by the superuser, since only their maker owns them.
          const owner = definition.kind === "extension" ? null : definition.owner;
          return [definition.identity, { ...definition, owner }];
        }));
      expect(comparable(recaptured)).toEqual(comparable(captured));
      expect(recaptured.definitions.map((definition) => definition.identity)).toEqual(
        captured.definitions.map((definition) => definition.identity),
      );
      expect(recaptured.warnings).toEqual([]);
      expect(withoutCredentials(recaptured)).toEqual(withoutCredentials(captured));
    });

    it("leaves the same rows in every catalog, dependencies included", async () => {
      const before = await catalogRows(asked(source));
      const after = await catalogRows(asked(copy));
      expect(before.length).toBeGreaterThan(3000);
      const difference = lineDifference(before, after).filter((line) => !isReordered(line));
      expect(difference).toEqual([]);
    });

    it("keeps the order of inherited columns that came later, and says what it costs", async () => {
      const names = await query(
        running().plainUrl("postgres", copy),
        `select array_agg(attname::text order by attnum) as names from pg_attribute
          where attrelid = 'corpus_inheritance_order.child'::regclass and attnum > 0`,
      );
      expect(names).toEqual([{ names: ["a", "x", "b"] }]);
      expect(captured.warnings).toEqual([
        expect.stringContaining("corpus_inheritance_order.child keeps its column order"),
      ]);
    });

    it("compares citext as citext in the copy, where a plain dump compares it as text", async () => {
      const rows = await query(
        running().plainUrl("postgres", copy),
        `set search_path = public, extensions;
         insert into corpus_extensions.words (word) values ('Word');
         select differs, chosen, without::text from corpus_extensions.compares`,
      );
      expect(rows).toEqual([{ differs: false, chosen: 1, without: null }]);
      const refused = query(
        running().plainUrl("postgres", copy),
        "insert into corpus_extensions.words (word) values ('bad'::extensions.citext)",
      );
      await expect(refused).rejects.toThrow(/violates check constraint "differs"/);
    });

    it("reads shapes that match the columns COPY may name", () => {
      const everyType = captured.tables.find((table) => table.identity === "table corpus_types.every_type");
      expect(everyType?.copyColumns.length).toBe(everyType?.columns.length);
      const generated = captured.tables.find((table) => table.identity === "table corpus_tables.generated");
      expect(generated?.copyColumns).toEqual(["id", "other", "price", "amount", "label", "created"]);
      const empty = captured.tables.find((table) => table.identity === "table corpus_tables.no_columns");
      expect(empty?.copyColumns).toEqual([]);
      expect(captured.tables.filter((table) => table.name === "events")).toEqual([]);
      expect(captured.tables.find((table) => table.name === "events_2023")?.kind).toBe("partition");
    });

    it("names tables and sequences as their definitions do", () => {
      const identities = new Set(captured.definitions.map((definition) => definition.identity));
      const shapes = [...captured.tables, ...captured.sequences].map((shape) => shape.identity);
      expect(shapes.filter((identity) => !identities.has(identity))).toEqual([]);
    });

    it("reads sequences as they stand", () => {
      const values = new Map(captured.sequences.map((one) => [one.name, [one.lastValue, one.isCalled, one.ownedBy]]));
      expect(values.get("countdown")).toEqual(["17", true, null]);
      expect(values.get("never_used")).toEqual(["7", false, null]);
      expect(values.get("set_not_called")).toEqual(["42", false, null]);
      expect(values.get("generated_id_seq")).toEqual(["200", true, "corpus_tables.generated.id"]);
      expect(values.get("serials_normal_seq")).toEqual(["2", true, "corpus_tables.serials.normal"]);
    });

    it("holds what calls out, and only that", () => {
      const held = captured.definitions.filter((definition) => definition.held === "webhook");
      expect(held.map((definition) => definition.identity).sort()).toEqual([
        "trigger hook on corpus_webhooks.watched",
        "trigger hook_always on corpus_webhooks.watched",
      ]);
      expect(held.flatMap((definition) => definition.release).sort()).toEqual([
        "alter table only corpus_webhooks.watched enable always trigger hook_always",
        "alter table only corpus_webhooks.watched enable trigger hook",
      ]);
    });

    it("names what it leaves out: credentials, and nothing else of the corpus", () => {
      expect(captured.notCaptured.map(({ catalog, identity }) => `${catalog}: ${identity}`)).toEqual([
        "pg_user_mapping: password of public on server corpus_server",
        "pg_subscription: connection of subscription corpus_subscription",
      ]);
      expect(JSON.stringify(captured)).not.toContain("secret password");
      expect(JSON.stringify(captured)).not.toContain("top secret");
    });

    if (version === 15) {
      it("gives pg_dump nothing to tell the copy from the source by", () => {
        const before = dumpLines(running(), source);
        expect(before.length).toBeGreaterThan(1000);
        const difference = lineDifference(before, dumpLines(running(), copy));
        // The password and the connection string are left out on purpose; the reordered table has its own test.
        expect(difference.map((line) => line.replace(/(CONNECTION '[^']*').*/, "$1"))).toEqual([
          "+     a integer,",
          "+     b text",
          "+     x text,",
          "+ CREATE SUBSCRIPTION corpus_subscription CONNECTION 'dbname=left_out_of_the_backup'",
          "-     password 'top secret',",
          "-     x text",
          "- CREATE SUBSCRIPTION corpus_subscription CONNECTION 'dbname=nowhere password=secret'",
        ]);
      });
    }
  });
}

/** Multiset difference, `- ` for what only the first has. */
function lineDifference(before: readonly string[], after: readonly string[]): string[] {
  const count = new Map<string, number>();
  for (const line of before) count.set(line, (count.get(line) ?? 0) + 1);
  for (const line of after) count.set(line, (count.get(line) ?? 0) - 1);
  return [...count].flatMap(([line, times]) =>
    Array.from({ length: Math.abs(times) }, () => `${times > 0 ? "-" : "+"} ${line}`)
  )
    .sort();
}

function withoutCredentials(schema: SchemaCapture): string[] {
  return schema.notCaptured.map(({ catalog, identity }) => `${catalog}: ${identity}`).filter((line) =>
    !line.includes("password")
  );
}
