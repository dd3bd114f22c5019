/** Rows that a restore meets and that are not its own to delete or to take: those of others, and those that were there then. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parentsFirst } from "../../src/shared/rows/apply/parents_first.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";
import { shrinkDifference } from "../../src/shared/rows/apply/put_back_steps.ts";
import type { RestoreMode } from "../../src/shared/rows/apply/difference.ts";
import { layAsked, pairAsked, type RowsAsked, warningsOf } from "../../src/shared/rows/asked.ts";
import { layDatabaseBeside } from "../../src/shared/rows/beside/database_beside.ts";
import { parseCondition } from "../../src/shared/rows/beside/conditions.ts";
import type { UserChoice } from "../../src/shared/rows/beside/lay_user.ts";
import { readBackupMap } from "../../src/shared/rows/ownership/map_file.ts";
import { clearSide } from "../../src/shared/rows/work_begin.ts";
import { query, useCluster } from "../support/cluster.ts";
import { type Past, pastOf, patient, rowsOf, sideName } from "./rows_fixture.ts";

const cluster = useCluster();
let past: Past;
const [anna, ben] = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];
const again = "33333333-3333-4333-8333-333333333333";
const session = "44444444-4444-4444-8444-444444444444";

/** Each in a schema of its own. */
const worlds = {
  tasks: `
    create table tasks.keyed (id int primary key, team int, v text);
    insert into tasks.keyed values (1, 7, 'a'), (2, 8, 'b'), (3, 7, 'c');
    create table tasks.bag (team int, v text); insert into tasks.bag values (7, 'a'), (8, 'b')`,
  bags: `
    create table bags.notes (user_id uuid references auth.users, x text);
    insert into bags.notes values ('${anna}', 'mine'), ('${ben}', 'of ben')`,
  alike: `
    create collation alike.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table alike.collated (name text collate alike.ci primary key, user_id uuid references auth.users);
    create table alike.cited (name extensions.citext primary key, user_id uuid references auth.users);
    create table alike.numbered (id numeric primary key, user_id uuid references auth.users);
    create table alike.texts (id text primary key, user_id uuid references auth.users);
    create table alike.odd (id text primary key, user_id uuid references auth.users);
    insert into alike.collated values ('Bob', '${anna}'), ('Eve', '${ben}');
    insert into alike.cited values ('Bob', '${anna}'), ('Eve', '${ben}');
    insert into alike.numbered values (2, '${anna}'), (1.0, '${ben}');
    insert into alike.texts values ('2', '${anna}'), ('01', '${ben}');
    insert into alike.odd values ('2', '${anna}'), ('x', '${ben}')`,
  given: `
    create table given.notes (id int primary key, user_id uuid references auth.users, x text);
    insert into given.notes values (1, '${anna}', 'mine'), (2, '${ben}', 'of ben')`,
  taken: `
    create table taken.books (id int primary key, user_id uuid references auth.users, x text);
    create table taken.pages (id int primary key, book int references taken.books, x text);
    create table taken.log (id int primary key, user_id uuid, x text);
    insert into taken.books values (1, '${anna}', 'then'), (2, '${ben}', 'of ben'), (3, '${anna}', 'then'), (4, '${anna}', 'then');
    insert into taken.pages values (1, 1, 'then'), (2, 2, 'of ben'), (3, 3, 'then');
    insert into taken.log values (1, '${anna}', 'then')`,
  factors: `
    insert into auth.mfa_factors (id, user_id, status, factor_type, secret, created_at, updated_at)
      values ('${session}', '${anna}', 'verified', 'totp', 'of then', now(), now())`,
  lost: `
    insert into auth.identities (provider_id, user_id, identity_data, provider)
      values ('old', '${anna}', '{"sub": "old"}', 'google'), ('kept', '${anna}', '{"sub": "kept"}', 'github');
    create table lost.goods (id int primary key); create table lost.codes (id int primary key);
    create table lost.orders (id int primary key, user_id uuid references auth.users, code int references lost.codes on delete set null);
    create table lost.marks (id int primary key, user_id uuid references auth.users, good int references lost.goods on delete cascade, near int references lost.marks);
    create table lost.words (mark int references lost.marks on delete cascade, x text);
    insert into lost.goods values (1), (2); insert into lost.codes values (1);
    insert into lost.orders values (1, '${anna}', 1); insert into lost.marks values (1, '${anna}', 1, null), (2, '${anna}', 2, null), (3, '${anna}', 1, 2);
    insert into lost.words values (1, 'a'), (2, 'b'), (3, 'c')`,
  files: `
    create table files.uploads (id int primary key, owner uuid references auth.users, session uuid references auth.sessions);
    create table files.parts (id int primary key, upload int references files.uploads);
    insert into files.uploads values (1, '${anna}', null), (2, '${anna}', '${session}'), (3, '${anna}', null);
    insert into files.parts values (1, 1), (2, 2), (3, 2)`,
};

