import { openSession } from "../../shared/backup/session.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { carryOut, type ErasureResult } from "../../shared/erase/carry_out.ts";
import { type ErasurePlan, planErasure, refuseUndecided } from "../../shared/erase/plan_erasure.ts";
import { openOrCreateRepository } from "../../shared/format/repository.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { settlePlace } from "../../shared/identity/settle_place.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { readUserId } from "../../shared/rows/beside/user_now.ts";
import type { BackupMap } from "../../shared/rows/ownership/map_file.ts";
import { capBytesOf } from "../../shared/rows/cap_bytes.ts";
import { removeObjects } from "../../shared/store/supabase_storage.ts";
import type { Context } from "../context.ts";
import { copyAfter } from "../copy_to_second.ts";
import { runCertificate } from "../erase_certificate.ts";
import { runRewrite } from "../erase_rewrite.ts";
import { erasureDocument, planDocument, planLines, resultLines } from "../erase_shown.ts";
import { installedSession } from "../installed.ts";
import { keyRing, sourceDatabase } from "../open.ts";
import { openPlace, placeToWrite, storeCredentials, storeDeps } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { readMap } from "../read_map.ts";

/**
 * The document of a person: `{id, status, rows[{table, rows}], files, mentions[{table, rows}], retained{…}, copy}`; until it is
 * confirmed, and with --dry-run, `{dryRun: true, …}` with the plan. Of `hold`, `release`, `pass`: `{user, changed}`; of
 * `departed` and `list` an array. Of `rewrite` and `certificate`: as their files say.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "", user] = context.words;
  const word = words[what];
  if (what === "rewrite" && user === undefined) return await runRewrite(context);
  if (what === "certificate") return await runCertificate(context, user);
  if (word === undefined) {
    if (user !== undefined) throw new HoldfastError("usage", "erase takes one id of a user");
    return await erase(context, what);
  }
  const session = await installedSession(context, "holdfast:erase");
  try {
    return await word(context, session, user);
  } finally {
    await session.close();
  }
}

const words: Readonly<
  Record<string, (context: Context, session: Connection, user: string | undefined) => Promise<Outcome>>
> = {
  hold: async ({ settings }, session, user) => {
    const reason = settings.get("reason");
    if (reason === undefined) throw new HoldfastError("usage", "a hold needs --reason");
    const changed = await call(session, "select backup.hold_erasure($1::uuid, $2) as changed", user, [reason]);
    return changedOutcome(user, changed, "is held: nobody erases them", "was held already; the reason is the new one");
  },
  release: async (_, session, user) => {
    const changed = await call(session, "select backup.release_erasure($1::uuid) as changed", user);
    return changedOutcome(user, changed, "may be erased again", "was not held");
  },
  pass: async (_, session, user) => {
    const changed = await call(session, "select backup.pass_over_departure($1::uuid) as changed", user);
    return changedOutcome(user, changed, "is not offered any more", "was not offered");
  },
  departed: async (_, session, user) =>
    await listed(
      session,
      user,
      "Nobody was deleted otherwise.",
      "select d.user_id::text as id, d.noticed_at::text as at from backup.departures as d order by d.noticed_at",
    ),
  list: async (_, session, user) =>
    await listed(
      session,
      user,
      "Nobody was erased.",
      `select e.id::text, e.status, e.begun_at::text as begun, e.finished_at::text as finished, e.files::text,
              e.rewritten_at::text as rewritten, e.clean_at::text as clean,
              pg_catalog.array_to_string(e.entries, ' ') as entries
         from backup.erasures as e order by e.begun_at`,
    ),
};

async function call(
  session: Connection,
  sql: string,
  user: string | undefined,
  more: readonly string[] = [],
): Promise<boolean> {
  if (user === undefined) throw new HoldfastError("usage", "the id of a user is missing");
  const [row] = await session.query(sql, [await readUserId(session, user), ...more]);
  return row?.["changed"] === "t";
}

function changedOutcome(user: string | undefined, changed: boolean, now: string, before: string): Outcome {
  return { exit: 0, document: { user, changed }, lines: [`${user} ${changed ? now : before}.`] };
}

async function listed(session: Connection, user: string | undefined, none: string, sql: string): Promise<Outcome> {
  if (user !== undefined) throw new HoldfastError("usage", "a list takes no further word");
  const rows = await session.query(sql);
  const lines = rows.map((row) => Object.values(row).map((value) => value ?? "-"));
  return { exit: 0, document: rows, lines: lines.length === 0 ? [none] : columns(lines) };
}

async function erase(context: Context, word: string): Promise<Outcome> {
  const { settings } = context;
  const session = await installedSession(context, "holdfast:erase");
  let user: string;
  let map: BackupMap;
  let plan: ErasurePlan;
  try {
    user = await readUserId(session, word);
    map = await readMap(context);
  } finally {
    await session.close();
  }
  const planning = await openSession(await sourceDatabase(context), "holdfast:erase");
  try {
    plan = await planErasure(planning, user, map);
  } finally {
    await planning.close();
  }
  const lines = planLines(plan);
  if (settings.has("dry-run")) return { exit: 0, document: planDocument(plan), lines };
  refuseUndecided(plan.undecided);
  requireStorage(context, plan);
  if (!settings.has("yes")) {
    context.note(lines.join("\n"));
    if (!(await context.confirm("What is erased cannot be brought back.", user))) {
      const missing = new HoldfastError("confirmation_missing", "nobody was erased");
      return {
        exit: missing.exit,
        document: { ...planDocument(plan), ...missing.toDocument() },
        lines: [`Nobody was erased. ${missing.hint}`],
      };
    }
  }
  const erased = await carryOutHere(context, user, map);
  const copies = await copyAfter(context, false);
  for (const { code, message } of copies?.warnings ?? []) context.note(`warning: ${code}: ${message}`);
  const result = { ...erased, status: await statusNow(context, erased) };
  return { exit: 0, document: { ...erasureDocument(result, plan), copies }, lines: resultLines(result, plan) };
}

/** Done as soon as the second store has the ledger too. */
async function statusNow(context: Context, { id, status }: ErasureResult): Promise<string> {
  const session = await installedSession(context, "holdfast:erase");
  try {
    await session.query("select backup.watch_erasures()");
    const [row] = await session.query("select e.status from backup.erasures as e where e.id = $1::uuid", [id]);
    return row?.["status"] ?? status;
  } finally {
    await session.close();
  }
}

