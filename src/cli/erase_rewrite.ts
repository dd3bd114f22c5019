/** `erase rewrite`: what is kept from before erasures, sealed again without those who were erased. */
import { openSession } from "../shared/backup/session.ts";
import { HoldfastError } from "../shared/errors.ts";
import { lookAheadRewriting, type RewritingAhead } from "../shared/erase/rewrite/look_ahead.ts";
import { type RewriteDeps, type RewriteResult, rewriteRetained } from "../shared/erase/rewrite/rewrite_retained.ts";
import type { LeftOver } from "../shared/erase/rewrite/rewriting_queries.ts";
import { type Settled, settleRewriting } from "../shared/erase/rewrite/settle.ts";
import { openOrCreateRepository } from "../shared/format/repository.ts";
import { readIdentity } from "../shared/identity/identity_queries.ts";
import { settlePlace } from "../shared/identity/settle_place.ts";
import type { PruneDeps } from "../shared/retention/deps.ts";
import { bothStores } from "./both_stores.ts";
import type { Context } from "./context.ts";
import { copyAfter } from "./copy_to_second.ts";
import { installedSession } from "./installed.ts";
import { keysText, sourceDatabase } from "./open.ts";
import { placeToWrite } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { amount } from "./progress.ts";
import { ThreadHands } from "./rewrite_threads.ts";

/** Hands are given once there is work. */
export type Opened = Omit<RewriteDeps, "hands"> & PruneDeps;

/**
 * The document: `{dryRun, backups, segments, lists, rows, changes, held[{backup, reason}], left[{store, name, what, lockedUntil, why}],
 * uncopied, cleaned}`; with --dry-run `{dryRun: true, backups[], segments, lists, held[], left[]}`.
 */
export async function runRewrite(context: Context): Promise<Outcome> {
  const session = await openSession(await sourceDatabase(context), "holdfast:rewrite");
  try {
    await (await installedSession(context, "holdfast:rewrite")).close();
    const deps = await openRewriting(context, session);
    const ahead = await lookAheadRewriting(deps);
    const lines = aheadLines(ahead);
    if (context.settings.has("dry-run")) return { exit: 0, document: { dryRun: true, ...ahead }, lines };
    if (!context.settings.has("yes") && ahead.backups.length + ahead.segments + ahead.lists > 0) {
      context.note(lines.join("\n"));
      if (!(await context.confirm("What backups hold of erased people cannot be brought back.", "rewrite"))) {
        const missing = new HoldfastError("confirmation_missing", "nothing was rewritten");
        return { exit: missing.exit, document: { ...ahead, ...missing.toDocument() }, lines: [missing.message] };
      }
    }
    const { result, settled } = await rewriteHere(context, deps);
    const copies = await copyAfter(context, false);
    for (const { code, message } of copies?.warnings ?? []) context.note(`warning: ${code}: ${message}`);
    // What was copied meanwhile can be listed, and what it replaced can go.
    const after = settled.uncopied === 0 ? settled : await settleRewriting({ ...deps, hands: none }, result);
    return {
      exit: 0,
      document: { dryRun: false, ...result, ...after, copies },
      lines: resultLines(result, after),
    };
  } finally {
    context.progress.clear();
    await session.close();
  }
}

/** For calls that give no work. */
export const none: RewriteDeps["hands"] = {
  atOnce: 1,
  begin: () => Promise.resolve(),
  learn: () => Promise.resolve(),
  chunk: () => Promise.reject(new HoldfastError("internal", "there are no threads")),
  list: () => Promise.reject(new HoldfastError("internal", "there are no threads")),
  streamList: () => Promise.reject(new HoldfastError("internal", "there are no threads")),
  segment: () => Promise.reject(new HoldfastError("internal", "there are no threads")),
};

/** Both stores, where this database writes. Errors: those of settings, keys and store; `place_changed`. */
export async function openRewriting(context: Context, session: Opened["connection"]): Promise<Opened> {
  const { clock, random, log, signal, progress } = context;
  const stores = await bothStores(context, session);
  await settlePlace({ ...stores, store: stores.unplaced, clock, random, log }, session);
  const store = stores.first;
  const repository = await openOrCreateRepository({ store, clock, random });
  return {
    ...stores,
    store,
    repositoryId: repository.id,
    signal,
    onProgress: ({ label, done, total }) => progress.update({ label, done, total, unit: "bytes" }),
  };
}

async function rewriteHere(
  context: Context,
  deps: Opened,
): Promise<{ readonly result: RewriteResult; readonly settled: Settled }> {
  const { settings } = context;
  const place = placeToWrite(settings);
  const hands = await ThreadHands.start({
    store: place.address,
    credentials: place.credentials,
    prefix: (await readIdentity(deps.connection)).prefix,
    keys: (await keysText(settings)) ?? "",
    repositoryId: deps.repositoryId,
  }, settings.integer("jobs", 1, 16));
  try {
    const result = await rewriteRetained({ ...deps, hands });
    return { result, settled: await settleRewriting({ ...deps, hands }, result) };
  } finally {
    hands.close();
  }
}

function aheadLines({ backups, segments, lists, held, left }: RewritingAhead): string[] {
  return [
    backups.length + segments + lists === 0
      ? "Nothing that is kept is from before an erasure."
      : `rewrite ${counted(backups.length, "backups")}, ${counted(segments, "segments")} and ${
        counted(lists, "lists of files")
      } that may hold people who were erased`,
    ...held.map(({ backup, reason }) => `keep    ${backup}, which is on hold: ${reason}`),
    ...leftLines(left),
  ];
}

function resultLines({ backups, segments, lists, rows, changes, held }: RewriteResult, settled: Settled): string[] {
  return [
    `${counted(backups, "backups")} lost ${amount(rows, "rows")}, ${counted(segments, "segments")} lost ${
      changes.toLocaleString("en-GB")
    } changes, ${counted(lists, "lists of files between backups")} lost some.`,
    ...held.map(({ backup, reason }) => `${backup} stays as it is, it is on hold: ${reason}`),
    ...(settled.uncopied > 0
      ? [`${counted(settled.uncopied, "objects")} have to come to the second store first: run it again then.`]
      : []),
    ...leftLines(settled.left),
    ...(settled.left.length === 0 && settled.uncopied === 0 && held.length === 0
      ? ["Nothing that is kept holds anybody who was erased: `erase certificate` proves it."]
      : []),
  ];
}

/** By store and day: thousands of names tell nobody anything. */
export function leftLines(left: readonly LeftOver[]): string[] {
  const groups = new Map<string, number>();
  for (const { store, lockedUntil } of left) {
    const why = lockedUntil === null ? "until retention has swept it" : `locked until ${lockedUntil.slice(0, 10)}`;
    groups.set(`${store}: ${why}`, (groups.get(`${store}: ${why}`) ?? 0) + 1);
  }
  return [...groups].map(([group, count]) => `wait    ${counted(count, "objects")} of before in ${group}`);
}

const counted = (count: number, what: string): string => `${count.toLocaleString("en-GB")} ${what}`;
