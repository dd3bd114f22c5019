/** Restores to moments into fresh projects: their own auth and storage take the rows, column by column by name. */
import { beforeAll, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import {
  planPoint,
  type PointChoices,
  type PointResult,
  restorePoint,
} from "../../src/shared/changes/replay/restore_point.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { drainNow } from "./changes_stream_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;

/** The same database as another role. */
function as(role: string, url: string): string {
  return cluster().plainUrl(role, new URL(url).pathname.slice(1));
}

const asAdmin = (url: string) => as(cluster().superuser, url);

/** A database as a new project has it. `differs`: its platform is of another day. */
async function project(differs = ""): Promise<string> {
  const url = cluster().plainUrl("postgres", await freshDatabase(cluster()));
  if (differs !== "") await query(asAdmin(url), differs);
  return url;
}

async function into(url: string, lsn: string, choices: PointChoices = {}): Promise<PointResult> {
  const deps = { ...w.deps, target: openDatabase({ url }) };
  return await restorePoint(deps, await planPoint(deps, { by: "lsn", lsn: parseLsn(lsn) }, choices));
}

/** Columns of a table that both databases have, by name. */
async function columnsOf(url: string, table: string): Promise<string[]> {
  const found = await query(
    asAdmin(url),
    "select attname as name from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped",
    [table],
  );
  return found.map(({ name }) => String(name)).sort();
}

/** Every row as JSON with sorted keys. */
async function rowsOf(url: string, table: string): Promise<Record<string, unknown>[]> {
  const found = await query(asAdmin(url), `select to_jsonb(t) as row from ${table} as t order by to_jsonb(t)::text`);
  return found.map(({ row }) => row as Record<string, unknown>);
}

const watched = [
  ...["users", "identities", "audit_log_entries", "refresh_tokens", "sessions"].map((name) => `auth.${name}`),
  "storage.buckets",
  "app.profiles",
  "app.owned",
];

interface Moment {
  readonly lsn: string;
  readonly rows: Readonly<Record<string, Record<string, unknown>[]>>;
  readonly files: number;
}

/** What the source has now, by its own words. */
async function moment(): Promise<Moment> {
  const rows: Record<string, Record<string, unknown>[]> = {};
  for (const table of watched) rows[table] = await rowsOf(w.url, table);
  const [files] = await query(asAdmin(w.url), "select count(*)::int as files from storage.objects");
  const [at] = await query(w.url, "select pg_current_wal_insert_lsn()::text as lsn");
  return { lsn: String(at?.["lsn"]), rows, files: Number(files?.["files"]) };
}

/** Only these columns, in any order of the rows. */
function only(rows: readonly Record<string, unknown>[], columns: readonly string[]): string[] {
  return rows.map((row) => JSON.stringify(columns.map((name) => row[name] ?? null))).sort();
}

async function expectAs(url: string, then: Moment, tables = watched): Promise<void> {
  for (const table of tables) {
    const columns = await columnsOf(url, table);
    const rows = await rowsOf(url, table);
    const shared = columns.filter((name) => name !== "shoe_size");
    expect(only(rows, shared), table).toEqual(only(then.rows[table] ?? [], shared));
  }
  expect(await rowsOf(url, "storage.objects")).toEqual([]);
}

/** Nothing of a restore has begun there. */
async function expectUntouched(url: string): Promise<void> {
  const [found] = await query(
    asAdmin(url),
    `select to_regnamespace('holdfast') as state, to_regnamespace('app') as app,
            (select count(*)::int from auth.users) as users`,
  );
  expect(found).toEqual({ state: null, app: null, users: 0 });
}

const user = (n: number) => `00000000-0000-0000-0000-${String(n).padStart(12, "0")}`;

const signUp = (from: number, to: number) => `
  insert into auth.users (id, email, encrypted_password, raw_user_meta_data, created_at, updated_at)
    select ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, 'u' || i || '@example.org', md5(i::text),
           jsonb_build_object('n', i), now(), now() from generate_series(${from}, ${to}) as i;
  insert into auth.identities (provider_id, user_id, identity_data, provider, created_at)
    select u.id::text, u.id, jsonb_build_object('email', u.email, 'sub', u.id), 'email', now()
      from auth.users as u where (u.raw_user_meta_data ->> 'n')::int between ${from} and ${to};
  insert into auth.refresh_tokens (token, user_id)
    select 't' || i, i::text from generate_series(${from}, ${to}) as i`;

const changes = [
  `begin; ${signUp(21, 40)}; insert into app.profiles select id, email from auth.users on conflict do nothing; commit`,
  `update auth.users set encrypted_password = 'new', phone = '+49' || (raw_user_meta_data ->> 'n'), updated_at = now()
     where (raw_user_meta_data ->> 'n')::int % 3 = 0`,
  `update auth.users set raw_user_meta_data = raw_user_meta_data || jsonb_build_object('big', (
     select string_agg(md5(i::text || email), '') from generate_series(1, 3000) as i)) where id in ('${user(4)}', '${
    user(24)
  }')`,
  "update auth.users set email = 'moved' || email where (raw_user_meta_data ->> 'n')::int % 4 = 0",
  `update auth.identities set identity_data = identity_data || '{"seen": true}' where provider_id < '${user(30)}'`,
  "delete from auth.users where (raw_user_meta_data ->> 'n')::int % 10 = 1",
  `insert into auth.audit_log_entries (id, payload, created_at, ip_address)
     select ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, '{"a": 1}', now(), '::1' from generate_series(1, 9) as i`,
  "update auth.audit_log_entries set ip_address = '127.0.0.1'",
  "update auth.refresh_tokens set revoked = true where id % 2 = 0",
  "insert into storage.buckets (id, name) values ('made', 'made')",
  "update storage.buckets set public = false, file_size_limit = 5 where id = 'photos'",
  "insert into storage.objects (bucket_id, name, version) select 'made', 'm' || i, 'v' from generate_series(1, 7) as i",
  "update storage.objects set version = 'w' where name in ('p1', 'p2', 'm1')",
  `begin; set local session_replication_role = replica; delete from storage.objects where name in ('p3', 'p4', 'm2');
   delete from storage.buckets where id = 'old'; commit`,
];

let people: Moment;
let migrated: Moment;
let owned: Moment;
let emptied: Moment;
let byAdmin: Moment;

beforeAll(async () => {
  w = await world(cluster());
  const auth = as("supabase_auth_admin", w.url);
  await query(asAdmin(w.url), "create role app_owner; create role app_maker");
  await query(
    auth,
    "create table auth.passkeys (id int primary key, user_id uuid references auth.users on delete cascade)",
  );
  await query(w.url, "create schema app");
  await query(
    w.url,
    `create table app.profiles (id uuid primary key references auth.users on delete cascade, name text);
     create table app.owned (id int generated always as identity primary key, t text);
     insert into app.owned (t) values ('one'), ('two');
     grant all on schema app to app_owner, app_maker;
     ${signUp(1, 20)};
     insert into app.profiles select id, email from auth.users;
     insert into storage.buckets (id, name, public) values ('photos', 'photos', true), ('old', 'old', false);
     insert into storage.objects (bucket_id, name, version)
       select 'photos', 'p' || i, 'v' || i from generate_series(1, 30) as i`,
  );
  await query(asAdmin(w.url), "alter table app.owned owner to app_owner");
  await drainNow(w.deps);
  await backup(w.deps);
  for (const statement of changes) await query(w.url, statement);
  people = await moment();

  await query(auth, "alter table auth.users add column nickname text");
  await query(auth, "insert into auth.schema_migrations values ('20991231000000')");
  await query(auth, `insert into auth.passkeys values (1, '${user(2)}'), (2, '${user(3)}')`);
  await query(auth, `update auth.users set nickname = 'n' || email where (raw_user_meta_data ->> 'n')::int % 2 = 0`);
  migrated = await moment();

  // Neither of the two is a role that postgres may act as, on either side.
  await query(asAdmin(w.url), "set role app_owner; alter table app.owned add column n int default 3");
  await query(asAdmin(w.url), "insert into app.owned (t, n) values ('three', 4); update app.owned set t = 'o'");
  await query(asAdmin(w.url), "set role app_maker; create function app.made() returns int language sql as 'select 1'");
  owned = await moment();

  await query(
    asAdmin(w.url),
    `begin; truncate storage.objects; truncate auth.identities;
     insert into storage.objects (bucket_id, name) values ('made', 'a'), ('made', 'b'); commit`,
  );
  emptied = await moment();

  await query(asAdmin(w.url), "create table app.by_admin (id int)");
  byAdmin = await moment();
  await drainNow(w.deps);
}, 240_000);

describe("a restore to a moment, into a project", () => {
  it("gives its own tables the people and buckets of the moment, and lists the files", async () => {
    const url = await project();
    const result = await into(url, people.lsn);
    await expectAs(url, people);
    expect(result).toMatchObject({ target: "project", filesNotRestored: people.files, resumed: false });
    expect(result.warnings.filter((text) => /files of storage.objects/.test(text))).toEqual([
      `${people.files} files of storage.objects are not restored with the rows: they come with their bytes`,
    ]);
    // A sign-in there gets a number of its own.
    const [token] = await query(url, "insert into auth.refresh_tokens (token) values ('there') returning id::int");
    expect(Number(token?.["id"])).toBeGreaterThan(40);
  }, 120_000);

  it(
    "fills what the project has, leaves new columns at their defaults, and names what it has no column for, once",
    async () => {
      const url = await project(
        `alter table auth.users add column shoe_size text default 'unknown', drop column phone;
       alter table auth.audit_log_entries drop column ip_address;
       alter table storage.buckets drop column file_size_limit`,
      );
      const result = await into(url, people.lsn);
      await expectAs(url, people);
      const sizes = await query(asAdmin(url), "select distinct shoe_size as size from auth.users");
      expect(sizes).toEqual([{ size: "unknown" }]);
      for (const lost of ["table auth.users: .* phone;", "table auth.audit_log_entries: .* ip_address;"]) {
        expect(result.warnings.filter((text) => new RegExp(lost).test(text)), lost).toHaveLength(1);
      }
    },
    120_000,
  );

  it(
    "leaves the services' own definitions to the project: a newer one takes the new columns, an older one names them",
    async () => {
      const newer = await project(
        `alter table auth.users add column nickname text;
       create table auth.passkeys (id int primary key, user_id uuid);
       grant all on auth.passkeys to postgres`,
      );
      expect((await into(newer, migrated.lsn)).warnings.join("\n")).not.toMatch(/nickname|passkeys/);
      await expectAs(newer, migrated);
      expect(await rowsOf(newer, "auth.passkeys")).toHaveLength(2);

      const older = await project();
      const result = await into(older, migrated.lsn);
      await expectAs(older, migrated);
      expect(result.warnings).toContain(
        "table auth.users: the project has no column nickname; its values are not restored",
      );
      expect(result.skipped).toContainEqual({
        identity: "changes of table auth.passkeys",
        reason: "the project does not have the table",
      });
      expect(result.warnings.join("\n")).toMatch(/not restored: changes of table auth.passkeys/);
      const versions = await query(asAdmin(older), "select version from auth.schema_migrations where version > '2099'");
      expect(versions).toEqual([]);
    },
    120_000,
  );

  it("replays what another role did to its own tables, and leaves no membership behind", async () => {
    const url = await project();
    await into(url, owned.lsn);
    await expectAs(url, owned);
    const owners = await query(
      asAdmin(url),
      `select (select relowner::regrole::text from pg_class where oid = 'app.owned'::regclass) as "table",
              (select proowner::regrole::text from pg_proc where oid = 'app.made'::regproc) as function`,
    );
    expect(owners).toEqual([{ table: "app_owner", function: "app_maker" }]);
    const members = await query(
      asAdmin(url),
      "select member::regrole::text from pg_auth_members where roleid::regrole::text like 'app_%'",
    );
    expect(members).toEqual([]);
  }, 120_000);

  it("ends although the project keeps a sequence and a table of its services to itself", async () => {
    const url = await project(
      `revoke all on sequence auth.refresh_tokens_id_seq from postgres;
       create table auth.secret (id int generated always as identity); revoke all on auth.secret from postgres;
       grant all on sequence auth.secret_id_seq to postgres`,
    );
    await into(url, people.lsn);
    await expectAs(url, people);
  }, 120_000);

  it(
    "empties tables although the project has others that refer to them, and counts the files that came after",
    async () => {
      const url = await project("create table auth.newer (id uuid references auth.identities)");
      const result = await into(url, emptied.lsn);
      await expectAs(url, emptied);
      expect(emptied.files).toBe(2);
      expect(result.filesNotRestored).toBe(2);
    },
    120_000,
  );

  it("takes tables as of the full, or not at all, where it is told so", async () => {
    const url = await project();
    const result = await into(url, emptied.lsn, { atFull: ["storage.objects"], withoutTables: ["auth.identities"] });
    await expectAs(url, { ...emptied, rows: { ...emptied.rows, "auth.identities": [] } });
    expect(result.filesNotRestored).toBe(30);
  }, 120_000);

  describe("is refused before the project is touched", () => {
    it("where rows cannot be found again, or not be deleted", async () => {
      const keyless = await project("alter table auth.identities drop column id");
      await expect(into(keyless, people.lsn)).rejects.toMatchObject({
        code: "target_differs",
        message: /identities.* id,/,
      });
      await expectUntouched(keyless);

      const unindexed = await project("alter table auth.identities drop constraint identities_pkey");
      await expect(into(unindexed, people.lsn)).rejects.toMatchObject({
        code: "target_differs",
        message: /unique index/,
      });
      await expectUntouched(unindexed);

      const guarded = await project("revoke delete on auth.identities from postgres");
      await expect(into(guarded, people.lsn)).rejects.toMatchObject({
        code: "database_denied",
        message: /auth.identities/,
      });
      await expectUntouched(guarded);
    }, 120_000);

    it("where a role changed definitions as which the restoring one may not act", async () => {
      const url = await project();
      await expect(into(url, byAdmin.lsn)).rejects.toMatchObject({
        code: "ddl_not_replayable",
        message: /postgres may not act as it/,
      });
      await expectUntouched(url);
    }, 120_000);
  });
});

describe("a restore to a moment, into another PostgreSQL", () => {
  it("has the rows of storage.objects and the services' new definitions, since no service is there", async () => {
    const url = cluster().plainUrl(cluster().superuser, await freshDatabase(cluster(), { platform: false }));
    const result = await into(url, migrated.lsn);
    for (const table of watched) {
      expect(only(await rowsOf(url, table), await columnsOf(url, table)), table).toEqual(
        only(migrated.rows[table] ?? [], await columnsOf(url, table)),
      );
    }
    expect(await columnsOf(url, "auth.users")).toContain("nickname");
    expect(await rowsOf(url, "auth.passkeys")).toHaveLength(2);
    expect(await rowsOf(url, "storage.objects")).toHaveLength(migrated.files);
    expect(result).toMatchObject({ target: "bare", filesNotRestored: 0 });
  }, 120_000);
});
