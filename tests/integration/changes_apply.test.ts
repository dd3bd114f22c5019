import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RowGroup } from "../../src/shared/changes/replay/apply_rows.ts";
import { type Message, type Relation, unchanged } from "../../src/shared/changes/decode/messages.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { useCluster, withClient } from "../support/cluster.ts";
import { numbersFrom } from "../unit/backup_numbers.ts";
import { applyMessages, makePair, type Pair, randomTransaction, tables } from "./changes_apply_fixture.ts";

const cluster = useCluster({ platform: false, settings: { wal_level: "logical" } });
const always = () => true;
const atTheEnd = () => false;

async function withPair(sql: string, use: (pair: Pair) => Promise<void>): Promise<void> {
  const pair = await makePair(cluster(), sql);
  try {
    await use(pair);
  } finally {
    await pair.close();
  }
}

async function onSource(pair: Pair, ...statements: string[]): Promise<Message[]> {
  await withClient(pair.sourceUrl, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
  return await pair.pull();
}

async function expectEqual(pair: Pair, what: string): Promise<void> {
  for (const table of tables) {
    const { source, target } = await pair.rows(table);
    expect(target, `${what}: ${table}`).toEqual(source);
  }
}

/** The text of an update's message without its large values. */
function kinds(messages: readonly Message[]): string[] {
  return messages.flatMap((message) => {
    if (message.kind !== "update") return [];
    return [`${message.old?.what ?? "-"} ${message.row.map((value) => value === unchanged ? "u" : ".").join("")}`];
  });
}

describe("random work", () => {
  it.each([1, 2, 3, 4])("seed %i: applied in groups of any size, both sides hold the same rows", async (seed) => {
    await withPair("", async (pair) => {
      const below = numbersFrom(seed);
      const kept = new Set<string>();
      let failed = 0;
      let changes = 0;
      for (let round = 0; round < 8; round++) {
        await withClient(pair.sourceUrl, async (client) => {
          for (let transaction = 0; transaction < 60; transaction++) {
            await client.query(randomTransaction(below)).catch(async () => {
              failed++;
              await client.query("rollback");
            });
          }
        });
        const messages = await pair.pull();
        for (const kind of kinds(messages)) kept.add(kind);
        const most = 1 + below(300);
        const { inserted, updated, deleted } = await applyMessages(
          pair.target,
          new RowGroup(),
          messages,
          (group) => group.changes >= below(most),
        );
        expect(inserted + updated + deleted).toBe(
          messages.filter(({ kind }) => ["insert", "update", "delete"].includes(kind)).length,
        );
        changes += inserted + updated + deleted;
        await expectEqual(pair, `seed ${seed}, round ${round}`);
        // A definition changes between groups.
        const alter = `alter table app.swapped add column late_${round} text default 'd'`;
        await onSource(pair, alter);
        await pair.target.execute(alter);
      }
      expect(failed, "transactions that the source refused").toBe(0);
      expect(changes).toBeGreaterThan(1_000);
      expect([...kept].filter((kind) => kind.includes("u")).length, "forms of kept values").toBeGreaterThan(4);
    });
  });
});

describe("one group", () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await makePair(cluster());
  });
  afterAll(() => pair.close());

  it("exchanges unique values, with and without large values that stay on the server", async () => {
    const large = "(select string_agg(md5(i::text || s.id), '') from generate_series(1, 200) as i)";
    const first = await onSource(
      pair,
      "insert into app.swapped select i, i, 'small' from generate_series(1, 4) as i",
      `update app.swapped as s set big = ${large} where id in (3, 4)`,
    );
    await applyMessages(pair.target, new RowGroup(), first, always);
    const second = await onSource(
      pair,
      `begin; update app.swapped set u = -1 where id = 1; update app.swapped set u = 1 where id = 2;
       update app.swapped set u = 2 where id = 1;
       update app.swapped set u = -1 where id = 3; update app.swapped set u = 3 where id = 4;
       update app.swapped set u = 4 where id = 3;
       update app.swapped set id = -id where id in (1, 3); commit`,
    );
    expect(kinds(second)).toContain("- ..u");
    expect(kinds(second)).toContain("key ..u");
    const asked: string[] = [];
    await applyMessages(
      listening(pair.target, (_text, values) => void asked.push(...values)),
      new RowGroup(),
      second,
      atTheEnd,
    );
    await expectEqual(pair, "after the exchange");
    expect(Math.max(...asked.map((value) => value.length))).toBeLessThan(1_000);
    // Whatever the plan: one that reads rows as it deletes them would insert the first before the second is gone.
    for (const join of ["hashjoin", "mergejoin", "nestloop"]) {
      const third = await onSource(
        pair,
        `begin; update app.swapped set u = -u where id in (-3, 4);
         update app.swapped set u = 7 + u where id in (-3, 4); commit`,
      );
      expect(kinds(third)).toEqual(["- ..u", "- ..u", "- ..u", "- ..u"]);
      const others = ["hashjoin", "mergejoin", "nestloop"].filter((other) => other !== join);
      await pair.target.execute(others.map((other) => `set enable_${other} = off`).join(";"));
      await applyMessages(pair.target, new RowGroup(), third, atTheEnd);
      await pair.target.execute(others.map((other) => `reset enable_${other}`).join(";"));
      await expectEqual(pair, `after the exchange by ${join}`);
    }
  });

  it("leaves a large value alone where the key is large too and does not change", async () => {
    const first = await onSource(
      pair,
      "insert into app.long_key values (repeat('k', 2500), 1, 'p')",
      "insert into app.long_key values (repeat('l', 2500), 1, 'p')",
    );
    await applyMessages(pair.target, new RowGroup(), first, always);
    const second = await onSource(pair, "update app.long_key set n = 2");
    expect(kinds(second)).toEqual(["key u..", "key u.."]);
    await applyMessages(pair.target, new RowGroup(), second, always);
    await expectEqual(pair, "after the update");
  });

  it("applied twice in one transaction counts what the stream has", async () => {
    const messages = await onSource(
      pair,
      "insert into app.parent values (101), (102), (103)",
      "update app.parent set id = id + 100 where id in (101, 102)",
      "delete from app.parent where id = 103",
    );
    expect(await applyMessages(pair.target, new RowGroup(), messages, atTheEnd))
      .toEqual({ groups: 1, inserted: 3, updated: 2, deleted: 1 });
    await expectEqual(pair, "after all");
  });

  it("says how large it is, and is empty after clear", async () => {
    const messages = await onSource(pair, "insert into app.appended values (1, repeat('x', 100000))");
    const relation = relationOf(messages);
    const group = new RowGroup();
    for (const message of messages) if (message.kind === "insert") group.add(relation, message);
    expect(group.changes).toBe(1);
    expect(group.bytes).toBeGreaterThan(100_000);
    group.clear();
    expect([group.changes, group.bytes]).toEqual([0, 0]);
    await applyMessages(pair.target, group, messages, always);
    await expectEqual(pair, "after clear");
  });

  it("refuses a relation whose columns changed since its first change", async () => {
    const before = relationOf(await onSource(pair, "insert into app.whole_pk values (-1)"));
    const group = new RowGroup();
    const change = { kind: "insert", relation: before.oid, row: ["-1", null, null] } as const;
    group.add(before, change);
    group.add({ ...before, columns: [...before.columns] }, { ...change, row: ["-2", null, null] });
    const columns = before.columns.map((column, at) => at === 1 ? { ...column, name: "w" } : column);
    expect(() => group.add({ ...before, columns }, change)).toThrow(expect.objectContaining({ code: "internal" }));
  });
});

