/** The chain that a drain works on: begun where there is none, ended where its slot is gone. */
import type { BackupDeps } from "../../backup/deps.ts";
import { HoldfastError } from "../../errors.ts";
import type { Place } from "../../identity/settle_place.ts";
import { toHex } from "../../crypto/digest.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { ownPublications } from "../../schema/own_objects.ts";
import type { Random } from "../../random.ts";
import { formatLsn } from "../decode/lsn.ts";
import type { ListedSegment } from "../segments/chain_reader.ts";
import { lookAtStore, noteLook } from "./store_look.ts";
import { call, type Chain, endChain, openChain, slotState } from "./stream_queries.ts";

/** One slot a database: hosted projects have five. */
const slotPrefix = "holdfast";
/** Inserts and truncates; updates and deletes. */
export const publications = ownPublications;

export interface ChainState {
  readonly chain: Chain;
  /** The chain was begun by this call: there is no full backup on it yet. */
  readonly begun: boolean;
  /** Why the chain before it ended, when this call noticed. */
  readonly gap: string | null;
  /** Stored where the next segment begins, and not recorded, shortest first. */
  readonly doubtful: readonly ListedSegment[];
}

/**
 * The open chain, checked against its slot and its store; a new one where there is none, or it cannot go on. `deps.store` is that
 * of the place. Errors: `stream_unavailable` (wal_level, no free slot, no right), `lease_lost`, those of the connection, the
 * keys and the store.
 */
export async function currentChain(
  deps: BackupDeps,
  connection: Connection,
  token: string,
  { prefix }: Place,
): Promise<ChainState> {
  let chain = await openChain(connection);
  let gap: string | null = null;
  if (chain !== null) {
    gap = await reasonToEnd(connection, chain, prefix);
    const { over, doubtful } = gap === null
      ? await lookAtStore(deps, connection, token, chain)
      : { over: null, doubtful: [] };
    gap ??= over?.reason ?? null;
    if (gap === null) return { chain, begun: false, gap, doubtful };
    await endChain(connection, chain.id, gap, over?.missing ?? null);
  }
  chain = await beginChain(connection, token, deps.random, prefix);
  await noteLook(connection, token);
  return { chain, begun: true, gap, doubtful: [] };
}

/** Null while the chain goes on. */
async function reasonToEnd(connection: Connection, chain: Chain, prefix: string): Promise<string | null> {
  const [identity] = await call(
    connection,
    `select c.system_identifier = s.system_identifier::text and c.database_name = pg_catalog.current_database() as same,
            c.log_timeline = pg_catalog.substr(
              pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8
            ) as goes_on
       from backup.chains as c, pg_catalog.pg_control_system() as s where c.id = $1`,
    [chain.id],
  );
  if (identity?.["same"] !== "t") return "the database is a copy, or was restored";
  if (identity["goes_on"] !== "t") return "the server was restored from an archive, or is another one after a failover";
  if (chain.prefix !== prefix) return "the database writes to another place since";
  const slot = await slotState(connection);
  if (slot === null || !slot.present) return "the slot is gone";
  if (slot.walStatus === "lost") {
    await call(connection, "select backup.drop_slot($1::name)", [chain.slot]);
    return "the server gave the slot up";
  }
  // Inside a transaction the slot stands before it until its last part is stored.
  const reached = (chain.last?.endsInTransaction === true ? chain.last.startLsn : chain.last?.endLsn) ?? chain.startLsn;
  if (slot.confirmedLsn !== null && slot.confirmedLsn > reached) {
    const [moved] = await call(
      connection,
      "select d.advanced_lsn >= $1::pg_lsn as ours from backup.drain as d",
      [formatLsn(slot.confirmedLsn)],
    );
    // Somebody else moved it: what lay between is nowhere.
    if (moved?.["ours"] !== "t") return "the slot was moved by somebody else";
  }
  const rows = await call(
    connection,
    "select p.pubname from pg_catalog.pg_publication as p where p.pubname = any ($1::name[])",
    [`{${chain.publications.join(",")}}`],
  );
  if (rows.length !== chain.publications.length) {
    await call(connection, "select backup.drop_slot($1::name)", [chain.slot]);
    return "a publication is gone";
  }
  return null;
}

/** Publications first: the slot decodes only what they published at the time. A slot that nobody recorded is dropped. */
async function beginChain(connection: Connection, token: string, random: Random, prefix: string): Promise<Chain> {
  const [level] = await connection.query("select pg_catalog.current_setting('wal_level') as level");
  if (level?.["level"] !== "logical") {
    throw new HoldfastError("stream_unavailable", `wal_level is ${level?.["level"]}, the change stream needs logical`);
  }
  const names = `{${publications.join(",")}}`;
  await call(connection, "select backup.make_publications($1::name[])", [names]);
  await call(connection, "select backup.publish_tables($1::name[])", [names]);
  const [database] = await connection.query(
    "select d.oid from pg_catalog.pg_database as d where d.datname = pg_catalog.current_database()",
  );
  const slot = `${slotPrefix}_${text(database ?? {}, "oid")}`;
  await call(connection, "select backup.drop_slot($1::name)", [slot]);
  const id = `${toHex(random(4))}`;
  const startLsn = await createSlot(connection, slot);
  await call(connection, "select backup.begin_chain($1::bigint, $2, $3::name, $4::name[], $5::pg_lsn, $6)", [
    token,
    id,
    slot,
    names,
    startLsn,
    prefix,
  ]);
  const begun = await openChain(connection);
  if (begun === null) throw new HoldfastError("internal", "the chain that was begun is not there");
  return begun;
}

async function createSlot(connection: Connection, slot: string): Promise<string> {
  try {
    const [row] = await connection.query(
      "select s.lsn from pg_catalog.pg_create_logical_replication_slot($1::name, 'pgoutput') as s",
      [slot],
    );
    return text(row ?? {}, "lsn");
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === "42501") {
      throw new HoldfastError("stream_unavailable", "this role may not make replication slots", {
        hint: "alter role … replication, or use the role postgres of the project.",
        cause: error,
      });
    }
    if (sqlstate === "53400") {
      throw new HoldfastError("stream_unavailable", "every replication slot of the server is taken", {
        hint: "Raise max_replication_slots, or drop a slot that nobody reads.",
        cause: error,
      });
    }
    throw error;
  }
}