/** Errors: `setting_missing`: files that could not be removed are found out before anything is. */
function requireStorage(context: Context, { files }: ErasurePlan): void {
  if (files > 0) storagePlace(context);
}

function storagePlace({ settings }: Context): { readonly projectUrl: string; readonly serviceKey: string } {
  const { supabaseUrl, supabaseServiceKey } = storeCredentials(settings);
  if (supabaseUrl !== undefined && supabaseServiceKey !== undefined) {
    return { projectUrl: supabaseUrl, serviceKey: supabaseServiceKey };
  }
  throw new HoldfastError("setting_missing", "the person has files, and Storage cannot be reached from here", {
    hint: "Set SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY.",
  });
}

async function carryOutHere(context: Context, user: string, map: BackupMap): Promise<ErasureResult> {
  const { settings, clock, random, log } = context;
  const database = await sourceDatabase(context);
  const connection = await openSession(database, "holdfast:erase");
  const again = await openSession(database, "holdfast:erase again");
  try {
    const top = await openPlace(context, placeToWrite(settings));
    const ring = await keyRing(settings);
    const compressor = await loadZstd();
    const { store } = await settlePlace({ store: top, ring, compressor, clock, random, log }, again);
    const repository = await openOrCreateRepository({ store, clock, random });
    return await carryOut(
      {
        connection,
        again,
        store,
        ring,
        compressor,
        clock,
        random,
        log,
        repositoryId: repository.id,
        removeFiles: async (bucket, names) =>
          await removeObjects({ ...storagePlace(context), bucket }, storeDeps(context), names),
        capBytes: await capBytesOf(again, true, false),
      },
      user,
      map,
    );
  } finally {
    await Promise.all([connection.close(), again.close()]);
  }
}
