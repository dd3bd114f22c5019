/** Rows as they were at a moment, against what the source had at that moment. */
import { Buffer } from "node:buffer";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { momentOf } from "../../src/shared/changes/decode/moment.ts";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { BeforeCommit } from "../../src/shared/restore/before_commit.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import { openBackupRows } from "../../src/shared/rows/past/backup_rows.ts";
import { type MomentOptions, type MomentRows, openMomentRows } from "../../src/shared/rows/past/moment_rows.ts";
import type { ScratchServer } from "../../src/shared/rows/past/moment_scratch.ts";
import type { PastPiece, PastRows, PastTable, RowFilter } from "../../src/shared/rows/past/past.ts";
import { quoteIdent, quoteQualified, splitQualified, unquoteIdent } from "../../src/shared/schema/quote.ts";
import { clusterMs, freshDatabase, useCluster } from "../support/cluster.ts";
import { backup, query, world } from "../integration/backup_fixture.ts";
import { drainNow } from "../integration/changes_stream_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;
let live: Connection;
let full: string;

/** As a hosted project's own role, or as a superuser. */
const server = (role = "postgres"): ScratchServer => ({
  database: openDatabase({ url: cluster().plainUrl(role) }),
  inDatabase: (name: string) => openDatabase({ url: cluster().plainUrl(role, name) }),
});

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `create schema app;
     create table app.users (id int primary key, name text);
     create table app.teams (id int primary key, owner int not null references app.users);
     create table app.notes (gone int, id int primary key, owner int references app.users on delete cascade, body text,
       upper_body text generated always as (upper(body)) stored, is_open boolean);
     alter table app.notes drop column gone;
     create view app.names as select 100 / count(*) as share from app.users;
     create table app.parts (id int, k int, v text, owner int references app.users, primary key (id, k)) partition by list (k);
     create table app.parts_1 partition of app.parts for values in (1);
     create table app.parts_2 (v text, owner int, k int not null, id int not null);
     alter table app.parts attach partition app.parts_2 for values in (2);
     create function app.is_user(wanted int) returns boolean language sql stable as
       'select exists (select from app.users as u where u.id = wanted)';
     create table app.checked (id int primary key, owner int constraint a_user check (app.is_user(owner)));
     create table app.without_key (id int, t text);
     create unlogged table app.fast (id int primary key);
     create table app.parts_3 (id int not null, k int not null, v text, owner int);
     insert into app.parts_3 select i, 3, 'three' from generate_series(1, 30) as i;
     create table app.large (id int primary key, t text);
     create table app."A b" (id uuid primary key default gen_random_uuid(), "c,d" text, n numeric, b bytea);
     insert into app.users select i, 'user ' || i from generate_series(1, 300) as i;
     insert into app.teams select i, i from generate_series(1, 50) as i;
     insert into app.notes (id, owner, body, is_open) select i, 1 + i % 300, repeat(E'body\\t' || i || E'\\n', i % 7), i % 3 = 0 from generate_series(1, 2000) as i;
     insert into app.checked select i, 100 + i from generate_series(1, 20) as i;
     insert into app.without_key select i, 'w' from generate_series(1, 10) as i;
     insert into app.parts select i, 1 + i % 2, 'v' || i, 1 + i % 300 from generate_series(1, 800) as i;
     insert into app."A b" ("c,d", n, b) select i || E'\\\\', i / 4.0, convert_to('b' || i, 'UTF8') from generate_series(1, 100) as i;
     create materialized view app.shares as select 100 / count(*) as share from app.users;`,
  );
  await drainNow(w.deps);
  full = (await backup(w.deps)).id;
  live = await openSession(
    openDatabase({ url: cluster().plainUrl(cluster().superuser, w.url.split("/").at(-1)?.split("?")[0] ?? "") }),
    "witness",
  );
}, clusterMs);

afterAll(async () => {
  await live?.close();
});

async function rowsOf(pieces: AsyncIterable<PastPiece>): Promise<string[]> {
  const parts: Uint8Array[] = [];
  for await (const { rows } of pieces) parts.push(rows.slice());
  return lines(parts);
}

