import type { Blobs } from "./blobs.ts";
import type { Login, Statements } from "./database.ts";
import { type Caller, serviceCaller, type Tokens } from "./tokens.ts";

/** What every part of Storage works with. */
export interface StorageDeps {
  readonly login: Login;
  readonly blobs: Blobs;
  readonly tokens: Tokens;
  /** Bytes a file may have in a bucket without a limit of its own. */
  readonly fileSizeLimit: number;
}

/** One request, with the caller under whose role the database answers. */
export interface StorageCall {
  readonly request: Request;
  /** Below `/storage/v1`, decoded, without query. */
  readonly path: string;
  readonly caller: Caller;
}

/** A transaction as `caller`, with the settings that policies and the guard triggers of schema `storage` read. */
export function asCaller<T>(
  deps: StorageDeps,
  call: Pick<StorageCall, "request" | "path">,
  caller: Caller,
  work: (sql: Statements) => Promise<T>,
): Promise<T> {
  return deps.login.as(caller, {
    "request.method": call.request.method,
    "request.path": call.path,
    "request.headers": "{}",
    "storage.operation": `storage.${call.request.method.toLowerCase()}`,
    "storage.allow_delete_query": "true",
  }, work);
}

class Rehearsed extends Error {}

/** Does the work and takes it back: whatever the caller may not do fails now. The service role may do everything. */
export async function rehearse(
  deps: StorageDeps,
  call: StorageCall,
  work: (sql: Statements) => Promise<unknown>,
): Promise<void> {
  if (call.caller.role === serviceCaller.role) return;
  try {
    await asCaller(deps, call, call.caller, async (sql) => {
      await work(sql);
      throw new Rehearsed();
    });
  } catch (error) {
    if (!(error instanceof Rehearsed)) throw error;
  }
}

/** SQL for a moment as Storage writes it in JSON. */
export const moment = (column: string): string =>
  `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
