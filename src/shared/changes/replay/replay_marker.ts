/** Where a restore to a moment keeps its place in the target: one row, from the end of its full backup until it is done. */
import { z } from "zod";
import type { Connection } from "../../postgres/connection.ts";
import { isReplaying, replayTable } from "../../restore/state.ts";
import { quoteLiteral } from "../../schema/quote.ts";
import { formatLsn } from "../decode/lsn.ts";
import { createQuieted } from "./quiet_triggers.ts";
import type { ReplayedGroup, ReplayOptions } from "./replay.ts";

export interface ReplayMarker {
  readonly backup: string;
  /** As people read it. */
  readonly point: string;
  /** Which tables it does not bring to the point, as JSON. */
  readonly choices: string;
  /** End of the last transaction that is in the target; null: none yet. */
  readonly position: string | null;
  readonly reachedAt: string | null;
  /** Of all calls of this restore together. */
  readonly done: ReplayedGroup;
  /** Statements that end the memberships that the restore needs, at its very end. */
  readonly leaving: readonly string[];
}

/** In the transaction that ends the restore of the full. */
export function beginReplay(
  { backup, point, choices }: Pick<ReplayMarker, "backup" | "point" | "choices">,
  leaving: readonly string[],
): string[] {
  return [
    `create table ${replayTable} (
       backup_id uuid not null, point text not null, choices text not null, position text, reached_at text, leaving text not null,
       transactions bigint not null default 0, inserted bigint not null default 0,
       updated bigint not null default 0, deleted bigint not null default 0)`,
    createQuieted,
    `insert into ${replayTable} (backup_id, point, choices, leaving) values (${
      [backup, point, choices, JSON.stringify(leaving)].map(quoteLiteral).join(", ")
    })`,
  ];
}

/** Null where no replay was begun. */
export async function readReplay(connection: Connection): Promise<ReplayMarker | null> {
  if (!(await isReplaying(connection))) return null;
  const [row] = await connection.query(
    `select backup_id, point, choices, position, reached_at, leaving, transactions, inserted, updated, deleted from ${replayTable}`,
  );
  if (row === undefined) return null;
  return {
    backup: row["backup_id"] ?? "",
    point: row["point"] ?? "",
    choices: row["choices"] ?? "",
    position: row["position"] ?? null,
    reachedAt: row["reached_at"] ?? null,
    done: {
      transactions: Number(row["transactions"]),
      inserted: Number(row["inserted"]),
      updated: Number(row["updated"]),
      deleted: Number(row["deleted"]),
    },
    leaving: z.array(z.string()).parse(JSON.parse(row["leaving"] ?? "[]")),
  };
}

/** Notes, with a group's changes, that they are done. */
export const markReplayed: ReplayOptions["markPosition"] = (endLsn, committedAt, done) =>
  `update ${replayTable} set position = ${quoteLiteral(formatLsn(endLsn))}, reached_at = ${quoteLiteral(committedAt)},
     transactions = transactions + ${done.transactions}, inserted = inserted + ${done.inserted},
     updated = updated + ${done.updated}, deleted = deleted + ${done.deleted}`;

/** Notes a membership that is given for the restore, in the same transaction. */
export function markLeaving(leaving: readonly string[]): string {
  return `update ${replayTable} set leaving = ${quoteLiteral(JSON.stringify(leaving))}`;
}
