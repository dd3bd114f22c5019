/** What a stretch of the stream does to the number of rows of each table: read by itself, to hold a replay against. */
import { readDdlRow } from "../definitions/ddl_replay.ts";
import type { Relation } from "../decode/messages.ts";
import { decodeMessage, messageKind } from "../decode/pgoutput.ts";
import type { Point } from "../replay/replay.ts";
import { type OpenedSegment, readRecords } from "../segments/segment.ts";
import { ddlLog } from "../segments/streamed.ts";
import { type SnapshotView, widenXid } from "../segments/visibility.ts";

export interface CountedTable {
  /** It was emptied on the way: what it had before does not count. */
  readonly emptied: boolean;
  /** Inserted less deleted, since then. */
  readonly added: number;
}

export interface CountedChanges {
  /** By oid, of tables with a change at least. */
  readonly tables: ReadonlyMap<number, CountedTable>;
  /** Objects whose definitions changed, as the log names them. */
  readonly definitions: readonly string[];
  /** The log also has changes without a name. */
  readonly unnamed: boolean;
}

/** Of the transactions that `snapshot` did not see, up to the point. Errors: those of reading the segments. */
export async function countChanges(
  segments: AsyncIterable<OpenedSegment>,
  point: Point,
  snapshot: SnapshotView,
): Promise<CountedChanges> {
  const tables = new Map<number, CountedTable>();
  const definitions = new Set<string>();
  let unnamed = false;
  let log: Relation | null = null;
  let skips = false;
  const change = (oid: number, how: (table: CountedTable) => CountedTable) => {
    if (!skips && oid !== log?.oid) tables.set(oid, how(tables.get(oid) ?? { emptied: false, added: 0 }));
  };
  for await (const segment of segments) {
    const nextXid = BigInt(segment.header.nextXid);
    for (const { data } of readRecords(segment.name, segment.records)) {
      const kind = messageKind(data);
      if (kind === "update" && skips) continue;
      const message = decodeMessage(data);
      switch (message.kind) {
        case "begin": {
          const xid = widenXid(message.xid, nextXid);
          skips = snapshot.sees(xid);
          const isPast = (point.by === "time" && message.committedAt > point.at) ||
            (point.by === "lsn" && message.commitLsn >= point.lsn) || (point.by === "before_xid" && xid === point.xid);
          if (!skips && isPast) return { tables, definitions: [...definitions], unnamed };
          break;
        }
        case "relation":
          if (message.relation.schema === ddlLog.schema && message.relation.name === ddlLog.name) {
            log = message.relation;
          }
          break;
        case "insert":
          change(message.relation, ({ emptied, added }) => ({ emptied, added: added + 1 }));
          if (!skips && log !== null && message.relation === log.oid) {
            const named = readDdlRow(
              new Map(log.columns.map(({ name }, at) => {
                const value = message.row[at];
                return [name, typeof value === "string" ? value : null] as const;
              })),
            );
            for (const { identity } of named.objects) {
              if (identity === null) unnamed = true;
              else definitions.add(identity);
            }
            unnamed ||= named.objects.length === 0;
          }
          break;
        case "update":
          change(message.relation, (table) => table);
          break;
        case "delete":
          change(message.relation, ({ emptied, added }) => ({ emptied, added: added - 1 }));
          break;
        case "truncate":
          for (const oid of message.relations) change(oid, () => ({ emptied: true, added: 0 }));
          break;
        default:
          break;
      }
    }
  }
  return { tables, definitions: [...definitions], unnamed };
}
