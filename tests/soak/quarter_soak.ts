/**
 * A quarter of a project's life in minutes. Real: the server (its clock moved by libfaketime), every migration, every SQL step, the
 * functions with their signed calls, backups, drains, copies, verifications, prunes, drills and notices; mail over SMTPS and webhooks
 * over HTTPS to servers on loopback.
 *
 * Simulated: pg_cron, whose jobs are started minute by minute by quarter_cron.ts. Those that come each minute or hour run every four
 * hours, in the first hours of each day and whenever something is under way, the drain each hour; they are written down as having run
 * between, and found nothing. What comes once a day or less is started each time. Simulated are too: pg_net and the runtime of functions, which are
 * this process; the two stores, which are buckets of S3 in its memory; and people: they acknowledge what they are told within the hour,
 * and do the drills that need them by telling the database so.
 */
import { seeded } from "./point_random.ts";
import { calendar, nextQuarter, type Preset } from "./quarter_calendar.ts";
import { faults as allFaults, retentionOff } from "./quarter_faults.ts";
import type { Fault, Step } from "./quarter_fault.ts";
import { judge } from "./quarter_judge.ts";
import { type Placed, placeFaults } from "./quarter_plan.ts";
import { frequent } from "./quarter_cron.ts";
import { startWorld, type World } from "./quarter_world.ts";

export interface QuarterOptions {
  readonly preset: Preset;
  readonly seed: number;
  /** Whole days behind the first, in which the project is set up. */
  readonly days: number;
  /** Default: all of them. */
  readonly faults?: readonly Fault[];
  /** In the other hours too the change stream is drained. Default `true`. */
  readonly drainsEachHour?: boolean;
  readonly say: (line: string) => void;
}

export interface QuarterResult {
  readonly problems: readonly string[];
  readonly alerts: number;
  readonly runs: number;
}

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
/** Days until there are backups enough to compare with, and the first week is over. */
const warmUpDays = 9;
/** All that is due is done each so many hours; between them what comes once a day or an hour may be left out as well. */
const everyHours = 4;
const minutely = /^holdfast-(watchdog|changes|alerts)$/;

export async function soakQuarter(options: QuarterOptions): Promise<QuarterResult> {
  const { preset, seed, days, say } = options;
  const random = seeded(seed);
  const short = options.faults !== undefined;
  // The quarter begins within, early enough for what people have to do three weeks later.
  const quarter = nextQuarter(new Date(Date.now() + (60 + random.below(365)) * dayMs));
  const first = new Date(quarter.getTime() - (short ? 3 : 8 + random.below(25)) * dayMs);
  const wanted = options.faults ?? [...allFaults, retentionOff(preset === "short" ? 12 : 35)];
  const placed = placeFaults(wanted, random, { start: first, from: short ? 0 : warmUpDays, days });
  for (const { fault, day } of placed) say(`${preset}: day ${day}, ${iso(first, day)}: ${fault.name}`);
  const world = await startWorld(new Date(first.getTime() - 2 * hourMs));
  try {
    await setUp(world, preset);
    const life = new Life(world, placed, first, options);
    await life.live(days);
    const found = await judge(world, {
      preset,
      first,
      days: calendar(first, days),
      placed,
      isShort: options.drainsEachHour === false,
    });
    return { ...found, problems: [...life.problems, ...found.problems] };
  } finally {
    await world.destroy();
  }
}

function iso(first: Date, day: number): string {
  return new Date(first.getTime() + day * dayMs).toISOString().slice(0, 10);
}

/** What people do on the first day, before midnight: a policy, addresses, a limit of the slot, an app with some rows. */
async function setUp(world: World, preset: Preset): Promise<void> {
  await world.rows("select backup.set_retention($1)", [preset]);
  // Nobody may administrate the backups: the audit of the first of a month would say so.
  await world.admin.query(
    `with person as (insert into auth.users (id, email, last_sign_in_at) values (gen_random_uuid(), 'ada@example.org', now()) returning id)
     insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at)
     select gen_random_uuid(), id, 'app', 'totp', 'verified', now(), now() from person`,
  );
  await world.rows("select backup.add_admin('ada@example.org')");
  await world.rows(
    `update backup.settings set value = case name
       when 'mail_to' then 'ops@example.org' when 'mail_from' then 'backups@example.org' when 'contact_email' then 'ada@example.org'
       when 'slot_limit_mb' then '64' else '100000' end
     where name in ('mail_to', 'mail_from', 'contact_email', 'slot_limit_mb', 'disk_mb')`,
  );
  await world.rows(
    `create table public.people (id int generated always as identity primary key, name text not null);
     create table public.notes (id int generated by default as identity primary key, person int references public.people, body text)`,
  );
  await world.rows("insert into public.people (name) select 'person ' || i from generate_series(1, 40) as i");
  await world.rows(
    "insert into public.notes (person, body) select 1 + i % 40, repeat(md5(i::text), 3) from generate_series(1, 2500) as i",
  );
}

/** Something happens at that moment, in the simulation. */
interface Moment {
  readonly at: Date;
  /** Jobs that are really started where they are due. */
  readonly only: (job: string) => boolean;
  /** What a fault does. */
  readonly step: Step["act"] | null;
}

class Life {
  readonly problems: string[] = [];
  readonly #world: World;
  readonly #placed: readonly Placed[];
  readonly #first: Date;
  readonly #options: QuarterOptions;

