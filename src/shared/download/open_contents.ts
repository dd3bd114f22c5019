/** From what was asked for to the bytes of it. */
import { readLedger } from "../erase/ledger.ts";
import { HoldfastError } from "../errors.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { openBackupRows } from "../rows/past/backup_rows.ts";
import type { PastRows, PastTable } from "../rows/past/past.ts";
import { splitQualified, unquoteIdent } from "../schema/quote.ts";
import { fileListsOf } from "../format/manifest.ts";
import type { FilesNamed } from "../files/files_named.ts";
import { openBackup, type ReadDeps } from "../verify/find_backup.ts";
import { readFileList, recordedPart } from "../verify/read_file_list.ts";
import { readObject } from "../verify/read_object.ts";
import { archiveContents } from "./archive_contents.ts";
import { bundleContents, type BundleEnd } from "./bundle_contents.ts";
import type { Contents } from "./contents.ts";
import { filesContents } from "./files_contents.ts";
import { type DownloadFormat, type NamedTable, type PlainFormat, tableLabel } from "./format.ts";
import { tableContents } from "./table_contents.ts";
import { withoutErased } from "./without_erased.ts";

export interface DownloadAsked {
  /** Id of a full backup, shortened or not, or of an incremental. */
  readonly backup: string;
  readonly table: NamedTable | null;
  readonly format: DownloadFormat;
  /** For the format `files`; null or absent for all others. */
  readonly files?: FilesNamed | null;
}

/**
 * `connection`: the database, which alone knows incrementals; null: it is not at hand. `ahead` as of `openBackupRows`.
 * Errors: `backup_not_found`, `table_not_found`, `usage` for rows of an incremental, those of opening a backup.
 */
export async function openContents(
  deps: ReadDeps,
  connection: Connection | null,
  { backup, table, format, files }: DownloadAsked,
  { ahead }: { readonly ahead: boolean },
): Promise<Contents> {
  const incremental = await incrementalOf(connection, backup);
  if (format === "bundle") {
    if (incremental?.full === null) {
      throw new HoldfastError("backup_not_found", `no full backup stands before the incremental ${backup}`);
    }
    return await bundleContents(deps, await openBackup(deps, incremental?.full ?? backup), incremental?.end ?? null);
  }
  if (incremental !== null) throw needsReplay(`what is in the incremental ${backup}`);
  if (format === "files") return await openFiles(deps, backup, files ?? null);
  const source = await openBackupRows(deps, backup, { ahead });
  return plainContents(withoutErased(source, await readLedger(deps)), table, format);
}

/** Errors: `not_found` for a backup without files. */
async function openFiles(deps: ReadDeps, backup: string, wanted: FilesNamed | null): Promise<Contents> {
  if (wanted === null) throw new HoldfastError("internal", "a download of files names none");
  const { manifest, epochOf } = await openBackup(deps, backup);
  if ((manifest.files ?? null) === null) throw new HoldfastError("not_found", `backup ${manifest.id} holds no files`);
  const reader = { ...deps, epochOf };
  return filesContents({
    backup: manifest.id,
    at: manifest.consistentAt,
    lists: fileListsOf(manifest).map((list) => ({
      files: list.files,
      rawBytes: list.rawBytes,
      contentBytes: list.partBytes,
      read: () => readFileList(reader, list),
    })),
    part: (part) => readObject(reader, recordedPart(part)),
    ledger: await readLedger(deps),
  }, wanted);
}

/** Of rows that no store holds as they are. docs/decisions/0028. */
export function needsReplay(what: string): HoldfastError {
  return new HoldfastError("usage", `${what}: that comes out of a replay, which no function does`, {
    hint:
      "Take it by the CLI, `holdfast download --at <moment> --format csv --out <file>`, or take the rows of a full " +
      "backup, or the bundle of an incremental.",
  });
}

/** Errors: `table_not_found`. */
export function plainContents(source: PastRows, table: NamedTable | null, format: PlainFormat): Contents {
  return table === null ? archiveContents(source, format) : tableContents(source, findTable(source, table), format);
}

function findTable(source: PastRows, wanted: NamedTable): PastTable {
  const found = source.tables.find(({ schema, name }) => schema === wanted.schema && name === wanted.name);
  if (found !== undefined) return found;
  throw new HoldfastError("table_not_found", `backup ${source.backupId} has no table ${tableLabel(wanted)}`);
}

/** As `tableLabel` writes it. */
export function namedTable(label: string | null): NamedTable | null {
  if (label === null) return null;
  const parts = splitQualified(label);
  if (parts === null) throw new HoldfastError("internal", "a download names no table");
  return { schema: unquoteIdent(parts[0]), name: unquoteIdent(parts[1]) };
}

interface Incremental {
  /** The newest that stands before it; null: there is none. */
  readonly full: string | null;
  readonly end: BundleEnd;
}

/** Null for what is none, and where no database is at hand. */
async function incrementalOf(connection: Connection | null, id: string): Promise<Incremental | null> {
  if (connection === null || !/^[0-9a-f-]{36}$/.test(id)) return null;
  const [row] = await connection.query(
    `select r.wal_lsn, (
         select f.id from backup.runs as f
         where f.kind = 'full' and f.status = 'succeeded' and f.chain_id = r.chain_id and f.wal_lsn <= r.wal_lsn
         order by f.wal_lsn desc limit 1
       ) as full_id
     from backup.runs as r where r.id = $1::uuid and r.kind = 'incremental' and r.wal_lsn is not null`,
    [id],
  );
  return row === undefined ? null : { full: row["full_id"] ?? null, end: { lsn: text(row, "wal_lsn") } };
}
