/** What `verify` and its threads say to each other. Plain data. */
import type { LogLevel, LogLine } from "../shared/log.ts";
import type { StoreCredentials } from "../shared/store/open_store.ts";
import type { VerifyLeg } from "../shared/verify/run.ts";
import type { WorkerFailure } from "./worker_messages.ts";

export interface VerifierSettings {
  readonly store: string;
  readonly credentials: StoreCredentials;
  /** Value of BACKUP_KEYS. */
  readonly keys: string;
  /** Value of BACKUP_IDENTITIES. */
  readonly identities: string | undefined;
  readonly logLevel: LogLevel;
  /** Full id. */
  readonly backup: string;
  /** Objects in memory at once. */
  readonly parallel: number;
  readonly part: { readonly share: number; readonly of: number };
}

export type ToVerifier =
  /** The first message, once; answered by `done`. */
  | { readonly type: "verify"; readonly settings: VerifierSettings }
  | { readonly type: "stop" };

export type FromVerifier =
  | { readonly type: "log"; readonly line: LogLine }
  | { readonly type: "progress"; readonly objects: number; readonly storedBytes: number }
  | { readonly type: "done"; readonly leg: VerifyLeg | null; readonly failure: WorkerFailure | null };
