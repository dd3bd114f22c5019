/** A restore of rows that is larger than one transaction may be: in steps, killed between them, gone on with. */
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { createLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { keptBefore } from "../../src/shared/rows/apply/done_counts.ts";
import { layAsked, pairAsked } from "../../src/shared/rows/asked.ts";
import type { Beside } from "../../src/shared/rows/beside/beside.ts";
import { capBytesOf } from "../../src/shared/rows/cap_bytes.ts";
import { RowsWork, type WorkDeps } from "../../src/shared/rows/work.ts";
import { query, useCluster } from "../support/cluster.ts";
import { type Past, pastOf, patient, rowsOf } from "../restores/rows_fixture.ts";

const cluster = useCluster();
const open: Past[] = [];
afterEach(async () => {
  for (const past of open.splice(0)) await past.connection.close();
});

const many = `create schema app;
  create table app.t (id int primary key, place int unique, parent int references app.t, x text not null);
  insert into app.t select i, i, nullif(i / 2, 0), repeat('x', 200) from generate_series(1, 4000) as i;
  create table app.child (id int primary key, t_id int not null references app.t);
  insert into app.child select i, i from generate_series(1, 4000) as i`;

/** Rows go, change, come, and swap values that are unique. */
const disaster = `delete from app.child where id > 1000; delete from app.t where id > 2000;
  update app.t set x = 'changed' where id <= 500; update app.t set place = -place where id <= 100;
  update app.t set place = 101 + place where id <= 100; insert into app.t select i, i, null, 'new' from generate_series(9001, 9500) as i`;

async function broken(): Promise<{ readonly past: Past; readonly was: string[] }> {
  const past = await pastOf(cluster(), many);
  open.push(past);
  const was = await rowsOf(past.url, "app.t");
  await query(past.url, disaster);
  return { past, was };
}

async function begin(
  past: Past,
  capBytes: number | undefined,
  onLine: (event: string) => void,
  { digest = "d", ...more }: Partial<WorkDeps> & { readonly digest?: string } = {},
): Promise<{ work: RowsWork; beside: Beside }> {
  const work = await RowsWork.begin({
    target: openDatabase({ url: past.url }),
    clock: systemClock,
    random: webCryptoRandom,
    log: createLog((line) => onLine(line.event), "debug"),
    capBytes,
    ...more,
  }, { scope: "table", mode: "replace", sourceBackup: past.source.backupId, pointAt: null, userId: null, digest });
  const deps = { connection: work.connection, source: past.source, sameDatabase: true, schema: work.schema };
  const asked = { scope: "table", table: { schema: "app", name: "t" } } as const;
  const beside = await pairAsked(deps, asked, await layAsked(deps, asked, "test"));
  return { work, beside };
}

const whole = { ...patient, mode: "replace" } as const;
const cap = 600_000;

describe("a difference beyond the cap", () => {
  it("is taken down in steps, also where a row refers to one of another step, and ends the same", async () => {
    const { past, was } = await broken();
    let steps = 0;
    const { work, beside } = await begin(past, cap, (event) => void (steps += event === "step:rows.step" ? 1 : 0));
    const result = await work.apply(beside, whole, null);
    await work.finish([], 1);
    await work.close();
    expect(steps).toBeGreaterThan(5);
    expect(result).toMatchObject({ inserted: 2000, updated: 500, deleted: 500 });
    expect(await rowsOf(past.url, "app.t")).toEqual(was);
    // All that was changed or deleted is kept as it was before.
    const [kept = []] = [...(await keptBefore(past.connection, work.schema, beside.pairs)).values()];
    const counts = await Promise.all(kept.map((name) => query(past.url, `select count(*)::int as n from ${name}`)));
    expect(counts.flat().reduce((sum, { n }) => sum + Number(n), 0)).toBe(1000);
  }, 60_000);

  it("shows nobody a row that is to go again before the commit, after no step", async () => {
    const { past, was } = await broken();
    const seen: number[] = [];
    let steps = 0;
    const { work, beside } = await begin(past, cap, () => {}, {
      beforeCommit: async (connection) => await connection.execute("delete from app.t where id in (2900, 3000, 3900)"),
    });
    await work.apply(beside, whole, null, async () => {
      steps++;
      seen.push(
        ...(await query(past.url, "select id from app.t where id in (2900, 3000, 3900)")).map(({ id }) => Number(id)),
      );
    });
    await work.finish([], 1);
    await work.close();
    expect(steps).toBeGreaterThan(5);
    expect(seen).toEqual([]);
    expect(await rowsOf(past.url, "app.t")).toEqual(was.filter((row) => !/^\((2900|3000|3900),/.test(row)));
  }, 60_000);

  it("is one beyond a quarter of what the slot may hold back, in a leg never more than it has time for", async () => {
    const { past, was } = await broken();
    const caps = async (mb: number) => {
      await query(past.url, "update backup.settings set value = $1 where name = 'slot_limit_mb'", [String(mb)]);
      const own = await capBytesOf(past.connection, true, false);
      return [own, await capBytesOf(past.connection, true, true)].map((bytes) => bytes / 1024 ** 2);
    };
    expect(await caps(1)).toEqual([1024, 64]);
    await query(
      past.url,
      `insert into backup.chains (id, slot_name, publications, start_lsn, system_identifier, database_name)
         values ('c', 'c', '{}', '0/1', '1', current_database())`,
    );
    expect(await caps(2000)).toEqual([500, 64]);
    expect(await caps(1)).toEqual([0.25, 0.25]);
    let steps = 0;
    const { work, beside } = await begin(
      past,
      undefined,
      (event) => void (steps += event === "step:rows.step" ? 1 : 0),
    );
    await work.apply(beside, whole, null);
    await work.finish([], 1);
    await work.close();
    expect(steps).toBeGreaterThan(5);
    expect(await rowsOf(past.url, "app.t")).toEqual(was);
  }, 60_000);

  it("that was killed between any two steps is gone on with by the same request, and loses nothing", async () => {
    const { past, was } = await broken();
    let [killed, schema] = [0, ""];
    for (const at of [1, 3, 5]) {
      let seen = 0;
      const { work, beside } = await begin(past, cap, (event) => {
        if (event === "step:rows.step" && ++seen === at) throw new Error("killed");
      });
      expect(schema === "" || work.schema === schema).toBe(true);
      schema = work.schema;
      const error = await work.apply(beside, whole, null).then(() => null, (thrown: unknown) => thrown);
      if (error === null) {
        await work.finish([], 1);
        await work.close();
        break;
      }
      killed++;
      // As if the process had gone: nothing is told, the lease runs out.
      await work.close();
      await query(past.url, "update backup.restores set lease_until = clock_timestamp() - interval '1 second'");
    }
    expect(killed).toBeGreaterThan(1);
    const { work, beside } = await begin(past, cap, () => {});
    expect(work.schema).toBe(schema);
    await work.apply(beside, whole, null);
    await work.finish([], 1);
    await work.close();
    expect(await rowsOf(past.url, "app.t")).toEqual(was);
    const kept = await query(
      past.url,
      `select relname from pg_class where relnamespace = '${schema}'::regnamespace and relname like 'holdfast before%'`,
    );
    const counts = await Promise.all(kept.map(async ({ relname }) => {
      const [row] = await query(past.url, `select count(*)::int as n from ${schema}."${relname}"`);
      return Number(row?.["n"]);
    }));
    expect(counts.reduce((sum, n) => sum + n, 0)).toBe(1000);
  }, 120_000);

  it("is refused while another one is at work on the same table, and one that was asked to end ends", async () => {
    const { past } = await broken();
    const present = await rowsOf(past.url, "app.t");
    const first = await begin(past, cap, () => {});
    await query(past.url, `update backup.restores set tables = '[{"schema": "app", "name": "t"}]'`);
    const second = await begin(past, cap, () => {}, { digest: "other" });
    await expect(second.work.apply(second.beside, whole, null)).rejects.toMatchObject({ code: "run_state" });
    await second.work.fail(new Error("refused"));
    await second.work.close();
    await query(past.url, `select backup.cancel_restore('${first.work.lease?.id}')`);
    const ended: unknown = await first.work.apply(first.beside, whole, null).catch((error: unknown) => error);
    expect(ended).toMatchObject({ code: "cancelled" });
    await first.work.fail(ended);
    await first.work.close();
    expect(await rowsOf(past.url, "app.t")).toEqual(present);
    expect(await query(past.url, "select status from backup.restores order by started_at")).toEqual([
      { status: "cancelled" },
      { status: "failed" },
    ]);
    expect(await query(past.url, "select nspname from pg_namespace where nspname like 'restore\\_%'")).toEqual([]);
  }, 60_000);
});

describe("a restore whose plan waits for somebody", () => {
  it("is theirs as long as they take", async () => {
    const { past } = await broken();
    const clock = { ...systemClock, sleep: (_ms: number, signal?: AbortSignal) => systemClock.sleep(10, signal) };
    const { work } = await begin(past, cap, () => {}, { digest: "waits", clock });
    await query(past.url, "update backup.restores set lease_until = clock_timestamp() - interval '1 minute'");
    const leased = async () =>
      (await query(
        past.url,
        "select lease_until > clock_timestamp() + interval '1 minute' as yes from backup.restores",
      ))[0]
        ?.["yes"];
    expect(await leased()).toBe(false);
    const answer = await work.waiting(async () => {
      while (await leased() !== true) await systemClock.sleep(10);
      return "yes";
    });
    expect(answer).toBe("yes");
    await work.fail(new Error("refused"));
    await work.close();
  }, 30_000);
});

describe("a restore whose session is ended in the middle", () => {
  it("has changed nothing", async () => {
    const { past } = await broken();
    const present = await rowsOf(past.url, "app.t");
    const { work, beside } = await begin(past, 10 ** 9, () => {}, {
      beforeCommit: async ({ processId }) => void await query(past.url, `select pg_terminate_backend(${processId})`),
    });
    await expect(work.apply(beside, whole, null)).rejects.toMatchObject({ code: "database_unreachable" });
    await work.fail(new Error("gone"));
    await work.close();
    expect(await rowsOf(past.url, "app.t")).toEqual(present);
  }, 60_000);
});
