import type { ChannelName, Notice } from "./notice.ts";

/** A way out of the project, set up with its secrets. */
export interface Channel {
  readonly name: ChannelName;
  /** Where it leads to, without secrets: a host. */
  readonly target: string;
  /**
   * Resolves once the receiver has taken it; bounded by `channelMs`. The same notice may come twice, with the same key, where the
   * answer to the first was lost. Errors: `channel_unreachable`, `channel_refused`; no message names a secret, or repeats what the
   * receiver said.
   */
  send(notice: Notice): Promise<void>;
}

/** For one exchange with a receiver; a lease lasts longer. */
export const channelMs = 15_000;

/** One that is set, and cannot be used as it is. */
export interface BrokenChannel {
  readonly name: ChannelName;
  /** What is wrong, naming the setting and not its value. */
  readonly problem: string;
}

/** The outside watcher: a test goes there as to any channel, a heartbeat is no notice. */
export interface Watcher extends Channel {
  /** Errors: as `send`. */
  beat(): Promise<void>;
}

export interface Channels {
  readonly usable: readonly Channel[];
  /** One of the usable ones; null: there is none. */
  readonly watcher: Watcher | null;
  readonly broken: readonly BrokenChannel[];
}
