import { open } from "node:fs/promises";
import { unlimited } from "../../shared/backup/budget.ts";
import { downloadBucket } from "../../shared/download/bucket.ts";
import { HoldfastError } from "../../shared/errors.ts";
import type { ReadFile } from "../../shared/export/copy_files.ts";
import { purpose } from "../../shared/export/document_format.ts";
import { exportShown } from "../../shared/export/export_link.ts";
import {
  beginExport,
  endExport,
  exportFiles,
  type ExportLease,
  finishExport,
  listExports,
  readExport,
} from "../../shared/export/export_queries.ts";
import type { LaidFacts } from "../../shared/export/lay_rows.ts";
import { failMaking } from "../../shared/export/leg.ts";
import { makeExport } from "../../shared/export/make_export.ts";
import { documentFacts, verifySignature } from "../../shared/export/signature.ts";
import { readStorageFile } from "../../shared/export/storage_file.ts";
import { sweepExports } from "../../shared/export/sweep_exports.ts";
import { ownBuckets } from "../../shared/schema/own_objects.ts";
import type { Context } from "../context.ts";
import { exportFolder } from "../export_folder.ts";
import { installedSession } from "../installed.ts";
import { keyRing, sourceDatabase } from "../open.ts";
import { storeCredentials } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { amount } from "../progress.ts";
import { readMap } from "../read_map.ts";
import { userNamed } from "../user_named.ts";

/** A part with all its retries is copied in less. */
const leaseSeconds = 1800;

/**
 * The document: `{id, user, folder, bytes, sha256, tables, rows, files, fileBytes, missing, leftOut, unmatched}`; `list`: an array of
 * exports; `cancel`: `{id, removed}`; `verify`: `{id, user, ok, keyId}`.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "", which] = context.words;
  if (what === "verify") return await verify(context, which);
  if (what === "cancel") return await cancel(context, which);
  if (which !== undefined) throw new HoldfastError("usage", "export takes one user, or `list`, `cancel` or `verify`");
  return what === "list" ? await list(context) : await make(context, what);
}

async function make(context: Context, who: string): Promise<Outcome> {
  const { settings, clock, log, signal } = context;
  const map = await readMap(context);
  const ring = await keyRing(settings);
  const database = await sourceDatabase(context);
  const session = await installedSession(context, "holdfast:export");
  try {
    const user = await userNamed(session, who);
    const files = !settings.has("without-files");
    const readFile = files ? storageReader(context) : leftThere;
    const moment = clock.now().toISOString().replace(/[-:]|\.\d+/g, "");
    const folder = await exportFolder(settings.get("out") ?? ".", `export-${user.slice(0, 8)}-${moment}`);
    let lease: ExportLease | null = null;
    try {
      const begun = await beginExport(session, { user, origin: "cli", worker: "cli", leaseSeconds });
      lease = begun.lease;
      if (lease === null) {
        throw new HoldfastError("run_state", `export ${begun.id} of this user is under way`, {
          hint: `Wait for it, or end it with: holdfast export cancel ${begun.id}`,
        });
      }
      let laid: LaidFacts = { leftOut: nothingLeftOut, unmatched: [] };
      await makeExport({ connection: session, database, ring, target: folder.target, readFile, clock, log }, lease, {
        map,
        files,
        budget: unlimited,
        leaseSeconds,
        signal,
        onLaid: (facts) => void (laid = facts),
      });
      const row = await readExport(session, lease.id);
      const missing = (await exportFiles(session, lease.id, { open: false, limit: everyFile }))
        .filter(({ state }) => state === "missing").map(({ bucket, name }) => `${bucket}/${name}`);
      const written = await folder.finish();
      await finishExport(session, lease, true);
      return shown(row, written, missing, laid);
    } catch (error) {
      await folder.discard();
      throw lease === null ? error : await failMaking(session, lease, error);
    }
  } finally {
    await session.close();
  }
}

const everyFile = 1_000_000;
const nothingLeftOut = { shared: [], withheld: [], noPath: [], notFollowed: [], suspects: [] };
const leftThere: ReadFile = () => Promise.resolve(null);

/** Nothing is asked of it where a person has no files. */
function storageReader(context: Context): ReadFile {
  const { supabaseUrl, supabaseServiceKey } = storeCredentials(context.settings);
  if (supabaseUrl === undefined || supabaseServiceKey === undefined) {
    return () => {
      const name = supabaseUrl === undefined ? "SUPABASE_URL" : "SUPABASE_SERVICE_ROLE_KEY";
      throw new HoldfastError("setting_missing", `${name} is not set: the person has files in the project's Storage`, {
        hint: `Set ${name} in the environment or in .env, or leave the files there with --without-files.`,
      });
    };
  }
  const deps = { fetch: (input: string, init: RequestInit) => fetch(input, init), clock: context.clock };
  return readStorageFile({ projectUrl: supabaseUrl, serviceKey: supabaseServiceKey }, deps);
}

