import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { columns, type Outcome } from "../output.ts";

/** The document: `[{id, at, actor, action, subject, detail}]`, newest first. */
export async function run(context: Context): Promise<Outcome> {
  const limit = context.settings.integer("limit", 1, 100_000);
  const session = await installedSession(context, "holdfast:audit");
  try {
    const rows = await session.query(
      `select id, to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as at, actor, action, subject,
         detail::text as detail
       from backup.audit_log order by id desc limit $1::int`,
      [String(limit)],
    );
    const entries = rows.map((row) => ({
      id: Number(row["id"]),
      at: row["at"] ?? "",
      actor: row["actor"] ?? "",
      action: row["action"] ?? "",
      subject: row["subject"] ?? "",
      detail: JSON.parse(row["detail"] ?? "{}") as unknown,
    }));
    const lines = entries.map((
      entry,
    ) => [entry.at, entry.actor, entry.action, entry.subject, JSON.stringify(entry.detail)]);
    return { exit: 0, document: entries, lines: lines.length === 0 ? ["The audit log is empty."] : columns(lines) };
  } finally {
    await session.close();
  }
}
