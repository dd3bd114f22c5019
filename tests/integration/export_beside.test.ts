/** Exports beside others: the weekly check that makes one of a sample person, and whoever waits for a table that is read. */
import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { type Budget, unlimited } from "../../src/shared/backup/budget.ts";
import { type CheckDeps, processOpenLimits, type StepMemory } from "../../src/shared/checks/deps.ts";
import { sampleExport } from "../../src/shared/checks/sample_export.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { CheckTask } from "../../src/shared/jobs/check_queries.ts";
import { silentLog } from "../../src/shared/log.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { query, useCluster, withClient } from "../support/cluster.ts";
import { eventually } from "../support/stack.ts";
import { databaseOf, exported, ring } from "./export_fixture.ts";

const cluster = useCluster({ prepared: "installed" });
const ask = async (text: string, values: readonly unknown[] = []) => await query(cluster().plainUrl(), text, values);
const anna = randomUUID();

/** Leg by leg, each with its own memory of the one before. */
async function made(budget: () => Budget = () => unlimited, memory: StepMemory = { state: null }) {
  const database = databaseOf(cluster());
  const connection = await database.connect("holdfast:test");
  try {
    const store = createMemoryStore();
    const deps: CheckDeps = {
      connection,
      database,
      first: store,
      second: null,
      ring,
      compressor: await loadZstd(),
      clock: systemClock,
      log: silentLog,
    };
    for (let legs = 1; legs < 20; legs++) {
      const options = { worker: `test-${legs}`, budget: budget(), limits: processOpenLimits };
      const result = await sampleExport(deps, new CheckTask(connection, { id: "1", token: "1" }), memory, options);
      memory.state = JSON.parse(JSON.stringify(memory.state));
      if (result !== null) return { ...result, legs };
    }
    throw new Error("it came to no end");
  } finally {
    await connection.close();
  }
}

const exports = async () => await ask("select origin, status from backup.exports order by created_at");

beforeAll(async () => {
  await ask(
    `create table public.letters (id int primary key, user_id uuid not null references auth.users);
     create table public.notes (id int primary key, user_id uuid not null references auth.users, body text)`,
  );
});

describe("a sample export", () => {
  it("says so where there is nobody", async () => {
    expect(await made()).toMatchObject({
      outcome: "no_verdict",
      message: "there is nobody whose data could be exported",
    });
  });

  it("is made, judged and thrown away, is nobody's order, and is shown to nobody", async () => {
    await ask(`insert into auth.users (id, email) values ('${anna}', 'anna@example.org')`);
    await ask(`insert into public.notes select i, '${anna}', 'note ' || i from generate_series(1, 40) as i`);
    expect(await made()).toMatchObject({ outcome: "passed", evidence: { rows: 41, tables: 2, files: 0 } });
    expect(await exports()).toEqual([{ origin: "check", status: "removed" }]);
    expect(await ask("select from backup.export_pieces")).toEqual([]);
    for (let order = 0; order < 3; order++) {
      const [one] = await ask(`select joined from backup.begin_export('${anna}', 'user')`);
      expect(one).toEqual({ joined: false });
      await ask("update backup.exports set status = 'removed', removed_at = now() where status = 'queued'");
    }
  });

  it("gives way to an order of the person's own", async () => {
    await ask("delete from backup.exports");
    await ask(`select backup.begin_export('${anna}', 'check', 'check', interval '1 minute')`);
    const [own] = await ask(`select joined from backup.begin_export('${anna}', 'user')`);
    expect(own).toEqual({ joined: false });
    expect(await exports()).toEqual([{ origin: "check", status: "ending" }, { origin: "user", status: "queued" }]);
    expect(await made(), "and they are no sample meanwhile").toMatchObject({ outcome: "no_verdict" });
    await ask("delete from backup.exports");
  });

  it("goes on in the next leg where the budget of one is spent", async () => {
    const spent = await made(() => ({ ...unlimited, spent: () => true }));
    expect(spent).toMatchObject({ outcome: "passed" });
    expect(spent.legs).toBeGreaterThan(1);
    await ask("delete from backup.exports");
  });

  it("passes over who has more than a part, and fails where exports cannot be made", async () => {
    await ask(
      `insert into public.notes select i, '${anna}', repeat(md5(i::text), 6000) from generate_series(100, 149) as i`,
    );
    expect(await made()).toMatchObject({ outcome: "no_verdict" });
    expect((await exports()).every(({ status }) => status === "removed")).toBe(true);
    await ask("delete from backup.exports; delete from public.notes where id >= 100");
    await ask("update backup.settings set value = '{\"version\": 9}' where name = 'backup_map'");
    await expect(made()).rejects.toMatchObject({ code: "payload_invalid" });
    await ask("update backup.settings set value = '' where name = 'backup_map'");
    expect(await exports()).toEqual([{ origin: "check", status: "failed" }]);
  });
});

describe("somebody who waits for a table", () => {
  it("is let through within 5 s, and the export is made the next time", async () => {
    await withClient(cluster().plainUrl(), async (holder) => {
      await holder.query("begin; lock table public.notes in access exclusive mode");
      const making = exported(databaseOf(cluster()), anna).then(() => null, (error: unknown) => error);
      const read = await eventually("a table is being read", async () => {
        const [row] = await ask(
          `select c.oid::regclass::text as name from pg_locks as l join pg_class as c on c.oid = l.relation
           join pg_stat_activity as a on a.pid = l.pid
           where a.application_name = 'holdfast:export' and l.granted and l.mode = 'AccessShareLock'
             and c.relkind = 'r' and c.relnamespace = 'public'::regnamespace limit 1`,
        );
        return row === undefined ? null : String(row["name"]);
      });
      await withClient(cluster().plainUrl(), async (waiter) => {
        const began = performance.now();
        await waiter.query(`begin; lock table ${read} in access exclusive mode`);
        expect(performance.now() - began).toBeLessThan(6_000);
        expect(await making).toMatchObject({ code: "lock_timeout", retry: "backoff" });
        await waiter.query("rollback");
      });
      await holder.query("rollback");
    });
    expect((await exported(databaseOf(cluster()), anna)).document.tables.length).toBeGreaterThan(1);
  }, 60_000);
});
