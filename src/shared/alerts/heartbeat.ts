/** The outside watcher (a dead man's switch): it raises the alarm when nothing comes any more. The address itself is the secret. */
import { hostOf } from "./address.ts";
import type { Watcher } from "./channel.ts";
import { post, type PostDeps } from "./post.ts";

/** A plain GET. Whether all is well the database decides (`backup.take_heartbeat`). */
export function heartbeatChannel(url: URL, deps: PostDeps): Watcher {
  const beat = async () => await post(deps, { method: "GET", url, headers: {}, body: null });
  return { name: "heartbeat", target: hostOf(url), beat, send: beat };
}
