/** A letter to people, by whichever way out for mail is set up. */
import type { Letter } from "./compose.ts";

export interface Mail extends Letter {
  readonly fromName: string;
  readonly from: string;
  readonly to: readonly string[];
  /** The same at each try, so that a receiver knows what it has already. */
  readonly key: string;
  readonly at: Date;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Resolves once the server has taken it; bounded by `channelMs`. Errors: `channel_unreachable`, `channel_refused`. */
export type Mailer = (mail: Mail) => Promise<void>;
