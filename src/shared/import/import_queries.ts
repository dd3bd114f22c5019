/** All calls of the SQL functions of imports, and their rows. docs/architecture.md, "Imports". */
import { HoldfastError } from "../errors.ts";
import { call } from "../jobs/call.ts";
import { numberOrNull, text } from "../jobs/run_row.ts";
import type { Connection, Row } from "../postgres/connection.ts";

/** What a document says of itself, by which an import of it is asked for. */
export interface DocumentIdentity {
  /** `root` of its signature. */
  readonly document: string;
  readonly export: string;
  readonly install: string;
  readonly user: string;
}

/** A row of `backup.imports`. Times are ISO 8601 in UTC. */
export interface ImportRow {
  readonly id: string;
  readonly document: string;
  readonly export: string;
  readonly user: string;
  readonly status: "asked" | "agreed" | "done" | "ended";
  readonly askedAt: string;
  /** `administrator`: another than who asked; `person`: whose data it is. */
  readonly agreedAs: "administrator" | "person" | null;
  readonly expiresAt: string;
  readonly begunAt: string | null;
  readonly endedAt: string | null;
  readonly rows: number | null;
  readonly files: number | null;
  readonly mail: string | null;
}

/** By the signed-in person of this session. Errors: `forbidden`, `import_foreign`, `user_erased`. */
export async function askImport(
  connection: Connection,
  identity: DocumentIdentity,
): Promise<{ readonly id: string; readonly joined: boolean }> {
  const [row] = await call(
    connection,
    "select id, joined from backup.ask_import($1, $2::uuid, $3::uuid, $4::uuid)",
    [identity.document, identity.export, identity.install, identity.user],
  );
  if (row === undefined) throw new HoldfastError("internal", "ask_import gave no import");
  return { id: text(row, "id"), joined: row["joined"] === "t" };
}

/** By the signed-in person of this session. Errors: `forbidden`, `run_not_found`, `run_state`, `import_foreign`, `user_erased`. */
export async function agreeImport(connection: Connection, id: string, asPerson: boolean): Promise<void> {
  await call(connection, "select backup.agree_import($1::uuid, $2::boolean)", [id, String(asPerson)]);
}

/** False where it is over already. Errors: `run_not_found`. */
export async function withdrawImport(connection: Connection, id: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.withdraw_import($1::uuid) as withdrawn", [id]);
  return row?.["withdrawn"] === "t";
}

/** What forbids an import of this, whoever agrees. Errors: `import_foreign`, `user_erased`. */
export async function refuseImport(connection: Connection, { install, user }: DocumentIdentity): Promise<void> {
  await call(connection, "select backup.refuse_import($1::uuid, $2::uuid)", [install, user]);
}

/** The id of the agreed one. Errors: `import_not_agreed`, `import_foreign`, `user_erased`. */
export async function beginImport(connection: Connection, identity: DocumentIdentity): Promise<string> {
  const [row] = await call(connection, "select backup.begin_import($1, $2::uuid, $3::uuid) as id", [
    identity.document,
    identity.install,
    identity.user,
  ]);
  return text(row ?? {}, "id");
}

/** Errors: `run_not_found`, `run_state`. */
export async function finishImport(connection: Connection, id: string, rows: number, files: number): Promise<void> {
  await call(connection, "select backup.finish_import($1::uuid, $2::bigint, $3::integer)", [
    id,
    String(rows),
    String(files),
  ]);
}

const iso = (column: string) => `to_char(m.${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;
const columns = `m.id, m.document, m.export_id, m.user_id, m.status, m.agreed_as, m.rows, m.files, m.mail,
  ${iso("asked_at")} as asked_at, ${iso("expires_at")} as expires_at, ${iso("begun_at")} as begun_at, ${
  iso("ended_at")
} as ended_at`;

/** Newest first. `document`: of this one alone. */
export async function listImports(
  connection: Connection,
  { limit, document = null }: { readonly limit: number; readonly document?: string | null },
): Promise<ImportRow[]> {
  await call(connection, "select backup.end_late_imports()", []);
  const rows = await call(
    connection,
    `select ${columns} from backup.imports as m where $2::text is null or m.document = $2 order by m.asked_at desc limit $1::int`,
    [String(limit), document],
  );
  return rows.map(importRow);
}

function importRow(row: Row): ImportRow {
  return {
    id: text(row, "id"),
    document: text(row, "document"),
    export: text(row, "export_id"),
    user: text(row, "user_id"),
    status: text(row, "status") as ImportRow["status"],
    askedAt: text(row, "asked_at"),
    agreedAs: (row["agreed_as"] ?? null) as ImportRow["agreedAs"],
    expiresAt: text(row, "expires_at"),
    begunAt: row["begun_at"] ?? null,
    endedAt: row["ended_at"] ?? null,
    rows: numberOrNull(row, "rows"),
    files: numberOrNull(row, "files"),
    mail: row["mail"] ?? null,
  };
}
