/** An erasure from its record to its end. Killed anywhere and called again for the same person it goes on. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import { erasureName } from "../format/layout.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import { refreshViews } from "../restore/in_place/finish_rows.ts";
import { putTriggersAside } from "../rows/apply/put_back.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { quoteLiteral } from "../schema/quote.ts";
import { type Identity, mostHashes } from "./entry.ts";
import {
  beginErasure,
  dropSide,
  emptyErasure,
  endErasure,
  lockErasures,
  readSides,
  recordErasure,
} from "./erase_queries.ts";
import { hashSql, keyTable, layHashes } from "./hashes.ts";
import { keyOfNew, type PutDeps, putEntry } from "./ledger.ts";
import { lookAgain } from "./look_again.ts";
import { OwnedRows } from "./owned_rows.ts";
import { referringOf, refuseUndecided, undecidedOf } from "./plan_erasure.ts";
import { usersIdentity } from "./removal_plan.ts";
import { liveTerms } from "./rewrite/keep_terms.ts";
import { addTerms } from "./rewrite/terms_file.ts";
import { scrub } from "./scrub.ts";

export interface ErasureDeps extends PutDeps {
  /** Of the database that the person is in, with pinned settings. */
  readonly connection: Connection;
  /** Another session, for the second look. */
  readonly again: Connection;
  readonly clock: Clock;
  readonly log: Log;
  /** Removes files by bucket. Null: there is no way to Storage from here. */
  readonly removeFiles: ((bucket: string, names: readonly string[]) => Promise<void>) | null;
  /** Bytes of log that one transaction may write, about. */
  readonly capBytes: number;
}

export interface ErasureResult {
  readonly id: string;
  /** `searched` until the second store has the ledger too. */
  readonly status: string;
  readonly rows: ReadonlyMap<string, number>;
  readonly files: number;
  readonly mentions: readonly { readonly table: string; readonly rows: number }[];
}

/** A row that is deleted is in the log twice at most: itself, and a page that was clean. */
const logPerByte = 2;
/** Rows that come while others are locked. */
const mostRounds = 5;

/**
 * The ledger first, in the store and read back; then side schemas, the rows in one transaction (large tables to which no key leads
 * in steps before it), files, and a second look. Errors: those of `planErasure`; `run_state` beside a restore or another
 * erasure; `erasure_undecided` for rows that came meanwhile; `lock_timeout`; `erasure_incomplete`; those of keys, store, Storage.
 */
export async function carryOut(deps: ErasureDeps, user: string, map: BackupMap): Promise<ErasureResult> {
  const { connection, log } = deps;
  await lockErasures(connection);
  const id = await beginErasure(connection, user);
  log.step("erase.begun", {});
  const known = new Set<string>();
  const write = async (owned: OwnedRows) => await writeLedger(deps, { id, user, map, known }, owned);
  await inOne(connection, async () => {
    const owned = await decided(connection, user, map);
    await addTerms(deps, id, await liveTerms(connection, user));
    await write(owned);
  });
  log.step("erase.recorded", {});
  for (const side of await readSides(connection)) await dropSide(connection, side.id);
  await shrink(deps, user, map);
  const rows = await inOne(connection, async () => {
    const owned = await decided(connection, user, map);
    await write(owned);
    const gone = await owned.remove();
    await scrub(connection, (one) => `${one} = ${quoteLiteral(user)}`);
    await emptyErasure(connection, id, user, gone);
    log.step("erase.emptying", {});
    return gone;
  });
  log.step("erase.emptied", {});
  await refreshViews(connection);
  const files = await removeFiles(deps, user);
  log.step("erase.files", {});
  const mentions = await lookAgain(deps.again, user, map);
  const status = await endErasure(connection, id, user, { files, mentions });
  return { id, status, rows, files, mentions };
}