function lines(parts: readonly Uint8Array[]): string[] {
  const rows = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)).split("\n");
  expect(rows.pop()).toBe("");
  return rows.sort();
}

const sqlName = ({ schema, name }: { readonly schema: string; readonly name: string }) => quoteQualified(schema, name);
const named = (text: string) => {
  const [schema, name] = splitQualified(text) ?? ["", ""];
  return { schema: unquoteIdent(schema), name: unquoteIdent(name) };
};

function tableOf(past: PastRows, name: string): PastTable {
  const found = past.tables.find((one) => sqlName(one) === name);
  if (found === undefined) throw new Error(`${name} is not listed`);
  return found;
}

async function liveRows(table: string, columns: readonly string[], condition = "true"): Promise<string[]> {
  const parts: Uint8Array[] = [];
  await live.copyOut(
    `copy (select ${columns.map(quoteIdent).join(", ")} from ${table} as t where ${condition}) to stdout`,
    (bytes) => parts.push(bytes.slice()),
  );
  return lines(parts);
}

/** Tables with what they hold now. */
async function state(): Promise<{ readonly lsn: Point; readonly time: Point; readonly rows: Map<string, string[]> }> {
  const rows = new Map<string, string[]>();
  const found = await live.query(
    `select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name, (select json_agg(a.attname order by a.attnum)
        from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns
       from pg_class as c join pg_namespace as n on n.oid = c.relnamespace and n.nspname = 'app' where c.relkind in ('r', 'p')`,
  );
  for (const { name, columns } of found) {
    rows.set(name ?? "", await liveRows(name ?? "", JSON.parse(columns ?? "[]") as string[]));
  }
  const [now] = await live.query(
    "select pg_current_wal_insert_lsn()::text as lsn, (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as micros",
  );
  return {
    lsn: { by: "lsn", lsn: parseLsn(now?.["lsn"] ?? "") },
    time: { by: "time", at: BigInt(now?.["micros"] ?? "") },
    rows,
  };
}

const scratches = async () =>
  (await live.query("select datname from pg_database where datname like 'holdfast_scratch_%'")).map((row) =>
    row["datname"]
  );

async function withMoment<T>(
  point: Point,
  tables: readonly string[] | null,
  use: (past: MomentRows) => Promise<T>,
  options: MomentOptions = {},
  on = server(),
): Promise<T> {
  const past = await openMomentRows(w.deps, point, tables?.map(named) ?? null, on, options);
  try {
    return await use(past);
  } finally {
    await past.close();
    expect(await scratches()).toEqual([]);
  }
}

async function expectRows(past: PastRows, wanted: Map<string, string[]>, tables: Iterable<string>): Promise<void> {
  for (const name of tables) {
    const table = tableOf(past, name);
    expect(await rowsOf(past.read(table, null)), name).toEqual(wanted.get(name));
    expect(table.rows, name).toBe(wanted.get(name)?.length);
  }
}

describe("a restore of a whole database", () => {
  it.each(["beside", "to a point"])(
    "does not end before the hook had its say, which views know of: %s",
    async (way) => {
      const name = await freshDatabase(cluster(), { platform: false });
      const url = cluster().plainUrl(cluster().superuser, name);
      const deps = { ...w.deps, target: openDatabase({ url }) };
      const restore = async (beforeCommit: BeforeCommit) =>
        way === "beside"
          ? await restoreBackup({ ...deps, beforeCommit }, full)
          : await restorePoint({ ...deps, beforeCommit }, await planPoint(deps, { by: "end" }));
      const erase = async (connection: Connection) =>
        await connection.execute("set local session_replication_role = replica; delete from app.users where id > 10");
      await expect(restore(async (connection) => {
        await erase(connection);
        throw new Error("not now");
      })).rejects.toThrow("not now");
      const users = "select count(*)::int as users, (select max(share)::int from app.shares) as share from app.users";
      expect(await query(url, users)).toMatchObject([{ users: 300 }]);
      expect(await restore(erase)).toMatchObject({ ok: true, resumed: true });
      expect(await query(url, users)).toEqual([{ users: 10, share: 10 }]);
    },
    60_000,
  );
});

