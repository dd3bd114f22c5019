/** What a fault of a simulated quarter is, and what they are made of. */
import type { Random } from "./point_random.ts";
import type { Disturbance, Place } from "./quarter_network.ts";
import type { World } from "./quarter_world.ts";

export interface Expected {
  readonly kind: string;
  readonly subject: RegExp;
}

/** What a fault changes of the calendar, by days behind its first one. */
export interface Altered {
  /** The backup at midnight does not come, or is none. */
  readonly noFull?: boolean;
  /** Full backups besides. */
  readonly moreFulls?: number;
  readonly noChecks?: boolean;
  readonly noPrune?: boolean;
  /** The stream cannot be drained in some of them. */
  readonly fewerHours?: boolean;
  /** System drills that fail before they succeed. */
  readonly failedDrills?: number;
}

export interface Step {
  /** From 00:00 of the fault's first day. */
  readonly minute: number;
  readonly act: (world: World) => Promise<void>;
}

export interface Fault {
  readonly name: string;
  /** Days until all that it brought about is over, the first included. */
  readonly days: number;
  /** May its first day be this one? `day` counts from the first of the quarter's whole days. */
  readonly fits?: (on: Date, day: number) => boolean;
  readonly steps: (random: Random) => Step[];
  readonly expects: readonly Expected[];
  readonly alters?: Readonly<Record<number, Altered>>;
}

export const hour = 60;
export const day = 24 * hour;
export const expected = (kind: string, subject: string): Expected => ({ kind, subject: new RegExp(`^${subject}$`) });
export const isSunday = (on: Date) => on.getUTCDay() === 0;
/** Of a working day, so that nothing of the night is touched. */
export const byDay = (random: Random) => (8 + random.below(6)) * hour + random.below(60);

export async function set(world: World, name: string, value: string): Promise<void> {
  await world.rows("update backup.settings set value = $2 where name = $1", [name, value]);
}

export async function number(world: World, text: string): Promise<number> {
  const [row = {}] = await world.rows(text);
  return Number(Object.values(row)[0]);
}

/** Between two moments the calls of a store are disturbed. */
export function disturbed(from: number, until: number, disturbance: Disturbance): Step[] {
  return [
    { minute: from, act: (world) => Promise.resolve(void world.network.disturbances.add(disturbance)) },
    { minute: until, act: (world) => Promise.resolve(void world.network.disturbances.delete(disturbance)) },
  ];
}

export const down = (place: Place): Disturbance => (call) => call.place === place ? "down" : null;

/** Jobs whose processes pg_cron cannot start between two moments. */
export function stuck(job: string, from: number, until: number): Step[] {
  return [
    { minute: from, act: (world) => Promise.resolve(void world.cron.stuck.add(job)) },
    { minute: until, act: (world) => Promise.resolve(void world.cron.stuck.delete(job)) },
  ];
}

/** What a person does about a night without a backup: on Sundays the weekly one has to be made up for as well. */
export async function backupNow(world: World): Promise<void> {
  await world.rows("select backup.run_now('daily')");
  if (isSunday(world.now())) await world.rows("select backup.run_now('weekly')");
  await world.settle();
}
