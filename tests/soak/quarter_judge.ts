/** Did all happen that had to, on its day and once; was each fault told once, and nothing else? */
import { type Day, keptDays, personal, type Preset } from "./quarter_calendar.ts";
import type { Altered } from "./quarter_fault.ts";
import { type Alert, alertProblems, noticeProblems } from "./quarter_told.ts";
import type { Placed } from "./quarter_plan.ts";
import type { World } from "./quarter_world.ts";

export interface Quarter {
  readonly preset: Preset;
  readonly first: Date;
  readonly days: readonly Day[];
  readonly placed: readonly Placed[];
  /** The jobs of each minute did not run in every hour. */
  readonly isShort: boolean;
}

interface Run {
  readonly id: string;
  readonly kind: string;
  readonly status: string;
  readonly tiers: readonly string[];
  readonly request_key: string | null;
  readonly created_at: Date;
  readonly complete_at: Date | null;
  readonly consistent_at: Date | null;
  readonly verified_at: Date | null;
  readonly quarantine_reason: string | null;
  readonly cadences: readonly string[] | null;
  readonly refused: boolean;
}

const dayMs = 86_400_000;

export async function judge(
  world: World,
  quarter: Quarter,
): Promise<{ readonly problems: string[]; readonly alerts: number; readonly runs: number }> {
  const runs = await world.rows(
    `select r.id, r.kind, r.status, r.tiers, q.request_key, r.created_at, r.complete_at, r.consistent_at, r.verified_at, r.quarantine_reason,
       (select array(select jsonb_array_elements_text(t.detail -> 'cadences')) from backup.tasks as t
        where t.run_id = r.id and t.detail ? 'cadences' limit 1) as cadences,
       r.warnings @> '[{"code": "nothing_removed"}]' as refused
     from backup.runs as r
     left join lateral (select request_key from backup.run_requests as q where q.run_id = r.id and q.request_key like 'schedule:%' limit 1) as q on true
     where r.created_at >= $1 order by r.created_at`,
    [quarter.first],
  ) as unknown as Run[];
  const alerts = await world.rows(
    "select id::text, kind, subject, severity, status, message, opened_at, resolved_at from backup.alerts where opened_at >= $1 order by id",
    [quarter.first],
  ) as unknown as Alert[];
  const problems = [
    ...quarter.days.flatMap((day, index) => dayProblems(day, alteredOn(quarter.placed, index), runs, quarter)),
    ...await drillProblems(world, quarter),
    ...await keepProblems(world, quarter),
    ...alertProblems(alerts, quarter),
    ...await noticeProblems(world, quarter.first),
  ];
  return { problems, alerts: alerts.length, runs: runs.length };
}

function alteredOn(placed: readonly Placed[], day: number): Altered {
  return placed.map(({ fault, day: from }) => fault.alters?.[day - from] ?? {}).reduce(
    (all, one) => ({ ...all, ...one }),
    {},
  );
}

const within = ({ start }: Day, moment: Date) => moment >= start && moment.getTime() < start.getTime() + dayMs;
const clock = (moment: Date) => moment.toISOString().slice(11, 16);

function dayProblems(day: Day, altered: Altered, runs: readonly Run[], { isShort }: Quarter): string[] {
  const on = day.start.toISOString().slice(0, 10);
  const problems: string[] = [];
  const say = (what: string) => void problems.push(`${on}: ${what}`);
  const today = runs.filter(({ created_at }) => within(day, created_at));
  const told = (list: readonly Run[]) =>
    list.map((run) => `${run.kind} ${run.tiers.join("+")} ${run.status} at ${clock(run.created_at)}`).join(", ") ||
    "none";
  const good = ({ status, quarantine_reason: reason }: Run) =>
    status === "succeeded" || (status === "pruned" && reason === null);

  const fulls = today.filter(({ kind }) => kind === "full");
  const nightly = fulls.filter(({ request_key, created_at }) =>
    request_key === `schedule:full:${on}T00:00Z` && clock(created_at) < "00:02"
  );
  const goodNightly = nightly.filter((run) => good(run) && run.tiers.join() === day.tiers.join());
  if (altered.noFull === true ? goodNightly.length > 0 : goodNightly.length !== 1 || nightly.length !== 1) {
    say(`one backup of ${day.tiers.join(" and ")} at midnight was due: ${told(fulls)}`);
  }
  const others = fulls.filter((run) => !nightly.includes(run));
  if (others.length !== (altered.moreFulls ?? 0)) {
    say(`${altered.moreFulls ?? 0} further backups were due: ${told(others)}`);
  }
  for (const run of fulls.filter(good)) {
    if (run.complete_at === null) say(`the backup of ${clock(run.created_at)} is not in the second store`);
    // One that was followed by another before the checks is not looked at by itself.
    if (run.verified_at === null && nightly.includes(run)) {
      say(`the backup of ${clock(run.created_at)} was never verified`);
    }
  }

  const hours = today.filter(({ kind }) => kind === "incremental").map(({ created_at }) => created_at.getUTCHours());
  const twice = hours.filter((hour, index) => hours.indexOf(hour) !== index);
  if (twice.length > (altered.moreFulls === undefined ? 0 : 1)) say(`two incrementals in the hours ${twice.join()}`);
  if (!isShort && new Set(hours).size !== 24 && altered.fewerHours !== true) {
    say(`incrementals in ${new Set(hours).size} hours of 24`);
  }

  const checks = today.filter(({ kind, cadences }) => kind === "verify" && cadences !== null);
  for (const cadence of ["daily", "weekly"]) {
    const made = checks.filter((run) => good(run) && run.cadences?.includes(cadence));
    const due = day.checks.includes(cadence) && altered.noChecks !== true ? 1 : 0;
    if (made.length !== due) {
      say(`${due} ${cadence} checks were due: ${made.map(({ created_at }) => clock(created_at)).join() || "none"}`);
    }
  }

  const prunes = today.filter(({ kind, status, refused }) => kind === "prune" && status === "succeeded" && !refused);
  if (altered.noPrune !== true && prunes.length !== 1) {
    say(`one prune was due: ${told(today.filter(({ kind }) => kind === "prune"))}`);
  }
  return problems;
}

