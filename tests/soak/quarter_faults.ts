/**
 * What goes wrong in a simulated quarter: each default rule of the alerts by its real fault, or as near to it as this machine gets. None
 * of them calls raise_alert. Each names the alerts that have to be opened, once each, and is over with the last of its days.
 */
import pg from "pg";
import {
  backupNow,
  byDay,
  day,
  disturbed,
  down,
  expected,
  type Fault,
  hour,
  isSunday,
  number,
  set,
  stuck,
} from "./quarter_fault.ts";
import { rotateKeys } from "./quarter_keys.ts";
import type { Disturbance } from "./quarter_network.ts";
import type { World } from "./quarter_world.ts";

const settingsChanged: Fault = {
  name: "settings changed: somebody keeps more backups at least",
  days: 2,
  steps: (random) => [{
    minute: random.below(day),
    act: async (world) =>
      await set(
        world,
        "keep_at_least",
        String(3 + (await number(world, "select backup.setting_integer('keep_at_least')") + 1) % 3),
      ),
  }],
  expects: [expected("settings_changed", "setting:keep_at_least")],
};

const storeFilling: Fault = {
  name: "store above 80 %: the provider's plan is a smaller one",
  days: 3,
  steps: (random) => {
    const from = byDay(random);
    return [
      {
        minute: from,
        act: async (world) => {
          const bytes = await number(world, "select bytes from backup.store_usage where place = 'first'");
          await set(world, "primary_quota_bytes", String(Math.ceil(bytes / 0.85)));
        },
      },
      { minute: from + 5 * hour, act: (world) => set(world, "primary_quota_bytes", "0") },
    ];
  },
  expects: [expected("settings_changed", "setting:primary_quota_bytes"), expected("store_filling", "store:first")],
};

const channelFailing: Fault = {
  name: "a channel fails: the webhook's receiver answers 500, and there is something to tell",
  days: 3,
  steps: (random) => {
    const from = byDay(random);
    return [
      { minute: from, act: (world) => Promise.resolve(void (world.hook.answers = [500])) },
      { minute: from + 1, act: (world) => set(world, "alert_hourly", String(20 + random.below(20))) },
      { minute: from + 9 * hour, act: (world) => Promise.resolve(void (world.hook.answers = [200])) },
    ];
  },
  expects: [expected("settings_changed", "setting:alert_hourly"), expected("channel_failing", "channel:webhook")],
};

const runFailed: Fault = {
  name: "a run failed: the first store refuses objects at midnight",
  days: 4,
  steps: () => [
    ...disturbed(
      day - 20,
      day + 50,
      ({ place, method, key }) =>
        place === "first" && method === "PUT" && key.startsWith("v1/objects/") ? "denied" : null,
    ),
    { minute: day + 55, act: backupNow },
  ],
  expects: [
    expected("backup_failed", "kind:full"),
    expected("store_unreachable", "store:first"),
    expected("anomaly", "check:job_status"),
  ],
  alters: { 1: { noFull: true, moreFulls: 1 } },
};

const quarantined: Fault = {
  name: "a backup is quarantined: a server that crashed has lost most rows of a table, and its counters",
  days: 5,
  steps: () => [
    {
      minute: day - 30,
      act: async (world) => {
        await world.rows("create table public.kept_aside as select * from public.notes");
        await world.rows("delete from public.notes where id % 10 > 0");
        await world.rows("select pg_stat_force_next_flush()");
        await world.admin.query("select pg_stat_reset()");
      },
    },
    {
      minute: day + 6 * hour,
      act: async (world) => {
        await world.rows("insert into public.notes select * from public.kept_aside on conflict do nothing");
        await world.rows("drop table public.kept_aside");
        await backupNow(world);
      },
    },
  ],
  expects: [
    expected("backup_quarantined", "run:[0-9a-f-]{36}"),
    expected("backup_old", "kind:full"),
    expected("anomaly", "check:job_status"),
    expected("anomaly", "check:row_counts"),
  ],
  alters: { 1: { noFull: true, moreFulls: 1 } },
};

