import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { prefixes } from "../format/layout.ts";
import type { Store } from "../store/store.ts";
import type { BaseChunk } from "./plan.ts";

export interface Base {
  /** The backup whose chunks are among them; null when there is none to be trusted. */
  readonly run: string | null;
  readonly chunks: readonly BaseChunk[];
}

/** Snapshots further back than this may meet transaction ids that have come round: nothing is taken over from them. */
const mostTransactionsBack = 2 ** 31 - 2 ** 24;

/**
 * Chunks of earlier attempts of this run, then those of the newest backup, as the session's snapshot shows them.
 *
 * Only rows of this database count, never what a store lists: after a physical restore the files have the same names and
 * other content, but then the rows of later runs are not there, or their transaction ids and positions lie ahead.
 */
export async function readBase(connection: Connection, run: string, attempt: number): Promise<Base> {
  const sources = await connection.query(
    `select a.run_id, a.attempt, pg_catalog.pg_snapshot_xmin(a.snapshot::pg_snapshot) as xmin, a.run_id <> $1::uuid as other
       from backup.attempts as a
       join backup.runs as r on r.id = a.run_id
       join backup.identity as i on true
       join pg_catalog.pg_control_system() as c on c.system_identifier::text = i.system_identifier
      where (
          (a.run_id = $1::uuid and a.attempt < $2::int)
          or (r.kind = 'full' and r.status in ('succeeded', 'quarantined') and a.attempt = r.attempt and a.run_id <> $1::uuid)
        )
        and pg_catalog.pg_snapshot_xmax(a.snapshot::pg_snapshot)
          <= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
        and a.wal_lsn <= pg_catalog.pg_current_wal_insert_lsn()
        and pg_catalog.pg_snapshot_xmin(a.snapshot::pg_snapshot)::text::numeric + ${mostTransactionsBack}
          > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::numeric
      order by (a.run_id = $1::uuid) desc, a.consistent_at desc`,
    [run, String(attempt)],
  );
  const newestBackup = sources.find((source) => source["other"] === "t");
  const used = sources.filter((source) => source["other"] === "f" || source === newestBackup);
  const chunks: BaseChunk[] = [];
  const known = new Set<string>();
  for (const source of used) {
    for (const chunk of await readChunks(connection, text(source, "run_id"), source)) {
      const key = `${chunk.oid} ${chunk.range.from.block} ${chunk.range.from.item}`;
      if (!known.has(key)) chunks.push(chunk);
      known.add(key);
    }
  }
  return { run: newestBackup === undefined ? null : text(newestBackup, "run_id"), chunks };
}

async function readChunks(
  connection: Connection,
  run: string,
  source: Readonly<Record<string, string | null>>,
): Promise<BaseChunk[]> {
  const rows = await connection.query(
    `select c.table_oid, c.relfilenode, c.fingerprint, c.from_block, c.from_item, c.to_block, c.to_item, c.rows,
            c.raw_bytes, c.stored_bytes, c.object, c.hash, c.stored_hash, c.taken_from
       from backup.chunks as c where c.run_id = $1::uuid and c.attempt = $2::int`,
    [run, source["attempt"] ?? null],
  );
  const other = source["other"] === "t";
  return rows.map((row) => ({
    oid: text(row, "table_oid"),
    relfilenode: text(row, "relfilenode"),
    fingerprint: text(row, "fingerprint"),
    range: {
      from: { block: Number(row["from_block"]), item: Number(row["from_item"]) },
      to: row["to_block"] === null ? null : { block: Number(row["to_block"]), item: Number(row["to_item"]) },
    },
    rows: Number(row["rows"]),
    rawBytes: Number(row["raw_bytes"]),
    storedBytes: Number(row["stored_bytes"]),
    object: text(row, "object"),
    hash: text(row, "hash"),
    storedHash: text(row, "stored_hash"),
    takenFrom: row["taken_from"] ?? (other ? run : null),
    xmin: text(source, "xmin"),
    seen: false,
  }));
}

/**
 * Marks the chunks whose object is in the store with its recorded size, by one complete listing, is sealed under
 * the given epoch, and is not about to be swept. Without chunks nothing is listed. Errors: those of the listing; a listing cut short throws.
 */
export async function markSeen(
  connection: Connection,
  store: Store,
  epochId: string,
  chunks: readonly BaseChunk[],
): Promise<BaseChunk[]> {
  if (chunks.length === 0) return [];
  const wanted = new Map(chunks.map((chunk) => [chunk.object, chunk.storedBytes]));
  const seen = new Set<string>();
  for await (const { name, size } of store.list(prefixes.objects)) {
    if (wanted.get(name) === size) seen.add(name);
  }
  const ofEpoch = new Set<string>();
  const names = [...seen];
  for (let at = 0; at < names.length; at += 5_000) {
    const rows = await connection.query(
      `select o.name from backup.objects as o
        where o.epoch = $1 and o.name = any ($2::text[])
          and not exists (select from backup.condemned as c where c.name = o.name)
          and not exists (
            select from backup.inventory as i
            where i.store = $3 and i.name = o.name and i.damage ->> 'code' in ('object_missing', 'object_damaged')
          )`,
      [epochId, `{${names.slice(at, at + 5_000).join(",")}}`, store.label],
    );
    for (const row of rows) ofEpoch.add(text(row, "name"));
  }
  return chunks.map((chunk) => ({ ...chunk, seen: ofEpoch.has(chunk.object) }));
}
