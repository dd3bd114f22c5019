import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import type { Store } from "../store/store.ts";
import { decodeCapture } from "../verify/decode_capture.ts";
import type { OpenedBackup } from "../verify/find_backup.ts";
import { readObject } from "../verify/read_object.ts";
import type { BackupContents } from "./contents.ts";

/**
 * Reads the schema capture of an opened backup and puts both together. Errors: those of `readObject`, `format_newer`,
 * `manifest_damaged` for a table that the capture does not describe.
 */
export async function readContents(
  deps: { readonly store: Store; readonly compressor: Compressor },
  backup: OpenedBackup,
): Promise<BackupContents> {
  const { manifest } = backup;
  const { schemaObject } = manifest;
  const bytes = await readObject({ ...deps, epochOf: backup.epochOf }, { kind: "schema", ...schemaObject });
  const capture = decodeCapture(bytes, schemaObject.name);
  const shapes = new Map(capture.tables.map((shape) => [nameKey(shape), shape]));
  return {
    backupId: manifest.id,
    manifestHash: backup.hash,
    source: { systemIdentifier: manifest.project.systemIdentifier, database: manifest.project.database },
    capture,
    tables: manifest.tables.map((table) => {
      const shape = shapes.get(nameKey(table));
      if (shape === undefined) {
        throw new HoldfastError("manifest_damaged", `the capture does not describe ${table.schema}.${table.name}`);
      }
      return {
        identity: shape.identity,
        columns: table.columns.map((column) => column.name),
        rows: table.rows,
        rawBytes: table.rawBytes,
        chunks: table.chunks,
      };
    }),
  };
}

function nameKey(table: { readonly schema: string; readonly name: string }): string {
  return JSON.stringify([table.schema, table.name]);
}
