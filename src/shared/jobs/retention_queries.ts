/** All calls of the SQL functions of retention. docs/architecture.md, "Retention". */
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import type { Requested, RunOrigin, Task } from "./queries.ts";
import { text } from "./run_row.ts";

/** What a store did not let go, and why. */
export interface KeptInStore {
  readonly name: string;
  readonly why: string;
}

export interface PruneResult {
  /** Why nothing was removed; null: what the policy does not keep is gone. */
  readonly refused: string | null;
  readonly removed: number;
  readonly swept: number;
}

/** Null in a copy of the project: it removes nothing. */
export async function requestPrune(connection: Connection, origin: RunOrigin): Promise<Requested | null> {
  const [row] = await call(connection, "select run, joined from backup.request_prune($1)", [origin]);
  return row?.["run"] == null ? null : { run: row["run"], joined: row["joined"] === "t" };
}

/** As JSON; `src/shared/retention/read_facts.ts` knows its form. */
export async function retentionFacts(connection: Connection): Promise<unknown> {
  const [row] = await call(connection, "select backup.retention_facts() as facts", []);
  return JSON.parse(text(row ?? {}, "facts"));
}

/** The calls of one worker, each with its lease. Errors: `lease_lost`; `run_state` in a copy. */
export class PruneTask {
  readonly #connection: Connection;
  readonly #lease: readonly [string, string];

  constructor(connection: Connection, task: Pick<Task, "id" | "token">) {
    this.#connection = connection;
    this.#lease = [task.id, task.token];
  }

  /** Renews the lease and keeps how far the work is. */
  async keep(detail: unknown): Promise<void> {
    await this.#call("select backup.pruning($1::bigint, $2::bigint, $3::jsonb)", JSON.stringify(detail));
  }

  /** `stale`: something has changed since the facts of this guard were read; nothing was ordered. */
  async order(guard: string, plan: readonly unknown[]): Promise<"ordered" | "stale"> {
    const [row] = await this.#call(
      "select backup.order_removals($1::bigint, $2::bigint, $3, $4::jsonb) as outcome",
      guard,
      JSON.stringify(plan),
    );
    return row?.["outcome"] === "ordered" ? "ordered" : "stale";
  }

  /** Names that have to leave every store, in their order. */
  async nextRemovals(atMost: number): Promise<string[]> {
    const rows = await this.#call(
      "select n.name from backup.next_removals($1::bigint, $2::bigint, $3::integer) as n",
      String(atMost),
    );
    return rows.map((row) => text(row, "name"));
  }

  async recordRemovals(gone: readonly string[], kept: readonly KeptInStore[]): Promise<void> {
    await this.#call(
      "select backup.record_removals($1::bigint, $2::bigint, $3::text[], $4::jsonb)",
      arrayOf(gone),
      JSON.stringify(kept),
    );
  }

  /** Manifests that were not opened yet. */
  async enterManifests(listed: readonly string[]): Promise<string[]> {
    const rows = await this.#call(
      "select m.name from backup.enter_manifests($1::bigint, $2::bigint, $3::text[]) as m",
      arrayOf(listed),
    );
    return rows.map((row) => text(row, "name"));
  }

  async enterManifest(manifest: string, objects: readonly string[], complete: boolean): Promise<void> {
    await this.#call(
      "select backup.enter_manifest($1::bigint, $2::bigint, $3, $4::text[], $5::boolean)",
      manifest,
      arrayOf(objects),
      String(complete),
    );
  }

  /** Lists of files that a manifest names, before what it names is complete. */
  async enterLists(lists: readonly string[]): Promise<void> {
    await this.#call("select backup.enter_lists($1::bigint, $2::bigint, $3::text[])", arrayOf(lists));
  }

  /** Lists whose parts are not known yet; these are entered like what a manifest names. */
  async unopenedLists(): Promise<string[]> {
    const rows = await this.#call("select l.name from backup.unopened_lists($1::bigint, $2::bigint) as l");
    return rows.map((row) => text(row, "name"));
  }

  /** Objects below the prefix that the store may let go now. */
  async sweep(store: string, prefix: string, listed: readonly string[]): Promise<string[]> {
    const rows = await this.#call(
      "select s.name from backup.sweep_prefix($1::bigint, $2::bigint, $3, $4, $5::text[]) as s",
      store,
      prefix,
      arrayOf(listed),
    );
    return rows.map((row) => text(row, "name"));
  }

  async recordSwept(store: string, gone: readonly string[], kept: readonly KeptInStore[]): Promise<void> {
    await this.#call(
      "select backup.record_swept($1::bigint, $2::bigint, $3, $4::text[], $5::jsonb)",
      store,
      arrayOf(gone),
      JSON.stringify(kept),
    );
  }

  async end(result: PruneResult): Promise<void> {
    await this.#call("select backup.end_pruning($1::bigint, $2::bigint, $3::jsonb)", JSON.stringify(result));
  }

  async #call(sql: string, ...values: readonly string[]) {
    return await call(this.#connection, sql, [...this.#lease, ...values]);
  }
}

/** Names of stores are plain ASCII without quotes, commas or braces. */
function arrayOf(names: readonly string[]): string {
  return `{${names.join(",")}}`;
}
