import { completeTask, type Task } from "../jobs/queries.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { type RunTable, sourceOf, tableOf } from "./run_tables.ts";
import { inSnapshot } from "./session.ts";
import { decodeRanges } from "./task_detail.ts";

/** Counts to ask for in one statement; bounds its text. */
const countsOfAStatement = 50;

/** Exact row counts in the snapshot, by a query that is not the chunks' and over other ranges. Errors: `keeper_lost`. */
export async function doCounts(
  context: {
    readonly connection: Connection;
    readonly snapshotName: string;
    readonly tables: ReadonlyMap<string, RunTable>;
  },
  task: Task,
): Promise<void> {
  const ranges = decodeRanges(task);
  const counts: { oid: string; rows: number }[] = [];
  for (let at = 0; at < ranges.length; at += countsOfAStatement) {
    const part = ranges.slice(at, at + countsOfAStatement);
    const locked = [...new Set(part.map((work) => work.oid))].map((oid) => tableOf(context.tables, oid));
    await inSnapshot(context.connection, context.snapshotName, locked, async () => {
      const selects = part.map((work) =>
        `select '${work.oid}' as oid, count(*) as rows ${sourceOf(tableOf(context.tables, work.oid), work.range)}`
      );
      for (const row of await context.connection.query(selects.join(" union all "))) {
        counts.push({ oid: text(row, "oid"), rows: Number(row["rows"]) });
      }
    });
  }
  await completeTask(context.connection, task, { counts });
}
