/** Every scope in every mode, on every table of the corpus and of the sample app, against plain SQL over copies of the rows. */
import process from "node:process";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { restoreModes } from "../../src/shared/rows/apply/difference.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack, type PutBackOptions } from "../../src/shared/rows/apply/put_back.ts";
import { layAsked, pairAsked, type RowsAsked } from "../../src/shared/rows/asked.ts";
import { typeConditions } from "../../src/shared/rows/beside/conditions.ts";
import type { UserChoice } from "../../src/shared/rows/beside/lay_user.ts";
import { openBackupRows } from "../../src/shared/rows/past/backup_rows.ts";
import type { PastRows } from "../../src/shared/rows/past/past.ts";
import { quoteIdent, quoteLiteral } from "../../src/shared/schema/quote.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { loadCorpus } from "../corpus/load.ts";
import { type Cluster, clusterMs, freshDatabase, query, startTestCluster } from "../support/cluster.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { databaseOf, restoreDeps, writeBackup } from "../integration/restore_fixture.ts";
import { isLong, sampled } from "../support/sampled.ts";
import { patient, sideName } from "./rows_fixture.ts";
import { damage, growTables, kindsOf, type Now, readTables, reset, type ScopedTable } from "./rows_scopes_damage.ts";
import {
  type Counts,
  differ,
  expectedCounts,
  expectedRows,
  footprints,
  isValid,
  type Mode,
  prepareFootprints,
  prepareRows,
  print,
  rowsOf,
  without,
} from "./rows_scopes_oracle.ts";
import {
  addFacts,
  damageUser,
  otherTables,
  removeUser,
  signUpAgain,
  tokens,
  type UserTable,
  userTables,
} from "./rows_scopes_user.ts";

/** A database of its own, the same as the one that was backed up, oids too. */
interface Lane {
  readonly database: string;
  readonly client: pg.Client;
  /** As role postgres, as people restore. */
  readonly owner: Connection;
  readonly superuser: Connection;
  readonly source: PastRows;
}

let cluster: Cluster;
let people: readonly [string, string];
let tables: ScopedTable[];
/** As pg_dump writes them down. */
let definitions: string;
const lanes: Lane[] = [];
const again = "00000000-0000-4000-8000-00000000000a";
const counted = { tables: 0, records: 0, users: 0, restores: 0, refused: 0 };

const settings =
  `set search_path = pg_catalog, extensions; set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set lc_monetary = 'C';
  set intervalstyle = 'postgres'; set jit = off; set client_min_messages = warning; set row_security = off`;

beforeAll(async () => {
  cluster = await startTestCluster();
  const base = await freshDatabase(cluster);
  const postgres = await databaseOf(cluster, "postgres", base).connect("corpus");
  const superuser = await databaseOf(cluster, cluster.superuser, base).connect("corpus");
  await loadCorpus({ postgres, superuser });
  await postgres.close();
  await superuser.close();
  const app = await loadSampleApp({
    owner: { connectionString: cluster.plainUrl("postgres", base) },
    admin: { connectionString: cluster.plainUrl(cluster.superuser, base) },
  }, { scale: 0.005 });
  const [one, other] = app.people;
  if (one === undefined || other === undefined) throw new Error("nobody is there");
  people = [one.id, other.id];
  const client = await clientOf(base);
  await client.query(addFacts(one.id, other.id));
  tables = await readTables(client);
  await growTables(client, tables);
  await client.end();
  const store = createMemoryStore();
  const backup = await writeBackup(databaseOf(cluster, cluster.superuser, base), store);
  for (const database of ["lane_0", "lane_1", "lane_2", "lane_3"]) {
    await query(cluster.plainUrl(cluster.superuser), `create database ${database} template ${base} owner postgres`);
    const lane = {
      database,
      client: await clientOf(database),
      owner: await openSession(databaseOf(cluster, "postgres", database), "holdfast:restore"),
      superuser: await openSession(databaseOf(cluster, cluster.superuser, database), "holdfast:restore"),
      source: await openBackupRows(await restoreDeps(store, backup.ring, databaseOf(cluster)), backup.id),
    };
    await prepareFootprints(lane.client);
    lanes.push(lane);
  }
  definitions = await definitionsOf(laneOf(0).database);
}, clusterMs);