async function inOne<T>(connection: Connection, work: () => Promise<T>): Promise<T> {
  await connection.execute("begin isolation level read committed; set local lock_timeout = '10s'");
  try {
    await putTriggersAside(connection);
    const result = await work();
    await connection.execute("commit");
    return result;
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}

/** All that is theirs, locked; again until nothing more comes. Errors: `erasure_undecided`, `lock_timeout`. */
async function decided(connection: Connection, user: string, map: BackupMap): Promise<OwnedRows> {
  for (let round = 0, before = -1; round < mostRounds; round++) {
    const owned = await OwnedRows.collect(connection, user, map, true);
    refuseUndecided(undecidedOf(owned.counts, await referringOf(owned)));
    if (owned.rows === before) return owned;
    before = owned.rows;
  }
  throw new HoldfastError("lock_timeout", "rows of the person kept coming while they were to be erased");
}

interface Writing {
  readonly id: string;
  readonly user: string;
  readonly map: BackupMap;
  /** Hashes that this call has written. */
  readonly known: Set<string>;
}

/** What an earlier call has written is said again, which changes nothing. */
async function writeLedger(deps: ErasureDeps, { id, user, map, known }: Writing, owned: OwnedRows): Promise<void> {
  const { connection, clock } = deps;
  await connection.execute("drop table if exists pg_temp.holdfast_erasure_key, pg_temp.holdfast_erasure_hash");
  await layHashes(connection, [await keyOfNew(deps)], []);
  const hashes = new Set<string>();
  const identities = new Map<string, Identity>();
  for (const one of owned.identities()) {
    identities.set(JSON.stringify(one.identity), one.identity);
    let rest = "";
    await connection.copyOut(owned.hashesSql(one), (bytes) => {
      const lines = (rest + new TextDecoder().decode(bytes)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) hashes.add(line);
    });
  }
  hashes.add(await userHash(connection, user));
  identities.set(JSON.stringify(usersIdentity), usersIdentity);
  const fresh = [...hashes].filter((hash) => !known.has(hash));
  const at = `${clock.now().toISOString().slice(0, 19)}Z`;
  for (let from = 0; from < fresh.length; from += mostHashes) {
    const part = fresh.slice(from, from + mostHashes);
    const number = await putEntry(deps, { erasure: id, at, map, rows: [...identities.values()], hashes: part });
    await recordErasure(deps.again, id, erasureName(number), deps.store.label);
    for (const hash of part) known.add(hash);
  }
}

/** Of the id, whether the row of the user is there or not. */
async function userHash(connection: Connection, user: string): Promise<string> {
  const [row] = await connection.query(
    `select pg_catalog.encode(${hashSql(usersIdentity, [quoteLiteral(user)])}, 'hex') as hash from ${keyTable} as k`,
  );
  return row?.["hash"] ?? "";
}

/** Large tables, step by step, so that no transaction holds the log back for long. */
async function shrink({ connection, capBytes, log }: ErasureDeps, user: string, map: BackupMap): Promise<void> {
  for (;;) {
    const gone = await inOne(connection, async () => {
      const owned = await OwnedRows.collect(connection, user, map, false);
      const [large] = await owned.largeLeaves(capBytes / logPerByte);
      if (large === undefined) return 0;
      return await owned.removeSome(large.table, Math.max(100, Math.floor(capBytes / logPerByte / large.rowBytes)));
    });
    if (gone === 0) return;
    log.step("erase.step", {});
  }
}

/** Errors: `erasure_incomplete`, those of Storage. */
async function removeFiles({ connection, removeFiles }: ErasureDeps, user: string): Promise<number> {
  const [there] = await connection.query("select pg_catalog.to_regclass('storage.objects') is not null as yes");
  if (there?.["yes"] !== "t") return 0;
  const rows = await connection.query(
    `select o.bucket_id, pg_catalog.json_agg(o.name)::text as names from storage.objects as o
      where o.owner_id = $1 or o.owner::text = $1 group by o.bucket_id order by o.bucket_id`,
    [user],
  );
  let files = 0;
  for (const { bucket_id: bucket, names } of rows) {
    const list: unknown = JSON.parse(names ?? "[]");
    const wanted = Array.isArray(list) ? list.filter((name): name is string => typeof name === "string") : [];
    if (removeFiles === null) {
      throw new HoldfastError(
        "erasure_incomplete",
        `${wanted.length} files of the person are left in bucket ${bucket}`,
        {
          hint: "Set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY, then run the same command again.",
        },
      );
    }
    await removeFiles(bucket ?? "", wanted);
    files += wanted.length;
  }
  return files;
}
