/** `incident open`: the emergency procedure. Writes are stopped, the loss is assessed, ways back are named; nothing is restored. */
import { z } from "zod";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { withIncident } from "../shared/incidents/status_page.ts";
import {
  openIncident,
  readContact,
  readIncident,
  readTimeline,
  recordIncident,
  whyUntold,
} from "../shared/jobs/incident_queries.ts";
import { readMaintenance } from "../shared/maintenance/state.ts";
import { enterMaintenance } from "../shared/maintenance/switch_on.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import { find, type Findings } from "./incident_findings.ts";
import { findingsLines } from "./incident_shown.ts";
import { installedSession } from "./installed.ts";
import { maintenanceDeps, untilOf } from "./maintenance_deps.ts";
import type { Outcome } from "./output.ts";
import { nextUpdateOf } from "./next_update.ts";
import { refreshPage, statusPage } from "./status_page.ts";

const usualMessage = "We are looking into a problem.";

/** What became of step one. `why` they are not stopped; null: they are. `unfenced`: writes that go on, in sentences. */
const stoppedFormat = z.object({
  writes: z.enum(["stopped", "not stopped", "left out"]),
  why: z.string().nullable(),
  unfenced: z.array(z.string()),
});
type Stopped = z.infer<typeof stoppedFormat>;

/**
 * The document: `{incident, joined, dryRun, stopped, page, contact, since, read[], tables[], suspects[], transactions, backup, counts[],
 * points, offers[], notDone[]}`. `incident` is null with --dry-run, and where the database cannot be reached: then nothing is recorded,
 * nobody is told but by the status page, and the exit code is 3. One that is open is joined: steps that are done are not repeated,
 * so that it goes on where it was broken off. Errors: `usage`, `setting_missing`, `payload_invalid`, `confirmation_missing`.
 */
export async function openCommand(context: Context): Promise<Outcome> {
  const { settings } = context;
  const reason = settings.need("reason");
  const nextUpdateAt = nextUpdateOf(context);
  untilOf(context);
  if (settings.get("db-url") === undefined && settings.get("store") === undefined) settings.need("db-url");
  const session = await sessionOrNull(context);
  try {
    if (settings.has("dry-run")) return planned(await find(context, session), session !== null);
    const missing = await confirmation(context, session !== null);
    if (missing !== null) return missing;
    if (session === null) return await withoutDatabase(context);
    const { id, joined } = await openIncident(session, {
      reason,
      message: settings.get("message") ?? null,
      nextUpdateAt,
    });
    context.log.step("incident.opened");
    context.note(joined ? `incident ${id} is open already; this goes on with it` : `incident ${id} is open`);
    if (joined && !(await isTold(session, id, settings.get("message")))) {
      context.note("warning: the public is not told this message by it: `incident note --message` does that");
    }
    const untold = await whyUntold(session);
    const stopped = await stop(context, session, id);
    context.log.step("incident.stopped");
    const page = await refreshPage(context, session);
    const seen = await find(context, session);
    const found = untold === null ? seen : { ...seen, notDone: [untold, ...seen.notDone] };
    await recordFindings(session, id, found);
    context.log.step("incident.assessed");
    const contact = await readContact(session);
    return {
      exit: 0,
      document: { incident: id, joined, dryRun: false, stopped, page, contact, ...found },
      lines: [
        `Incident ${id} is open${joined ? " since before" : ""}: ${reason}`,
        stopped.why === null ? "Writes are stopped." : `Writes are not stopped: ${stopped.why}.`,
        ...stopped.unfenced.map((one) => `not refused: ${one}`),
        contact === ""
          ? "Nobody is named as emergency contact: `settings` has contact_name, contact_email and contact_phone."
          : `Emergency contact: ${contact}`,
        page === null ? "No status page was written to from here." : `The status page says so: ${page}`,
        ...findingsLines(found),
        "",
        "Next: choose, run the first line of it, look, then the second. `incident close` once it is over.",
      ],
    };
  } finally {
    await session?.close();
  }
}

/** Was this said in public already? Nothing is. */
async function isTold(session: Connection, id: number, message: string | undefined): Promise<boolean> {
  if (message === undefined) return true;
  return (await readTimeline(session, id)).some((one) => one.kind === "told" && one.message === message);
}

/** What was found replaces what was found before. Errors: `incident_not_found`, `incident_state`. */
export async function recordFindings(session: Connection, id: number, found: Findings): Promise<void> {
  const { offers, ...assessment } = found;
  const [likeliest] = found.suspects;
  await recordIncident(
    session,
    id,
    "assessed",
    assessment,
    likeliest === undefined
      ? "no likely cause was found in the change stream"
      : `transaction ${likeliest.xid} of ${likeliest.committedAt}: ${likeliest.why}`.slice(0, 4000),
  );
  await recordIncident(session, id, "offered", offers, `${offers.length} ways back were named`);
}