function relationOf(messages: readonly Message[]): Relation {
  const found = messages.find((message) => message.kind === "relation");
  if (found?.kind !== "relation") throw new Error("no relation was announced");
  return found.relation;
}

describe("a target that is not what the stream says", () => {
  let pair: Pair;
  const large = "(select string_agg(md5(i::text), '') from generate_series(1, 200) as i)";
  beforeAll(async () => {
    pair = await makePair(
      cluster(),
      `insert into app.parent select generate_series(1, 5);
       insert into app.swapped select i, i, ${large} from generate_series(1, 5) as i;
       insert into app.whole (a, t) values (1, 'secret'), (1, 'secret'), (2, 'other');
       insert into app.whole_pk values (1, 'secret'), (2, 'other');`,
    );
  });
  afterAll(() => pair.close());

  it.each([
    [
      "a deleted row is missing",
      "delete from app.parent where id = 3",
      "delete from app.parent where id in (2, 3)",
      "app.parent: the target has 1 of 2 rows to delete",
    ],
    [
      "an updated row is missing, of which values stay",
      "delete from app.swapped where id = 3",
      "update app.swapped set u = u + 100 where id in (2, 3)",
      "app.swapped: the target has 1 of 2 rows to update",
    ],
    [
      "a duplicate is missing",
      "delete from app.whole where ctid = (select ctid from app.whole where a = 1 limit 1)",
      "delete from app.whole where a = 1",
      "app.whole: the target has 1 of 2 rows to delete",
    ],
    [
      "a row without a key has another value",
      "update app.whole set js = '{}' where a = 2",
      "update app.whole set t = 'new' where a = 2",
      "app.whole: the target has 0 of 1 rows to delete",
    ],
    [
      "a row known by all of its values but found by its key is missing",
      "delete from app.whole_pk where id = 1",
      "update app.whole_pk set v = 'new'",
      "app.whole_pk: the target has 1 of 2 rows to delete",
    ],
    [
      "an inserted row is there already",
      "insert into app.parent values (7)",
      "insert into app.parent values (6), (7)",
      "app.parent: the target has a row that should not be there",
    ],
    [
      "a row stands where one moves to",
      "insert into app.swapped values (8, 8)",
      "update app.swapped set u = 8 where id = 1",
      "app.swapped: the target has a row that should not be there",
    ],
  ])("%s: counts_differ with table and numbers, and nothing is left after the rollback", async (
    _what,
    onTarget,
    statement,
    message,
  ) => {
    await pair.target.execute(`begin; ${onTarget}; commit`);
    const messages = await onSource(pair, "insert into app.appended values (1, 'first')", statement);
    const before = await state(pair);
    const failure = await applyMessages(pair.target, new RowGroup(), messages, atTheEnd).catch((e: unknown) => e);
    expect(failure).toMatchObject({ code: "counts_differ", message });
    expect(await state(pair)).toEqual(before);
    await makeEqual(pair);
  });

  it("a table, a column or an index is missing: target_differs", async () => {
    const messages = await onSource(pair, "update app.parent set id = id + 1000");
    for (
      const [statement, message] of [
        ["alter table app.parent rename to elsewhere", "the target has no table app.parent"],
        ["alter table app.parent rename column id to i", "the target's app.parent has no column id"],
        [
          "alter table app.parent drop constraint parent_pkey cascade",
          "the target's app.parent has no unique index on (id)",
        ],
      ] as const
    ) {
      await pair.target.execute(`begin; ${statement}`);
      const group = new RowGroup();
      const relation = relationOf(messages);
      for (const one of messages) if (one.kind === "update") group.add(relation, one);
      await expect(group.apply(pair.target)).rejects.toMatchObject({ code: "target_differs", message });
      await pair.target.execute("rollback");
    }
  });
});

