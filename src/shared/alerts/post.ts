/** One bounded request to a receiver: it took it, or did not. Redirects are not followed, answers are not read. */
import { HoldfastError } from "../errors.ts";
import type { Fetch } from "../store/http_call.ts";
import { addressesOf, type AddressRules, hostOf } from "./address.ts";
import { channelMs } from "./channel.ts";

export interface PostDeps {
  readonly fetch: Fetch;
  readonly rules: AddressRules;
}

export interface Posted {
  readonly method: "GET" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON; null with GET. */
  readonly body: string | null;
}

/** Errors: `channel_unreachable`, `channel_refused` for every status but 2xx. */
export async function post({ fetch, rules }: PostDeps, { method, url, headers, body }: Posted): Promise<void> {
  const signal = AbortSignal.timeout(channelMs);
  await addressesOf(hostOf(url), rules, signal);
  let response: Response;
  try {
    const type: Record<string, string> = body === null ? {} : { "content-type": "application/json" };
    response = await fetch(url.href, { method, headers: { ...type, ...headers }, body, signal, redirect: "manual" });
  } catch (cause) {
    const why = signal.aborted ? `no answer within ${channelMs / 1000} s` : "no connection, or one that broke off";
    throw new HoldfastError("channel_unreachable", why, { cause });
  }
  await response.body?.cancel().catch(() => {});
  const { status } = response;
  if (status >= 200 && status < 300) return;
  const why = status >= 300 && status < 400 || status === 0
    ? "the answer was a redirect, which is not followed"
    : `the answer was ${status}`;
  throw new HoldfastError("channel_refused", why);
}