beforeAll(async () => {
  past = await pastOf(
    cluster(),
    [
      "create extension if not exists citext with schema extensions",
      `insert into auth.users (id, email, encrypted_password) values ('${anna}', 'anna@x.y', 'then'), ('${ben}', 'ben@x.y', 'then')`,
      `insert into auth.sessions (id, user_id) values ('${session}', '${anna}')`,
      ...Object.entries(worlds).map(([name, sql]) => `create schema ${name}; ${sql}`),
    ].join("; "),
  );
}, 120_000);
afterAll(() => past?.connection.close());

const change = (sql: string) => query(past.url, sql);

/** Of the tables that every project has those alone that matter here: each one costs time. */
const leftAlone = [
  ...["audit_log_entries", "flow_state", "identities", "mfa_amr_claims", "mfa_challenges", "oauth_authorizations"],
  ...["oauth_consents", "one_time_tokens", "refresh_tokens", "saml_relay_states", "webauthn_challenges"],
  ...["webauthn_credentials"],
].map((name) => ({ table: `auth.${name}`, rows: "never" })).concat(
  ["objects", "s3_multipart_uploads", "s3_multipart_uploads_parts"].map((name) => ({
    table: `storage.${name}`,
    rows: "never",
  })),
);

/** Of the worlds that one alone. */
const mapOf = (world: keyof typeof worlds, tables: readonly object[] = []) =>
  readBackupMap(JSON.stringify({
    version: 1,
    share: 1,
    users: world === "taken" ? [{ table: "taken.log", column: "user_id" }] : [],
    tables: [
      ...leftAlone.filter(({ table }) => world !== "lost" || table !== "auth.identities"),
      ...Object.entries(worlds).filter(([name]) => name !== world).flatMap(([, sql]) =>
        [...sql.matchAll(/create table (\S+)/g)].map(([, table]) => ({ table, rows: "never" }))
      ),
      ...tables,
    ],
  }));

const person = (world: keyof typeof worlds, more: Partial<UserChoice> = {}): RowsAsked => ({
  scope: "user",
  choice: {
    user: anna,
    as: null,
    credentials: false,
    shared: false,
    map: mapOf(world),
    replaces: false,
    ...more,
  },
});

const records = (name: string, where: string): RowsAsked => ({
  scope: "record",
  table: { schema: "tasks", name },
  where: [parseCondition(where)],
});

/** `meanwhile`: when the rows lie beside, and again when the plan is made. */
async function bring(
  asked: RowsAsked,
  mode: RestoreMode,
  { beside, planned, steps = false, again = false }: {
    readonly beside?: string;
    readonly planned?: string;
    readonly steps?: boolean;
    /** Ends after the first step, and is gone on with. */
    readonly again?: boolean;
  } = {},
) {
  const { connection, source } = past;
  const deps = { connection, source, sameDatabase: true, schema: sideName() };
  try {
    const laid = await layAsked(deps, asked, "test");
    if (beside !== undefined) await change(beside);
    const paired = await pairAsked(deps, asked, laid);
    const pairs = parentsFirst(paired.pairs, paired.keys);
    const plan = await planRows(connection, pairs, paired.keys, mode);
    if (planned !== undefined) await change(planned);
    const conflicts = plan.tables.flatMap((table) => table.conflicts.map((one) => ({ table: table.table, ...one })));
    const notes = plan.tables.flatMap((table) => table.notes);
    const told = { warnings: warningsOf(asked, laid), conflicts, notes };
    if (conflicts.length > 0) return { ...told, result: null };
    const options = { ...patient, wholeTables: false, mode };
    if (steps) await shrinkDifference(connection, pairs, paired.keys, { ...options, capBytes: 1 });
    if (again) {
      const ended = new Error("ended");
      const onStep = () => Promise.reject(ended);
      await expect(shrinkDifference(connection, pairs, paired.keys, { ...options, capBytes: 1, onStep })).rejects.toBe(
        ended,
      );
      await clearSide(connection, deps.schema);
      const anew = await pairAsked(deps, asked, await layAsked(deps, asked, "test"));
      return { ...told, result: await putBack(connection, parentsFirst(anew.pairs, anew.keys), anew.keys, options) };
    }
    return { ...told, result: await putBack(connection, pairs, paired.keys, options) };
  } finally {
    await connection.execute(`drop schema if exists ${deps.schema} cascade`);
  }
}

