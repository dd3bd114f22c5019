/** Requests of children's guardians: recorded, sealed into the erasure ledger, and read again. docs/reports.md, "Children". */
import { epochSource } from "../crypto/epochs.ts";
import { HoldfastError } from "../errors.ts";
import type { Clock } from "../clock.ts";
import { type Consent, openEntry } from "../erase/entry.ts";
import { rowHash } from "../erase/hashes.ts";
import { keyOfNew, type PutDeps, putEntry } from "../erase/ledger.ts";
import { usersIdentity } from "../erase/removal_plan.ts";
import { erasureName, parseErasureName } from "../format/layout.ts";
import { call } from "../jobs/call.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { emptyMap } from "../rows/ownership/map_file.ts";

export interface GuardianRequest extends Omit<Consent, "child"> {
  /** In `auth.users`; as the server writes ids. */
  readonly child: string;
}

/** A row of `public.backup_guardians`, as text. */
export type GuardianRow = Readonly<Record<string, string | null>>;

/**
 * An id for the record, before anything is sealed. Errors: `user_not_found`, `user_erased`; `payload_invalid` for a statement with the
 * child's id, address or number.
 */
export async function admitGuardian(
  connection: Connection,
  { child, statement }: Pick<GuardianRequest, "child" | "statement">,
): Promise<string> {
  const [row] = await call(
    connection,
    "select backup.refuse_guardian($1::uuid, $2), pg_catalog.gen_random_uuid()::text as id",
    [child, statement],
  );
  return text(row ?? {}, "id");
}

/**
 * First the entry in the store, then the row: an entry without one says that the record was not finished, and asks for nothing.
 * `id`: of `admitGuardian`. Errors: those of it; `forbidden` where no person is signed in; those of keys and store.
 */
export async function recordGuardian(
  deps: PutDeps & { readonly connection: Connection; readonly clock: Clock },
  id: string,
  request: GuardianRequest,
): Promise<{ readonly request: string; readonly entry: string }> {
  const { connection, clock, store } = deps;
  const { child, ...said } = request;
  const hash = await rowHash(await keyOfNew(deps), usersIdentity, [child]);
  const entry = erasureName(
    await putEntry(deps, {
      erasure: id,
      at: `${clock.now().toISOString().slice(0, 19)}Z`,
      map: emptyMap,
      rows: [],
      hashes: [],
      consent: { child: hash, ...said },
    }),
  );
  await call(connection, "select backup.record_guardian($1::jsonb)", [
    JSON.stringify({
      id,
      child,
      guardian: said.guardian.reach,
      relation: said.guardian.relation,
      asks: said.asks,
      identity_by: said.identityBy,
      said_on: said.saidOn,
      entry,
      store: store.label,
    }),
  ]);
  return { request: id, entry };
}

/** False where it is over. Errors: `run_not_found`, `run_state` once its erasure has begun. */
export async function withdrawGuardian(connection: Connection, id: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.withdraw_guardian($1::uuid) as withdrawn", [id]);
  return row?.["withdrawn"] === "t";
}

/** Newest first; no name, no statement. */
export async function listGuardians(connection: Connection, limit: number): Promise<GuardianRow[]> {
  return await call(
    connection,
    `select g.id::text, g.child, g.relation, pg_catalog.array_to_string(g.asks, ', ') as asks, g.identity_by, g.said_on::text,
            g.status, g.recorded_by, g.recorded_at::text, g.reviewed_at::text, g.erasure::text, g.erased_at::text, g.entry
       from backup.guardian_requests as g order by g.recorded_at desc limit $1::integer`,
    [String(limit)],
  );
}

/** What was said, opened. Audited before it is read. Errors: `run_not_found`, `object_damaged`, those of keys and store. */
export async function readGuardian(
  { connection, store, ring, compressor, repositoryId }: Omit<PutDeps, "random"> & { readonly connection: Connection },
  id: string,
): Promise<Consent> {
  const [row] = await call(
    connection,
    `select g.entry, backup.audit('guardian.read', 'guardian:' || g.id, backup.guardian_detail(g)) as audited
       from backup.guardian_requests as g where g.id = $1::uuid`,
    [id],
  );
  const name = row?.["entry"];
  if (name == null) {
    throw new HoldfastError("run_not_found", `there is no request ${id}`, {
      hint: "`holdfast guardians list` shows them.",
    });
  }
  const deps = { compressor, epochOf: epochSource(store, ring, repositoryId) };
  const { consent, erasure } = await openEntry(deps, parseErasureName(name) ?? 0, await store.read(name));
  if (consent !== undefined && erasure === id) return consent;
  throw new HoldfastError("object_damaged", `${name} does not hold what guardian request ${id} says`);
}
