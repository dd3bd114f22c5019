import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isUnchanged } from "../../src/shared/backup/takeover.ts";
import { copyStatement, type RunTable } from "../../src/shared/backup/run_tables.ts";
import type { Range } from "../../src/shared/backup/ranges.ts";
import { openSession } from "../../src/shared/backup/session.ts";
import type { TakeOver } from "../../src/shared/backup/task_detail.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { below } from "../../src/shared/store/below.ts";
import { tableFingerprints } from "../../src/shared/schema/fingerprint.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { numbersFrom } from "../unit/backup_numbers.ts";
import { backup, manifestOf, query, tableIn, textOf, world } from "./backup_fixture.ts";

const cluster = useCluster();

/** A snapshot's chunks of one table, a block each, with what a plan compares. */
interface Captured {
  readonly xmin: string;
  readonly relfilenode: string;
  readonly fingerprint: string | null;
  readonly texts: ReadonlyMap<number, { readonly text: string; readonly rows: number }>;
}

describe("a chunk that is taken over", () => {
  let sessions: Connection[] = [];
  let url = "";
  beforeAll(async () => {
    url = cluster().plainUrl("postgres", await freshDatabase(cluster()));
    const database = openDatabase({ url });
    sessions = [];
    for (const name of ["reader", "writer", "other", "fresh"]) {
      sessions.push(await openSession(database, `holdfast:${name}`));
    }
  }, 180_000);
  afterAll(async () => {
    for (const session of sessions) await session.close();
  });

  it("equals a fresh read, over random histories of changes, vacuum and DDL with transactions left open", async () => {
    const [reader, writer, other, fresh] = sessions as [Connection, Connection, Connection, Connection];
    const seed = 20261121;
    const next = numbersFrom(seed);
    let checks = 0;
    let taken = 0;
    for (let history = 0; history < 6; history++) {
      await writer.execute(
        `drop table if exists public.h; drop type if exists public.mood;
         create type public.mood as enum ('sad', 'ok');
         create table public.h (id int, v text, m public.mood) with (fillfactor = 70, autovacuum_enabled = false);
         insert into public.h select i, repeat(md5(i::text), 1 + i % 3), 'ok' from generate_series(1, 1500) as i`,
      );
      const kept: Captured[] = [];
      let label = 0;
      for (let round = 0; round < 25; round++) {
        const now = await capture(reader, fresh, kept, (hit) => {
          checks++;
          if (hit) taken++;
        });
        kept.push(now);
        if (kept.length > 3) kept.shift();
        for (let step = next(6); step > 0; step--) label = await change(writer, other, next, label);
      }
      await other.execute("rollback");
    }
    expect(checks).toBeGreaterThan(5_000);
    expect(taken).toBeGreaterThan(500);
  }, 120_000);

  /** Captures the table in a fresh snapshot and holds every range that the check would take over against what it reads. */
  async function capture(
    reader: Connection,
    fresh: Connection,
    bases: readonly Captured[],
    tell: (taken: boolean) => void,
  ): Promise<Captured> {
    const fingerprints = await tableFingerprints(fresh, { leaveOutSchemas: [] });
    await reader.execute("begin isolation level repeatable read read only; lock table public.h in access share mode");
    try {
      const [row] = await reader.query(
        `select c.oid, c.relfilenode, pg_snapshot_xmin(pg_current_snapshot()) as xmin,
                pg_relation_size(c.oid) / 8192 as blocks,
                (select string_agg(quote_ident(a.attname), ' ' order by a.attnum) from pg_attribute as a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
           from pg_class as c where c.oid = 'public.h'::regclass`,
      );
      const oid = row?.["oid"] ?? "";
      const relfilenode = row?.["relfilenode"] ?? "";
      const table: RunTable = {
        oid,
        relfilenode,
        schema: "public",
        name: "h",
        sqlName: "public.h",
        columns: (row?.["columns"] ?? "").split(" ").map((name) => ({ name, type: "" })),
        fingerprint: "",
        dataOwner: "user",
        rowFilter: null,
        statistics: { deleted: 0, inserted: 0 },
        countedRows: null,
      };
      const fingerprint = fingerprints.get(oid) ?? null;
      const texts = new Map<number, { text: string; rows: number }>();
      for (let block = 0; block < Number(row?.["blocks"]); block++) {
        const range: Range = { from: { block, item: 0 }, to: { block: block + 1, item: 0 } };
        let text = "";
        const decoder = new TextDecoder();
        const { rows } = await reader.copyOut(copyStatement(table, range), (view) => {
          text += decoder.decode(view, { stream: true });
        });
        texts.set(block, { text, rows });
        for (const base of bases) {
          const chunk = base.texts.get(block);
          if (
            chunk === undefined || chunk.rows === 0 || base.relfilenode !== relfilenode ||
            base.fingerprint !== fingerprint
          ) continue;
          const takeOver: TakeOver = {
            rows: chunk.rows,
            rawBytes: 0,
            storedBytes: 0,
            object: "",
            hash: "",
            storedHash: "",
            takenFrom: null,
            xmin: base.xmin,
          };
          const unchanged = await isUnchanged(reader, table, range, takeOver);
          tell(unchanged);
          if (unchanged) expect(text, `block ${block}`).toBe(chunk.text);
        }
      }
      return { xmin: row?.["xmin"] ?? "", relfilenode, fingerprint, texts };
    } finally {
      await reader.execute("rollback");
    }
  }

  /** One random change. `other` leaves transactions open over several snapshots. */
  async function change(
    writer: Connection,
    other: Connection,
    next: (below: number) => number,
    label: number,
  ): Promise<number> {
    const id = next(1_500);
    const near = `id between ${id} and ${id + next(30)}`;
    switch (next(16)) {
      case 0:
        await writer.execute(
          `insert into public.h (id, v) select i, 'n' || i from generate_series(${id}, ${id + next(60)}) as i`,
        );
        break;
      case 1:
      case 2:
        await writer.execute(`update public.h set v = v || 'u' where ${near}`);
        break;
      case 3:
        await writer.execute(`delete from public.h where ${near}`);
        break;
      case 4:
        // A row that goes and one that comes: the same count.
        await writer.execute(
          `begin; delete from public.h where id = ${id}; insert into public.h (id, v) values (${id}, 'swap'); commit`,
        );
        break;
      case 5:
        await writer.execute("vacuum public.h");
        break;
      case 6:
        await writer.execute("vacuum (freeze) public.h");
        break;
      case 7:
        await writer.execute(`begin; update public.h set v = 'gone' where ${near}; rollback`);
        break;
      case 8:
        await writer.execute(
          `begin; savepoint a; insert into public.h (id, v) values (${id}, 'sub'); rollback to a; update public.h set v = v where id = ${id}; commit`,
        );
        break;
      case 9:
      case 10:
        // Left open: its rows are invisible now and come, or never do, with an old transaction id.
        await other.execute(`commit; begin; insert into public.h (id, v) values (${id}, 'late')`);
        break;
      case 11:
        await other.execute("rollback");
        break;
      case 12:
        await writer.execute(`select id from public.h where ${near} for key share`);
        break;
      case 13:
        if (next(4) === 0) {
          await other.execute("rollback");
          await writer.execute(
            `alter type public.mood rename value '${label % 2 === 0 ? "sad" : "s"}' to '${
              label % 2 === 0 ? "s" : "sad"
            }'`,
          );
          return label + 1;
        }
        await writer.execute(`update public.h set m = 'ok' where ${near}`);
        break;
      case 14:
        if (next(5) === 0) {
          await other.execute("rollback");
          await writer.execute(
            next(2) === 0
              ? `alter table public.h drop column if exists extra; alter table public.h add column extra int default ${
                next(100)
              }`
              : "vacuum full public.h",
          );
        }
        break;
      default:
        await writer.execute(`update public.h set v = v where ${near}`);
    }
    return label;
  }
});

