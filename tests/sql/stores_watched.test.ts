/** The rule store_unreachable: one alert for a store, whoever finds it, which ends once something was written there and not before. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

/** At a moment that stands still; the cluster's own watchdog and monitor do nothing meanwhile. */
async function set(work: () => Promise<void>): Promise<void> {
  await rolledBack(postgres, async () => {
    await postgres.query(
      `select pg_advisory_xact_lock(hashtextextended('holdfast:' || n, 0)) from unnest(array['tick', 'monitor']) as n`,
    );
    await postgres.query("delete from backup.alerts; delete from backup.told_facts");
    await at(0);
    await postgres.query("select backup.tell_stores('s3 first', 's3 second')");
    await work();
  });
}

async function at(seconds: number): Promise<void> {
  await setClock(postgres, new Date(Date.UTC(2026, 10, 21) + seconds * 1000).toISOString());
}

const failure = (code: string, message = "s3 first: no answer") => JSON.stringify({ code, message, retry: "backoff" });
const note = (text: string) => postgres.query("select backup.note_store_failure($1)", [text]);
const look = () => postgres.query("select backup.look()");
const watch = () => postgres.query("select backup.watch_stores()");
const probed = (place: string, wrong: string | null, wrote: boolean) =>
  postgres.query("select backup.tell_fact('store:' || $1, $2)", [
    place,
    JSON.stringify({ label: `s3 ${place}`, failure: wrong, wrote }),
  ]);

async function alerts(): Promise<string[]> {
  const { rows } = await postgres.query<{ line: string }>(
    "select concat_ws(' ', subject, severity, status) as line from backup.alerts where kind = 'store_unreachable' order by id",
  );
  return rows.map(({ line }) => line);
}

describe("a store that did not do what it should", () => {
  it("is a warning, and critical once it lasts; by its label the second one", async () => {
    await set(async () => {
      await note(failure("row_too_large"));
      await note("{}");
      expect(await alerts()).toEqual([]);
      await note(failure("store_unreachable"));
      await at(299);
      await note(failure("store_denied"));
      expect(await alerts()).toEqual(["store:first warning open"]);
      await at(301);
      await postgres.query("select backup.end_drain('n', null, $1)", [failure("store_unreachable")]);
      expect(await alerts()).toEqual(["store:first critical open"]);
      await note(failure("store_full", "s3 second: no room"));
      expect(await alerts()).toEqual(["store:first critical open", "store:second warning open"]);
    });
  });

  it("stays one alert while it can be read and not written: no look, no idle drain, no verified backup ends it", async () => {
    await set(async () => {
      await note(failure("store_full", "s3 first: no room"));
      await at(30);
      await probed("first", null, false);
      await postgres.query("select backup.end_drain('n', '{\"outcome\": \"end\"}', null)");
      await postgres.query(
        `with r as (
           insert into backup.runs (kind, status, origin, started_at, finished_at, heartbeat_at)
           values ('verify', 'succeeded', 'http', backup.clock_now(), backup.clock_now(), backup.clock_now()) returning id
         ) insert into backup.tasks (run_id, kind, status, done_at) select id, 'verify', 'done', backup.clock_now() from r`,
      );
      await look();
      await watch();
      expect(await alerts()).toEqual(["store:first warning open"]);
      expect(await scalar(postgres, "select backup.status() ->> 'verdict'")).not.toBe("ok");
      expect(await scalar(postgres, "select backup.status() -> 'reasons' @? '$[*] ? (@ like_regex \"no room\")'")).toBe(
        "t",
      );
      await at(400);
      await look();
      expect(await alerts()).toEqual(["store:first critical open"]);
      // The monitor's own probe finds the same: it is the same alert.
      await probed("first", "no room (store_full)", false);
      await look();
      expect(await alerts()).toEqual(["store:first critical open"]);
      await at(700);
      await probed("first", null, true);
      await look();
      expect(await alerts()).toEqual(["store:first critical resolved"]);
      await look();
      expect(await alerts()).toHaveLength(1);
    });
  });

  it.each([
    [
      "a segment",
      "first",
      `with r as (
         insert into backup.runs (kind, tiers, status, origin, started_at, heartbeat_at)
         values ('incremental', '{hourly}', 'copying', 'schedule', backup.clock_now(), backup.clock_now()) returning id
       ) insert into backup.segments (name, chain_id, run_id, start_lsn, end_lsn, part, transactions, changes, ddl, raw_bytes, stored_bytes, hash, stored_hash, epoch, taken_at, ends_in_transaction, recorded_at)
       select 'v1/changes/c/x', 'c', r.id, '0/1', '0/2', 0, 1, 1, 0, 1, 1, 'h', 'h', 'e', backup.clock_now(), false, backup.clock_now() from r`,
    ],
    [
      "a backup of the functions",
      "first",
      `insert into backup.runs (kind, tiers, status, origin, started_at, heartbeat_at, consistent_at, finished_at, complete_at, manifest_name, manifest_hash)
       select 'full', '{daily}', 'succeeded', 'schedule', m, m, m, m, m, 'm', 'h' from (select backup.clock_now() as m) as n`,
    ],
    [
      "a copy",
      "second",
      `insert into backup.copies (store, name, kind, status, second_bytes, second_hash, copied_at)
       values ('s3 second', 'o', 'object', 'stored', 1, 'h', backup.clock_now())`,
    ],
  ])("is well again with %s that was written since", async (_, place, written) => {
    await set(async () => {
      await postgres.query(
        `insert into backup.chains (id, slot_name, publications, start_lsn, started_at, system_identifier, database_name)
         values ('c', 'no_slot', '{}', '0/1', backup.clock_now(), 'x', 'x')`,
      );
      await at(-60);
      await postgres.query(written);
      await at(0);
      await note(failure("store_unreachable", `s3 ${place}: no answer`));
      await watch();
      expect(await alerts()).toEqual([`store:${place} warning open`]);
      await at(60);
      await postgres.query(
        "delete from backup.segments; delete from backup.runs where kind in ('full', 'incremental'); delete from backup.copies",
      );
      await postgres.query(written);
      await watch();
      expect(await alerts()).toEqual([`store:${place} warning resolved`]);
    });
  });

  it("is not taken for well by a backup of the CLI, which may lie elsewhere, where a function tells of the store", async () => {
    await set(async () => {
      await note(failure("store_unreachable"));
      await at(60);
      const made =
        `insert into backup.runs (kind, tiers, status, origin, started_at, heartbeat_at, consistent_at, finished_at, complete_at, manifest_name, manifest_hash)
        select 'full', '{manual}', 'succeeded', 'cli', m, m, m, m, m, 'm', 'h' from (select backup.clock_now() as m) as n`;
      await postgres.query(made);
      await probed("first", null, false);
      await watch();
      expect(await alerts()).toEqual(["store:first warning open"]);
      await postgres.query("delete from backup.told_facts");
      await watch();
      expect(await alerts()).toEqual(["store:first warning resolved"]);
    });
  });

  it("does not stay so for a year after the clock was set back by one", async () => {
    await set(async () => {
      await at(365 * 86_400);
      await note(failure("store_unreachable"));
      await at(0);
      await watch();
      expect(await alerts()).toEqual(["store:first warning open"]);
      await probed("first", null, true);
      await watch();
      expect(await alerts()).toEqual(["store:first warning resolved"]);
    });
  });
});