describe("rows that fit a condition", () => {
  it("are replaced, and those that fit only since then stay", async () => {
    await change(`update tasks.keyed set team = 7, v = 'moved' where id = 2; delete from tasks.keyed where id = 3;
      insert into tasks.keyed values (9, 7, 'new')`);
    const { warnings } = await bring(records("keyed", "team=7"), "replace", {
      beside: "insert into tasks.keyed values (10, 7, 'newer')",
    });
    expect(await rowsOf(past.url, "tasks.keyed")).toEqual(["(1,7,a)", "(10,7,newer)", "(2,7,moved)", "(3,7,c)"]);
    expect(warnings).toEqual([
      "1 row of tasks.keyed fit the conditions now and were there then without fitting; replace leaves them as they are",
    ]);
  }, 30_000);

  it("and have no key are not replaced: which of them are new nobody can tell", async () => {
    await change("update tasks.bag set team = 7 where v = 'b'");
    await expect(bring(records("bag", "team=7"), "replace")).rejects.toMatchObject({ code: "rows_conflict" });
    expect(await rowsOf(past.url, "tasks.bag")).toEqual(["(7,a)", "(7,b)"]);
    await change("delete from tasks.bag where v = 'a'");
    await bring(records("bag", "team=7"), "missing");
    expect(await rowsOf(past.url, "tasks.bag")).toEqual(["(7,a)", "(7,b)"]);
  }, 30_000);
});

