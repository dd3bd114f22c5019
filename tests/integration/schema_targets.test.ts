import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Definition, SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import { neutralDefaultPrivileges } from "../../src/shared/schema/collect_default_privileges.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import { catalogFingerprint } from "../../src/shared/schema/fingerprint.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { type Cluster, clusterMs, query, startTestCluster } from "../support/cluster.ts";
import {
  apply,
  capture,
  dumpLines,
  fillWithCorpus,
  isSharedRole,
  plainDatabase,
  withSession,
} from "./schema_fixture.ts";

let hosted: Cluster | undefined;
let bare: Cluster | undefined;
const cluster = (one: Cluster | undefined): Cluster => {
  if (one === undefined) throw new Error("no cluster");
  return one;
};

beforeAll(async () => {
  hosted = await startTestCluster();
  bare = await startTestCluster({ platform: false });
}, clusterMs);

afterAll(async () => {
  await hosted?.destroy();
  await bare?.destroy();
}, clusterMs);

describe("a copy made by the role postgres, which is no superuser", () => {
  it("equals its source, owners and grants included, for all that such a role can have made", async () => {
    const source = await plainDatabase(cluster(hosted));
    const copy = await plainDatabase(cluster(hosted));
    const files = await fillWithCorpus(cluster(hosted), source, (name) => name !== "95_superuser.sql");
    expect(files.length).toBeGreaterThan(10);
    const captured = await capture(cluster(hosted), source);
    const failures = await apply(cluster(hosted), copy, captured, {
      role: "postgres",
      // Settings of roles and of the database with unknown names are the superuser's part of the corpus.
      skip: (definition) => isSharedRole(definition) || definition.kind === "settings",
    });
    expect(failures).toEqual([]);
    const recaptured = await capture(cluster(hosted), copy);
    const comparable = (schema: SchemaCapture) =>
      schema.definitions.filter((definition) => definition.kind !== "settings");
    expect(comparable(recaptured)).toEqual(comparable(captured));
    const reordered = new Set(["    x text", "    a integer,", "    x text,", "    b text"]);
    const before = dumpLines(cluster(hosted), source).filter((line) => !reordered.has(line));
    const after = dumpLines(cluster(hosted), copy).filter((line) => !reordered.has(line));
    expect(after).toEqual(before);
  }, clusterMs);
});

describe("a target that grants by default", () => {
  it("gives a copy the captured grants and no others, and then the captured default privileges", async () => {
    const source = await plainDatabase(cluster(hosted));
    const copy = await plainDatabase(cluster(hosted));
    await query(
      cluster(hosted).plainUrl("postgres", source),
      `create table public.t (id serial primary key); create function public.f() returns integer language sql as 'select 1';
       create type public.e as enum ('x'); create schema s; create view public.v as select 1 as one;
       grant select on public.t to anon; alter default privileges in schema s grant select on tables to authenticated`,
    );
    await query(
      cluster(hosted).plainUrl("postgres", copy),
      `alter default privileges grant all on tables to anon, authenticated;
       alter default privileges grant all on sequences to anon with grant option;
       alter default privileges in schema public grant all on functions to service_role;
       alter default privileges revoke execute on functions from public;
       alter default privileges revoke usage on types from public;
       alter default privileges grant usage on schemas to anon`,
    );
    const captured = await capture(cluster(hosted), source);
    const neutral = await withSession(cluster(hosted), "postgres", copy, async (connection) => {
      const statements = await neutralDefaultPrivileges(connection, "postgres");
      for (const statement of statements) await connection.execute(statement);
      return statements;
    });
    expect(neutral.length).toBeGreaterThan(5);
    const skip = (definition: Definition) => isSharedRole(definition) || definition.kind === "settings";
    expect(await apply(cluster(hosted), copy, captured, { role: "postgres", skip })).toEqual([]);
    expect((await capture(cluster(hosted), copy)).definitions).toEqual(captured.definitions);
    expect(dumpLines(cluster(hosted), copy)).toEqual(dumpLines(cluster(hosted), source));
  }, clusterMs);
});

