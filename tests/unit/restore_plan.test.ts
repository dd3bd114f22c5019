import { describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { BackupContents, ContentTable } from "../../src/shared/restore/contents.ts";
import { copyStatement } from "../../src/shared/restore/load.ts";
import { checkTarget, outlinePlan, planRestore } from "../../src/shared/restore/plan.ts";
import type { TargetFacts } from "../../src/shared/restore/target.ts";
import type { Definition, SequenceShape, TableShape } from "../../src/shared/schema/capture_format.ts";
import { emptyCapture } from "./verify_fixture.ts";

function definition(identity: string, kind: string, rest: Partial<Definition> = {}): Definition {
  return {
    identity,
    kind,
    section: "pre-data",
    schema: "public",
    name: identity.split(/[ .]/).at(-1) ?? "",
    owner: "postgres",
    statements: [`make ${identity}`],
    ownership: [],
    privileges: [],
    dependsOn: [],
    platform: null,
    held: null,
    release: [],
    table: null,
    ...rest,
  };
}

function shape(schema: string, name: string, columns: readonly string[], rest: Partial<TableShape> = {}): TableShape {
  return {
    identity: `table ${schema}.${name}`,
    schema,
    name,
    oid: "1",
    kind: "table",
    persistence: "p",
    accessMethod: "heap",
    relfilenode: "1",
    toastOid: "0",
    columns: [],
    copyColumns: [...columns],
    dataOwner: "user",
    restoreData: true,
    rowFilter: null,
    rowSecurity: { enabled: false, forced: false },
    ...rest,
  };
}

function rowsOf(of: TableShape, rows: number): ContentTable {
  return { identity: of.identity, columns: of.copyColumns, rows, rawBytes: rows * 10, chunks: [] };
}

function sequence(rest: Partial<SequenceShape>): SequenceShape {
  return {
    identity: "sequence public.s",
    schema: "public",
    name: "s",
    ownedBy: null,
    dataOwner: "user",
    restoreData: true,
    lastValue: "7",
    isCalled: true,
    setValueSql: "select setval",
    ...rest,
  };
}

interface Parts {
  readonly definitions?: Definition[];
  readonly shapes?: TableShape[];
  readonly tables?: ContentTable[];
  readonly sequences?: SequenceShape[];
}

function contents({ definitions = [], shapes = [], tables = [], sequences = [] }: Parts): BackupContents {
  return {
    backupId: "b",
    manifestHash: "h",
    source: { systemIdentifier: "1", database: "postgres" },
    capture: { ...emptyCapture, definitions, tables: shapes, sequences },
    tables,
  };
}

const bare: TargetFacts = {
  kind: "bare",
  serverVersion: 150020,
  systemIdentifier: "2",
  database: "postgres",
  databaseOid: "5",
  encoding: "UTF8",
  user: "postgres",
  superuser: true,
  roles: [{ name: "postgres", superuser: true, reachable: true }],
  schemas: ["public"],
  extensions: { installed: [], refused: [] },
  publications: [],
  eventTriggers: [],
  eventTriggersAllowed: true,
  subscriptionsAllowed: true,
  allTablesAllowed: true,
  refusedSettings: [],
  neutralDefaults: [],
  sequences: [],
  tables: [],
  obstacles: { count: 0, names: [] },
};

const project: TargetFacts = {
  ...bare,
  kind: "project",
  superuser: false,
  roles: [
    { name: "postgres", superuser: false, reachable: true },
    { name: "anon", superuser: false, reachable: true },
    { name: "supabase_admin", superuser: true, reachable: false },
  ],
  tables: [
    {
      schema: "auth",
      name: "users",
      writable: true,
      columns: [
        { name: "confirmed_at", generated: true },
        { name: "id", generated: false },
        { name: "email", generated: false },
        { name: "new_one", generated: false },
      ],
    },
    { schema: "storage", name: "objects", writable: true, columns: [{ name: "id", generated: false }] },
    { schema: "storage", name: "buckets", writable: true, columns: [{ name: "id", generated: false }] },
  ],
};

const titles = (steps: readonly { readonly title: string }[]) => steps.map((step) => step.title);

describe("what is in the way", () => {
  it("is named, up to 20 names, and counted", () => {
    const names = Array.from({ length: 20 }, (_, index) => `table public.t${index}`);
    const check = () => checkTarget(contents({}), { ...bare, obstacles: { count: 31, names } }, null);
    expect(check).toThrow(expect.objectContaining({ code: "target_not_empty" }));
    expect(check).toThrow(/table public\.t0, .*table public\.t19 and 11 more$/);
    expect(() => checkTarget(contents({}), bare, null)).not.toThrow();
  });

  it("is an earlier restore of the same backup where the target's record says that it finished", () => {
    const full = { ...bare, obstacles: { count: 1, names: ["table public.t"] } };
    const record = { backupId: "b", manifestHash: "h", finishedAt: "2026-11-21T10:00:00Z" };
    const messageOf = (of: Parameters<typeof checkTarget>[2]) => {
      try {
        checkTarget(contents({}), full, of);
        return null;
      } catch (error) {
        if (error instanceof HoldfastError && error.code === "target_not_empty") {
          return `${error.message} ${error.hint}`;
        }
        throw error;
      }
    };
    const plain = messageOf(null);
    expect(plain).toMatch(/^the target holds table public\.t /);
    const told = messageOf(record);
    expect(told).toMatch(
      /^the target holds the restore of backup b that finished at 2026-11-21T10:00:00Z: table public\.t /,
    );
    expect(told).toMatch(/new database.*`holdfast release`/);
    expect(messageOf({ ...record, backupId: "other" })).toBe(plain);
    expect(messageOf({ ...record, manifestHash: "other" })).toBe(plain);
    expect(messageOf({ ...record, finishedAt: null })).toBe(plain);
    expect(() => checkTarget(contents({}), bare, record)).not.toThrow();
  });

  it("is the source itself when system and database are the same", () => {
    const facts = { ...bare, systemIdentifier: "1", obstacles: { count: 1, names: ["table public.t"] } };
    expect(() => checkTarget(contents({}), facts, null)).toThrow(expect.objectContaining({ code: "target_is_source" }));
    const elsewhere = { ...facts, database: "other" };
    expect(() => checkTarget(contents({}), elsewhere, null)).toThrow(
      expect.objectContaining({ code: "target_not_empty" }),
    );
    expect(() => checkTarget(contents({}), facts, null)).toThrow(HoldfastError);
  });
});

describe("definitions", () => {
  it("come in sections, with owners at once and grants after everything else", () => {
    const plan = planRestore(
      contents({
        definitions: [
          definition("role r", "role", { section: "roles", schema: null, name: "r" }),
          definition("schema s", "schema", { name: "s", ownership: ["own s"], privileges: ["grant s"] }),
          definition("table s.t", "table", { ownership: ["own t"], privileges: ["grant t"] }),
          definition("index s.i", "index", { section: "post-data", table: "table s.t" }),
          definition("data of v", "materialized view data", { section: "last", privileges: ["grant v"] }),
        ],
      }),
      bare,
    );
    expect(titles(plan.roles)).toEqual(["role r"]);
    expect(plan.rolesCreated).toEqual(["r"]);
    expect(plan.preData.map((step) => step.statements)).toEqual([
      ["make schema s", "own s", "grant s"],
      ["make table s.t", "own t"],
    ]);
    expect(titles(plan.postData)).toEqual(["index s.i"]);
    expect(plan.privileges.map((step) => step.statements)).toEqual([["grant t"]]);
    expect(plan.last.map((step) => step.statements)).toEqual([["make data of v", "grant v"]]);
    expect(outlinePlan(plan).map((line) => [line.step, line.count])).toEqual([
      ["roles", 1],
      ["definitions", 2],
      ["indexes, constraints, triggers, policies", 1],
      ["privileges", 1],
      ["materialised views, jobs, subscriptions", 1],
    ]);
  });

  it("that need a missing extension are left out by name, at any distance, with their rows and values", () => {
    const t = shape("public", "t", ["a"]);
    const plan = planRestore(
      contents({
        definitions: [
          definition("extension vector", "extension", { schema: null, name: "vector" }),
          definition("type public.v", "domain", { dependsOn: ["extension vector"] }),
          definition("table public.t", "table", { dependsOn: ["type public.v"], name: "t" }),
          definition("sequence public.s", "sequence", { dependsOn: ["table public.t"], name: "s" }),
          definition("policy p on public.t", "policy", { section: "post-data", table: "table public.t" }),
          definition("table public.other", "table"),
        ],
        shapes: [t],
        tables: [rowsOf(t, 5)],
        sequences: [sequence({})],
      }),
      { ...bare, extensions: { installed: [], refused: [{ name: "vector", reason: "it is not there" }] } },
    );
    expect(titles(plan.preData)).toEqual(["table public.other"]);
    expect(plan.loads).toEqual([]);
    expect(plan.skipped).toEqual([
      { identity: "extension vector", reason: "it is not there" },
      { identity: "type public.v", reason: "needs extension vector" },
      { identity: "table public.t", reason: "needs type public.v" },
      { identity: "sequence public.s", reason: "needs table public.t" },
      { identity: "policy p on public.t", reason: "needs table public.t" },
      { identity: "5 rows of table public.t", reason: "the target does not have the table" },
      { identity: "value of sequence public.s", reason: "the target does not have the sequence" },
    ]);
    for (const { identity } of plan.skipped) expect(plan.warnings.join("\n")).toContain(`not restored: ${identity}: `);
  });

  it("of the platform are there on a project, and made and marked on a bare PostgreSQL", () => {
    const definitions = [
      definition("role anon", "role", { section: "roles", schema: null, name: "anon", platform: "supabase" }),
      definition("schema auth", "schema", { name: "auth", platform: "auth" }),
      definition("policy p on auth.users", "policy", { section: "post-data" }),
    ];
    const there = planRestore(contents({ definitions }), project);
    expect([...there.roles, ...there.preData]).toEqual([]);
    expect(titles(there.postData)).toEqual(["policy p on auth.users"]);
    const made = planRestore(contents({ definitions }), bare);
    expect(made.roles[0]?.statements.at(-1)).toMatch(/^comment on role anon is '.*Holdfast/);
    expect(made.preData[0]?.statements.at(-1)).toMatch(/^comment on schema auth is '.*Holdfast/);
  });

  it("that are held are listed with what turns them on; a job that was off is not", () => {
    const held = (identity: string, kind: Definition["held"], release: string[]) =>
      definition(identity, "thing", { held: kind, release });
    const plan = planRestore(
      contents({
        definitions: [held("a", "webhook", ["on a"]), held("b", "cron", []), held("c", "subscription", [])],
      }),
      bare,
    );
    expect(plan.held).toEqual([
      { identity: "a", kind: "webhook", release: ["on a"] },
      { identity: "c", kind: "subscription", release: [] },
    ]);
  });

  it("ask of a role that is no superuser only what it may do, and say what is left out", () => {
    const plan = planRestore(
      contents({
        definitions: [
          definition("role r", "role", {
            section: "roles",
            name: "r",
            statements: ["create role r", "alter role r createdb", "alter role r superuser", "alter role r bypassrls"],
          }),
          definition("access method m", "access method"),
          definition("table public.t", "table", { dependsOn: ["access method m"] }),
          definition("table public.u", "table", { owner: "supabase_admin", ownership: ["own u"] }),
          definition("table public.w", "table", { owner: "r", privileges: ["set role anon", "grant w", "reset role"] }),
        ],
      }),
      project,
    );
    expect(plan.roles[0]?.statements).toEqual(["create role r", "alter role r createdb"]);
    expect(titles(plan.preData)).toEqual(["table public.u", "table public.w"]);
    expect(plan.preData[0]?.statements).toEqual(["make table public.u"]);
    expect(plan.ownersKept).toEqual(["table public.u"]);
    expect(plan.actsAs).toEqual(["anon", "postgres", "r"]);
    expect(plan.warnings.join("\n")).toMatch(/role r comes back without what only a superuser gives/);
    expect(plan.warnings.join("\n")).toMatch(/table public\.u belongs to postgres/);
    expect(planRestore(contents({}), bare).actsAs).toEqual([]);
  });

  it("are planned the same from facts that were kept as JSON, as a resumed restore does", () => {
    const parts = contents({ definitions: [definition("table public.t", "table")] });
    expect(planRestore(parts, JSON.parse(JSON.stringify(project)))).toEqual(planRestore(parts, project));
  });
});

describe("what is made side by side", () => {
  const post = (identity: string, kind: string, rest: Partial<Definition>) =>
    definition(identity, kind, { section: "post-data", ...rest });
  const [a, b] = [shape("public", "a", ["x"]), shape("public", "b", ["x"])];
  const plan = planRestore(
    contents({
      shapes: [a, b],
      tables: [rowsOf(a, 10), rowsOf(b, 99)],
      definitions: [
        definition("table public.a", "table"),
        definition("table public.part", "table"),
        definition("partition part of a", "partition", {
          table: "table public.part",
          dependsOn: ["table public.part", "table public.a"],
        }),
        definition("table public.b", "table"),
        post("index public.i", "index", { table: "table public.b" }),
        post("pk on public.a", "primary key", { table: "table public.a", dependsOn: ["table public.a"] }),
        post("pk on public.part", "primary key", { table: "table public.part" }),
        post("index partition", "index partition", { table: "table public.part", dependsOn: ["pk on public.part"] }),
        post("fk of b", "foreign key", { table: "table public.b", dependsOn: ["table public.a", "pk on public.a"] }),
        post("policy", "policy", { table: "table public.b" }),
      ],
    }),
    bare,
  );
  const step = (title: string) => plan.postData.find((one) => one.title === title);

  it("indexes share their table, constraints have it alone, foreign keys both tables", () => {
    expect(step("index public.i")?.locks).toEqual(new Map([["table public.b", "share"]]));
    expect(step("pk on public.a")?.locks).toEqual(new Map([["table public.a", "exclusive"]]));
    expect(step("fk of b")?.locks).toEqual(new Map([["table public.b", "exclusive"], ["table public.a", "exclusive"]]));
    expect(step("policy")?.locks).toBeNull();
  });

  it("a partition and its parent are one table to a lock", () => {
    expect(step("pk on public.part")?.locks).toEqual(new Map([["table public.a", "exclusive"]]));
  });

  it("a foreign key waits until the key of a partitioned table is whole", () => {
    expect(step("fk of b")?.after).toContain("post-data index partition");
    expect(step("index public.i")?.weight).toBe(990);
  });
});

describe("rows", () => {
  const users = shape("auth", "users", ["id", "email", "gone"], { dataOwner: "auth" });
  const objects = shape("storage", "objects", ["id"], { dataOwner: "storage" });
  const migrations = shape("auth", "schema_migrations", ["version"], { dataOwner: "auth", restoreData: false });
  const lost = shape("auth", "oauth_clients", ["id"], { dataOwner: "auth" });
  const uploads = shape("storage", "s3_multipart_uploads", ["id"], { dataOwner: "storage" });
  const small = shape("public", "small", ["a"]);
  const big = shape("public", "big", ["a"]);
  const jobs = shape("cron", "job", ["jobid"], { dataOwner: "extension pg_cron" });
  const all = [users, objects, migrations, lost, uploads, small, big, jobs];
  const parts = contents({ shapes: all, tables: all.map((one, index) => rowsOf(one, 10 + index)) });

  it("go into a project's own tables by name; lost columns, tables and files are named", () => {
    const plan = planRestore(parts, project);
    expect(plan.loads.map((load) => [load.identity, load.keep])).toEqual([
      ["table public.big", [0]],
      ["table public.small", [0]],
      ["table auth.users", [0, 1]],
    ]);
    const load = plan.loads.find((one) => one.name === "users");
    expect(load === undefined ? "" : copyStatement(load)).toBe("copy auth.users (id, email) from stdin");
    expect(plan.filesNotRestored).toBe(11);
    const warnings = plan.warnings.join("\n");
    expect(warnings).toMatch(/table auth\.users: the project has no column gone/);
    expect(warnings).toMatch(/not restored: 13 rows of table auth\.oauth_clients: the project does not have the table/);
    expect(warnings).toMatch(/not restored: 14 rows of table storage\.s3_multipart_uploads/);
    expect(warnings).toMatch(/11 files of storage\.objects are not restored/);
    expect(warnings).not.toMatch(/schema_migrations/);
  });

  it("of Holdfast's own schemas never come back, nor do their definitions", () => {
    const own = [shape("backup", "runs", ["id"]), shape("holdfast", "held", ["identity"])];
    const definitions = own.map((one) => definition(one.identity, "table", { schema: one.schema, name: one.name }));
    const plan = planRestore(contents({ definitions, shapes: own, tables: own.map((one) => rowsOf(one, 4)) }), bare);
    expect([...plan.loads, ...plan.preData]).toEqual([]);
  });

  it("go into a bare PostgreSQL as captured, files as rows; jobs never as rows", () => {
    const plan = planRestore(parts, bare);
    expect(plan.loads.map((load) => load.name).sort()).toEqual(
      ["big", "oauth_clients", "objects", "s3_multipart_uploads", "schema_migrations", "small", "users"],
    );
    expect(plan.filesNotRestored).toBe(0);
  });

  it("a project's sequences only go forward", () => {
    const auth = sequence({ schema: "auth", name: "r", identity: "sequence auth.r", dataOwner: "auth" });
    const facts = { ...project, sequences: [{ schema: "auth", name: "r", writable: true }] };
    const plan = planRestore(contents({ sequences: [auth, sequence({})] }), facts);
    expect(plan.sequences[0]?.statements[0]).toMatch(/setval\('auth\.r', 7, true\) from auth\.r where last_value < 7/);
    expect(plan.sequences[1]?.statements).toEqual(["select setval"]);
    const denied = planRestore(contents({ sequences: [auth] }), {
      ...facts,
      sequences: [{ schema: "auth", name: "r", writable: false }],
    });
    expect(denied.warnings.join()).toMatch(/not restored: value of sequence auth\.r/);
  });

  it("of a table without columns are copied without a list", () => {
    const none = shape("public", "empty", []);
    const plan = planRestore(contents({ shapes: [none], tables: [rowsOf(none, 3)] }), bare);
    expect(plan.loads.map(copyStatement)).toEqual(["copy public.empty from stdin"]);
  });
});
