import { writeFile } from "node:fs/promises";
import { HoldfastError } from "../../shared/errors.ts";
import { keepPage } from "../../shared/incidents/keep_page.ts";
import { incidentFacts, reportOf, reportPage } from "../../shared/incidents/report.ts";
import { pageFiles } from "../../shared/incidents/status_page.ts";
import {
  closeIncident,
  listIncidents,
  noteIncident,
  readContact,
  readFacts,
  readIncident,
  readPage,
  readTimeline,
  tellIncident,
} from "../../shared/jobs/incident_queries.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { find } from "../incident_findings.ts";
import { openCommand, recordFindings } from "../incident_open.ts";
import { findingsLines, incidentLines } from "../incident_shown.ts";
import { installedSession } from "../installed.ts";
import { nextUpdateOf } from "../next_update.ts";
import { columns, type Outcome } from "../output.ts";
import { refreshPage, statusPage } from "../status_page.ts";

/**
 * The document of `open`: see `openCommand`; of `list`: an array of incidents, newest first; of `show`, `note` and `close`:
 * `{incident, events[], contact}`, of `close` with `maintenanceOn`; of `offer`: `{incident, …}` with what was found; of `report`:
 * `IncidentReport`; of `page`: `{place, files[]}`, with --print what would be put there.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what] = context.words;
  if (what === "open") return await openCommand(context);
  const act = acts.get(what ?? "");
  if (act === undefined) throw new HoldfastError("usage", `incident takes open, ${[...acts.keys()].join(", ")}`);
  const id = idOf(context);
  const session = await installedSession(context, "holdfast:incident");
  try {
    return await act(context, session, id);
  } finally {
    await session.close();
  }
}

type Act = (context: Context, session: Connection, id: number | null) => Promise<Outcome>;

const acts: ReadonlyMap<string, Act> = new Map(Object.entries({ show, list, note, offer, close, report, page }));

/** Errors: `usage`. */
function idOf({ words: [, id] }: Context): number | null {
  if (id === undefined) return null;
  if (/^[1-9]\d{0,8}$/.test(id)) return Number(id);
  throw new HoldfastError("usage", "an incident is called by its number");
}

async function list({ settings }: Context, session: Connection): Promise<Outcome> {
  const incidents = await listIncidents(session, settings.integer("limit", 1, 100_000));
  return {
    exit: 0,
    document: incidents,
    lines: incidents.length === 0 ? ["There was no incident."] : columns([
      ["ID", "STATUS", "OPENED", "CLOSED", "REASON"],
      ...incidents.map((one) => [String(one.id), one.status, one.openedAt, one.closedAt ?? "-", one.reason]),
    ]),
  };
}

async function show(_: Context, session: Connection, id: number | null): Promise<Outcome> {
  return await shown(session, id);
}

async function shown(session: Connection, id: number | null, more: Record<string, unknown> = {}): Promise<Outcome> {
  const incident = await readIncident(session, id);
  const events = await readTimeline(session, incident.id);
  const contact = await readContact(session);
  return { exit: 0, document: { incident, events, contact, ...more }, lines: incidentLines(incident, events, contact) };
}

/** --message is public, --note is not; one of them has to be there. */
async function note(context: Context, session: Connection, id: number | null): Promise<Outcome> {
  const { settings } = context;
  const [said, told] = [settings.get("note"), settings.get("message")];
  const nextUpdateAt = nextUpdateOf(context);
  if (said === undefined && told === undefined) {
    throw new HoldfastError("usage", "nothing is said: --note is for those who work on it, --message is public");
  }
  if (nextUpdateAt !== null && told === undefined) {
    throw new HoldfastError("usage", "--next-update goes with --message: it is what the public is told");
  }
  const { id: known } = await readIncident(session, id);
  if (told !== undefined) await tellIncident(session, known, told, nextUpdateAt);
  if (said !== undefined) await noteIncident(session, known, said);
  if (told !== undefined) await refreshPage(context, session);
  return await shown(session, known);
}

/** Looks again, and writes down what it finds while the incident is open. */
async function offer(context: Context, session: Connection, id: number | null): Promise<Outcome> {
  const incident = await readIncident(session, id);
  const found = await find(context, session);
  if (incident.status === "open") await recordFindings(session, incident.id, found);
  return { exit: 0, document: { incident: incident.id, ...found }, lines: findingsLines(found).slice(1) };
}

async function close(context: Context, session: Connection, id: number | null): Promise<Outcome> {
  const { settings } = context;
  const summary = settings.need("note");
  const incident = await readIncident(session, id);
  const maintenanceOn = await closeIncident(session, incident.id, summary, settings.get("message") ?? null);
  await refreshPage(context, session);
  if (maintenanceOn) context.note("warning: maintenance mode is still on: `maintenance off` opens the project");
  const outcome = await shown(session, incident.id, { maintenanceOn });
  return { ...outcome, lines: [...outcome.lines, "", `\`incident report ${incident.id}\` tells all of it.`] };
}

/** Into a file with --out. */
async function report({ settings }: Context, session: Connection, id: number | null): Promise<Outcome> {
  const incident = await readIncident(session, id);
  const made = reportOf(await readFacts(session, incident.id, incidentFacts));
  const text = reportPage(made);
  const out = settings.get("out");
  if (out === undefined) return { exit: 0, document: made, lines: [text] };
  await writeFile(out, `${text}\n`);
  return { exit: 0, document: made, lines: [`The report is in ${out}.`] };
}

async function page(context: Context, session: Connection): Promise<Outcome> {
  const there = statusPage(context);
  if (context.settings.has("print")) {
    const { content } = await readPage(session);
    const files = pageFiles(content, `${context.clock.now().toISOString().slice(0, 19)}Z`);
    const [html] = files.filter(({ name }) => name === "status.html");
    return { exit: 0, document: { place: there?.label ?? null, content, files }, lines: [html?.text.trimEnd() ?? ""] };
  }
  if (there === null) {
    throw new HoldfastError("setting_missing", "BACKUP_STATUS_PAGE is not set", {
      hint: "Set it to a store that serves it, such as s3://status.example.org?endpoint=…; --print shows the page.",
    });
  }
  const { place, isOriginal } = await keepPage(session, () => there, context.clock);
  if (!isOriginal) {
    throw new HoldfastError(
      "run_state",
      "this database is a copy, or may be one: its state is not put on the status page",
      {
        hint: "`holdfast adopt` says that it takes the original's place.",
      },
    );
  }
  return {
    exit: 0,
    document: { place, files: there.files },
    lines: [`${there.files.join(" and ")} are in ${place ?? ""}.`],
  };
}
