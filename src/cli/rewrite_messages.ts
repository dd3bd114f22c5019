/** What `erase rewrite` and its threads say to each other. Plain data. */
import type {
  ChunkDone,
  ChunkTask,
  ListDone,
  ListTask,
  Scope,
  SegmentDone,
  SegmentTask,
  StreamListDone,
  StreamListTask,
  StreamRules,
} from "../shared/erase/rewrite/hands.ts";
import type { Identity } from "../shared/erase/entry.ts";
import type { StoreCredentials } from "../shared/store/open_store.ts";
import type { WorkerFailure } from "./worker_messages.ts";

export interface RewriterSettings {
  readonly store: string;
  readonly credentials: StoreCredentials;
  /** Of the database's own place below the store's top; empty: the top. */
  readonly prefix: string;
  /** Value of BACKUP_KEYS. */
  readonly keys: string;
  readonly repositoryId: string;
}

export type RewriterTask =
  | { readonly type: "settings"; readonly settings: RewriterSettings }
  | { readonly type: "begin"; readonly scope: Scope; readonly rules: StreamRules | null }
  | { readonly type: "learn"; readonly gone: readonly string[]; readonly identities: readonly Identity[] }
  | { readonly type: "chunk"; readonly task: ChunkTask }
  | { readonly type: "list"; readonly task: ListTask }
  | { readonly type: "streamList"; readonly task: StreamListTask }
  | { readonly type: "segment"; readonly task: SegmentTask };

/** Each is answered once, by its number. */
export type ToRewriter = RewriterTask & { readonly number: number };

export interface FromRewriter {
  readonly number: number;
  readonly result: ChunkDone | ListDone | StreamListDone | readonly SegmentDone[] | null;
  readonly failure: WorkerFailure | null;
}
