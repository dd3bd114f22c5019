import { HoldfastError } from "../../shared/errors.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { columns, type Outcome } from "../output.ts";

/** The document of `list`: `[{id, email, secondFactor, addedAt, addedBy, note}]`; of `add` and `remove`: `{who, changed}`. */
export async function run(context: Context): Promise<Outcome> {
  const [what, who] = context.words;
  if (what !== "list" && what !== "add" && what !== "remove") {
    throw new HoldfastError("usage", "admins takes `list`, `add` or `remove`");
  }
  if (what !== "list" && who === undefined) {
    throw new HoldfastError("usage", `admins ${what} takes an id or an address`);
  }
  const session = await installedSession(context, "holdfast:admins");
  try {
    if (what === "list" || who === undefined) return await list(session);
    const changed = await change(session, what, who, context.settings.get("note") ?? "");
    const outcome = what === "add"
      ? changed ? "is an administrator now" : "was an administrator already"
      : changed
      ? "is no administrator any more"
      : "was no administrator";
    return { exit: 0, document: { who, changed }, lines: [`${who} ${outcome}.`] };
  } finally {
    await session.close();
  }
}

async function change(session: Connection, what: "add" | "remove", who: string, note: string): Promise<boolean> {
  const [row] = what === "add"
    ? await session.query("select backup.add_admin($1, $2) as changed", [who, note])
    : await session.query("select backup.remove_admin($1) as changed", [who]);
  return row?.["changed"] === "t";
}

async function list(session: Connection): Promise<Outcome> {
  const rows = await session.query("select * from backup.list_admins()");
  const admins = rows.map((row) => ({
    id: row["user_id"] ?? "",
    email: row["email"] ?? null,
    secondFactor: row["second_factor"] === "t",
    addedAt: row["added_at"] ?? "",
    addedBy: row["added_by"] ?? "",
    note: row["note"] ?? "",
  }));
  const lines = admins.map(({ id, email, secondFactor, addedAt, note }) => [
    id,
    email ?? "(no such user any more)",
    secondFactor ? "has a second factor" : "HAS NO SECOND FACTOR",
    addedAt,
    note,
  ]);
  return { exit: 0, document: admins, lines: lines.length === 0 ? ["There is no administrator."] : columns(lines) };
}