describe("rows at a moment", () => {
  it("are those of the full backup where nothing was changed since, with the same tables", async () => {
    const was = await state();
    await drainNow(w.deps);
    const stored = await openBackupRows(w.deps, full);
    const asStored = async (past: PastRows) => {
      const facts = ({ schema, name, columns, key, dataOwner, rows, oid }: PastTable) => ({
        schema,
        name,
        columns: columns.map(({ name, type }) => ({ name, type })),
        key,
        dataOwner,
        rows,
        oid,
      });
      const sorted = (tables: readonly PastTable[]) =>
        tables.map(facts).sort((a, b) => sqlName(a) < sqlName(b) ? -1 : 1);
      expect(sorted(past.tables)).toEqual(sorted(stored.tables));
      expect(past.graph).toEqual(stored.graph);
      expect(past.backupId).toBe(stored.backupId);
      for (const table of stored.tables) {
        const there = tableOf(past, sqlName(table));
        if (table.oid !== "0") expect(there.columns).toEqual(table.columns);
        expect(await rowsOf(past.read(there, null)), sqlName(table)).toEqual(await rowsOf(stored.read(table, null)));
      }
      await expectRows(past, was.rows, was.rows.keys());
    };
    await withMoment(was.lsn, null, asStored);
    await withMoment(was.lsn, null, asStored, {}, server(cluster().superuser));
  }, 60_000);

  it(
    "come alone: a table's parents stay empty, its foreign keys hold it up nowhere, also across a TRUNCATE",
    async () => {
      const loaded = async (point: Point, tables: readonly string[], wanted: Map<string, string[]>) => {
        let rowsTotal = 0;
        await withMoment(point, tables, async (past) => {
          expect(past.tables.every((table) => tables.includes(sqlName(table)) || /parts/.test(sqlName(table)))).toBe(
            true,
          );
          await expectRows(past, wanted, tables);
        }, { onProgress: (at) => rowsTotal = at.rowsTotal });
        return rowsTotal;
      };
      await query(
        w.url,
        `update app.notes set body = 'changed' where id % 10 = 0; delete from app.users where id = 7;
       insert into app.parts values (9001, 1, 'late', 5); update app.parts set k = 3 - k where id = 4; delete from app.teams where id < 5`,
      ).catch(() => {});
      await query(
        w.url,
        `delete from app.teams where id < 10; update app.parts set owner = 8 where owner = 7; delete from app.users where id = 7`,
      );
      await query(w.url, "update app.notes set body = 'changed' where id % 10 = 0");
      const first = await state();
      await query(
        w.url,
        "truncate app.notes; insert into app.notes (id, owner, body) values (1, 1, 'after'), (2, 8, 'after')",
      );
      const second = await state();
      await query(w.url, "truncate app.users cascade; insert into app.users values (1, 'one')");
      const third = await state();
      await drainNow(w.deps);
      const everything = (await openBackupRows(w.deps, full)).tables.filter(({ name }) => name !== "parts")
        .reduce((sum, table) => sum + table.rows, 0);
      expect(await loaded(first.lsn, ["app.notes"], first.rows)).toBe(2000);
      expect(await loaded(first.time, ["app.parts"], first.rows)).toBe(800);
      expect(await loaded(second.lsn, ["app.notes", 'app."A b"'], second.rows)).toBe(2100);
      await loaded(third.lsn, ["app.users"], third.rows);
      // A check that looks into another table is refused over an empty one: then all rows are loaded.
      expect(await loaded(first.lsn, ["app.checked"], first.rows)).toBeGreaterThanOrEqual(everything);
      await withMoment(first.time, ["app.nobody"], async (past) => {
        expect(past.tables).toEqual([]);
        expect(past.at).toBe(first.time.by === "time" ? momentOf(first.time.at) : "");
        await Promise.resolve();
      });
    },
    120_000,
  );

  it(
    "are found by a filter that the server applies: all that fit, and no others where the type's text tells",
    async () => {
      await query(
        w.url,
        "insert into app.users select i, 'again ' || i from generate_series(2, 50) as i on conflict do nothing; insert into app.notes (id, owner, body, is_open) select 10000 + i, i, E'b\\t' || i, i % 2 = 0 from generate_series(3, 50) as i",
      );
      const was = await state();
      await drainNow(w.deps);
      await withMoment(was.lsn, ["app.notes", 'app."A b"'], async (past) => {
        const found = async (name: string, filter: RowFilter) => await rowsOf(past.read(tableOf(past, name), filter));
        const notes = ["id", "owner", "body", "is_open"];
        const some = (columns: string[], ...values: string[]) => ({ columns, values: new Set(values) });
        expect(await found("app.notes", [some(["body"], "b\\t7", "b\\t8", "none")])).toEqual(
          await liveRows("app.notes", notes, "body in (E'b\\t7', E'b\\t8')"),
        );
        expect(
          await found("app.notes", [
            some(["is_open", "owner"], "t\t8", "f\t10", "\\N\t1"),
            some(["id"], "10003", "x"),
            some(["id"], "5"),
          ]),
        )
          .toEqual(await liveRows("app.notes", notes));
        expect(await found("app.notes", [some(["is_open", "owner"], "t\t8", "f\t10", "\\N\t1"), some(["id"], "10005")]))
          .toEqual(
            await liveRows("app.notes", notes, "(is_open and owner = 8) or (not is_open and owner = 10) or id = 10005"),
          );
        expect(await found("app.notes", [])).toEqual([]);
        const [first] = await liveRows('app."A b"', ["id", "c,d", "n", "b"]);
        const [id = "", text = "", , bytes = ""] = first?.split("\t") ?? [];
        expect(await found('app."A b"', [some(["id"], id)])).toEqual([first]);
        expect(await found('app."A b"', [some(["c,d"], text)])).toEqual([first]);
        expect(await found('app."A b"', [some(["b"], bytes)])).toEqual([first]);
        expect(await found('app."A b"', [some(["n"], "1")])).toHaveLength(100);
      });
    },
    120_000,
  );

  it(
    "come under the names that the tables had then, with the oids and attnums of the source, whatever was renamed and attached",
    async () => {
      await query(
        w.url,
        "alter table app.notes rename to entries; alter table app.entries rename column body to words",
      );
      await query(w.url, "alter table app.entries add column extra int");
      await query(w.url, "alter table app.parts attach partition app.parts_3 for values in (3)");
      await query(w.url, "update app.entries set extra = id, words = words || '!' where id < 20");
      const was = await state();
      await drainNow(w.deps);
      await query(w.url, "drop table app.teams");
      await drainNow(w.deps);
      const before = (await openBackupRows(w.deps, full)).tables.find(({ name }) => name === "notes");
      await withMoment(was.lsn, ["app.entries", "app.parts"], async (past) => {
        await expectRows(past, was.rows, ["app.entries", "app.parts", "app.parts_3"]);
        const table = tableOf(past, "app.entries");
        expect(table.oid).toBe(before?.oid);
        expect(table.columns).toEqual([
          ...before?.columns.map((column) => column.name === "body" ? { ...column, name: "words" } : column) ?? [],
          { name: "extra", type: "integer", attnum: 0 },
        ]);
      });
    },
    60_000,
  );
});

