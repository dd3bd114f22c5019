/** Exports without functions: what would be put into the bucket, in the memory of the test. */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { KeyRing } from "../../src/shared/crypto/key_ring.ts";
import type { ReadFile } from "../../src/shared/export/copy_files.ts";
import { type ExportDocument, exportDocument } from "../../src/shared/export/document_format.ts";
import { beginExport, finishExport, readExport } from "../../src/shared/export/export_queries.ts";
import type { ExportTarget } from "../../src/shared/export/export_target.ts";
import { failMaking } from "../../src/shared/export/leg.ts";
import { makeExport, type MakeOptions } from "../../src/shared/export/make_export.ts";
import { silentLog } from "../../src/shared/log.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import type { Cluster } from "../support/cluster.ts";

export const ring = new KeyRing(new Map([["k-export", new Uint8Array(32).fill(7)]]));

export function databaseOf(cluster: Cluster, role = "postgres", name = "postgres"): Database {
  return openDatabase({ url: cluster.url(role, name), caPem: readFileSync(cluster.caFile, "utf8") });
}

export interface MadeExport {
  readonly id: string;
  readonly text: string;
  readonly bytes: Buffer;
  readonly parts: readonly Uint8Array[];
  readonly document: ExportDocument;
  readonly files: ReadonlyMap<string, Buffer>;
}

export interface MemoryTarget extends ExportTarget {
  readonly parts: Uint8Array[];
  readonly files: Map<string, Uint8Array[]>;
}

export function memoryTarget(): MemoryTarget {
  const parts: Uint8Array[] = [];
  const files = new Map<string, Uint8Array[]>();
  return {
    parts,
    files,
    prepare: async () => {},
    putDocument: (number, bytes) => {
      parts[number] = bytes.slice();
      return Promise.resolve();
    },
    putFile: ({ path }, number, _at, bytes) => {
      const own = files.get(path) ?? [];
      own[number] = bytes.slice();
      files.set(path, own);
      return Promise.resolve();
    },
    missing: () => Promise.resolve({ document: false, files: [] }),
  };
}

const noFile: ReadFile = () => Promise.resolve(null);

/** As the CLI makes it, without a folder. Every document is held against the schema. */
export async function exported(
  database: Database,
  user: string,
  options: Partial<MakeOptions> & { readonly readFile?: ReadFile; readonly target?: MemoryTarget } = {},
): Promise<MadeExport> {
  const { readFile = noFile, target = memoryTarget(), ...more } = options;
  const connection = await database.connect("holdfast:test");
  try {
    const { lease } = await beginExport(connection, { user, origin: "cli", worker: "test", leaseSeconds: 600 });
    if (lease === null) throw new Error("an export of this user is under way");
    try {
      await makeExport({ connection, database, ring, target, readFile, clock: systemClock, log: silentLog }, lease, {
        map: emptyMap,
        files: true,
        budget: unlimited,
        leaseSeconds: 600,
        ...more,
      });
    } catch (error) {
      throw await failMaking(connection, lease, error);
    }
    await finishExport(connection, lease, true);
    const { id } = await readExport(connection, lease.id);
    const bytes = Buffer.concat(target.parts);
    const text = bytes.toString("utf8");
    return {
      id,
      text,
      bytes,
      parts: target.parts,
      document: exportDocument.parse(JSON.parse(text)),
      files: new Map([...target.files].map(([path, all]) => [path, Buffer.concat(all)])),
    };
  } finally {
    await connection.close();
  }
}