  constructor(world: World, placed: readonly Placed[], first: Date, options: QuarterOptions) {
    this.#world = world;
    this.#placed = placed;
    this.#first = first;
    this.#options = options;
  }

  async live(days: number): Promise<void> {
    const { say, preset } = this.#options;
    // The evening before: the stream begins, and the first backup.
    for (const minute of [-115, -110, -103, -83, -73, -60, -55, -43, -23, -13]) {
      await this.#minute(this.#at(minute), () => true);
    }
    let started = performance.now();
    for (let day = 0; day < days; day++) {
      for (const { at, only, step } of this.#moments(day)) await this.#minute(at, only, step);
      if (day % 7 === 6) {
        say(`${preset}: week ${(day + 1) / 7} took ${Math.round((performance.now() - started) / 1000)} s`);
        started = performance.now();
      }
    }
  }

  #at(minute: number): Date {
    return new Date(this.#first.getTime() + minute * minuteMs);
  }

  /** Every few hours, and the first of a day: all that is due; at other hours the drain; at other minutes what is due then; and faults. */
  #moments(day: number): Moment[] {
    const moments = new Map<number, Omit<Moment, "at">>();
    const seldom = (job: string) => !frequent.test(job);
    for (let hour = 0; hour < 24; hour++) {
      const start = (day * 24 + hour) * 60;
      if (hour % everyHours === 0) moments.set(start, { only: () => true, step: null });
      else if (this.#options.drainsEachHour !== false) {
        moments.set(start, { only: (job) => job === "holdfast-changes", step: null });
      }
      if (hour >= 5 && hour % everyHours > 0) continue;
      for (const minute of [17, 37, 47]) moments.set(start + minute, { only: seldom, step: null });
    }
    for (const [hour, minute] of [[3, 43], [4, 23], [4, 53]] as const) {
      moments.set((day * 24 + hour) * 60 + minute, { only: seldom, step: null });
    }
    for (const { day: from, steps } of this.#placed) {
      for (const { minute, act } of steps) {
        const at = from * 1440 + minute;
        if (Math.floor(at / 1440) === day) moments.set(moments.has(at) ? at + 1 : at, { only: seldom, step: act });
      }
    }
    return [...moments].sort(([a], [b]) => a - b).map(([minute, moment]) => ({ ...moment, at: this.#at(minute) }));
  }

  async #minute(at: Date, only: Moment["only"], step: Step["act"] | null = null): Promise<void> {
    const world = this.#world;
    world.moveTo(new Date(at.getTime() + 2_000));
    await step?.(world);
    if (at.getUTCMinutes() === 0) await this.#work();
    // Whoever orders a drill in the minute of a drain has what that drain brings.
    const drains = at.getUTCMinutes() === 47 && await this.#asks(
      "select from backup.drill_calendar where done_by = 'system' and enabled and due_at <= backup.clock_now()",
    );
    const settle = () => world.settle();
    await world.cron.minute(world.now(), (job) => only(job) || (drains && job === "holdfast-changes"), settle);
    await settle();
    for (let minute = 1; await this.#asks(underWay); minute++) {
      if (minute > 45) throw new Error(`nothing ends: ${JSON.stringify(await world.rows(underWay))} ${this.#story()}`);
      world.moveTo(new Date(Math.floor(world.now().getTime() / minuteMs + 1) * minuteMs + 2_000));
      await world.cron.minute(world.now(), (job) => minutely.test(job) || !frequent.test(job), settle);
    }
    await this.#people();
  }

  #story(): string {
    return this.#world.lines.slice(-30).map((line) => JSON.stringify(line)).join("\n");
  }

  /** The app: some rows an hour. */
  async #work(): Promise<void> {
    await this.#world.rows(
      `insert into public.notes (person, body) select 1 + i, md5(random()::text) from generate_series(1, 3) as i`,
    );
    await this.#world.rows(
      "update public.notes set body = md5(body) where id in (select 1 + (random() * 2000)::int from generate_series(1, 3))",
    );
  }

  async #asks(text: string): Promise<boolean> {
    return (await this.#world.rows(text)).length > 0;
  }

  /** They see what they were told, and do the quarter's drills once an alert asks for them. */
  async #people(): Promise<void> {
    await this.#world.admin.query(
      "update auth.users set last_sign_in_at = now() where last_sign_in_at < now() - interval '1 day'",
    );
    await this.#world.rows(
      "select backup.acknowledge_alert(id) from backup.alerts where status = 'open' and severity <> 'information' and told_at is not null",
    );
    const asked = await this.#world.rows(
      `select c.name from backup.drill_calendar as c join backup.alerts as a
         on a.kind = 'drill_overdue' and a.subject = 'drill:' || c.name and a.status = 'acknowledged'
       where c.done_by = 'person' and a.told_at < backup.clock_now() - interval '8 hours' order by c.name`,
    );
    for (const { name } of asked) {
      const [drill] = await this.#world.rows("select run from backup.request_drill($1, 'cli')", [name]);
      const [task] = await this.#world.rows("select id, token from backup.claim_task($1, 'person', '10 minutes')", [
        drill?.["run"],
      ]);
      await this.#world.rows(
        `select backup.end_drill($1, $2, '{"ok": true, "notes": "by the runbook", "evidence": {"by": "a person"}}')`,
        [task?.["id"], task?.["token"]],
      );
    }
  }
}

const underWay =
  "select kind, status, error_message from backup.runs where kind <> 'incremental' and status in ('queued', 'snapshotting', 'copying', 'finishing')";
