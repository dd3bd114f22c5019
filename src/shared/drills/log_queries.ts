/** The maintenance log: what was tested, maintained and reviewed, by the system and by people. */
import { call } from "../jobs/call.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection, Row } from "../postgres/connection.ts";

export interface LogEntry {
  readonly id: number;
  /** UTC, ISO 8601. */
  readonly date: string;
  readonly type: string;
  readonly action: string;
  readonly result: string;
  readonly notes: string;
  /** A role, or the keyed hash of a person. */
  readonly by: string;
}

/** The new row's id. Errors: `payload_invalid` for a line that is empty or too long. */
export async function addToLog(
  connection: Connection,
  entry: Pick<LogEntry, "type" | "action" | "result" | "notes">,
): Promise<number> {
  const [row = {}] = await call(connection, "select backup.log_maintenance($1, $2, $3, $4) as id", [
    entry.type,
    entry.action,
    entry.result,
    entry.notes,
  ]);
  return Number(row["id"]);
}

const logColumns =
  `l.id, to_char(l.recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as date, l.kind, l.action, l.result,
  l.notes, l.recorded_by`;

/** Newest first. `type` null: of every type. */
export async function readLog(connection: Connection, type: string | null, limit: number): Promise<LogEntry[]> {
  const rows = await call(
    connection,
    `select ${logColumns} from backup.maintenance_log as l
      where $1::text is null or l.kind = $1
      order by l.id desc
      limit $2::integer`,
    [type, String(limit)],
  );
  return rows.map(entryOf);
}

function entryOf(row: Row): LogEntry {
  return {
    id: Number(row["id"]),
    date: text(row, "date"),
    type: text(row, "kind"),
    action: text(row, "action"),
    result: text(row, "result"),
    notes: row["notes"] ?? "",
    by: text(row, "recorded_by"),
  };
}

/**
 * The last test of each of these runbooks: by a drill of the calendar that follows it, or one that a person wrote down under the
 * runbook's name. Those that were never tested are not in it.
 */
export async function lastTests(
  connection: Connection,
  runbooks: readonly string[],
): Promise<ReadonlyMap<string, LogEntry>> {
  const rows = await call(
    connection,
    `select b.name as runbook, ${logColumns}
       from json_array_elements_text($1::json) as b (name)
       cross join lateral (
         select l.* from backup.maintenance_log as l
          where l.kind = 'test'
            and (l.action = b.name or l.action in (select c.title from backup.drill_calendar as c where c.runbook = b.name))
          order by l.id desc limit 1
       ) as l`,
    [JSON.stringify(runbooks)],
  );
  return new Map(rows.map((row) => [text(row, "runbook"), entryOf(row)] as const));
}
