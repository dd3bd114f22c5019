/** What the CLI and its backup workers say to each other. Plain data. */
import type { LegResult } from "../shared/backup/leg.ts";
import type { ProjectFilesSettings } from "../shared/files/project_files.ts";
import type { ErrorCode, Retry } from "../shared/errors.ts";
import type { LogLevel, LogLine } from "../shared/log.ts";
import type { DatabaseOptions } from "../shared/postgres/pg_connection.ts";
import type { StoreCredentials } from "../shared/store/open_store.ts";

/** What a worker makes its deps from. */
export interface WorkerSettings {
  readonly database: DatabaseOptions;
  readonly store: string;
  readonly credentials: StoreCredentials;
  /** The project's Storage, whose files are backed up; null: not known. */
  readonly project: ProjectFilesSettings | null;
  /** Value of BACKUP_KEYS. */
  readonly keys: string;
  /** Value of BACKUP_IDENTITIES, for a store that was a second one. */
  readonly identities: string | undefined;
  /** What this worker may hold of rows, as bytes. */
  readonly maxMemoryBytes: number;
  readonly logLevel: LogLevel;
}

export type ToWorker =
  /** The first message, once. */
  | { readonly type: "settings"; readonly settings: WorkerSettings }
  /** One at a time; answered by `leg`. `worker` names it in `backup.tasks`. */
  | { readonly type: "leg"; readonly run: string; readonly worker: string }
  /** Ends the leg under way before its next task. */
  | { readonly type: "stop" };

export interface WorkerFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
  readonly retry: Retry;
}

export type FromWorker =
  | { readonly type: "log"; readonly line: LogLine }
  | { readonly type: "leg"; readonly result: LegResult | null; readonly failure: WorkerFailure | null };