describe("backups one after the other", () => {
  it("take over what did not change, and every text is what a fresh read gives", async () => {
    const { deps, url } = await world(cluster());
    await query(
      url,
      `create table log (id int, t text); insert into log select i, md5(i::text) from generate_series(1, 30000) as i;
       create table small (i int); insert into small values (1)`,
    );
    const changes = [
      "select 1",
      "insert into log select i, md5(i::text) from generate_series(30001, 33000) as i",
      "update log set t = 'x' where id < 50",
      "delete from log where id between 20000 and 20100",
      "truncate small; insert into small values (2)",
      "alter table log add column extra text default 'd'",
      "select 1",
    ];
    const shares: number[] = [];
    await backup(deps);
    for (const [index, statement] of changes.entries()) {
      for (const each of statement.split(";")) await query(url, each);
      const manifest = await manifestOf(deps, await backup(deps));
      const log = tableIn(manifest, "public", "log");
      shares.push(log.chunks.filter((chunk) => chunk.takenFrom !== null).length / log.chunks.length);
      for (const name of ["log", "small"]) {
        const [row] = await query(
          url,
          `select coalesce(string_agg(t.text, '' order by t.ctid), '') as text from (
             select ctid, ${
            name === "log"
              ? logText(index >= changes.findIndex((each) => each.startsWith("alter")))
              : "i::text || chr(10)"
          } as text from ${name}) as t`,
        );
        const held = await textOf(deps, tableIn(manifest, "public", name));
        // Not toBe: the difference of two long texts says less than the step.
        expect(held === row?.["text"], `${name} after ${statement}`).toBe(true);
      }
    }
    const [nothing, appended, updated, deleted, elsewhere, altered, again] = shares;
    expect(nothing).toBe(1);
    expect(appended).toBeGreaterThan(0.7);
    expect(updated).toBeGreaterThan(0.7);
    expect(deleted).toBeGreaterThan(0.7);
    expect(elsewhere).toBe(1);
    expect(altered).toBe(0);
    expect(again).toBe(1);
  });

  /** An oracle that is not COPY: the fields of the table's text by string functions. */
  function logText(widened: boolean): string {
    return `id::text || chr(9) || t || ${widened ? "chr(9) || extra || " : ""}chr(10)`;
  }

  it("never take over what the store no longer has, or has with another size", async () => {
    const { deps, url, store } = await world(cluster());
    await query(url, "create table t as select i, md5(i::text) as v from generate_series(1, 10000) as i");
    const first = await manifestOf(deps, await backup(deps));
    const [gone, cut] = tableIn(first, "public", "t").chunks;
    store.objects.delete(gone?.object ?? "");
    const bytes = store.objects.get(cut?.object ?? "") ?? new Uint8Array();
    store.objects.delete(cut?.object ?? "");
    const table = tableIn(await manifestOf(deps, await backup(deps)), "public", "t");
    expect(bytes.length).toBeGreaterThan(0);
    expect(table.chunks.filter((chunk) => chunk.takenFrom === null)).toHaveLength(2);
    expect((await textOf(deps, table)).split("\n")).toHaveLength(10_001);
  });

  it("never take over from a run of another server, or from one that is ahead of this database", async () => {
    const { deps, url } = await world(cluster());
    await query(url, "create table t as select i from generate_series(1, 5000) as i");
    const takenAfter = async (statement: string) => {
      await backup(deps);
      await query(url, statement);
      const table = tableIn(await manifestOf(deps, await backup(deps)), "public", "t");
      return table.chunks.filter((chunk) => chunk.takenFrom !== null).length;
    };
    expect(await takenAfter("select 1")).toBeGreaterThan(0);
    expect(await takenAfter("update backup.attempts set wal_lsn = wal_lsn + 1e12::numeric")).toBe(0);
    expect(await takenAfter("update backup.attempts set snapshot = '4000000000:4000000000:'")).toBe(0);
    // A copy, which writes elsewhere.
    await query(url, "update backup.identity set system_identifier = '1'");
    const run = await backup(deps);
    const [place] = await query(url, "select store_prefix from backup.runs where id = $1", [run.id]);
    expect(place?.["store_prefix"]).toMatch(/^clone-/);
    const there = { ...deps, store: below(deps.store, String(place?.["store_prefix"])) };
    const table = tableIn(await manifestOf(there, run), "public", "t");
    expect(table.chunks.filter((chunk) => chunk.takenFrom !== null)).toEqual([]);
  });

  it("take over nothing with names behind numbers (regclass), and nothing after a new epoch", async () => {
    const { deps, url, store } = await world(cluster());
    await query(
      url,
      "create table r (c regclass); insert into r values ('pg_class'), ('pg_type'); create table t as select 1 as i",
    );
    await backup(deps);
    const second = await manifestOf(deps, await backup(deps));
    expect(tableIn(second, "public", "r").chunks.every((chunk) => chunk.takenFrom === null)).toBe(true);
    expect(tableIn(second, "public", "t").chunks.every((chunk) => chunk.takenFrom !== null)).toBe(true);
    const later = { ...deps.clock, now: () => new Date(Date.now() + 31 * 24 * 60 * 60 * 1000) };
    const third = await manifestOf(deps, await backup({ ...deps, clock: later }));
    expect(third.epoch).not.toBe(second.epoch);
    expect(third.tables.flatMap((table) => table.chunks).every((chunk) => chunk.takenFrom === null)).toBe(true);
    expect([...store.objects.keys()].filter((name) => name.startsWith("v1/keys/"))).toHaveLength(2);
  });

  it("go on in a second attempt with what the first one has read", async () => {
    let ended = false;
    const { deps, url } = await world(cluster(), {
      onLine: (line) => {
        if (line.event !== "step:chunk.recorded" || ended) return;
        ended = true;
        void query(
          url_,
          "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'holdfast:keeper' and datname = current_database()",
        );
      },
    });
    const url_ = url;
    await query(url, "create table big as select i, md5(i::text) as v from generate_series(1, 60000) as i");
    const row = await backup(deps, { workers: 1 });
    expect(ended).toBe(true);
    expect(row.attempt).toBe(2);
    const created = await query(url, "select count(*)::int as n from backup.objects where kind = 'chunk'");
    const chunks = (await manifestOf(deps, row)).tables.flatMap((table) => table.chunks);
    expect(created).toEqual([{ n: new Set(chunks.map((chunk) => chunk.object)).size }]);
    expect(await query(url, "select count(distinct attempt)::int as n from backup.chunks")).toEqual([{ n: 1 }]);
  });
});
