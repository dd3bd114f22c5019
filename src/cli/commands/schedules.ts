import { HoldfastError } from "../../shared/errors.ts";
import {
  pauseSchedule,
  pauseScheduleFor,
  readSchedules,
  resumeSchedule,
  runNow,
  type ScheduleRow,
  type Schedules,
  setSchedule,
} from "../../shared/jobs/schedule_queries.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { checkCron } from "../cron.ts";
import { installedSession } from "../installed.ts";
import { untilOf } from "../maintenance_deps.ts";
import { columns, type Outcome } from "../output.ts";

type Act = (session: Connection, name: string) => Promise<string>;

/** The document: `{runsByItself, schedules[], done}`; `done`: what was done, in words, null for `list`. */
export async function run(context: Context): Promise<Outcome> {
  const [, name] = context.words;
  const act = actOf(context);
  if ((act === null) !== (name === undefined)) {
    throw new HoldfastError(
      "usage",
      "`set`, `pause`, `resume` and `run` take the name of a schedule, `list` takes none",
    );
  }
  const session = await installedSession(context, "holdfast:schedules");
  try {
    const done = act === null || name === undefined ? null : await act(session, name);
    const schedules = await readSchedules(session);
    return { exit: 0, document: { ...schedules, done }, lines: shown(schedules, name, done) };
  } finally {
    await session.close();
  }
}

/** What is to be done, once all that stands on the command line is understood; null: nothing. Errors: `usage`, `cron_refused`. */
function actOf({ words, settings }: Context): Act | null {
  const [what = "list", , cron] = words;
  const isPause = what === "pause";
  const hasSpan = [settings.get("for"), settings.get("until"), settings.get("reason")].some((one) => one !== undefined);
  if (hasSpan && !isPause) throw new HoldfastError("usage", "--for, --until and --reason are of `pause`");
  if (cron !== undefined && what !== "set") throw new HoldfastError("usage", "a cron expression is of `set`");
  switch (what) {
    case "list":
      return null;
    case "set":
      if (cron === undefined) {
        throw new HoldfastError("usage", "`set` takes a name and five fields in quotation marks", {
          hint: 'schedules set daily "30 2 * * *"',
        });
      }
      checkCron(cron);
      return async (session, name) => {
        await setSchedule(session, name, cron);
        return `${name} is due at ${cron} (UTC) from now on`;
      };
    case "pause":
      return pauseOf(settings.get("for"), untilOf({ settings }), settings.get("reason"));
    case "resume":
      return async (session, name) =>
        (await resumeSchedule(session, name)) ? `${name} is paused no more` : `${name} was not paused`;
    case "run":
      return runNow;
    default:
      throw new HoldfastError("usage", "schedules takes `list`, `set`, `pause`, `resume` or `run`");
  }
}

function pauseOf(span: string | undefined, until: string | null, reason: string | undefined): Act {
  if (reason === undefined) throw new HoldfastError("usage", "--reason is not set: say why, for the others");
  if ((span === undefined) === (until === null)) {
    throw new HoldfastError("usage", "a pause has an end: --for a time, or --until a moment");
  }
  const seconds = span === undefined ? null : secondsOf(span);
  return async (session, name) => {
    if (seconds !== null) await pauseScheduleFor(session, name, seconds, reason);
    else await pauseSchedule(session, name, until ?? "", reason);
    return `${name} is paused`;
  };
}

/** Errors: `usage`. */
function secondsOf(span: string): number {
  const [, count = "", unit = ""] = /^(\d{1,5})([mhd])$/.exec(span) ?? [];
  const seconds = Number(count) * ({ m: 60, h: 3_600, d: 86_400 }[unit] ?? 0);
  if (seconds > 0) return seconds;
  throw new HoldfastError("usage", "--for is a time, such as 30m, 3h or 2d");
}

function shown({ runsByItself, schedules }: Schedules, name: string | undefined, done: string | null): string[] {
  const told = name === undefined ? schedules : schedules.filter((one) => one.name === name);
  return [
    ...(done === null ? [] : [`${done}.`]),
    ...columns([["name", "cron (UTC)", "next", "last begun", ""], ...told.map(lineOf)]),
    ...told.flatMap(({ name, failure }) => failure === null ? [] : [`${name} failed last: ${failure}`]),
    ...(runsByItself ? [] : ["pg_cron is not installed: none of them runs by itself here"]),
  ];
}

function lineOf({ name, cron, enabled, nextAt, lastStartedAt, pausedUntil, pauseReason }: ScheduleRow): string[] {
  const state = !enabled ? "off" : pausedUntil === null ? "" : `paused until ${pausedUntil} (${pauseReason ?? ""})`;
  return [name, cron, nextAt ?? "-", lastStartedAt ?? "-", state];
}
