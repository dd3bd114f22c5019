import { readFile } from "node:fs/promises";
import { z } from "zod";
import { type CalendarRow, type DrillRow, listDrills, readCalendar } from "../../shared/drills/drill_queries.ts";
import { evidenceFormat, signedFormat, verifyEvidence } from "../../shared/drills/evidence.ts";
import { reportOf } from "../../shared/drills/report.ts";
import { asHoldfastError, HoldfastError } from "../../shared/errors.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { backupById } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { drillOutcome } from "../drill_outcome.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { columns, type Outcome } from "../output.ts";
import { runDrill } from "../run_drill.ts";

/** Whatever else of the evidence was changed. */
const signedBy = z.looseObject({ id: z.string().catch("?"), signature: z.looseObject({ key: z.string() }) });

/** Drills that are looked through for an id. */
const mostDrills = 1_000;

/**
 * The document of `list`: `[{name, title, cadence, doneBy, runbook, enabled, lastDrill, lastAt, lastOk, dueAt, state}]`; of `run`:
 * that of `drillOutcome`; of `show`: the drill with its evidence; of `report`: the evidence; of `verify`: `{id, ok, key}`, with exit
 * 3 where the evidence is not what was signed.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what, which] = context.words;
  if (what === "verify" && which?.endsWith(".json") === true) return await verify(context, await readDocument(which));
  if (what !== "list" && what !== "run" && what !== "show" && what !== "report" && what !== "verify") {
    throw new HoldfastError("usage", "drills takes `list`, `run`, `show`, `report` or `verify`");
  }
  if (what !== "list" && which === undefined) {
    throw new HoldfastError(
      "usage",
      what === "run" ? "drills run takes a name of the calendar" : `drills ${what} takes a drill's id`,
    );
  }
  const session = await installedSession(context, "holdfast:drills");
  try {
    if (what === "list" || which === undefined) return await list(session);
    if (what === "run") return await order(context, session, which);
    const drill = backupById(await listDrills(session, mostDrills), which);
    if (what === "verify") return await verify(context, drill.evidence, drill);
    return what === "show" ? show(drill) : report(drill);
  } catch (error) {
    throw notFound(error, which);
  } finally {
    await session.close();
  }
}

async function order(context: Context, session: Connection, name: string): Promise<Outcome> {
  if (name === "runbooks" && !context.settings.has("yes")) {
    const question = "Every runbook in docs/runbooks was read, is right, and names who is to be called.";
    if (!(await context.confirm(question, "reviewed"))) {
      const missing = new HoldfastError("confirmation_missing", "nothing was recorded");
      return { exit: missing.exit, document: missing.toDocument(), lines: [missing.message] };
    }
  }
  return drillOutcome(await runDrill(context, session, name));
}

async function list(session: Connection): Promise<Outcome> {
  const calendar = await readCalendar(session);
  const [row] = await session.query("select pg_catalog.to_regclass('cron.job') is not null as cron");
  const lines = columns([["NAME", "WHAT", "EVERY", "BY", "LAST", "RESULT", "DUE", ""], ...calendar.map(shownRow)]);
  const notes = row?.["cron"] === "t" ? [] : [
    "pg_cron is not installed: nothing runs by itself here. Start the system's with `holdfast drills run <name>` from a scheduler of your own.",
  ];
  return { exit: 0, document: calendar, lines: [...lines, ...notes] };
}

function shownRow({ name, title, cadence, doneBy, lastAt, lastOk, dueAt, state }: CalendarRow): string[] {
  const units = { weekly: "week", monthly: "month", quarterly: "quarter", yearly: "year" } as const;
  const result = lastOk === null ? "never done" : lastOk ? "Success" : "FAILURE";
  const due = state === "off" ? "" : dueAt.slice(0, 10);
  const word = state === "overdue" ? "OVERDUE" : state === "due" ? "due" : state === "off" ? "off" : "";
  return [name, title, units[cadence], doneBy, lastAt?.slice(0, 10) ?? "", result, due, word];
}

function show(drill: DrillRow): Outcome {
  const { id, title, ok, startedAt, finishedAt, rtoSeconds, rpoSeconds, recoveryObjective, lossObjective } = drill;
  const promised = (objective: number | null) => objective === null ? "" : `, ${objective} s promised`;
  return {
    exit: 0,
    document: drill,
    lines: [
      `${title}, ${id}: ${ok === null ? "under way" : ok ? "Success" : "FAILURE"}`,
      `ordered ${startedAt} by ${drill.orderedBy}${finishedAt === null ? "" : `, ended ${finishedAt}`}`,
      ...(rtoSeconds === null ? [] : [`time to recover ${rtoSeconds} s${promised(recoveryObjective)}`]),
      ...(rpoSeconds === null ? [] : [`loss ${rpoSeconds} s${promised(lossObjective)}`]),
    ],
  };
}

function report({ id, evidence }: DrillRow): Outcome {
  const parsed = evidenceFormat.safeParse(evidence);
  if (!parsed.success) {
    throw new HoldfastError(
      "evidence_unsigned",
      `drill ${id} has no evidence: it is under way, or its worker was killed`,
    );
  }
  const signed = signedFormat.safeParse(evidence);
  return {
    exit: 0,
    document: evidence,
    lines: reportOf(parsed.data, signed.success ? signed.data.signature.key : null),
  };
}

/** `drill`: in whose row it stands. */
async function verify(context: Context, evidence: unknown, drill: DrillRow | null = null): Promise<Outcome> {
  const isSigned = await verifyEvidence(evidence, await keyRing(context.settings));
  const { id, signature: { key } } = signedBy.parse(evidence);
  const wrong = !isSigned
    ? `The evidence of drill ${id} was CHANGED since it was signed with key ${key}.`
    : drill !== null && !saysTheSame(drill, evidence)
    ? `The row of drill ${drill.id} says OTHERWISE than its evidence, which is drill ${id}'s, as signed with key ${key}.`
    : null;
  return {
    exit: wrong === null ? 0 : 3,
    document: { id: drill?.id ?? id, ok: wrong === null, key },
    lines: [wrong ?? `The evidence of drill ${id} is as it was signed with key ${key}.`],
  };
}

/** Evidence of another drill, signed by the same key, would pass for this one's; so would a changed row beside it. */
function saysTheSame({ id, drill, ok, rtoSeconds, rpoSeconds, startedAt }: DrillRow, evidence: unknown): boolean {
  const parsed = evidenceFormat.safeParse(evidence);
  if (!parsed.success) return false;
  const said = parsed.data;
  return said.id === id && said.drill === drill && said.ok === ok && said.orderedAt === startedAt &&
    said.measured.rtoSeconds === rtoSeconds && said.measured.rpoSeconds === rpoSeconds;
}

/** Errors: `usage` for a file that is not there, or holds no JSON. */
async function readDocument(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new HoldfastError("usage", `${path} holds no evidence`, { cause });
  }
}

/** Drills are found by their ids as backups are. */
function notFound(error: unknown, which: string | undefined): unknown {
  const { code } = asHoldfastError(error);
  if (code !== "backup_not_found" || which === undefined || !/^[0-9a-f-]{1,36}$/i.test(which)) return error;
  return new HoldfastError("not_found", `there is no drill ${which}`, {
    hint: "`holdfast drills list` shows the last of each.",
    cause: error,
  });
}
