/** What the guard of the slot leaves behind, whatever else of its minute goes wrong. */
import pg from "pg";
import { describe, expect, it } from "vitest";
import { useCluster, withClient } from "../support/cluster.ts";
import { backup, until } from "./backup_fixture.ts";
import { drainNow, mortalSource, query, type Source } from "./changes_stream_fixture.ts";

const cluster = useCluster({ settings: { max_replication_slots: "20" } });

/** An open chain with a full, of which the slot holds back a few MB. */
async function source(): Promise<Source & { readonly heldMb: number; readonly chain: string }> {
  const made = await mortalSource(cluster());
  await query(made.url, "create schema app; create table app.notes (id int primary key, t text)");
  const { chain } = await drainNow(made.deps);
  await backup(made.deps);
  await query(made.url, "insert into app.notes select i, repeat('x', 1000) from generate_series(1, 5000) as i");
  const [held] = await query(made.url, "select retained_bytes / 1048576.0 as mb from backup.slot_state()");
  return { ...made, chain: chain ?? "", heldMb: Math.ceil(Number(held?.["mb"])) };
}

const limit = (url: string, mb: number) =>
  query(url, "update backup.settings set value = $1 where name = 'slot_limit_mb'", [String(mb)]);
const alerts = (url: string, kind: string) =>
  query(url, "select severity, status, message from backup.alerts where kind = $1 order by id", [kind]);
const slots = (url: string) =>
  query(url, "select active from pg_replication_slots where database = current_database()");
const openChains = (url: string) => query(url, "select id from backup.chains where ended_at is null");

describe("the call of each minute", () => {
  it(
    "leaves what the guard noted where no function can be called: the alert below the limit, the gap past it",
    async () => {
      const { url, deps, heldMb, chain } = await source();
      const call = async () => (await query(url, "select backup.call_drain() as request"))[0]?.["request"];

      await limit(url, heldMb + 1);
      await withClient(cluster().plainUrl("postgres"), async (other) => {
        await other.query("begin");
        await other.query("select pg_current_xact_id()");
        const { rows: [row] } = await other.query<{ pid: number }>("select pg_backend_pid() as pid");
        expect(await call()).toBeNull();
        const told =
          "^the slot holds back \\d+ MB of WAL \\(kept from [0-9A-F/]+ on, drained up to [0-9A-F/]+\\); at \\d+ MB it is " +
          `given up; the oldest transaction is that of process ${row?.pid} in database postgres, since .* UTC \\(.* old.*\\)$`;
        expect(await alerts(url, "slot_behind")).toEqual([
          { severity: "warning", status: "open", message: expect.stringMatching(new RegExp(told)) as string },
        ]);
      });
      expect([await slots(url), await openChains(url)]).toEqual([[{ active: false }], [{ id: chain }]]);

      await limit(url, heldMb - 1);
      expect(await call()).toBeNull();
      expect([await slots(url), await openChains(url)]).toEqual([[], []]);
      const gaps = () =>
        query(url, "select chain_id, reason, to_lsn > from_lsn as forward, to_at >= from_at as later from backup.gaps");
      const reason = expect.stringMatching(/^the slot held back \d+ MB of WAL, more than \d+ MB$/) as string;
      expect(await gaps()).toEqual([{ chain_id: chain, reason, forward: null, later: null }]);
      expect(await alerts(url, "stream_gap")).toMatchObject([{ severity: "critical", status: "open" }]);
      expect(await alerts(url, "slot_behind"), "nothing is held back any more").toMatchObject([{ status: "resolved" }]);

      await limit(url, 0);
      await drainNow(deps);
      expect(await gaps()).toEqual([{ chain_id: chain, reason, forward: true, later: true }]);
    },
    60_000,
  );

  it("leaves it where the call fails in a way that nobody thought of, and says that it failed", async () => {
    const { url, heldMb, chain } = await source();
    await query(url, "alter function backup.invoke(text, jsonb) rename to invoke_of_before");
    await limit(url, heldMb - 1);
    await query(url, "select backup.call_drain()");
    expect([await slots(url), await openChains(url)]).toEqual([[], []]);
    expect(await query(url, "select chain_id from backup.gaps")).toEqual([{ chain_id: chain }]);
    expect(await alerts(url, "drain_failed")).toEqual([{
      severity: "warning",
      status: "open",
      message: "the function that drains the change stream could not be called (SQLSTATE 42883)",
    }]);
  }, 60_000);
});

describe("a slot past its limit that a superuser reads", () => {
  it("is kept with its chain and an alert that names the reader, and given up once it can be", async () => {
    const { url, heldMb, chain } = await source();
    const guard = async () => (await query(url, "select backup.guard_slot() as what"))[0]?.["what"];
    await limit(url, heldMb - 1);
    const [slot] = await query(url, "select slot_name as name from backup.slot_state()");
    const reader = new pg.Client({
      connectionString: cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1)),
      ...{ replication: "database" },
    });
    reader.on("error", () => {});
    await reader.connect();
    try {
      void reader.query(
        `START_REPLICATION SLOT ${String(slot?.["name"])} LOGICAL 0/0 ` +
          "(proto_version '1', publication_names 'holdfast_inserts')",
      ).catch(() => {});
      await until("it is read", async () => (await slots(url))[0]?.["active"] === true ? true : null);
      for (const minute of [1, 2]) {
        expect(await guard(), `minute ${minute}`).toBe("kept");
        expect([await openChains(url), await query(url, "select from backup.gaps")]).toEqual([[{ id: chain }], []]);
        expect(await alerts(url, "slot_behind")).toEqual([{
          severity: "critical",
          status: "open",
          message: expect.stringMatching(
            new RegExp(
              "^the slot held back \\d+ MB of WAL, more than \\d+ MB, and it cannot be dropped " +
                `\\(SQLSTATE 42501; process \\d+ of role ${cluster().superuser} reads it\\)$`,
            ),
          ) as string,
        }]);
      }
    } finally {
      await reader.end();
    }
    await until("nobody reads it", async () => (await slots(url))[0]?.["active"] === false ? true : null);
    expect(await guard()).toBe("over the limit");
    expect([await slots(url), await openChains(url)]).toEqual([[], []]);
    expect(await alerts(url, "slot_behind")).toMatchObject([{ status: "resolved" }]);
  }, 60_000);
});

describe("a chain that the guard ends while a drainer records", () => {
  it("is ended behind it, and neither is told of a deadlock", async () => {
    const { url } = await source();
    await query(
      url,
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
    );
    const [claimed] = await query(url, "select backup.claim_drain('test', interval '90 seconds')::text as token");
    await withClient(url, async (drainer) => {
      await drainer.query("begin");
      await drainer.query("select backup.hold_drain($1::bigint, interval '90 seconds')", [claimed?.["token"]]);
      const guard = query(url, "select backup.guard_slot() as what");
      await until("the guard waits", async () => {
        const waiting = await query(
          url,
          `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
             and query like '%guard_slot%'`,
        );
        return waiting.length > 0 ? true : null;
      });
      // As backup.record_segment does it.
      await drainer.query("select from backup.chains where ended_at is null for update");
      await drainer.query("commit");
      expect(await guard).toEqual([{ what: "gone" }]);
    });
    expect(await openChains(url)).toEqual([]);
  }, 60_000);
});