const missed: Fault = {
  name: "a run is missing, and the newest backup late: pg_cron does not start the nightly job",
  days: 4,
  // On Sundays the weekly job asks for the same backup.
  fits: (on) => on.getUTCDay() !== 6,
  steps: (random) => stuck("holdfast-daily", day - 30, day + byDay(random)),
  expects: [expected("run_missed", "schedule:daily"), expected("backup_old", "kind:full")],
  alters: { 1: { noFull: true } },
};

const firstDown: Fault = {
  name: "the first store cannot be reached",
  days: 3,
  steps: (random) => {
    const from = byDay(random);
    return disturbed(from, from + 5 * hour + 30, down("first"));
  },
  expects: [
    expected("store_unreachable", "store:first"),
    expected("drain_failed", "stream"),
    expected("stream_late", "stream"),
    expected("copies_failed", "kind:replicate"),
    expected("anomaly", "check:job_status"),
  ],
  alters: { 0: { fewerHours: true } },
};

const secondDown: Fault = {
  name: "the second copy is behind: its provider cannot be reached for longer than copies_late_hours",
  days: 3,
  steps: (random) => {
    const from = 6 * hour + random.below(60);
    return disturbed(from, from + 13 * hour, down("second"));
  },
  expects: [
    expected("store_unreachable", "store:second"),
    expected("copies_failed", "kind:replicate"),
    expected("copies_late", "store:second"),
    expected("anomaly", "check:job_status"),
  ],
};

const gap: Fault = {
  name: "a gap: the slot was dropped by hand",
  days: 4,
  steps: (random) => [{
    minute: byDay(random),
    act: async (world) => {
      await world.admin.query(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = 'postgres' and slot_type = 'logical'",
      );
    },
  }],
  expects: [expected("stream_gap", "chain:.*"), expected("verification_failed", "check:chain")],
  alters: { 0: { moreFulls: 1 } },
};

const slotNear: Fault = {
  name: "the slot is near its limit: a transaction was left open, and a lot is written",
  days: 3,
  steps: (random) => {
    const from = byDay(random);
    let forgotten: pg.Client | undefined;
    return [
      {
        minute: from,
        act: async (world) => {
          forgotten = new pg.Client({ connectionString: world.cluster.plainUrl("supabase_admin") });
          await forgotten.connect();
          // It has written something: from there on the server keeps its log for whoever decodes it.
          await forgotten.query("begin; insert into public.notes (person, body) values (1, 'forgotten')");
          for (let mb = 0; mb < 36; mb++) {
            await world.rows("select pg_logical_emit_message(false, 'quarter', repeat('x', 1048576))");
          }
        },
      },
      { minute: from + 5 * hour, act: async () => await forgotten?.end() },
    ];
  },
  expects: [expected("slot_behind", "chain:.*")],
};

const slow: Fault = {
  name: "an anomaly of duration: the first store takes two minutes for one object",
  days: 3,
  steps: () => {
    let slowed = false;
    let clock: World | undefined;
    const disturbance: Disturbance = ({ place, method, key }) => {
      if (!slowed && place === "first" && method === "PUT" && key.startsWith("v1/objects/")) {
        slowed = true;
        clock?.moveBy(120);
      }
      return null;
    };
    const [begin, end] = disturbed(day - 20, day + 30, disturbance);
    if (begin === undefined || end === undefined) return [];
    return [{
      ...begin,
      act: async (world) => {
        clock = world;
        await begin.act(world);
      },
    }, end];
  },
  expects: [expected("run_slow", "tier:daily")],
};

