import { HoldfastError } from "../../shared/errors.ts";
import { type MaintenancePlan, planMaintenance, unfencedOf } from "../../shared/maintenance/plan.ts";
import { type MaintenanceState, readMaintenance } from "../../shared/maintenance/state.ts";
import { enterMaintenance, type MaintenanceWindow } from "../../shared/maintenance/switch_on.ts";
import { leaveMaintenance } from "../../shared/maintenance/switch_off.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { maintenanceDeps, untilOf } from "../maintenance_deps.ts";
import type { Outcome } from "../output.ts";
import { tellPage } from "../status_page.ts";

/**
 * The document of `on`: `{state, probed[], notProbed[], unfenced[], stillOpen, ended}`, or `{dryRun: true, changes[], unfenced[]}`
 * until it is confirmed; of `off`: `{state, probed[], notProbed[]}`; of `status`: `{state, unfenced[]}`.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what] = context.words;
  switch (what) {
    case "on":
      return await turnOn(context);
    case "off":
      return await turnOff(context);
    case "status":
      return await show(context);
    default:
      throw new HoldfastError("usage", "maintenance takes `on`, `off` or `status`");
  }
}

async function turnOn(context: Context): Promise<Outcome> {
  const window = windowOf(context);
  const deps = await maintenanceDeps(context);
  const { plan, state: known } = await look(context);
  refusePassed(window, known, context.clock.now());
  if (!context.settings.has("yes")) {
    context.note(planLines(plan).join("\n"));
    if (!(await context.confirm("Users cannot write from then on.", "close"))) return notConfirmed(plan);
  }
  const closed = await enterMaintenance(deps, window);
  await tellPage(context);
  const { state, probed, notProbed, unfenced, stillOpen } = closed;
  const lines = [
    `Maintenance mode is on: ${state.message ?? ""}`,
    contactLine(state),
    `tried and refused: ${probed.join(", ")}`,
    ...notProbed.map((one) => `not tried: ${one}`),
    ...(stillOpen === 0 ? [] : [`${stillOpen} transactions of the API that began before are still open`]),
    "Not refused:",
    ...unfenced.map((one) => `  ${one}`),
  ];
  return { exit: 0, document: closed, lines };
}

async function turnOff(context: Context): Promise<Outcome> {
  const opened = await leaveMaintenance(await maintenanceDeps(context));
  await tellPage(context);
  const { state, probed, notProbed } = opened;
  const lines = [
    state.opened ? "Maintenance mode is off." : "Maintenance mode was not on.",
    `tried and done: ${probed.join(", ")}`,
    ...notProbed.map((one) => `not tried: ${one}`),
    ...(state.restored.length === 0 ? [] : [`cron jobs that run again: ${state.restored.join(", ")}`]),
    ...state.left.map((one) => `left as it is: ${one}`),
  ];
  return { exit: 0, document: opened, lines };
}

/** As the API's 503 and `public.backup_announcements` have it. */
function contactLine({ contact }: MaintenanceState): string {
  return contact === null
    ? "No emergency contact is told: settings set contact_name, contact_email, contact_phone"
    : `emergency contact, as everybody is told: ${contact}`;
}

async function show(context: Context): Promise<Outcome> {
  const { state, unfenced } = await look(context);
  if (!state.closed) return { exit: 0, document: { state, unfenced }, lines: ["Maintenance mode is off."] };
  const lines = [
    `Maintenance mode is on since ${state.since ?? ""}, by ${state.by ?? ""}: ${state.message ?? ""}`,
    contactLine(state),
    state.until === null ? "no end is announced" : `announced until ${state.until}`,
    state.provenAt === null
      ? "not proven: run `maintenance on` again, or `maintenance off`"
      : `proven at ${state.provenAt}`,
    ...(state.preRequest.ours ? [] : ["THE API IS OPEN: pgrst.db_pre_request was changed; run `maintenance on` again"]),
    ...(state.jobs.paused.length === 0 ? [] : [`cron jobs paused: ${state.jobs.paused.join(", ")}`]),
    "Not refused:",
    ...unfenced.map((one) => `  ${one}`),
  ];
  return { exit: 0, document: { state, unfenced }, lines };
}

async function look(context: Context): Promise<{
  readonly state: MaintenanceState;
  readonly plan: MaintenancePlan;
  readonly unfenced: readonly string[];
}> {
  const session = await installedSession(context, "holdfast:maintenance");
  try {
    const state = await readMaintenance(session);
    const { serverVersion } = session;
    return { state, plan: planMaintenance(state, serverVersion), unfenced: unfencedOf(state, serverVersion) };
  } finally {
    await session.close();
  }
}

function windowOf(context: Context): MaintenanceWindow {
  return { message: context.settings.need("message"), until: untilOf(context), by: "cli" };
}

/** An end that is announced already may stay, when maintenance mode is proven again. Errors: `payload_invalid`. */
function refusePassed({ until }: MaintenanceWindow, known: MaintenanceState, now: Date): void {
  if (until === null || Date.parse(until) > now.getTime()) return;
  if (known.closed && known.until !== null && Math.abs(Date.parse(until) - Date.parse(known.until)) < 1000) return;
  throw new HoldfastError("payload_invalid", "the end of the maintenance window has passed", {
    hint: "Name an end that is still to come, or none.",
  });
}

function planLines({ changes, unfenced }: MaintenancePlan): string[] {
  return [
    "Maintenance mode:",
    ...changes.map((one) => `  ${one}`),
    "Not refused:",
    ...unfenced.map((one) => `  ${one}`),
  ];
}

function notConfirmed({ changes, unfenced }: MaintenancePlan): Outcome {
  const missing = new HoldfastError("confirmation_missing", "maintenance mode was not turned on");
  return {
    exit: missing.exit,
    document: { dryRun: true, changes, unfenced, ...missing.toDocument() },
    lines: [`Maintenance mode was not turned on. ${missing.hint}`],
  };
}
