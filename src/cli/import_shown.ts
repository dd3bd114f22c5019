/** What people and documents see of an import. Pure. */
import type { TableDifference } from "../shared/import/differences.ts";
import type { FilesPlan } from "../shared/import/import_files.ts";
import type { DocumentIdentity } from "../shared/import/import_queries.ts";
import type { LaidDocument } from "../shared/import/lay_document.ts";
import { columns } from "./output.ts";
import { amount } from "./progress.ts";
import { rowsText } from "./rows_shown.ts";

export interface ImportShown {
  readonly identity: DocumentIdentity;
  readonly consistentAt: string;
  readonly database: string;
  readonly tables: readonly TableDifference[];
  readonly laid: Pick<LaidDocument, "leftOut" | "redacted">;
  readonly files: FilesPlan;
  /** Sentences: what is in the way of importing all of it. */
  readonly conflicts: readonly string[];
  readonly notes: readonly string[];
}

/** `{id, user, document, at, database, tables[{table, missing, same, different, columns[]}], files{put, there, missing, bytes}, …}`. */
export function importDocument(shown: ImportShown, more: object): object {
  const { identity, consistentAt, database, tables, laid, files, conflicts, notes } = shown;
  return {
    id: identity.export,
    ok: false,
    user: identity.user,
    document: identity.document,
    at: consistentAt,
    database,
    tables,
    files: {
      put: files.put.length,
      bytes: files.bytes,
      there: files.there.map(({ bucket, name }) => `${bucket}/${name}`),
      missing: files.missing.map(({ bucket, name }) => `${bucket}/${name}`),
    },
    leftOut: laid.leftOut,
    redacted: laid.redacted,
    conflicts,
    warnings: notes,
    ...more,
  };
}

export function importLines(shown: ImportShown): string[] {
  const { identity, consistentAt, database, tables, laid, files, conflicts, notes } = shown;
  const count = (n: number) => n.toLocaleString("en-GB");
  return [
    `Export ${identity.export} of user ${identity.user} as of ${consistentAt} into ${database}:`,
    ...columns([
      ["  table", "insert", "as it is", "differs", "in"],
      ...tables.map(({ table, missing, same, different, columns: names }) => [
        `  ${table}`,
        count(missing),
        count(same),
        count(different),
        names.map(({ column, rows }) => `${column} (${rows})`).join(", "),
      ]),
    ]),
    `  ${amount(files.put.length, "files")}, ${amount(files.bytes, "bytes")}${
      files.there.length === 0 ? "" : `; ${files.there.length} are there already`
    }${files.missing.length === 0 ? "" : `; of ${files.missing.length} the export holds no content`}`,
    ...laid.leftOut.map(({ table, rows, reason }) => `  ${rowsText(rows)} of ${table} stay out: ${reason}`),
    ...laid.redacted.map(({ table, values }) => `  ${values} values of ${table} were of others and stay empty`),
    ...notes.map((note) => `  note: ${note}`),
    ...conflicts.map((conflict) => `  in the way: ${conflict}`),
  ];
}

/** What an administrator sends to the function `import-export`. */
export function askedFor(identity: DocumentIdentity): string {
  return JSON.stringify({ action: "ask", ...identity });
}