/**
 * Each of the calendar's drills once and well on its day, or on the next one where it had failed first, since it is tried again 20 hours
 * later; those of people at all.
 */
async function drillProblems(world: World, { days, first, placed }: Quarter): Promise<string[]> {
  const drills = await world.rows(
    "select drill, started_at, ok from backup.drills where started_at >= $1 order by started_at",
    [
      first,
    ],
  ) as unknown as { readonly drill: string; readonly started_at: Date; readonly ok: boolean | null }[];
  const problems: string[] = [];
  /** Of the day before. */
  let late: string[] = [];
  days.forEach((day, index) => {
    const on = day.start.toISOString().slice(0, 10);
    const made = drills.filter(({ started_at, drill }) => within(day, started_at) && !isPersonal(drill));
    const good = made.filter(({ ok }) => ok === true).map(({ drill }) => drill);
    const wanted = [...late, ...day.drills];
    const missing = wanted.filter((drill) => !good.includes(drill));
    late = (alteredOn(placed, index).failedDrills ?? 0) > 0 ? missing : [];
    if (good.length !== wanted.length - late.length || missing.length > late.length) {
      problems.push(`${on}: drills due: ${wanted.join()}; done: ${good.join() || "none"}`);
    }
    const failed = made.filter(({ ok }) => ok !== true).length;
    const due = alteredOn(placed, index).failedDrills ?? 0;
    if (failed !== due) problems.push(`${on}: ${failed} drills failed, ${due} should have`);
  });
  const asked = days.flatMap(({ byPerson, start }, index) =>
    // An alert asks for them weeks later, and people take some hours.
    byPerson.filter(({ graceDays }) => index + graceDays + 2 < days.length).map(({ name: drill }) => ({ drill, start }))
  );
  for (const { drill, start } of asked) {
    const made = drills.filter((one) => one.drill === drill && one.started_at >= start && one.ok === true);
    if (made.length !== 1) {
      problems.push(`${drill} was due from ${start.toISOString()} on and was done ${made.length} times`);
    }
  }
  return problems;
}

const isPersonal = (drill: string) => personal.some(({ name }) => name === drill);

/** At the end: what is younger than its tier is there; what is older than tier, window and two days is gone, from both stores. */
async function keepProblems(world: World, { preset, first }: Quarter): Promise<string[]> {
  const now = world.now().getTime();
  const backups = await world.rows(
    `select tiers, status, consistent_at, manifest_name from backup.runs
     where kind = 'full' and status in ('succeeded', 'pruned') and created_at >= $1`,
    [first],
  ) as unknown as {
    readonly tiers: string[];
    readonly status: string;
    readonly consistent_at: Date;
    readonly manifest_name: string;
  }[];
  const windowDays = 7 + 1;
  return backups.flatMap(({ tiers, status, consistent_at, manifest_name: name }) => {
    const days = Math.max(...tiers.map((tier) => keptDays[preset][tier] ?? 0));
    const age = (now - consistent_at.getTime()) / dayMs;
    const stores = Object.entries(world.network.buckets).filter(([, bucket]) =>
      bucket.versionsOf(name).at(-1)?.body != null
    );
    if (age < days && (status !== "succeeded" || stores.length !== 2)) {
      return [
        `the ${
          tiers.join("+")
        } backup of ${consistent_at.toISOString()} is not kept: ${status}, in ${stores.length} stores`,
      ];
    }
    if (age > Math.max(days, windowDays) + 2 && (status !== "pruned" || stores.length !== 0)) {
      return [
        `the ${
          tiers.join("+")
        } backup of ${consistent_at.toISOString()} is still there: ${status}, in ${stores.length} stores`,
      ];
    }
    return [];
  });
}
