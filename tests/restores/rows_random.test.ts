/** Random tables, a random past and a random present. The oracle is a model of row texts in memory (rows_random_model.ts). */
import { randomInt } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Beside, pairUp } from "../../src/shared/rows/beside/beside.ts";
import { findPastTable, load, makeSide } from "../../src/shared/rows/beside/lay.ts";
import { LaySteps } from "../../src/shared/rows/beside/lay_steps.ts";
import { parseCondition } from "../../src/shared/rows/beside/conditions.ts";
import { restoreModes } from "../../src/shared/rows/apply/difference.ts";
import { readLiveTables } from "../../src/shared/rows/beside/live_tables.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";
import { makeSideSchema } from "../../src/shared/rows/beside/side_tables.ts";
import { useCluster } from "../support/cluster.ts";
import { lay, type Past, pastOf, patient, sideName } from "./rows_fixture.ts";
import {
  alterStatement,
  changeStatement,
  createStatements,
  fillStatements,
  pick,
  type RandomTable,
  randomTables,
} from "./rows_random_tables.ts";
import { expected, isValid, parts, readRows, type Scope, type State, texts } from "./rows_random_model.ts";
import { type Seeded, seeded } from "../support/sample_app/words.ts";

const first = randomInt(1_000_000_000);
const steps = 20;

describe.each(
  [
    { version: 15, seeds: [first, first + 1, first + 2] },
    { version: 17, seeds: [first + 3] },
  ] as const,
)("on PostgreSQL $version a restore of rows does what a look at every row says", ({ version, seeds }) => {
  const cluster = useCluster({ version });
  let past: Past;
  let client: pg.Client;
  const worlds = new Map<number, { random: Seeded; tables: RandomTable[]; then: State }>();

  beforeAll(async () => {
    const made = seeds.map((seed) => {
      const random = seeded(seed);
      return { seed, random, tables: randomTables(random, `r${seed}`) };
    });
    const setUp = made.flatMap(({ random, tables }) => [
      ...createStatements(tables),
      ...tables.flatMap((table) => fillStatements(random, table)),
    ]);
    past = await pastOf(cluster(), `${setUp.join(";\n")};`);
    client = new pg.Client({ connectionString: past.url, types: { getTypeParser: () => (text: string) => text } });
    await client.connect();
    // As it was: nobody has written since the backup.
    for (const { seed, random, tables } of made) {
      worlds.set(seed, { random, tables, then: await readRows(client, tables) });
    }
  }, 120_000);
  afterAll(async () => {
    await client?.end();
    await past?.connection.close();
  });

  /** The tables of a scope beside the live ones. */
  async function layScope({ tables, part, where }: Scope, inLegs: boolean): Promise<Beside> {
    const names = tables.map(({ schema, was }) => ({ schema, name: part ?? was }));
    const [only] = names;
    if (only === undefined) throw new Error("a scope has a table");
    if (where !== null) {
      const condition = parseCondition(`${where.column}=${where.value}`);
      return await lay(past, { scope: "record", table: only, where: [condition] }, inLegs);
    }
    if (names.length === 1) return await lay(past, { scope: "table", table: only }, inLegs);
    const deps = { connection: past.connection, source: past.source, sameDatabase: true, schema: sideName() };
    const pastTables = names.map((name) => findPastTable(past.source, name));
    await makeSideSchema(past.connection, deps.schema, "test");
    const live = await readLiveTables(past.connection, pastTables);
    const steps = await LaySteps.open(past.connection, deps.schema);
    const laid = [];
    for (const table of pastTables) {
      const side = await makeSide(deps, table, table.name, live);
      const step = steps.next();
      await load(deps, side, null, step);
      laid.push({ side, rows: step.rows, keep: [] });
    }
    return await pairUp(deps, laid, live, () => null);
  }

  function randomScope(random: Seeded, tables: readonly RandomTable[], then: State): Scope {
    const some = tables.filter(() => random.integer(2) === 0);
    const table = pick(random, tables);
    if (some.length > 1 && random.integer(2) === 0) return { tables: some, part: null, where: null };
    const part = table.partitions.length > 0 && random.integer(2) === 0 ? pick(random, table.partitions) : null;
    const column = pick(random, table.columns.filter((one) => one.exact));
    const rows = part === null ? then.get(table) ?? [] : parts(then.get(table) ?? [], part);
    const value = rows.length === 0 ? null : pick(random, rows).get(column.name) ?? null;
    return value === null || random.integer(2) === 0
      ? { tables: [table], part, where: null }
      : { tables: [table], part, where: { column: column.name, value } };
  }

  /** Is there a condition that a row of now can fit? None fits one on a column that is gone. */
  function isAsked({ columns }: RandomTable, { where }: Scope): boolean {
    return where !== null && columns.some(({ name, now }) => name === where.column && now !== null);
  }

  for (const seed of seeds) {
    it(`in every mode, of tables, partitions and records, seed ${seed}`, async () => {
      const world = worlds.get(seed);
      if (world === undefined) throw new Error("no world");
      const { random, tables, then } = world;
      const seen = { applied: 0, refused: 0 };
      for (let step = 0; step < steps; step++) {
        for (let change = random.integer(20); change >= 0; change--) {
          const table = pick(random, tables);
          // What a constraint refuses does not happen.
          await client.query(changeStatement(random, table)).catch(() => {});
        }
        if (random.integer(4) === 0) await client.query(alterStatement(random, pick(random, tables)) ?? "select");
        const scope = randomScope(random, tables, then);
        const mode = pick(random, restoreModes);
        const now = await readRows(client, tables);
        const wanted = expected(then, now, scope, mode);
        const what = `seed ${seed}, step ${step}: ${mode} of ${
          scope.part ?? scope.tables.map(({ was }) => was).join(", ")
        }${scope.where === null ? "" : ` where ${scope.where.column}`}`;
        const beside = await layScope(scope, random.integer(2) === 0);
        if (mode === "replace" && scope.tables.some((table) => table.key === null && isAsked(table, scope))) {
          // Without a key a row that fits only since then looks like a new one.
          await expect(planRows(past.connection, beside.pairs, beside.keys, mode), what).rejects.toMatchObject({
            code: "rows_conflict",
          });
          seen.refused++;
          continue;
        }
        const plan = await planRows(past.connection, beside.pairs, beside.keys, mode);
        const valid = isValid(tables, wanted.state);
        const conflicts = plan.tables.flatMap((table) => table.conflicts);
        if (valid) expect(conflicts, what).toEqual([]);
        const options = { ...patient, mode, wholeTables: scope.where === null };
        const done = putBack(past.connection, beside.pairs, beside.keys, options);
        if (valid) {
          const { inserted, updated, deleted } = await done.catch((error: unknown) => {
            throw new Error(`${what} was refused`, { cause: error });
          });
          expect({ inserted, updated, deleted }, what).toEqual(wanted.counts);
          seen.applied++;
        } else {
          await expect(done, what).rejects.toMatchObject({ code: "rows_conflict" });
          seen.refused++;
        }
        expect(texts(await readRows(client, tables)), what).toEqual(texts(valid ? wanted.state : now));
      }
      expect(seen.applied).toBeGreaterThan(0);
    }, 120_000);
  }
});
