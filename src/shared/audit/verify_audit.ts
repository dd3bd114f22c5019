/** The audit log, its chain and every anchor in the stores, compared. */
import type { EpochSource } from "../crypto/epoch.ts";
import type { Compressor } from "../format/compressor.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Store } from "../store/store.ts";
import { readAnchors, type StoredAnchor } from "./anchor.ts";
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
  await connection.query("select backup.chain_audit($1::integer)", [String(rowsAtOnce)]);
  const [identity] = await connection.query("select install_id from backup.identity");
  const anchors: StoredAnchor[] = [];
  const damaged: MissingAnchor[] = [];
  const missing: MissingAnchor[] = [];
  for (const one of stores) {
    const store = one.store.label;
    // Asked for before the listing: an anchor that is put meanwhile is in neither.
    const recorded = await connection.query("select object_name from backup.audit_anchors where store = $1", [store]);
    const found = await readAnchors(one, identity?.["install_id"] ?? "");
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
    const [state] = await connection.query(
      "select backup.server_life() as life, coalesce((select max(c.place) from backup.audit_chain as c), 0) as head",
    );
    const breaks = await connection.query("select break_at, entry_id, what from backup.audit_breaks()");
    const hashes = await connection.query(
      "select c.place, encode(c.hash, 'hex') as hash from backup.audit_chain as c where c.place = any ($1::bigint[])",
      [`{${[...new Set(anchors.map(({ place }) => place))].join(",")}}`],
    );
    return judgeAudit(
      {
        life: state?.["life"] ?? "",
        head: Number(state?.["head"] ?? 0),
        breaks: breaks.map((row) => ({
          place: row["break_at"] == null ? null : Number(row["break_at"]),
          entry: row["entry_id"] ?? null,
          what: row["what"] ?? "",
        })),
        hashAt: new Map(hashes.map((row) => [Number(row["place"]), row["hash"] ?? ""])),
      },
      anchors,
      missing,
      damaged,
    );
  });
}
