/** Channels of alerts, used from here: for a plain PostgreSQL, whose database calls no function, and to try them. */
import { unlimited } from "../shared/backup/budget.ts";
import { toHex } from "../shared/crypto/digest.ts";
import { systemLookup } from "../shared/alerts/address.ts";
import { type Delivered, deliverNotices } from "../shared/alerts/deliver.ts";
import { channelNames } from "../shared/alerts/notice.ts";
import { HoldfastError } from "../shared/errors.ts";
import { type DeliveryOutcome, readDeliveries, testChannels } from "../shared/jobs/notice_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import type { Outcome } from "./output.ts";

/** The function is called at once; its channels answer within seconds, or their time is over. */
const testMs = 60_000;
const pollMs = 300;

/** One pass: the watchdog where nobody else has called it, then all that is due. */
export async function deliverFromHere(context: Context, session: Connection): Promise<Outcome> {
  const ticked = await tickWhereNobodyDoes(session);
  const done = await deliver(context, session);
  const { channels, delivered, failures, heartbeat } = done;
  return {
    exit: failures.length === 0 ? 0 : 1,
    document: { ticked, ...done },
    lines: [
      ...(channels.length === 0 ? ["No channel is set here: docs/alerts.md says which variables make one."] : []),
      ...channels.map(({ name, target, problem }) =>
        problem === null ? `${name}: ${target}` : `${name}: NOT USABLE, ${problem}`
      ),
      `${delivered} messages were delivered; heartbeat: ${heartbeat}`,
      ...failures.map(({ channel, why }) => `${channel}: FAILED, ${why}`),
    ],
  };
}

/** By a real message. Errors: `not_found`, `run_state` in a copy. */
export async function testChannelsFromHere(
  context: Context,
  session: Connection,
  channel: string | null,
): Promise<Outcome> {
  if (channel !== null && !(channelNames as readonly string[]).includes(channel)) {
    throw new HoldfastError("usage", `a channel is one of ${channelNames.join(", ")}`);
  }
  // Says which channels are set here, before one is asked for by name.
  const { channels } = await deliver(context, session);
  const notice = await testChannels(session, channel);
  const broken = channels.filter(({ name, problem }) => problem !== null && (channel === null || name === channel));
  const deadline = context.clock.monotonicMs() + testMs;
  let outcomes: readonly DeliveryOutcome[];
  for (;;) {
    if (channels.length > 0) await deliver(context, session);
    const isCalled = await notifyIsUnderWay(session);
    // Nobody brings anything to what is not usable here.
    const all = await readDeliveries(session, notice);
    outcomes = all.filter((one) => !broken.some(({ name }) => name === one.channel));
    const isOver = !isCalled && outcomes.every(({ status }) => status === "delivered" || status === "failed");
    if (isOver || context.signal.aborted || context.clock.monotonicMs() > deadline) break;
    await context.clock.sleep(pollMs, context.signal).catch(() => {});
  }
  const ok = outcomes.length > 0 && broken.length === 0 && outcomes.every(({ status }) => status === "delivered");
  const failure = new HoldfastError(
    "channels_failed",
    outcomes.length + broken.length === 0
      ? "no channel is set up: nobody would be told"
      : "a channel did not take its message",
  );
  const unusable = broken.map(({ name, problem }) => ({ channel: name, problem }));
  return {
    exit: ok ? 0 : failure.exit,
    document: { ok, notice: Number(notice), channels: outcomes, unusable, ...(ok ? {} : failure.toDocument()) },
    lines: [
      ...outcomes.map(outcomeLine),
      ...unusable.map(({ channel, problem }) => `${channel}: NOT USABLE, ${problem}`),
      ...(ok ? [] : [`${failure.message} (${failure.hint})`]),
    ],
  };
}

function outcomeLine({ channel, target, status, failure }: DeliveryOutcome): string {
  if (status === "delivered") return `${channel} (${target}): took the message`;
  const why = failure === null ? "" : `, ${failure}`;
  return `${channel} (${target}): ${status === "failed" ? "FAILED" : "NO ANSWER YET"}${why}`;
}

/** Has the database called the function, which knows its own channels, and is it at work? */
async function notifyIsUnderWay(session: Connection): Promise<boolean> {
  const [row] = await session.query(
    "select exists (select from backup.calls where function_name = 'notify' and status in ('sent', 'begun')) as called",
  );
  return row?.["called"] === "t";
}

async function deliver({ settings, clock, random, log, signal }: Context, connection: Connection): Promise<Delivered> {
  const variable = (name: string) => settings.variable(name);
  const deps = { variable, fetch, clock, lookup: systemLookup, connection, log, teller: "cli" } as const;
  return await deliverNotices(deps, { worker: `cli:${toHex(random(4))}`, budget: unlimited, signal });
}

/** A plain PostgreSQL has no job each minute: whoever delivers is the watchdog as well. */
async function tickWhereNobodyDoes(session: Connection): Promise<boolean> {
  const [row] = await session.query(
    `select case when exists (
       select from backup.pulse as p where p.ticked_at between backup.clock_now() - interval '2 minutes' and backup.clock_now()
     ) then null else backup.tick() end is not null as ticked`,
  );
  return row?.["ticked"] === "t";
}
