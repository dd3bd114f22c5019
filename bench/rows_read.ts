/**
 * What `bench/rows.ts` times: rows of one table out of a backup in a folder, read and counted in this process.
 *
 *   rows_read.ts <folder> <schema> <table> [<column> <value>]      BACKUP_KEYS in the environment
 */
import process from "node:process";
import { parseKeyRing } from "../src/shared/crypto/key_ring.ts";
import { loadZstd } from "../src/shared/format/zstd.ts";
import { openBackupRows } from "../src/shared/rows/backup_rows.ts";
import { createFileStore } from "../src/shared/store/file.ts";
import { countCopyRows } from "../src/shared/verify/copy_rows.ts";

const [folder = "", schema = "", name = "", column, value = ""] = process.argv.slice(2);
const compressor = await loadZstd();
const deps = { store: createFileStore(folder), ring: parseKeyRing(process.env["BACKUP_KEYS"] ?? ""), compressor };
const past = await openBackupRows(deps, "latest");
const table = past.tables.find((one) => one.schema === schema && one.name === name);
if (table === undefined) throw new Error(`there is no table ${schema}.${name}`);
const found = { rows: 0, bytes: 0, tableBytes: table.rawBytes };
for await (
  const text of past.read(table, column === undefined ? null : [{ columns: [column], values: new Set([value]) }])
) {
  found.rows += countCopyRows(text);
  found.bytes += text.byteLength;
}
console.log(JSON.stringify(found));