describe("tables of which changes are missing", () => {
  it("are in nobody's way who does not want them", async () => {
    await query(
      w.url,
      "insert into app.fast select generate_series(1, 10); insert into app.users values (9001, 'new')",
    );
    const was = await state();
    await drainNow(w.deps);
    await expect(openMomentRows(w.deps, was.lsn, null, server())).rejects.toMatchObject({ code: "tables_uncovered" });
    await expect(openMomentRows(w.deps, was.lsn, [named("app.fast")], server()))
      .rejects.toMatchObject({ code: "tables_uncovered" });
    await withMoment(was.lsn, ["app.users", "app.entries"], async (past) => {
      await expectRows(past, was.rows, ["app.users", "app.entries"]);
      expect(past.tables).toHaveLength(2);
    });
  }, 60_000);

  it("come with a warning where a change may not have been counted, for those alone that are wanted", async () => {
    const now = (await state()).lsn;
    await drainNow(w.deps);
    const warnings = (tables: readonly string[]) => withMoment(now, tables, (past) => Promise.resolve(past.warnings));
    expect(await warnings(["app.users", "app.without_key"]))
      .toEqual([expect.stringMatching(/right before the moment may be missing in app\.without_key:/)]);
    expect(await warnings(["app.users"])).toEqual([]);
  }, 60_000);
});