/** Every row of the target. */
async function state(pair: Pair): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {};
  for (const table of tables) found[table] = (await pair.rows(table)).target;
  return found;
}

/** The target's rows as the source has them, by another way than the one under test. */
async function makeEqual(pair: Pair): Promise<void> {
  for (const table of ["app.parent", "app.swapped", "app.whole", "app.whole_pk", "app.appended"]) {
    const parts: Uint8Array[] = [];
    await withSource(
      pair,
      (source) => source.copyOut(`copy ${table} to stdout`, (bytes) => void parts.push(bytes.slice())).then(() => {}),
    );
    await pair.target.execute(`delete from ${table}`);
    await pair.target.copyIn(`copy ${table} from stdin`, parts);
  }
  await expectEqual(pair, "after the repair");
}

async function withSource(pair: Pair, use: (source: Connection) => Promise<void>): Promise<void> {
  const source = await openDatabase({ url: pair.sourceUrl }).connect("holdfast:test");
  try {
    await use(source);
  } finally {
    await source.close();
  }
}

/** The same session; `onQuery` sees each query before it runs. */
function listening(
  connection: Connection,
  onQuery: (text: string, values: readonly string[]) => void | Promise<void>,
): Connection {
  return {
    processId: connection.processId,
    serverVersion: connection.serverVersion,
    query: async (text, values) => {
      await onQuery(text, (values ?? []).map((value) => value ?? ""));
      return await connection.query(text, values);
    },
    execute: (text) => connection.execute(text),
    copyOut: (text, onData) => connection.copyOut(text, onData),
    copyIn: (text, source) => connection.copyIn(text, source),
    close: () => connection.close(),
  };
}

describe("many keys of a large table", () => {
  const fill = `create table app.large (
      a int, k extensions.citext, t text not null, v text, pad text, primary key (k, a));
    alter table app.large alter column v set storage external;
    create unique index large_text on app.large (t collate "POSIX");
    insert into app.large select i, 'key ' || i, 'text ' || i, case when i % 1000 = 0 then repeat('v', 3000) end, repeat('p', 60)
      from generate_series(1, 100000) as i;`;
  const identities = ["default", "using index large_text", "full"];

  it("are found by an index, whatever the identity, however many they are, with statistics and without", async () => {
    await withPair(fill, async (pair) => {
      await onSource(pair, "alter publication of_changes add table app.large");
      for (const identity of identities) {
        const alter = `alter table app.large replica identity ${identity}`;
        await pair.target.execute(alter);
        const messages = await onSource(pair, alter, "update app.large set pad = 'new' || pad where a % 10 = 0");
        const plans: string[] = [];
        const target = listening(pair.target, async (text, values) => {
          if (!text.includes("delete from only")) return;
          const rows = await pair.target.query(`explain ${text}`, values);
          plans.push(rows.map((row) => row["QUERY PLAN"]).join("\n"));
        });
        await applyMessages(target, new RowGroup(), messages, atTheEnd);
        // Of identity full every old row travels whole: nothing is left for the target to keep.
        expect(plans).toHaveLength(identity === "full" ? 1 : 2);
        for (const plan of plans) {
          expect(plan).toMatch(/Index Scan|Bitmap Index Scan/);
          expect(plan).not.toContain("Seq Scan");
        }
        const { source, target: rows } = await pair.rows("app.large");
        expect(rows.length).toBe(100_000);
        expect(rows.join() === source.join(), identity).toBe(true);
        await pair.target.execute("analyze app.large");
      }
    });
  });
});
