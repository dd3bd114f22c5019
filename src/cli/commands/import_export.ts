import { sha256Hex } from "../../shared/crypto/digest.ts";
import type { KeyRing } from "../../shared/crypto/key_ring.ts";
import { knownEntries } from "../../shared/erase/erase_queries.ts";
import { type Ledger, readLedger } from "../../shared/erase/ledger.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { readIdentity } from "../../shared/identity/identity_queries.ts";
import { placeIn } from "../../shared/identity/settle_place.ts";
import {
  beginImport,
  finishImport,
  type ImportRow,
  listImports,
  refuseImport,
  withdrawImport,
} from "../../shared/import/import_queries.ts";
import type { Selection } from "../../shared/import/lay_document.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { parseCondition } from "../../shared/rows/beside/conditions.ts";
import type { Context } from "../context.ts";
import { type DocumentFile, withDocument } from "../document_file.ts";
import { importInto, type ImportMode } from "../import_rows.ts";
import { installedSession } from "../installed.ts";
import { requireApply } from "../needless.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import { whereSeparator } from "../options.ts";
import { columns, type Outcome } from "../output.ts";
import { rowsText } from "../rows_shown.ts";
import { parseTableNames, tableOf } from "../table_names.ts";

/**
 * The document: `importDocument` of what would be done, and after it `{ok: true, import, inserted, putFiles, safetyRun}`; `list`: an
 * array of imports; `withdraw`: `{id, withdrawn}`.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "", which] = context.words;
  if (what === "withdraw") return await withdraw(context, which);
  if (which !== undefined) {
    throw new HoldfastError("usage", "import-export takes one document, or `list` or `withdraw`");
  }
  return what === "list" ? await list(context) : await bring(context, what);
}

async function bring(context: Context, path: string): Promise<Outcome> {
  const mode = modeOf(context.settings.get("apply"));
  requireApply(context.settings, ["fire-triggers", "skip-safety-backup"]);
  const selection = selectionOf(context);
  const ring = await keyRing(context.settings);
  return await withDocument(path, ring, async (document) => {
    const session = await installedSession(context, "holdfast:import");
    try {
      await refuseImport(session, document.identity);
      const isPlan = mode === null || context.settings.has("dry-run");
      const agreed = await agreedOf(session, document);
      if (!isPlan && agreed === null) await beginImport(session, document.identity);
      const digest = await digestOf(document, selection, mode);
      const over = isPlan || agreed?.begunAt == null ? null : await doneBefore(session, digest, agreed.begunAt);
      if (over !== null && agreed !== null) return await finishLate(session, agreed, over);
      const ledger = await ledgerOf(context, session, ring);
      return await importInto({ context, document, session, selection, ledger, mode, isPlan, digest });
    } finally {
      await session.close();
    }
  });
}

/** Errors: `usage`. */
function modeOf(text: string | undefined): ImportMode | null {
  if (text === undefined || text === "all" || text === "missing") return text ?? null;
  throw new HoldfastError("usage", "--apply of an import is `all` or `missing`", {
    hint: "What is there already is never overwritten by an import: that is what backups are for.",
  });
}

/** Errors: `usage`. */
function selectionOf({ settings }: Context): Selection {
  const only = settings.get("only");
  const tables = only === undefined ? null : parseTableNames(only, "only").map(tableOf);
  const where = (settings.get("where") ?? "").split(whereSeparator).filter((one) => one !== "").map(parseCondition);
  if (where.length > 0 && tables?.length !== 1) {
    throw new HoldfastError("usage", "--where is about rows of one table", { hint: "Name it with --only." });
  }
  return { only: tables, where };
}

async function digestOf({ identity }: DocumentFile, selection: Selection, mode: ImportMode | null): Promise<string> {
  return await sha256Hex(new TextEncoder().encode(JSON.stringify(["import", identity, selection, mode])));
}

async function agreedOf(session: Connection, { identity }: DocumentFile): Promise<ImportRow | null> {
  const [newest] = await listImports(session, { limit: 1, document: identity.document });
  return newest?.status === "agreed" ? newest : null;
}

interface Brought {
  readonly rows: number;
  readonly files: number;
}

/** What the same command brought, which was killed before it could say so; null: it was not. */
async function doneBefore(session: Connection, digest: string, since: string): Promise<Brought | null> {
  const [row] = await session.query(
    `select coalesce((select sum((t.t ->> 'inserted')::bigint) from pg_catalog.jsonb_array_elements(r.tables) as t (t)), 0) as rows,
            coalesce((r.state ->> 'files')::integer, 0) as files
       from backup.restores as r
      where r.state ->> 'digest' = $1 and r.status = 'succeeded' and r.finished_at >= $2::timestamptz limit 1`,
    [digest, since],
  );
  return row === undefined ? null : { rows: Number(row["rows"]), files: Number(row["files"]) };
}

async function finishLate(session: Connection, { id }: ImportRow, { rows, files }: Brought): Promise<Outcome> {
  await finishImport(session, id, rows, files);
  return {
    exit: 0,
    document: { ok: true, import: id, inserted: rows, putFiles: files },
    lines: [`All of it was in place: an earlier try brought ${rowsText(rows)}, and had not come to say so.`],
  };
}

/** Of the store that this database writes to: whoever was erased stays so. Errors: `ledger_unreadable`, those of the store. */
async function ledgerOf(context: Context, session: Connection, ring: KeyRing): Promise<Ledger> {
  const { prefix } = await readIdentity(session);
  const store = placeIn(await openStore(context), prefix);
  return await readLedger({ store, ring, compressor: await loadZstd() }, await knownEntries(session, store.label));
}

async function list(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:import");
  try {
    const found = await listImports(session, { limit: context.settings.integer("limit", 1, 10_000) });
    const lines = found.map(({ id, status, user, askedAt, agreedAs, rows }) => [
      id,
      status,
      user,
      askedAt,
      agreedAs === null ? "nobody agreed" : `agreed by ${agreedAs === "person" ? "the person" : "an administrator"}`,
      rows === null ? "" : rowsText(rows),
    ]);
    return { exit: 0, document: found, lines: lines.length === 0 ? ["There is no import."] : columns(lines) };
  } finally {
    await session.close();
  }
}

async function withdraw(context: Context, which: string | undefined): Promise<Outcome> {
  if (which === undefined || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(which)) {
    throw new HoldfastError("usage", "import-export withdraw takes the whole id of an import", {
      hint: "`holdfast import-export list` shows the ids.",
    });
  }
  const session = await installedSession(context, "holdfast:import");
  try {
    const withdrawn = await withdrawImport(session, which);
    return {
      exit: 0,
      document: { id: which, withdrawn },
      lines: [`Import ${which} ${withdrawn ? "is withdrawn" : "was over already"}.`],
    };
  } finally {
    await session.close();
  }
}