describe("a role with no rights at all", () => {
  it("captures every definition, and lists what it may not read", async () => {
    const source = await plainDatabase(cluster(hosted));
    await fillWithCorpus(cluster(hosted), source);
    const asPostgres = await capture(cluster(hosted), source);
    await query(
      cluster(hosted).plainUrl(cluster(hosted).superuser, source),
      "create role poor login password 'for the test only'",
    );
    const { host, port } = cluster(hosted);
    const database = openDatabase({
      url: `postgresql://poor@${host}:${port}/${source}`,
      password: "for the test only",
    });
    const connection = await database.connect("schema-test");
    try {
      const poor = await captureSchema(connection, { leaveOutSchemas: [] });
      const secret = new Set(["user mapping", "role", "login"]);
      const comparable = (schema: SchemaCapture) => schema.definitions.filter((one) => !secret.has(one.kind));
      expect(comparable(poor)).toEqual(comparable(asPostgres));
      const listed = poor.notCaptured.map(({ catalog, identity }) => `${catalog}: ${identity}`);
      expect(listed).toContain("pg_user_mapping: options of public on server corpus_server");
      expect(listed).toContain("pg_sequence: value of sequence corpus_tables.countdown");
      expect(await catalogFingerprint(connection, { leaveOutSchemas: [] })).toMatch(/^[0-9a-f]{64}$/);
    } finally {
      await connection.close();
    }
    const main = openDatabase({ url: `postgresql://poor@${host}:${port}/postgres`, password: "for the test only" });
    const inMain = await main.connect("schema-test");
    try {
      const poor = await captureSchema(inMain, { leaveOutSchemas: [] });
      expect(poor.notCaptured).toContainEqual({
        catalog: "cron.job",
        identity: "cron jobs",
        reason: "this role may not read them",
      });
    } finally {
      await inMain.close();
    }
  }, clusterMs);
});

describe("a webhook on a partitioned table", () => {
  it("comes back off on every partition, and its release gives each its own state", async () => {
    const source = await plainDatabase(cluster(hosted));
    const copy = await plainDatabase(cluster(hosted));
    await query(
      cluster(hosted).plainUrl("postgres", source),
      `create schema net;
       create function net.http_post(url text) returns bigint language sql as 'select 1::bigint';
       create function public.call_out() returns trigger language plpgsql
         as 'begin perform net.http_post(''http://localhost/''); return new; end';
       create table public.parted (id integer) partition by list (id);
       create table public.part_1 partition of public.parted for values in (1);
       create table public.part_2 partition of public.parted for values in (2);
       create trigger hook after insert on public.parted for each row execute function public.call_out();
       alter table public.part_2 disable trigger hook`,
    );
    const captured = await capture(cluster(hosted), source);
    const skip = (definition: Definition) => isSharedRole(definition) || definition.kind === "settings";
    expect(await apply(cluster(hosted), copy, captured, { role: "postgres", skip, release: false })).toEqual([]);
    const states = () =>
      query(
        cluster(hosted).plainUrl("postgres", copy),
        "select tgrelid::regclass::text as t, tgenabled as s from pg_trigger where tgname = 'hook' order by 1",
      );
    expect((await states()).map((row) => row["s"])).toEqual(["D", "D", "D"]);
    const held = captured.definitions.filter((definition) => definition.held === "webhook");
    for (const statement of held.flatMap((definition) => definition.release)) {
      await query(cluster(hosted).plainUrl("postgres", copy), statement);
    }
    expect(await states()).toEqual([{ t: "part_1", s: "O" }, { t: "part_2", s: "D" }, { t: "parted", s: "O" }]);
  }, clusterMs);
});

