/** The audit log, its chain and every anchor in the stores, compared. */
import type { EpochSource } from "../crypto/epoch.ts";
import type { Compressor } from "../format/compressor.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Store } from "../store/store.ts";
import { readAnchors, type StoredAnchor } from "./anchor.ts";
import { chainAll, readChain } from "./chain_breaks.ts";
import { type AuditVerdict, judgeAudit, type MissingAnchor } from "./judge.ts";

/** A store with what opens its objects. */
export interface AnchorStore {
  readonly store: Store;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
}

/** Rows that are chained first, so that the verdict reaches to this moment. */
const rowsAtOnce = 100_000;

/** `connection` is in no transaction. Errors: those of the stores, the keys and the database. */
export async function verifyAudit(connection: Connection, stores: readonly AnchorStore[]): Promise<AuditVerdict> {
  const chainedBelow = await chainAll(connection, rowsAtOnce);
  const [identity] = await connection.query("select install_id from backup.identity");
  const anchors: StoredAnchor[] = [];
  const damaged: MissingAnchor[] = [];
  const missing: MissingAnchor[] = [];
  for (const one of stores) {
    const store = one.store.label;
    // Asked for before the listing: an anchor that is put meanwhile is in neither.
    const recorded = await connection.query("select object_name from backup.audit_anchors where store = $1", [store]);
    const found = await readAnchors(one);
    anchors.push(...found.anchors);
    damaged.push(...found.damaged.map((name) => ({ store, name })));
    const there = new Set([...found.anchors.map(({ name }) => name), ...found.damaged]);
    for (const row of recorded) {
      const name = row["object_name"] ?? "";
      if (!there.has(name)) missing.push({ store, name });
    }
  }
  return await inTransaction(connection, async () => {
    await connection.execute("set transaction isolation level repeatable read, read only");
    const life = await serverLife(connection);
    // An install cannot shed its history by another id: what was anchored in this life of the server has to be there.
    const ours = anchors.filter((anchor) => anchor.install === identity?.["install_id"] || anchor.life === life);
    const chain = await readChain(connection, new Set(ours.map(({ place }) => place)), chainedBelow);
    return judgeAudit(
      { life, ...chain },
      ours,
      missing,
      damaged,
    );
  });
}

/** As `backup.server_life`, which whoever owns the database can replace. */
async function serverLife(connection: Connection): Promise<string> {
  const [row] = await connection.query(
    `select s.system_identifier::text || '/' || c.timeline_id::text as life
     from pg_catalog.pg_control_system() as s, pg_catalog.pg_control_checkpoint() as c`,
  );
  return row?.["life"] ?? "";
}