describe("a moment that cannot be had", () => {
  it("is told as point_uncovered, and no database is left behind by whatever fails", async () => {
    const far: Point = { by: "lsn", lsn: parseLsn("FFFFFFF/0") };
    await expect(openMomentRows(w.deps, far, null, server())).rejects.toMatchObject({ code: "point_uncovered" });
    const controller = new AbortController();
    await expect(
      openMomentRows(w.deps, { by: "end" }, ["app.users"].map(named), server(), {
        signal: controller.signal,
        onProgress: () => controller.abort(),
      }),
    ).rejects.toMatchObject({ code: "cancelled" });
    expect(await scratches()).toEqual([]);
  }, 60_000);

  it("gives its database back while it is read, twice, and without a server, and never throws", async () => {
    const past = await openMomentRows(w.deps, { by: "end" }, ["app.parts"].map(named), server());
    const reading = past.read(tableOf(past, "app.parts"), null)[Symbol.asyncIterator]();
    await reading.next();
    await past.close();
    expect(await scratches()).toEqual([]);
    await past.close();
    let isDead = false;
    const mortal = server();
    const other = await openMomentRows(w.deps, { by: "end" }, ["app.parts"].map(named), {
      ...mortal,
      database: {
        label: "mortal",
        connect: (name) =>
          isDead
            ? Promise.reject(new HoldfastError("database_unreachable", "it is dead"))
            : mortal.database.connect(name),
      },
    });
    isDead = true;
    await other.close();
    isDead = false;
    expect(await scratches()).toHaveLength(1);
    await other.close();
    expect(await scratches()).toEqual([]);
  }, 60_000);
});

describe("a table that is large", () => {
  it("comes in pieces of 16 MiB at most, and is gone on with behind any of them", async () => {
    await query(
      w.url,
      `insert into app.large select i, repeat(md5(i::text), 65536) from generate_series(1, 9) as i;
       insert into app.large values (0, 'small')`,
    );
    const [now] = await live.query("select pg_current_wal_insert_lsn()::text as lsn");
    await drainNow(w.deps);
    await withMoment({ by: "lsn", lsn: parseLsn(now?.["lsn"] ?? "") }, ["app.large"], async (past) => {
      const sizes: number[] = [];
      let rows = 0;
      const ends: string[] = [];
      for await (const { rows: piece, end } of past.read(tableOf(past, "app.large"), null)) {
        ends.push(end);
        sizes.push(piece.byteLength);
        for (let at = piece.indexOf(10); at >= 0; at = piece.indexOf(10, at + 1)) rows++;
      }
      expect(rows).toBe(10);
      expect(sizes.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(18 * 1024 * 1024 - 1);
      expect(Math.max(...sizes)).toBeLessThanOrEqual(16 * 1024 * 1024);
      const behind = async (end: string) => {
        let size = 0;
        for await (const { rows: piece } of past.read(tableOf(past, "app.large"), null, end)) size += piece.byteLength;
        return size;
      };
      for (const [at, end] of ends.entries()) {
        expect(await behind(end)).toBe(sizes.slice(at + 1).reduce((sum, size) => sum + size, 0));
      }
    });
  }, 60_000);
});