describe("a hosted project's own database on a bare server", () => {
  let captured: SchemaCapture;
  let failures: string[];
  let target = "";

  beforeAll(async () => {
    const main = cluster(hosted).plainUrl();
    await query(
      main,
      `create table public.journal (id bigint generated always as identity primary key, user_id uuid references auth.users);
       alter table public.journal enable row level security;
       create policy own on public.journal using (user_id = auth.uid());
       create function public.new_user() returns trigger language plpgsql security definer set search_path = ''
         as $$ begin return new; end $$;
       select cron.schedule('nightly', '0 3 * * *', 'select 1');
       select cron.schedule('5 * * * *', 'select ''without a name''');
       create schema left_out;
       select cron.schedule('calls left out', '1 1 * * *', 'select left_out.something()');
       select cron.schedule('holdfast-tick', '* * * * *', 'select left_out.tick()');
       select cron.schedule('calls not', '1 2 * * *', 'select not_left_out.something()');
       create table left_out.t (id integer);
       create view public.looks_in as select id from left_out.t;
       create publication holds_some for table left_out.t, public.journal`,
    );
    await query(
      cluster(hosted).plainUrl(cluster(hosted).superuser),
      `create trigger on_new_user after insert on auth.users for each row execute function public.new_user();
       create policy "own files" on storage.objects for select using (owner_id = (select auth.uid()::text))`,
    );
    captured = await capture(cluster(hosted), "postgres", ["left_out"]);
    target = await plainDatabase(cluster(bare));
    failures = await apply(cluster(bare), target, captured, {
      role: cluster(bare).superuser,
      // The bare server was made by a superuser of that name.
      skip: (definition) => definition.identity === "role postgres",
    });
  }, clusterMs);

  it("marks what the platform made, and not what the user hung on it", () => {
    const platform = new Map(captured.definitions.map((definition) => [definition.identity, definition.platform]));
    expect(platform.get("schema auth")).toBe("auth");
    expect(platform.get("table auth.users")).toBe("auth");
    expect(platform.get("table storage.objects")).toBe("storage");
    expect(platform.get("role anon")).toBe("supabase");
    expect(platform.get("trigger on_new_user on auth.users")).toBe(null);
    expect(platform.get('policy "own files" on storage.objects')).toBe(null);
    expect(platform.get("table public.journal")).toBe(null);
    expect(platform.get("schema public")).toBe(null);
    const marked = captured.definitions.filter((definition) => definition.platform !== null);
    expect(marked.filter((definition) => definition.schema === "public")).toEqual([]);
  });

  it("takes the rows of auth and storage, and says whose they are and which stay behind", () => {
    const shapes = new Map(captured.tables.map((table) => [`${table.schema}.${table.name}`, table]));
    expect(shapes.get("auth.users")).toMatchObject({ dataOwner: "auth", restoreData: true });
    expect(shapes.get("storage.objects")).toMatchObject({ dataOwner: "storage", restoreData: true });
    expect(shapes.get("public.journal")).toMatchObject({ dataOwner: "user", restoreData: true });
    for (const table of captured.tables.filter(({ name }) => name === "schema_migrations" || name === "migrations")) {
      if (table.dataOwner !== "user") expect([table.schema, table.restoreData]).toEqual([table.schema, false]);
    }
    const leftOut = captured.notCaptured.filter(({ catalog }) => catalog === "rows").map(({ identity }) => identity);
    expect(leftOut).toContain("table cron.job_run_details");
    expect(leftOut).toContain("table vault.secrets");
    expect(leftOut.every((identity) => !shapes.has(identity.replace("table ", "")))).toBe(true);
  });

  it("brings cron jobs back inactive", () => {
    const jobs = captured.definitions.filter((definition) => definition.kind === "cron job");
    expect(jobs.map((job) => [job.held, job.section, job.release.length])).toEqual([
      ["cron", "last", 1],
      ["cron", "last", 1],
      ["cron", "last", 1],
    ]);
    expect(captured.notCaptured.filter((one) => one.catalog === "cron.job")).toEqual([{
      catalog: "cron.job",
      identity: 'cron job "calls left out" of postgres',
      reason: "calls schema left_out, which is left out",
    }]);
    for (const job of jobs) expect(job.statements.join()).toMatch(/active => false|, false\)$/);
  });

  it("leaves no trace of a schema that is left out", () => {
    expect(JSON.stringify(captured.definitions).replaceAll("not_left_out", "")).not.toContain("left_out");
    expect(captured.notCaptured.map(({ identity, reason }) => `${identity}: ${reason}`)).toContain(
      "view public.looks_in: needs an object of a schema that is left out",
    );
    expect(captured.tables.filter((table) => table.schema === "left_out")).toEqual([]);
    expect(captured.definitions.map((definition) => definition.identity)).toContain("publication holds_some");
  });

  it("is made there, the platform's schemas as they were, but for what the server lacks", () => {
    expect(failures.filter((failure) => !/cron/.test(failure))).toEqual([]);
    expect(failures.length).toBeLessThan(30);
  });

  it("has the same definitions there", async () => {
    const copy = await capture(cluster(bare), target);
    const after = new Map(copy.definitions.map((definition) => [definition.identity, definition]));
    const differing = captured.definitions.filter((definition) => {
      const other = after.get(definition.identity);
      if (other === undefined) return true;
      const same = (key: "statements" | "privileges" | "ownership" | "release") =>
        JSON.stringify(definition[key]) === JSON.stringify(other[key]);
      return !(same("statements") && same("privileges") && same("ownership") && same("release"));
    }).map((definition) => definition.identity);
    expect(differing.filter((identity) => !/cron/.test(identity))).toEqual([
      // There it is the superuser that made the cluster, who needs no grant.
      "role postgres",
      "parameter ACL pgrst.db_pre_request",
      "parameter ACL session_replication_role",
    ]);
  });

  it("makes roles without login and without password, which only a release turns on", async () => {
    const login = captured.definitions.find((definition) => definition.identity === "login of role authenticator");
    expect(login).toMatchObject({ held: "login", statements: [], release: ["alter role authenticator login"] });
    expect(JSON.stringify(captured)).not.toMatch(/SCRAM-SHA-256|md5[0-9a-f]{32}/);
    const rows = await query(
      cluster(bare).plainUrl(),
      "select rolbypassrls, rolreplication, rolcanlogin from pg_roles where rolname = 'supabase_admin'",
    );
    expect(rows).toEqual([{ rolbypassrls: true, rolreplication: true, rolcanlogin: true }]);
  });
});
