import type { Connection } from "../../shared/postgres/connection.ts";
import { emergencyContact } from "../../shared/jobs/setting_queries.ts";
import type { Context } from "../context.ts";
import { isInstalled } from "../installed.ts";
import { sourceDatabase } from "../open.ts";
import { type Check, fail, failed, ok, warn } from "./check.ts";

/** Would anybody hear of a failure? By what functions and the CLI have told the database; nothing is sent. */
export async function* checkChannels(context: Context): AsyncIterable<Check> {
  if (context.settings.get("db-url") === undefined) return;
  try {
    const session = await (await sourceDatabase(context)).connect("holdfast:doctor");
    try {
      if (!(await isInstalled(session))) return;
      yield* channels(session);
      const contact = await emergencyContact(session);
      if (contact === "") {
        yield warn("emergency contact", "nobody is named", "settings set contact_name, contact_email, contact_phone");
      } else yield ok("emergency contact", contact);
    } finally {
      await session.close();
    }
  } catch (error) {
    yield failed("alerts", error);
  }
}

async function* channels(session: Connection): AsyncIterable<Check> {
  const rows = await session.query(
    `select c.name, c.target, c.problem, c.failures, c.failure,
       to_char(c.last_ok_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as last_ok_at
     from backup.channels as c where c.gone_at is null order by c.name`,
  );
  const way = "docs/alerts.md says what it needs; `holdfast alerts test` tries it.";
  for (const row of rows) {
    const name = `alerts: ${row["name"]}`;
    const said = `to ${row["target"]}, ${
      row["last_ok_at"] === null ? "never used" : `last used at ${row["last_ok_at"]}`
    }`;
    if (row["problem"] !== null) yield fail(name, row["problem"] ?? "", way);
    else if (row["failures"] !== "0") yield warn(name, `${said}; since then: ${row["failure"]}`, way);
    else if (row["last_ok_at"] === null) yield warn(name, said, "Try it: holdfast alerts test");
    else yield ok(name, said);
  }
  const names = rows.map((row) => row["name"]);
  if (!names.some((name) => name !== "heartbeat")) {
    yield warn(
      "alerts",
      "nobody is told of a failure: no channel is set up",
      "docs/alerts.md says how; then `holdfast alerts test`",
    );
  }
  if (!names.includes("heartbeat")) {
    yield warn(
      "heartbeat",
      "no outside watcher is told that all is well: a project that stands still is noticed by nobody",
      "Set BACKUP_HEARTBEAT_URL.",
    );
  }
}
