import type { KeyRing } from "../../shared/crypto/key_ring.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { listBackups, openBackup } from "../../shared/verify/find_backup.ts";
import { fromManifest, listRuns, type RunSummary } from "../backup_row.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { amount, duration } from "../progress.ts";

/** The document: an array of `{id, kind, tier, status, from, full, consistentAt, rows, rawBytes, storedBytes, …}`, newest first. */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  const limit = settings.integer("limit", 1, 100_000);
  const all = settings.has("all");
  const fromDatabase = settings.get("db-url") !== undefined && (all || !settings.isFlag("store"));
  if (all && !fromDatabase) settings.need("db-url");
  const runs = fromDatabase ? await listFromDatabase(context, limit, all) : await listFromStore(context, limit);
  return { exit: 0, document: runs, lines: runs.length === 0 ? ["There is no backup yet."] : columns(tableOf(runs)) };
}

async function listFromDatabase(context: Context, limit: number, all: boolean): Promise<RunSummary[]> {
  const session = await installedSession(context, "holdfast:list");
  try {
    return await listRuns(session, limit, all);
  } finally {
    await session.close();
  }
}

/** A manifest that does not open is listed with the status `unreadable`, so that the others can still be found. */
async function listFromStore(context: Context, limit: number): Promise<RunSummary[]> {
  const store = await openStore(context);
  const ring: KeyRing = await keyRing(context.settings);
  const deps = { store, ring, compressor: await loadZstd() };
  const runs: RunSummary[] = [];
  const listed = (await listBackups(store)).slice(0, limit);
  for (const { id, tier, createdAt } of listed) {
    try {
      runs.push(fromManifest((await openBackup(deps, id)).manifest));
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.retry === "backoff") throw error;
      context.note(`${id}: ${error.code}: ${error.message}`);
      runs.push({ ...unreadable, id, tier, consistentAt: createdAt.toISOString() });
    }
    context.progress.update({ label: "opening manifests", done: runs.length, total: listed.length, unit: "objects" });
  }
  return runs;
}

const unreadable = {
  kind: "full",
  from: null,
  full: null,
  status: "unreadable",
  rows: 0,
  rawBytes: 0,
  storedBytes: 0,
  newStoredBytes: 0,
  durationMs: null,
  complete: false,
  verifiedAt: null,
  warnings: [],
} as const;

function tableOf(runs: readonly RunSummary[]): string[][] {
  const header = ["ID", "TIER", "STATUS", "CONSISTENT AT", "FULL", "ROWS", "STORED", "TOOK", "COMPLETE", "VERIFIED"];
  return [
    header,
    ...runs.map((run) => [
      run.id.slice(0, 8),
      run.tier,
      run.kind === "full" ? run.status : `${run.kind} ${run.status}`,
      (run.from === null ? "" : `${run.from.replace(/\.\d+Z$/, "Z")} to `) +
      (run.consistentAt?.replace(/\.\d+Z$/, "Z") ?? "-"),
      run.full?.slice(0, 8) ?? "-",
      run.rows.toLocaleString("en-GB"),
      amount(run.storedBytes, "bytes"),
      run.durationMs === null ? "-" : duration(run.durationMs),
      run.complete ? "yes" : "no",
      run.verifiedAt?.replace(/\.\d+Z$/, "Z") ?? "-",
    ]),
  ];
}