describe("a person's replacement", () => {
  it("deletes no row of a table without a key, and says so", async () => {
    await change(
      `update bags.notes set user_id = '${anna}' where x = 'of ben'; delete from bags.notes where x = 'mine'`,
    );
    const { warnings } = await bring(person("bags", { replaces: true }), "replace");
    expect(await rowsOf(past.url, "bags.notes")).toEqual([`(${anna},"of ben")`, `(${anna},mine)`]);
    expect(warnings).toContain(
      "1 row of bags.notes are the user's now; without a primary key none is known to be new, and replace leaves them as they are",
    );
  }, 30_000);

  it("knows a row of then by the key's own equality, in the type that the key has now", async () => {
    const all = ["collated", "cited", "numbered", "texts", "odd"];
    await change(`
      update alike.collated set name = 'EVE' where name = 'Eve'; update alike.cited set name = 'EVE' where name = 'Eve';
      alter table alike.numbered alter id type numeric(8,2); alter table alike.texts alter id type int using id::int;
      update alike.odd set id = '7' where id = 'x'; alter table alike.odd alter id type int using id::int;
      ${all.map((name) => `update alike.${name} set user_id = '${anna}'`).join("; ")};
      insert into alike.collated values ('new', '${anna}'); insert into alike.cited values ('new', '${anna}');
      insert into alike.numbered values (3, '${anna}'); insert into alike.texts values (3, '${anna}')`);
    await bring(person("alike", { replaces: true }), "replace");
    const names = (table: string, column: string) =>
      change(`select ${column}::text as k from alike.${table} order by 1`).then((rows) => rows.map(({ k }) => k));
    expect(await names("collated", "name")).toEqual(["Bob", "EVE"]);
    expect(await names("cited", "name")).toEqual(["Bob", "EVE"]);
    expect(await names("numbered", "id")).toEqual(["1.00", "2.00"]);
    expect(await names("texts", "id")).toEqual(["1", "2"]);
    // A value of then that is none of the type of now: nothing is known to be new.
    expect(await names("odd", "id")).toEqual(["2", "7"]);
  }, 30_000);

  it.each([false, true])(
    "leaves a row that came to be the person's after it was planned (in steps: %s)",
    async (steps) => {
      const reset =
        `delete from given.notes; insert into given.notes values (1, '${anna}', 'mine'), (2, '${ben}', 'of ben')`;
      const give =
        `update given.notes set user_id = '${anna}' where id = 2; insert into given.notes values (9, '${anna}', 'new')`;
      await change(`${reset}, (5, '${anna}', 'new before')`);
      await bring(person("given", { replaces: true }), "replace", { beside: give, steps });
      expect(await change("select id from given.notes order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 9 }]);
      await change(`${reset}, (5, '${anna}', 'new before')`);
      await bring(person("given", { replaces: true }), "replace", { planned: give, steps });
      expect(await change("select id from given.notes order by id")).toEqual([{ id: 1 }, { id: 2 }, { id: 9 }]);
    },
    30_000,
  );
});

describe("rows that were the person's and are somebody else's now", () => {
  it("are named by the plan, and taken back only where that is decided", async () => {
    const then = await rowsOf(past.url, "taken.books");
    await change(`
      update taken.books set user_id = '${ben}', x = 'rewritten by ben' where id = 1; update taken.pages set x = 'by ben' where id = 1;
      update taken.books set user_id = null, x = 'nobody''s' where id = 3; update taken.books set x = 'now' where id = 4`);
    const theirs = await rowsOf(past.url, "taken.books");
    const conflict = { what: "another user's now", name: "--shared takes them back", other: null, rows: 1 };
    const refused = await bring(person("taken"), "merge");
    expect(refused.conflicts).toEqual([
      { table: "taken.books", ...conflict },
      { table: "taken.pages", ...conflict },
    ]);
    const missing = await bring(person("taken"), "missing");
    expect(missing.conflicts).toEqual([]);
    expect(missing.notes).toEqual(expect.arrayContaining([
      "1 row of taken.books with keys of then are another user's now; they stay as they are",
    ]));
    expect(await rowsOf(past.url, "taken.books")).toEqual(theirs);
    const table = (name: string) => ({ table: `taken.${name}`, rows: "owned" as const });
    const decided = mapOf("taken", [table("books"), table("pages")]);
    expect((await bring(person("taken", { map: decided }), "merge")).conflicts).toEqual([]);
    expect(await rowsOf(past.url, "taken.books")).toEqual(then);
    await change(`update taken.books set user_id = '${ben}' where id = 1`);
    const shared = await bring(person("taken", { shared: true }), "merge");
    expect(shared.notes).toContain("1 row of taken.books are another user's now, and are taken back");
    expect(await rowsOf(past.url, "taken.books")).toEqual(then);
  }, 30_000);

  it("are none where the person had another id: rows that still hold it are theirs", async () => {
    await change(`
      insert into auth.users (id, email) values ('${again}', 'again@x.y');
      update taken.log set x = 'now'; update taken.books set x = 'now' where id = 1`);
    const { conflicts } = await bring(person("taken", { as: again }), "merge");
    expect(conflicts).toEqual([]);
    expect(await rowsOf(past.url, "taken.log")).toEqual([`(1,${again},then)`]);
  }, 30_000);
});

describe("a person who is gone", () => {
  const account =
    "select u.encrypted_password as password, f.secret from auth.users as u left join auth.mfa_factors as f on f.user_id = u.id";
  const gone = `
    set session_replication_role = replica; delete from auth.users where id in ('${anna}', '${again}');
    delete from auth.mfa_factors; delete from auth.sessions; delete from files.parts; delete from files.uploads;
    reset session_replication_role`;
  const back = `insert into auth.users (id, email, encrypted_password) values ('${anna}', 'anna@x.y', 'new')`;

  it("gets no old second factor into an account that was made again meanwhile", async () => {
    await change(gone);
    const { notes } = await bring(person("factors"), "missing", { beside: back });
    expect(await change(`${account} where u.id = '${anna}'`)).toEqual([{ password: "new", secret: null }]);
    expect(notes).toContain(
      "1 row of auth.mfa_factors that are gone stay out: the account is there, and they need --credentials",
    );
    await change(gone);
    await bring(person("factors"), "missing", { planned: back });
    expect(await change(`${account} where u.id = '${anna}'`)).toEqual([{ password: "new", secret: null }]);
  }, 30_000);

  it.each([{}, { steps: true }, { again: true }])(
    "gets it with the account that the restore brings, in steps and gone on with too: %o",
    async (how) => {
      await change(gone);
      await bring(person("factors"), "missing", how);
      expect(await change(`${account} where u.id = '${anna}'`)).toEqual([{ password: "then", secret: "of then" }]);
    },
    30_000,
  );

  it("gets it from a restore of the whole project that was killed between the account and the factor", async () => {
    await change(gone);
    const wanted = new Set(["auth.users", "auth.mfa_factors"]);
    const tables = past.source.tables.filter(({ schema, name }) => wanted.has(`${schema}.${name}`));
    const deps = {
      connection: past.connection,
      source: { ...past.source, tables },
      sameDatabase: true,
      schema: sideName(),
    };
    const options = { ...patient, mode: "missing" } as const;
    const begun = async () => {
      const beside = await layDatabaseBeside(deps, { credentials: false, changingTypes: null }, "test");
      await planRows(past.connection, beside.pairs, beside.keys, "missing");
      return beside;
    };
    const first = await begun();
    const killed = { ...options, capBytes: 1, onStep: () => Promise.reject(new Error("killed")) };
    await expect(shrinkDifference(past.connection, parentsFirst(first.pairs, first.keys), first.keys, killed)).rejects
      .toThrow("killed");
    expect(await change(`${account} where u.id = '${anna}'`)).toEqual([{ password: "then", secret: null }]);
    await clearSide(past.connection, deps.schema);
    const second = await begun();
    await putBack(past.connection, parentsFirst(second.pairs, second.keys), second.keys, options);
    expect(await change(`${account} where u.id = '${anna}'`)).toEqual([{ password: "then", secret: "of then" }]);
    await change(`delete from auth.mfa_factors; update auth.users set encrypted_password = 'new' where id = '${anna}'`);
    const third = await layDatabaseBeside(
      { ...deps, schema: sideName() },
      { credentials: false, changingTypes: null },
      "test",
    );
    await putBack(past.connection, third.pairs, third.keys, options);
    expect(await change("select * from auth.mfa_factors"), "whom this restore did not bring").toEqual([]);
  }, 30_000);

  it("gets the rows back that do not hang on a session, and is told of the others", async () => {
    await change(gone);
    const { notes, conflicts } = await bring(person("files"), "missing");
    expect(conflicts).toEqual([]);
    expect(notes).toEqual(expect.arrayContaining([
      `1 row of files.uploads stay out: ${why("auth.sessions")}`,
      `2 rows of files.parts stay out: ${why("files.uploads")}`,
    ]));
    expect(await rowsOf(past.url, "files.uploads")).toEqual([`(1,${anna},)`, `(3,${anna},)`]);
    expect(await rowsOf(past.url, "files.parts")).toEqual(["(1,1)"]);
  }, 30_000);
});

const why = (parent: string) => `they refer to rows of ${parent} that are not there any more`;

it("a row whose parent was deleted since keeps nothing else of the person away", async () => {
  await change(
    "delete from lost.goods where id = 1; delete from lost.codes; delete from lost.marks; delete from lost.orders",
  );
  const { notes, conflicts } = await bring(person("lost"), "missing", { beside: "delete from lost.words" });
  expect(conflicts).toEqual([]);
  expect(notes).toEqual(expect.arrayContaining([
    `1 row of lost.orders come without code: ${why("lost.codes")}`,
    `2 rows of lost.marks stay out: ${why("lost.goods")}`,
    `2 rows of lost.words stay out: ${why("lost.marks")}`,
  ]));
  expect([
    ...await rowsOf(past.url, "lost.orders"),
    ...await rowsOf(past.url, "lost.marks"),
    ...await rowsOf(past.url, "lost.words"),
  ]).toEqual([`(1,${anna},)`, `(2,${anna},2,)`, "(2,b)"]);
}, 30_000);

it("a sign-in that was unlinked since does not come back into an account that is there, unless asked for", async () => {
  const linked =
    `select provider_id || ' ' || (identity_data ->> 'sub') as id from auth.identities where user_id = '${anna}' order by 1`;
  await change(
    "delete from auth.identities where provider_id = 'old'; update auth.identities set identity_data = '{}'",
  );
  const { notes } = await bring(person("lost"), "merge");
  expect(notes).toContain(
    "1 row of auth.identities that are gone stay out: the account is there, and they need --credentials",
  );
  expect(await change(linked)).toEqual([{ id: "kept kept" }]);
  await bring(person("lost", { credentials: true }), "missing");
  expect(await change(linked)).toEqual([{ id: "kept kept" }, { id: "old old" }]);
}, 30_000);
