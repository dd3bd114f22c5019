/**
 * Where the audit's chain breaks, computed here from the rows. Nothing that the database's owner can replace is asked: neither
 * functions of schema `backup` nor views in the place of its tables.
 */
import { createHash } from "node:crypto";
import type { Connection, Row } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import type { ChainBreak } from "./judge.ts";

export interface ReadChain {
  /** The first ones, at most 100. */
  readonly breaks: readonly ChainBreak[];
  /** Last place; 0 for an empty chain. */
  readonly head: number;
  /** Hashes in hex of the places that were asked for. */
  readonly hashAt: ReadonlyMap<number, string>;
}

/** Rows that are in memory at a time: some 5 MB. */
const rowsAtOnce = 10_000;
const breaksAtMost = 100;

/**
 * Chains what is new. Every transaction below the one that is returned has ended, and what it wrote to the audit is chained;
 * null where the chainer is gone. Errors: those of the database.
 */
export async function chainAll(connection: Connection, atOnce: number): Promise<string | null> {
  for (;;) {
    try {
      const { chained, below } = await inTransaction(connection, async () => {
        await connection.execute("set local search_path = ''; set local lock_timeout = '30s'");
        const [now] = await connection.query(
          "select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text as below",
        );
        // The chainer's own lock: it does nothing while another one is at work.
        await connection.query(
          "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('holdfast:chain', 0))",
        );
        const [row] = await connection.query("select backup.chain_audit($1::integer) as chained", [String(atOnce)]);
        return { chained: Number(row?.["chained"] ?? 0), below: now?.["below"] ?? "0" };
      });
      if (chained < atOnce) return below;
    } catch (error) {
      if (sqlstateOf(error)?.startsWith("42") === true) return null;
      throw error;
    }
  }
}

/**
 * In the caller's transaction, which reads one snapshot. `chainedBelow`: what `chainAll` returned. Errors: those of the
 * database.
 */
export async function readChain(
  connection: Connection,
  places: ReadonlySet<number>,
  chainedBelow: string | null,
): Promise<ReadChain> {
  await connection.execute("set local search_path = ''; set local row_security = off");
  if (!await areTables(connection)) return { breaks: [replaced("the audit's tables are")], head: 0, hashAt: new Map() };
  const breaks: ChainBreak[] = chainedBelow === null ? [replaced("what chains the audit is")] : [];
  const hashAt = new Map<number, string>();
  let before = { place: 0, hash: new Uint8Array(0) };
  for (;;) {
    const links = await connection.query(
      `select c.place, c.entry_id, pg_catalog.encode(c.hash, 'hex') as hash, l.id, l.actor, l.action, l.subject,
         pg_catalog.trunc(extract(epoch from l.recorded_at) * 1000000)::bigint as micros, l.detail::text as detail
       from backup.audit_chain as c left join backup.audit_log as l on l.id = c.entry_id
       where c.place > $1::bigint order by c.place limit ${rowsAtOnce}`,
      [String(before.place)],
    );
    for (const link of links) {
      const place = Number(link["place"]);
      const hash = link["hash"] ?? "";
      const what = breakOf(link, before);
      if (what !== null) breaks.push({ place, entry: link["entry_id"] ?? null, what });
      if (places.has(place)) hashAt.set(place, hash);
      before = { place, hash: bytesOfHex(hash) };
    }
    if (links.length < rowsAtOnce || breaks.length >= breaksAtMost) break;
  }
  const outside = await connection.query(
    `select l.id from backup.audit_log as l
     where (
         l.transaction_id < $1::text::xid8
         or l.transaction_id >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
       ) and not exists (select from backup.audit_chain as c where c.entry_id = l.id)
     order by l.id limit ${breaksAtMost}`,
    [chainedBelow ?? "0"],
  );
  breaks.push(
    ...outside.map((row) => ({ place: null, entry: row["id"] ?? null, what: "the row is not in the chain" })),
  );
  return { breaks: breaks.slice(0, breaksAtMost), head: before.place, hashAt };
}

function breakOf(link: Row, before: { readonly place: number; readonly hash: Uint8Array }): string | null {
  const place = Number(link["place"]);
  if (link["id"] == null) return "the row is gone";
  if (place !== before.place + 1) return "positions before it are missing";
  return link["hash"] === hashOf(link, before.hash) ? null : "the row or the chain was changed";
}

/** As `backup.audit_hash` computes it; JSON text as the server writes it. */
function hashOf(link: Row, before: Uint8Array): string {
  const words = [link["actor"], link["action"], link["subject"]].map((word) => JSON.stringify(word ?? ""));
  const text = `[${["1", link["place"], link["id"], link["micros"], ...words, link["detail"]].join(", ")}]`;
  return createHash("sha256").update(before).update(text).digest("hex");
}

function bytesOfHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** A view in their place could show one thing here and another one to people. */
async function areTables(connection: Connection): Promise<boolean> {
  const rows = await connection.query(
    `select c.relname from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = 'backup' and c.relname in ('audit_log', 'audit_chain') and c.relkind = 'r'`,
  );
  return rows.length === 2;
}

const replaced = (what: string): ChainBreak => ({
  place: null,
  entry: null,
  what: `${what} gone, or something else stands in their place`,
});
