/** Brings what is due to its channels. docs/decisions/0034-alerts.md. */
import type { Budget } from "../backup/budget.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import {
  claimDelivery,
  type Delivery,
  notWell,
  readSender,
  recordDelivery,
  recordHeartbeat,
  takeHeartbeat,
  tellAlerts,
  tellChannels,
} from "../jobs/notice_queries.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Channel, Watcher } from "./channel.ts";
import { type ChannelDeps, channelsFrom } from "./channels_from.ts";

export interface DeliverDeps extends ChannelDeps {
  /** In no transaction. */
  readonly connection: Connection;
  readonly log: Log;
  /** Whose settings these are. */
  readonly teller: "function" | "cli";
}

export interface DeliverOptions {
  /** Names the worker on record; unique among those that work at the same time. */
  readonly worker: string;
  readonly budget: Budget;
  readonly signal?: AbortSignal;
}

/** By channel: what was taken, and what was not. */
export interface Delivered {
  readonly channels: readonly { readonly name: string; readonly target: string; readonly problem: string | null }[];
  readonly delivered: number;
  readonly failures: readonly { readonly channel: string; readonly why: string }[];
  readonly heartbeat: "sent" | "failed" | "not due";
}

/** Longer than any channel takes: see `channelMs`. */
const leaseSeconds = 120;
/** Statements of one delivery. */
const callsOfDelivery = 4;

/**
 * Tells the database which channels there are, lets it tell its alerts, sends the heartbeat that is due, then delivers until nothing is
 * due or the budget is spent. A channel that failed rests, as the database says, and hinders no other. Errors: those of the database.
 */
export async function deliverNotices(deps: DeliverDeps, options: DeliverOptions): Promise<Delivered> {
  const { connection, log, teller } = deps;
  const { usable, watcher, broken } = channelsFrom(deps, await readSender(connection));
  const channels = [
    ...usable.map(({ name, target }) => ({ name, target, problem: null })),
    ...broken.map(({ name, problem }) => ({ name, target: "", problem })),
  ];
  await tellChannels(connection, teller, channels);
  await tellAlerts(connection);
  const heartbeat = await beat(deps, watcher);
  let delivered = 0;
  const failures: { channel: string; why: string }[] = [];
  while (!options.budget.spent() && options.signal?.aborted !== true) {
    const claimed = await claimRound(deps, usable, options);
    if (claimed.length === 0) break;
    // The session takes one statement after the other; only the sending goes side by side.
    const outcomes = await Promise.all(claimed.map(async (one) => ({ ...one, why: await sent(one) })));
    log.step("notices.given", { notices: outcomes.length });
    for (const { channel, delivery, why, withheld } of outcomes) {
      options.budget.spendCalls(callsOfDelivery);
      await record(deps, delivery, why, withheld !== null);
      if (why === null) delivered++;
      else failures.push({ channel: channel.name, why });
      log.info("notice.sent", { notice: delivery.notice.id, channel: channel.name, ok: why === null, why: why ?? "" });
    }
  }
  return { channels, delivered, failures, heartbeat };
}

interface Claimed {
  readonly channel: Channel;
  readonly delivery: Delivery;
  /** Why it must not be sent. */
  readonly withheld: string | null;
}

/** The next notice of each channel. */
async function claimRound(
  { connection }: DeliverDeps,
  channels: readonly Channel[],
  { worker }: DeliverOptions,
): Promise<Claimed[]> {
  const claimed: Claimed[] = [];
  for (const channel of channels) {
    const delivery = await claimDelivery(connection, channel.name, worker, leaseSeconds);
    if (delivery === null) continue;
    // The watcher hears that all is well only where it is, in a test too.
    const withheld = channel.name === "heartbeat" ? await notWell(connection) : null;
    claimed.push({ channel, delivery, withheld });
  }
  return claimed;
}

/** Null once the receiver has it, else why not. */
async function sent({ channel, delivery, withheld }: Claimed): Promise<string | null> {
  if (withheld !== null) return `not sent: ${withheld}`;
  return await failureOf(() => channel.send(delivery.notice));
}

async function beat({ connection, log }: DeliverDeps, watcher: Watcher | null): Promise<Delivered["heartbeat"]> {
  if (watcher === null || !(await takeHeartbeat(connection))) return "not due";
  const why = await failureOf(() => watcher.beat());
  await recordHeartbeat(connection, why);
  log.info("heartbeat.sent", { ok: why === null, why: why ?? "" });
  return why === null ? "sent" : "failed";
}

async function failureOf(send: () => Promise<void>): Promise<string | null> {
  try {
    await send();
    return null;
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    return `${message} (${code})`;
  }
}

/** Somebody else may have it by now: a lease that ran out while the receiver thought about it. Theirs counts. */
async function record(
  { connection, log }: DeliverDeps,
  delivery: Delivery,
  why: string | null,
  withheld: boolean,
): Promise<void> {
  try {
    await recordDelivery(connection, delivery, why, withheld);
  } catch (error) {
    if (!(error instanceof HoldfastError) || error.code !== "lease_lost") throw error;
    log.warn("notice.lease_lost", { notice: delivery.notice.id });
  }
}
