/** How long backups are kept: read and set. Every change is audited by the tables' own triggers. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

export interface RetentionStanding {
  readonly tiers: readonly {
    readonly tier: string;
    readonly keepHours: number;
    readonly backups: number;
    readonly oldestAt: string | null;
    readonly newestAt: string | null;
    /** How many there should be by the schedule as it is; null: people and restores ask for them. */
    readonly expected: number | null;
    /** When those were due that are not there, oldest first. */
    readonly missing: readonly string[];
    /** Older than they should be, by three days and more. */
    readonly overdue: number;
  }[];
  readonly windowHours: number;
  readonly atLeast: number;
  /** When the last prune has ended that removed all that it should. */
  readonly prunedAt: string | null;
  /** Ordered to go, and still in a store. */
  readonly waiting: number;
  /** Objects that nothing needs and that are not due yet, or that a store keeps. */
  readonly condemned: number;
}

/** `standard`, `short` or `gfs`. Errors: `payload_invalid`. */
export async function setPreset(connection: Connection, preset: string): Promise<void> {
  await call(connection, "select backup.set_retention($1)", [preset]);
}

/** 0: the tier is not kept as such; for monthly and yearly. Errors, when the transaction ends: `policy_refused`. */
export async function setTier(connection: Connection, tier: string, hours: number): Promise<void> {
  await call(connection, "select backup.set_tier($1, $2::integer * interval '1 hour')", [tier, String(hours)]);
}

export async function readStanding(connection: Connection): Promise<RetentionStanding> {
  const at = (moment: string) => `to_char(${moment} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;
  const tiers = await call(
    connection,
    `select t.tier, (extract(epoch from t.keep) / 3600)::bigint as hours, t.backups, ${at("t.oldest_at")} as oldest,
            ${at("t.newest_at")} as newest, t.expected, t.overdue,
            array_to_json(array(select ${at("m.due_at")} from unnest(t.missing) as m (due_at)))::text as missing
       from backup.retention_standing() as t`,
    [],
  );
  const [row = {}] = await call(
    connection,
    `select backup.setting_integer('pitr_window_seconds') / 3600 as window_hours, backup.setting_integer('keep_at_least') as at_least,
            (select count(*) from backup.removals as m where m.removed_at is null) as waiting,
            (select count(*) from backup.condemned) as condemned,
            (select ${at("max(r.finished_at)")} from backup.runs as r where r.kind = 'prune' and r.status = 'succeeded'
                and not r.warnings @> '[{"code": "nothing_removed"}]') as pruned`,
    [],
  );
  return {
    tiers: tiers.map((tier) => ({
      tier: text(tier, "tier"),
      keepHours: Number(tier["hours"]),
      backups: Number(tier["backups"]),
      oldestAt: tier["oldest"] ?? null,
      newestAt: tier["newest"] ?? null,
      expected: tier["expected"] == null ? null : Number(tier["expected"]),
      missing: z.array(z.string()).parse(JSON.parse(text(tier, "missing"))),
      overdue: Number(tier["overdue"]),
    })),
    windowHours: Number(row["window_hours"]),
    atLeast: Number(row["at_least"]),
    prunedAt: row["pruned"] ?? null,
    waiting: Number(row["waiting"]),
    condemned: Number(row["condemned"]),
  };
}