function shown(
  row: Awaited<ReturnType<typeof readExport>>,
  { folder, bytes, sha256 }: { readonly folder: string; readonly bytes: number; readonly sha256: string },
  missing: readonly string[],
  { leftOut, unmatched }: LaidFacts,
): Outcome {
  const { id, user, tables, rows, files, fileBytes } = row;
  const shared = leftOut.shared.reduce((sum, { rowCount }) => sum + rowCount, 0);
  const notes = [
    ...missing.map((name) => `missing: ${name}`),
    ...(shared > 0 ? [`${shared} rows are others' as well and stay out; the document names their tables`] : []),
    ...leftOut.noPath.map(({ schema, table }) => `no way leads from ${schema}.${table} to a person`),
    ...leftOut.suspects.map(({ schema, table, column }) =>
      `${schema}.${table}.${column} looks like a user's id and is no key: decide in backup.map.json`
    ),
    ...unmatched.map((sentence) => `backup.map.json: ${sentence}`),
  ];
  return {
    exit: 0,
    document: { id, user, folder, bytes, sha256, tables, rows, files, fileBytes, missing, leftOut, unmatched },
    lines: [
      `${folder}: ${rows} rows of ${tables} tables (${amount(bytes, "bytes")}), ${files} files (${
        amount(fileBytes, "bytes")
      })`,
      `sha256 ${sha256} of export.json`,
      ...notes,
      purpose,
    ],
  };
}

async function list(context: Context): Promise<Outcome> {
  const { settings } = context;
  const session = await installedSession(context, "holdfast:export");
  try {
    const found = await listExports(session, {
      user: null,
      all: settings.has("all"),
      limit: settings.integer("limit", 1, 10_000),
    });
    const lines = found.map((row) => [
      row.id,
      row.status,
      row.origin,
      row.user,
      `${row.rows ?? 0} rows`,
      `${row.filesDone} files`,
      `${row.links} links`,
      row.expiresAt ?? "",
    ]);
    return {
      exit: 0,
      document: found.map(exportShown),
      lines: lines.length === 0 ? ["There is no export."] : columns(lines),
    };
  } finally {
    await session.close();
  }
}

async function cancel(context: Context, which: string | undefined): Promise<Outcome> {
  if (which === undefined || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(which)) {
    throw new HoldfastError("usage", "export cancel takes the whole id of an export", {
      hint: "`holdfast export list` shows the ids.",
    });
  }
  const { settings, clock, random, log } = context;
  const session = await installedSession(context, "holdfast:export");
  try {
    await endExport(session, which);
    const { supabaseUrl, supabaseServiceKey } = storeCredentials(settings);
    if (supabaseUrl !== undefined && supabaseServiceKey !== undefined) {
      const deps = { fetch: (input: string, init: RequestInit) => fetch(input, init), clock, random, log };
      const place = { projectUrl: supabaseUrl, serviceKey: supabaseServiceKey };
      await sweepExports(session, downloadBucket(place, deps, ownBuckets.exports));
    }
    const removed = (await readExport(session, which)).status === "removed";
    return {
      exit: 0,
      document: { id: which, removed },
      lines: [removed ? `Export ${which} is gone.` : `Export ${which} has ended; its objects go with the next minute.`],
    };
  } finally {
    await session.close();
  }
}

/** Of a document that somebody brings: is it as this install signed it? Errors: `export_unsigned`, `key_missing`, `usage`. */
async function verify(context: Context, path: string | undefined): Promise<Outcome> {
  if (path === undefined) throw new HoldfastError("usage", "export verify takes the file of a document");
  const ring = await keyRing(context.settings);
  const file = await open(path, "r").catch((cause: unknown) => {
    throw new HoldfastError("usage", `${path} cannot be read`, { cause });
  });
  try {
    const { size } = await file.stat();
    const read = async (from: number, to: number) => {
      const bytes = new Uint8Array(to - from);
      for (let done = 0; done < bytes.byteLength;) {
        const { bytesRead } = await file.read(bytes, done, bytes.byteLength - done, from + done);
        if (bytesRead === 0) throw new HoldfastError("export_unsigned", "the document has become shorter");
        done += bytesRead;
      }
      return bytes;
    };
    const { id, install, user } = await documentFacts(read, size);
    const { keyId } = await verifySignature(ring, { id, install, bytes: size, read });
    return {
      exit: 0,
      document: { id, user, ok: true, keyId },
      lines: [`Export ${id} of user ${user} is as it was signed, by a key of ${keyId}.`],
    };
  } finally {
    await file.close();
  }
}