afterAll(async () => {
  for (const { client, owner, superuser } of lanes) {
    await client.end();
    await owner.close();
    await superuser.close();
  }
  await cluster?.destroy();
}, clusterMs);

async function clientOf(database: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: cluster.plainUrl(cluster.superuser, database) });
  await client.connect();
  await client.query(settings);
  return client;
}

function laneOf(at: number): Lane {
  const lane = lanes[at];
  if (lane === undefined) throw new Error(`no lane ${at}`);
  return lane;
}

async function definitionsOf(database: string): Promise<string> {
  const { stdout } = await promisify(execFile)(join(cluster.bin, "pg_dump"), ["--schema-only", "--exclude-schema=o"], {
    env: { ...process.env, ...cluster.environment(cluster.superuser, database) },
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  return stdout.replace(/^\\(un)?restrict .*$/gm, "");
}

type Column = ScopedTable["columns"][number];

interface Case {
  readonly what: string;
  readonly asked: RowsAsked;
  /** Condition on `whole_row`. */
  readonly meant: string;
  readonly now: Now;
  readonly modes: readonly Mode[];
}

const asTable = (table: ScopedTable): Case => ({
  what: "the table",
  asked: { scope: "table", table: { schema: table.schema, name: table.name } },
  meant: "true",
  now: "less_rows",
  modes: restoreModes,
});

/** The server's own equality of the type, of texts byte by byte. */
function equalTo({ name, base }: Column, value: string): string {
  const collate = /^(text|character varying|bpchar)$/.test(base) ? ' collate "C"' : "";
  return `whole_row.${quoteIdent(name)}::${base}${collate} = ${quoteLiteral(value)}::${base}`;
}

type Conditions = readonly (readonly [Column, string])[];

/** Without a key `replace` would not know which of the rows that fit are new, and is refused. */
const asRecord = (table: ScopedTable, what: string, conditions: Conditions, modes: readonly Mode[]): Case => ({
  what,
  asked: {
    scope: "record",
    table: { schema: table.schema, name: table.name },
    where: conditions.map(([{ name }, value]) => ({ column: name, value })),
  },
  meant: conditions.map(([column, value]) => equalTo(column, value)).join(" and "),
  now: "now_rows",
  modes: table.key === null ? modes.filter((mode) => mode !== "replace") : modes,
});

/** What went wrong, in one line each; empty: nothing. */
async function restoreCase(lane: Lane, table: ScopedTable, one: Case): Promise<string[]> {
  const { client, source } = lane;
  const connection = table.closed ? lane.superuser : lane.owner;
  const deps = { connection, source, sameDatabase: true, schema: sideName() };
  const wrong: string[] = [];
  const then = `select * from o.then_rows as whole_row where ${one.meant}`;
  const now = `select ${print} from o.${one.now} as whole_row`;
  try {
    await reset(client, table, one.now);
    await prepareRows(client, table.key, {
      was: then,
      now: `select * from o.${one.now}`,
      meant: one.asked.scope === "table" ? one.meant : `${one.meant} and ${wasNotThere(table)}`,
    });
    const laid = await layAsked(deps, one.asked, "test");
    const columns = `md5(row(${table.columns.map(({ name }) => `t.${quoteIdent(name)}`).join(", ")})::text) as r`;
    const side = `select ${columns} from ${laid.tables[0]?.side.sql} as t`;
    const isBeside = await differ(client, side, `select ${columns} from (${then}) as t`) === 0 &&
      await differ(client, rowsOf(table), now) === 0;
    if (!isBeside) wrong.push("beside: other rows");
    for (const mode of one.modes) {
      if (mode !== one.modes[0]) await reset(client, table, one.now);
      const { pairs, keys } = await pairAsked(deps, one.asked, laid);
      const isTable = one.asked.scope === "table";
      // Where rows have no key, what was changed comes back beside what it is now.
      const valid = (isTable && table.key !== null) || await isValid(client, table, one.now, mode);
      const expected = await expectedCounts(client, table, mode);
      const plan = await planRows(connection, pairs, keys, mode);
      const [planned] = plan.tables;
      if (!isSame({ inserted: planned?.insert, updated: planned?.update, deleted: planned?.delete }, expected)) {
        wrong.push(`${mode}: planned ${JSON.stringify(planned)} for ${JSON.stringify(expected)}`);
      }
      if (valid && planned?.conflicts.length !== 0) {
        wrong.push(`${mode}: foresees ${JSON.stringify(planned?.conflicts)}`);
      }
      const options = { ...patient, mode, wholeTables: isTable, fireTriggers: table.alwaysTriggers };
      const said = await putBack(connection, pairs, keys, options).catch((error: unknown) => error);
      if (said instanceof Error) {
        const isRight = !valid && said instanceof HoldfastError && said.code === "rows_conflict";
        if (!isRight) wrong.push(`${mode}: ${said.message}`);
        else counted.refused++;
      } else {
        counted.restores++;
        if (!valid) wrong.push(`${mode}: not refused`);
        if (!isSame(said as Counts, expected)) {
          wrong.push(`${mode}: ${JSON.stringify(said)} for ${JSON.stringify(expected)}`);
        }
      }
      const differences = await differ(client, rowsOf(table), valid ? expectedRows(table, mode) : now);
      if (differences !== 0) wrong.push(`${mode}: ${differences} rows differ`);
    }
  } catch (error) {
    wrong.push(error instanceof HoldfastError ? `${error.code} ${error.message}` : String(error));
  } finally {
    await connection.execute(`drop schema if exists ${deps.schema} cascade`);
  }
  return wrong.map((what) => `${table.sql}, ${one.what}: ${what}`);
}

/** Of the whole table: a row that fits only since then is not deleted. */
function wasNotThere({ key }: ScopedTable): string {
  if (key === null) return "false";
  const same = key.map((name) => `t.${quoteIdent(name)} = whole_row.${quoteIdent(name)}`).join(" and ");
  return `not exists (select from o.then_rows as t where ${same})`;
}

const isSame = (one: { readonly [name in keyof Counts]: number | undefined }, other: Counts) =>
  one.inserted === other.inserted && one.updated === other.updated && one.deleted === other.deleted;

/** Columns of types that the server can tell apart at all. */
async function comparableOf({ client }: Lane, table: ScopedTable): Promise<Column[]> {
  const found: Column[] = [];
  for (const column of table.columns) {
    const isComparable = await client.query(`select count(distinct null::${column.base})`).then(
      () => true,
      () => false,
    );
    if (isComparable) found.push(column);
  }
  return found;
}

/** One row, by its key or by a value, which is gone or changed; and those with a value that most rows share. */
async function recordsOf(lane: Lane, table: ScopedTable, gone: boolean): Promise<Case[]> {
  const { client } = lane;
  const columns = await comparableOf(lane, table);
  if (columns.length === 0) return [];
  const found: Case[] = [];
  const texts = columns.map(({ name }, at) => `t.${quoteIdent(name)}::text as c${at}`).join(", ");
  const { rows: [row] } = await client.query<Record<string, string | null>>(
    `select ${texts} from o.then_rows as t join o.pick as p on p.tid = t.ctid
      where p.gone or p.changed order by p.gone <> ${gone}, p.n limit 1`,
  );
  const conditions = columns.flatMap((column, at): [Column, string][] => {
    const value = row?.[`c${at}`] ?? null;
    return value === null || (table.key !== null && !table.key.includes(column.name)) ? [] : [[column, value]];
  });
  if (conditions.length > 0) {
    found.push(asRecord(table, "a row", table.key === null ? conditions.slice(0, 1) : conditions, restoreModes));
  }
  const shared = columns.map(({ name }, at) => {
    const text = `t.${quoteIdent(name)}::text`;
    return `(select ${at} as place, ${text} as value, count(*) as n from o.then_rows as t
       where ${text} <> '' and length(${text}) < 1000 group by 2 order by n desc, 2 limit 1)`;
  });
  const { rows: [most] } = await client.query<{ place: number; value: string }>(
    `select * from (${shared.join(" union all ")}) as q where n > 1 order by n desc, place limit 1`,
  );
  const column = columns[most?.place ?? -1];
  if (most !== undefined && column !== undefined) {
    found.push(asRecord(table, `rows by ${column.name}`, [[column, most.value]], restoreModes));
  }
  return found;
}

describe.concurrent("rows of one table", () => {
  it.each([0, 1])(
    "come back in every mode, all or some of them, and nothing else changes: half %i of the tables",
    async (at) => {
      const lane = laneOf(at);
      const wrong: string[] = [];
      const damaged = { gone: 0, changed: 0, own: 0 };
      let before = await footprints(lane.client);
      const all = [...tables.entries()];
      const some = sampled("tables", all, Math.ceil(all.length / 3), ([, table]) => kindsOf(table))
        .filter(([place]) => place % 2 === at);
      for (const [place, table] of some) {
        const done = await damage(lane.client, table);
        for (const what of ["gone", "changed", "own"] as const) if (done[what] > 0) damaged[what]++;
        for (const one of [asTable(table), ...await recordsOf(lane, table, place % 4 < 2)]) {
          counted[one.asked.scope === "table" ? "tables" : "records"]++;
          wrong.push(...await restoreCase(lane, table, one));
        }
        await reset(lane.client, table, "then_rows");
        const after = await footprints(lane.client);
        const others = [before, after].map((prints) => JSON.stringify(without(prints, table.family)));
        before = after;
        if (others[0] !== others[1]) wrong.push(`${table.sql}: another table changed`);
      }
      expect(wrong).toEqual([]);
      expect(await definitionsOf(lane.database)).toBe(definitions);
      for (const times of Object.values(damaged)) expect(times).toBeGreaterThan(some.length / 3);
    },
    240_000,
  );
});

describe.concurrent("a row", () => {
  it("is found by a value of any type that can be compared, and by none of any other", async () => {
    const lane = laneOf(3);
    const { client } = lane;
    const done = new Set<string>();
    const wrong: string[] = [];
    const seen = { found: 0, refused: 0 };
    const kinds = new Map(tables.flatMap(({ columns }) => columns.map(({ type, kind }) => [type, kind] as const)));
    const all = [...kinds.keys()].sort();
    // Of the types without a category of their own some can be compared and some cannot.
    const kindOf = (type: string) => [kinds.get(type) === "bU" ? type : `${kinds.get(type)}${type.endsWith("[]")}`];
    const types = new Set(sampled("types", all, 40, kindOf));
    // The table of all types first: others have what it lacks.
    for (const table of tables.toSorted((a, b) => Number(b.name === "every_type") - Number(a.name === "every_type"))) {
      const columns = table.columns.filter(({ type }) => types.has(type) && !done.has(type));
      if (columns.length === 0) continue;
      await damage(client, table);
      const comparable = await comparableOf(lane, table);
      for (const column of columns) {
        const name = quoteIdent(column.name);
        const { rows: [row] } = await client.query<{ value: string }>(
          `select t.${name}::text as value from o.then_rows as t join o.pick as p on p.tid = t.ctid
            where t.${name} is distinct from null order by p.gone or p.changed desc, p.n limit 1`,
        );
        if (row === undefined) continue;
        done.add(column.type);
        const mode = restoreModes[done.size % 3] ?? "merge";
        const one = asRecord(table, `${column.name} of ${column.type}`, [[column, row.value]], [
          mode === "replace" && table.key === null ? "merge" : mode,
        ]);
        if (comparable.includes(column)) {
          seen.found++;
          wrong.push(...await restoreCase(lane, table, one));
          continue;
        }
        seen.refused++;
        const deps = { connection: lane.owner, source: lane.source, sameDatabase: true, schema: sideName() };
        const said = await layAsked(deps, one.asked, "test").then(() => null, (error: unknown) => error);
        if (!(said instanceof HoldfastError && said.code === "usage")) wrong.push(`${one.what}: ${String(said)}`);
        await lane.owner.execute(`drop schema ${deps.schema} cascade`);
      }
      await reset(client, table, "then_rows");
    }
    expect(wrong).toEqual([]);
    expect(seen.found).toBeGreaterThan(isLong ? 70 : 15);
    expect(seen.refused).toBeGreaterThan(isLong ? 5 : 0);
  }, 120_000);
});

describe("an array of what cannot be compared", () => {
  it.each(["json[]", "point[]"])("is refused as a condition, as the thing itself is: %s", async (type) => {
    const [table] = laneOf(0).source.tables;
    if (table === undefined) throw new Error("no tables");
    const said = typeConditions(laneOf(0).owner, table, new Map([["x", type]]), [{ column: "x", value: "{}" }]);
    await expect(said).rejects.toMatchObject({ code: "usage", message: `values of type ${type} cannot be compared` });
  });
});

describe.concurrent("the rows of one person", () => {
  it("come back in every mode, and those of others stay as they are", async () => {
    const lane = laneOf(2);
    const { client } = lane;
    const [user, other] = people;
    await client.query("create schema o");
    await copyTables(lane, "o_then");
    const there = { user, as: null, credentials: false, shared: false, map, replaces: true } satisfies UserChoice;
    const worlds: { readonly what: string; readonly damage: string; readonly choices: readonly UserChoice[] }[] = [
      {
        what: "who is there",
        damage: damageUser(user, other),
        choices: [there, { ...there, credentials: true }, { ...there, shared: true }],
      },
      { what: "who is gone", damage: removeUser(user), choices: [there, { ...there, shared: true }] },
      {
        what: "who signed up again",
        damage: `${removeUser(user)}; ${signUpAgain(again)}`,
        choices: [{ ...there, as: again }, { ...there, as: again, credentials: true, shared: true }],
      },
    ];
    for (const { what, damage: sql, choices } of worlds) {
      await loadTables(lane, "o_then");
      await client.query(sql);
      await copyTables(lane, "o_now");
      for (const choice of choices) await restoreUser(lane, what, choice);
    }
    await loadTables(lane, "o_then");
    await client.query("drop schema o, o_then, o_now cascade");
    expect(await definitionsOf(lane.database)).toBe(definitions);
    expect(counted.users).toBe(21);
  }, 300_000);
});

/** What no key of the app tells. */
const map: UserChoice["map"] = {
  version: 1,
  keys: [],
  users: ["events", "mood_samples"].map((name) => ({ table: { schema: "public", name }, column: "user_id" })),
  tables: [],
};

const watched = [...userTables.map(({ schema, name }) => `${schema}.${name}`), ...otherTables];

/** Names of copies are those of the tables, which no two schemas share. */
const copyOf = (schema: string, table: string) => `${schema}.${table.split(".")[1] ?? ""}`;

async function copyTables({ client }: Lane, schema: string): Promise<void> {
  await client.query([
    `drop schema if exists ${schema} cascade; create schema ${schema}`,
    ...watched.map((table) => `create table ${copyOf(schema, table)} as select * from ${table}`),
  ].join("; "));
}

async function loadTables({ client }: Lane, schema: string): Promise<void> {
  for (const table of watched) {
    const { rows } = await client.query<{ name: string }>(
      `select quote_ident(attname) as name from pg_attribute
        where attrelid = '${table}'::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`,
    );
    const list = rows.map(({ name }) => name).join(", ");
    await client.query(`
      set session_replication_role = replica; delete from ${table};
      insert into ${table} (${list}) overriding system value select ${list} from ${copyOf(schema, table)};
      reset session_replication_role`);
  }
}

/** Rows of the user as they are to come back, as a select. */
async function rowsToCome(client: pg.Client, table: UserTable, choice: UserChoice): Promise<string> {
  const { user, as, shared, credentials } = choice;
  const from = `o_then.${table.name}`;
  const isThere = as !== null ||
    (await client.query(`select from o_now.users where id = '${user}'`)).rowCount === 1;
  const isOut = table.schema === "auth" &&
    (as !== null || (table.name === "mfa_factors" && isThere && !credentials));
  const mine = table.mine(user, "o_then");
  const also = shared && table.shared !== undefined ? ` or (${table.shared(user, "o_then")})` : "";
  // Sign-ins that are gone from an account that is there were taken away, for all that anybody knows.
  const isKept = table.name === "identities" && isThere && !credentials
    ? " and id in (select id from o_now.identities)"
    : "";
  const where = isOut ? "false" : `((${mine})${also})${isKept}`;
  const { rows } = await client.query<{ name: string }>(
    `select attname as name from pg_attribute where attrelid = '${from}'::regclass and attnum > 0 and not attisdropped order by attnum`,
  );
  const kept = table.name !== "users" ? [] : [...tokens, ...(credentials ? [] : ["encrypted_password"])];
  const values = rows.map(({ name }) => {
    if (name === table.id && as !== null) return `'${as}'::uuid as ${name}`;
    if (!kept.includes(name)) return `whole_row.${name}`;
    const isToken = name !== "encrypted_password";
    return `coalesce(is_now.${name}, ${isToken ? "''" : `whole_row.${name}`}) as ${name}`;
  });
  const now = kept.length === 0 ? "" : ` left join o_now.users as is_now on is_now.id = whole_row.id`;
  return `select ${values.join(", ")} from ${from} as whole_row${now} where ${where}`;
}

async function restoreUser(lane: Lane, what: string, choice: UserChoice): Promise<void> {
  const { client, owner: connection, source } = lane;
  const asked: RowsAsked = { scope: "user", choice };
  const deps = { connection, source, sameDatabase: true, schema: sideName() };
  const who = `${what}, ${JSON.stringify({ ...choice, map: undefined, user: undefined })}`;
  const laid = await layAsked(deps, asked, "test");
  const same = async (mode: string) => {
    for (const table of watched) {
      const left = await differ(
        client,
        `select ${print} from ${table} as whole_row`,
        `select ${print} from ${copyOf("o_now", table)} as whole_row`,
      );
      expect(left, `${who}, ${mode}: ${table}`).toBe(0);
    }
  };
  await same("beside");
  for (const mode of restoreModes) {
    const { pairs, keys } = await pairAsked(deps, asked, laid);
    const plan = await planRows(connection, pairs, keys, mode);
    expect(plan.tables.flatMap(({ conflicts }) => conflicts), `${who}, ${mode}`).toEqual([]);
    const options: PutBackOptions = { ...patient, mode };
    const done = await putBack(connection, pairs, keys, options).catch((cause: unknown) => {
      throw new Error(`${who}, ${mode}`, { cause });
    });
    for (const table of userTables) {
      const name = `${table.schema}.${table.name}`;
      const label = `${who}, ${mode}: ${name}`;
      const now = choice.as ?? choice.user;
      const isIn = choice.as === null || table.schema !== "auth";
      await prepareRows(client, table.key, {
        was: await rowsToCome(client, table, choice),
        now: `select * from o_now.${table.name}`,
        meant: isIn && !isLeftOut(table, choice, what)
          ? `${table.mine(now, "o_now")} and ${wasNobodys(table)}`
          : "false",
      });
      const expected = await expectedCounts(client, table, mode);
      const own = done.tables.find((one) => one.table === name);
      const { inserted = 0, updated = 0, deleted = 0 } = own ?? {};
      expect({ inserted, updated, deleted }, label).toEqual(expected);
      const differences = await differ(client, `select ${print} from ${name} as whole_row`, expectedRows(table, mode));
      expect(differences, label).toBe(0);
    }
    for (const table of otherTables) {
      const left = await differ(
        client,
        `select ${print} from ${table} as whole_row`,
        `select ${print} from ${copyOf("o_now", table)} as whole_row`,
      );
      expect(left, `${who}, ${mode}: ${table}`).toBe(0);
    }
    counted.users++;
    await loadTables(lane, "o_now");
  }
  await connection.execute(`drop schema ${deps.schema} cascade`);
}

/** Second factors of a user who is there stay as they are, unless they are asked for. */
const isLeftOut = ({ name }: UserTable, { credentials }: UserChoice, what: string) =>
  name === "mfa_factors" && what === "who is there" && !credentials;

/** The row was not there then: what was another's is not deleted as the user's own, nor what nobody can tell to be new. */
function wasNobodys({ name, key }: UserTable): string {
  if (key === null) return "false";
  const of = `row(${key.map((column) => `whole_row.${column}`).join(", ")})::text`;
  return `${of} not in (select ${of} from o_then.${name} as whole_row)`;
}
