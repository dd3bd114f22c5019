/** All calls of the SQL functions that change what is known of the second store. docs/architecture.md, "The second store". */
import type { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import type { Requested, RunOrigin, Task } from "./queries.ts";
import { numberOrNull, text } from "./run_row.ts";

export type CopyKind = "repository" | "key" | "erasure" | "segment" | "anchor" | "object" | "manifest";

/** A name of the first store. `hash`: SHA-256 of its bytes, where they were read. */
export interface NameToCopy {
  readonly name: string;
  readonly kind: CopyKind;
  readonly bytes: number;
  readonly hash: string | null;
}

/** What the second store lacks, as it is to be copied. */
export interface CopyToMake {
  readonly name: string;
  readonly kind: CopyKind;
  /** A manifest whose objects are not entered yet: nothing is copied of it now. */
  readonly unopened: boolean;
  /** It stands there; its lock is to be renewed. */
  readonly standing: boolean;
  /** Of the original, as recorded; null where it is not known. */
  readonly firstBytes: number | null;
  readonly firstHash: string | null;
  /** SHA-256 of ciphertexts of it that may stand in the second store already. */
  readonly intended: readonly string[];
}

export interface Copied {
  readonly name: string;
  readonly firstBytes: number;
  readonly firstHash: string;
  readonly secondBytes: number;
  readonly secondHash: string;
}

export interface Survey {
  /** This run has to look at the first store; else it has, and nothing was asked for since. */
  readonly due: boolean;
  /** As of when, and how often was asked until then. */
  readonly began: string;
  readonly asked: string;
  /** The first store has to be listed. */
  readonly listing: boolean;
}

/** What the second store lacks, as far as the database knows. */
export interface CopyLag {
  readonly store: string;
  readonly firstStore: string | null;
  readonly objects: number;
  readonly bytes: number;
  /** Since when the oldest of them should be there; null: nothing is missing. ISO 8601. */
  readonly oldestAt: string | null;
  readonly lagSeconds: number | null;
  readonly caughtUpAt: string | null;
}

/** Labels of the stores; `second` null: there is no second store. */
export async function tellStores(connection: Connection, first: string, second: string | null): Promise<void> {
  await call(connection, "select backup.tell_stores($1, $2)", [first, second]);
}

/** An alert until a run succeeds, for what kept one from being started. */
export async function tellCopiesFailed(connection: Connection, failure: HoldfastError): Promise<void> {
  await call(connection, "select backup.raise_alert('copies_failed', 'kind:replicate', $1)", [
    `the second store cannot be used: ${failure.message} (${failure.code})`,
  ]);
}

/** Null where nothing is to be copied: without a second store, and in a copy of the project. */
export async function requestCopies(
  connection: Connection,
  origin: RunOrigin,
  listing: boolean,
): Promise<Requested | null> {
  const [row] = await call(connection, "select run, joined from backup.request_copies($1, $2::boolean)", [
    origin,
    String(listing),
  ]);
  return row?.["run"] == null ? null : { run: row["run"], joined: row["joined"] === "t" };
}

/** Null: there is no second store. */
export async function readCopyLag(connection: Connection): Promise<CopyLag | null> {
  const at = (column: string) => `to_char(l.${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as ${column}`;
  const [row] = await call(
    connection,
    `select l.store, l.first_store, l.objects, l.bytes, ${at("oldest_at")}, ${at("caught_up_at")},
       floor(extract(epoch from backup.clock_now() - l.oldest_at))::bigint as seconds
     from backup.copy_lag() as l`,
    [],
  );
  if (row === undefined) return null;
  return {
    store: text(row, "store"),
    firstStore: row["first_store"] ?? null,
    objects: Number(row["objects"]),
    bytes: Number(row["bytes"]),
    oldestAt: row["oldest_at"] ?? null,
    lagSeconds: numberOrNull(row, "seconds"),
    caughtUpAt: row["caught_up_at"] ?? null,
  };
}

/** Names that stand in the second store, as recorded. */
export async function readCopied(connection: Connection, second: string): Promise<Map<string, string | null>> {
  const rows = await call(
    connection,
    "select c.name, c.first_hash from backup.copies as c where c.store = $1 and c.status = 'stored'",
    [second],
  );
  return new Map(rows.map((row) => [text(row, "name"), row["first_hash"] ?? null]));
}

/** The calls of one worker, each with its lease. Errors: `lease_lost`; `run_state` where the second store is another one now. */
export class CopyTask {
  readonly #connection: Connection;
  readonly #lease: readonly [string, string, string];
  #last: Promise<unknown> = Promise.resolve();

  /** `second`: label of the second store. */
  constructor(connection: Connection, task: Pick<Task, "id" | "token">, second: string) {
    this.#connection = connection;
    this.#lease = [task.id, task.token, second];
  }

  async beginSurvey(): Promise<Survey> {
    const [row] = await this.#call(
      `select due, listing, began::text as began, asked from backup.begin_survey($1::bigint, $2::bigint, $3)`,
    );
    const [began, asked] = [row?.["began"] ?? "", row?.["asked"] ?? ""];
    return { due: row?.["due"] === "t", listing: row?.["listing"] === "t", began, asked };
  }

  async enter(names: readonly NameToCopy[]): Promise<void> {
    await this.#call("select backup.enter_copies($1::bigint, $2::bigint, $3, $4::jsonb)", JSON.stringify(names));
  }

  /** `listed`: all names under the prefixes; null where the store was not listed. */
  async endSurvey(
    { began, asked }: Pick<Survey, "began" | "asked">,
    prefixes: readonly string[],
    listed: readonly string[] | null,
  ): Promise<void> {
    await this.#call(
      "select backup.end_survey($1::bigint, $2::bigint, $3, $4::timestamptz, $5::bigint, $6::text[], $7::text[])",
      began,
      asked,
      arrayOf(prefixes),
      listed === null ? null : arrayOf(listed),
    );
  }

  /** In the order in which they have to be copied; empty: nothing can be done. */
  async next(atMost: number): Promise<CopyToMake[]> {
    const rows = await this.#call(
      `select n.name, n.kind, n.status, n.first_bytes, n.first_hash, array_to_json(n.intended) as intended
         from backup.next_copies($1::bigint, $2::bigint, $3, $4::integer) as n`,
      String(atMost),
    );
    return rows.map((row) => ({
      name: text(row, "name"),
      kind: text(row, "kind") as CopyKind,
      unopened: row["status"] === "unopened",
      standing: row["status"] === "stored",
      firstBytes: numberOrNull(row, "first_bytes"),
      firstHash: row["first_hash"] ?? null,
      intended: JSON.parse(text(row, "intended")) as string[],
    }));
  }

  async enterNeeds(
    manifest: string,
    objects: readonly { readonly name: string; readonly bytes: number | null; readonly hash: string | null }[],
    { complete, renewAfterMs }: { readonly complete: boolean; readonly renewAfterMs: number | null },
  ): Promise<void> {
    await this.#call(
      "select backup.enter_needs($1::bigint, $2::bigint, $3, $4, $5::jsonb, $6::boolean, $7::interval)",
      manifest,
      JSON.stringify(objects),
      String(complete),
      renewAfterMs === null ? null : `${renewAfterMs} milliseconds`,
    );
  }

  /** The lock of what stands there was renewed; `there` false: it does not stand there any more. */
  async held(name: string, there: boolean): Promise<void> {
    await this.#call("select backup.record_hold($1::bigint, $2::bigint, $3, $4, $5::boolean)", name, String(there));
  }

  /** False: the egress of the day has no room for it. */
  async intend(name: string, hash: string, bytes: number): Promise<boolean> {
    const [row] = await this.#call(
      "select backup.intend_copy($1::bigint, $2::bigint, $3, $4, $5, $6::bigint) as may",
      name,
      hash,
      String(bytes),
    );
    return row?.["may"] === "t";
  }

  async record(copied: Copied): Promise<void> {
    const document = {
      name: copied.name,
      first_bytes: copied.firstBytes,
      first_hash: copied.firstHash,
      second_bytes: copied.secondBytes,
      second_hash: copied.secondHash,
    };
    await this.#call("select backup.record_copy($1::bigint, $2::bigint, $3, $4::jsonb)", JSON.stringify(document));
  }

  async fail(
    name: string,
    failure: { readonly code: string; readonly message: string; readonly hint: string },
  ): Promise<void> {
    const { code, message, hint } = failure;
    const document = JSON.stringify({ code, message, hint });
    await this.#call("select backup.fail_copy($1::bigint, $2::bigint, $3, $4, $5::jsonb)", name, document);
  }

  /** Prefix that is compared next; null: nothing is due. */
  async nextLook(firstPrefix: string): Promise<string | null> {
    const [row] = await this.#call(
      "select backup.next_look($1::bigint, $2::bigint, $3, $4) as prefix",
      firstPrefix,
    );
    return row?.["prefix"] ?? null;
  }

  /** How many names are missing again. `hash`: SHA-256 of what lies there, where it was read. */
  async recordLook(
    prefix: string,
    listed: readonly { readonly name: string; readonly bytes: number; readonly hash: string | null }[],
    nextPrefix: string | null,
  ): Promise<number> {
    const [row] = await this.#call(
      "select backup.record_look($1::bigint, $2::bigint, $3, $4, $5::jsonb, $6) as lost",
      prefix,
      JSON.stringify(listed),
      nextPrefix,
    );
    return Number(row?.["lost"] ?? 0);
  }

  /** `needed`: bytes for which the egress of the day has no room; null: nothing was left out for that. */
  async end(needed: number | null): Promise<"again" | "failed" | "succeeded"> {
    const [row] = await this.#call(
      "select backup.end_copies($1::bigint, $2::bigint, $3, $4::bigint) as outcome",
      needed === null ? null : String(needed),
    );
    return (row?.["outcome"] ?? "failed") as "again" | "failed" | "succeeded";
  }

  /** One after the other: several copies share the connection. */
  async #call(sql: string, ...values: readonly (string | null)[]) {
    const next = this.#last.then(() => call(this.#connection, sql, [...this.#lease, ...values]));
    this.#last = next.catch(() => {});
    return await next;
  }
}

/** Names of stores are plain ASCII without quotes, commas or braces. */
function arrayOf(names: readonly string[]): string {
  return `{${names.join(",")}}`;
}