const verificationFailed: Fault = {
  name: "a verification failed: a manifest in the second store has rotten",
  days: 4,
  steps: (random) => [{
    minute: byDay(random),
    act: (world) => {
      const bucket = world.network.buckets.second;
      // The oldest may be pruned before anybody looks.
      const newest = bucket.keys("v1/backups/").at(-1);
      const body = bucket.versionsOf(newest ?? "").at(-1)?.body;
      if (body == null) throw new Error("there is no manifest to rot");
      const middle = body.byteLength >>> 1;
      body[middle] = (body[middle] ?? 0) ^ 1;
      return Promise.resolve();
    },
  }],
  expects: [expected("verification_failed", "check:manifests"), expected("copies_lost", "store:second")],
};

const checksOverdue: Fault = {
  name: "a verification is overdue: pg_cron does not start the daily checks",
  days: 3,
  fits: (on) => on.getUTCDay() !== 1,
  steps: (random) => stuck("holdfast-daily_checks", 4 * hour, 13 * hour + random.below(60)),
  expects: [expected("job_missed", "schedule:daily_checks"), expected("verification_overdue", "checks:daily")],
  alters: { 0: { noChecks: true } },
};

const drillFailed: Fault = {
  name: "a drill failed: the role may make no database any more",
  days: 4,
  fits: isSunday,
  steps: (random) => [
    { minute: day - 60, act: async (world) => void await world.admin.query("alter role postgres nocreatedb") },
    {
      minute: day + 12 * hour + random.below(6 * hour),
      act: async (world) => void await world.admin.query("alter role postgres createdb"),
    },
  ],
  expects: [expected("drill_failed", "drill:recovery"), expected("anomaly", "check:job_status")],
  alters: { 1: { failedDrills: 1 } },
};

/** Long enough that something is older than its tier keeps it by three days, and nobody has pruned for as long. */
export function retentionOff(firstDay: number): Fault {
  const lasts = 5;
  return {
    name: "retention is not followed: its job was switched off in cron.job",
    days: lasts + 3,
    fits: (_, at) => at >= firstDay,
    steps: (random) => {
      const from = byDay(random);
      const turn = (on: boolean) => async (world: World) =>
        void await world.admin.query(`update cron.job set active = ${on} where jobname = 'holdfast-retention'`);
      return [{ minute: from, act: turn(false) }, { minute: from + lasts * day, act: turn(true) }];
    },
    expects: [expected("job_missed", "schedule:retention"), expected("retention_not_followed", "retention")],
    alters: Object.fromEntries(Array.from({ length: lasts + 1 }, (_, index) => [index, { noPrune: true }])),
  };
}

const keyOld: Fault = {
  name: "a key is old: it is replaced only when an alert asks for it",
  days: 5,
  // The monthly security audit would tell it too.
  fits: (on, at) => on.getUTCDate() < 24 && on.getUTCDate() > 1 && at > 2,
  steps: (random) => {
    const from = byDay(random);
    return [
      {
        minute: from,
        act: async (world) => {
          const days = await number(
            world,
            `select floor(extract(epoch from backup.clock_now() - min(first_told_at)) / 86400) from backup.told_facts where subject ~ '^key:'`,
          );
          await set(world, "key_age_days", String(Math.max(1, Math.floor(days))));
        },
      },
      { minute: from + 5 * hour, act: rotateKeys },
      // As long as it was, so that the new key is not old within the quarter.
      { minute: from + 20 * hour, act: (world) => set(world, "key_age_days", "365") },
    ];
  },
  expects: [expected("settings_changed", "setting:key_age_days"), expected("key_old", "key:k-[0-9a-f]+")],
};

/** All but retention's, which depends on how long backups are kept; in an order that is shuffled. */
export const faults: readonly Fault[] = [
  settingsChanged,
  storeFilling,
  channelFailing,
  runFailed,
  quarantined,
  missed,
  firstDown,
  secondDown,
  gap,
  slotNear,
  slow,
  verificationFailed,
  checksOverdue,
  drillFailed,
  keyOld,
];

/** Those that fit into a week. */
export const shortFaults: readonly Fault[] = [gap, channelFailing];