/** Null: the database is down, or none is set. Errors: those of another kind, such as `schema_missing`. */
async function sessionOrNull(context: Context): Promise<Connection | null> {
  if (context.settings.get("db-url") === undefined) return null;
  try {
    return await installedSession(context, "holdfast:incident");
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    if (code !== "database_unreachable" || context.settings.get("store") === undefined) throw error;
    context.note(`warning: ${code}: ${message}; going on with the stores alone`);
    return null;
  }
}

async function confirmation(context: Context, isReachable: boolean): Promise<Outcome | null> {
  const { settings } = context;
  if (settings.has("yes")) return null;
  const stops = isReachable && !settings.has("without-maintenance");
  const does = [
    ...stops ? ["Users cannot write from then on."] : [],
    isReachable ? "Channels and status page tell of it." : "The status page tells of it, where one is set.",
    "Nothing is restored.",
  ];
  if (await context.confirm(does.join(" "), "open")) return null;
  const missing = new HoldfastError("confirmation_missing", "no incident was opened");
  return {
    exit: missing.exit,
    document: { ...missing.toDocument() },
    lines: [`No incident was opened. ${does.join(" ")} Add --yes, or --dry-run to look only.`],
  };
}

/** Once an incident: whoever has turned maintenance mode off since then meant it. */
async function stop(context: Context, session: Connection, id: number): Promise<Stopped> {
  const { settings } = context;
  const known = await readIncident(session, id);
  if (known.stoppedAt !== null) {
    const before = stoppedFormat.parse(known.stopped);
    if (before.writes !== "stopped" || (await readMaintenance(session)).closed) return before;
    return { writes: "not stopped", why: "maintenance mode was turned off since", unfenced: [] };
  }
  const stopped: Stopped = settings.has("without-maintenance")
    ? { writes: "left out", why: "--without-maintenance", unfenced: [] }
    : await closeProject(context, id);
  await recordIncident(
    session,
    id,
    "stopped",
    stopped,
    stopped.why === null ? "maintenance mode is on: writes are refused" : `writes go on: ${stopped.why}`.slice(0, 4000),
  );
  return stopped;
}

/** What hinders it does not hinder the rest: a plain PostgreSQL has no API to close. */
async function closeProject(context: Context, id: number): Promise<Stopped> {
  try {
    const closed = await enterMaintenance(await maintenanceDeps(context), {
      message: context.settings.get("message") ?? usualMessage,
      until: untilOf(context),
      by: `incident:${id}`,
    });
    return { writes: "stopped", why: null, unfenced: [...closed.unfenced] };
  } catch (error) {
    context.signal.throwIfAborted();
    const { code, message } = asHoldfastError(error);
    context.note(`warning: writes are not stopped: ${code}: ${message}`);
    return { writes: "not stopped", why: `${code}: ${message}`, unfenced: [] };
  }
}

function planned(found: Findings, isReachable: boolean): Outcome {
  return {
    exit: isReachable ? 0 : 3,
    document: { incident: null, joined: false, dryRun: true, stopped: null, page: null, contact: "", ...found },
    lines: ["No incident was opened, nothing was changed, nobody was told.", ...findingsLines(found)],
  };
}

/** The stores and the status page are what is left. */
async function withoutDatabase(context: Context): Promise<Outcome> {
  const notDone = [
    "the incident is not recorded: run `incident open` again once the database is there",
    "writes are not stopped: what is left of the project may go on writing",
    "the channels were not told",
  ];
  let page: string | null = null;
  try {
    const there = statusPage(context);
    const message = context.settings.get("message") ?? usualMessage;
    const now = `${context.clock.now().toISOString().slice(0, 19)}Z`;
    await there?.put(withIncident(await there.present(), message, now), now);
    page = there?.label ?? null;
    if (there === null) notDone.push("there is no status page: BACKUP_STATUS_PAGE is not set here");
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    notDone.push(`the status page was not updated: ${code}: ${message}`);
  }
  const found = await find(context, null);
  const all = { ...found, notDone: [...notDone, ...found.notDone] };
  return {
    exit: 3,
    document: { incident: null, joined: false, dryRun: false, stopped: null, page, contact: "", ...all },
    lines: [
      "The database cannot be reached; this is what the stores know.",
      ...page === null ? [] : [`The status page says that something is wrong: ${page}`],
      ...findingsLines(all),
    ],
  };
}
