/** Lists of files beside segments, sealed again under another name without those of erased people. docs/format.md, F-34. */
import { parseFileListName } from "../../format/layout.ts";
import { formatLsn } from "../../changes/decode/lsn.ts";
import { HoldfastError } from "../../errors.ts";
import { nameOf } from "../../rows/past/fold_partitions.ts";
import { type Identity, namesRows } from "../entry.ts";
import type { StreamListDone, StreamRules } from "./hands.ts";
import { keepTerms } from "./keep_terms.ts";
import { objectRemains } from "./remains.ts";
import type { Rewriting } from "./rewrite_retained.ts";
import { holdName, noteClean, noteRemains, recordRewrittenList } from "./rewriting_queries.ts";
import { inParallel } from "./scan_full.ts";

export interface ListsToRewrite {
  readonly due: readonly string[];
  /** Up to which entry the database knows them to be rewritten. */
  readonly known: ReadonlyMap<string, { readonly through: number }>;
  readonly rules: StreamRules;
  /** Of rows that go and that the ledger does not name, in any backup, and by which columns they are told. */
  readonly gone: readonly string[];
  readonly identities: readonly Identity[];
}

/**
 * Put and read back beside the one before it, which retention takes out of the stores then. Killed between, the next one puts the same.
 * Returns how many lists lost files. Errors: those of `openStreamList` and the store, `cancelled`, `rewriting_waits` where nothing
 * tells what a row of storage.objects is.
 */
export async function rewriteStreamLists(
  { deps, ledger, through }: Rewriting,
  { due, known, rules, gone, identities }: ListsToRewrite,
): Promise<number> {
  const { hands, connection, signal } = deps;
  if (due.length === 0) return 0;
  const table = rules.tables.find(({ name }) => nameOf(name) === "storage.objects")?.table;
  if (table === undefined) {
    throw new HoldfastError("rewriting_waits", "neither the database nor a backup knows the table storage.objects", {
      hint: "Run it against the project that the backups are of.",
    });
  }
  const entries = ledger.entries.filter(namesRows);
  const hashes = [...new Set(entries.flatMap((entry) => entry.hashes))];
  await hands.begin({ keys: ledger.keys, hashes, identities: entries.flatMap(({ rows }) => rows) }, rules);
  await hands.learn(gone, identities);
  const changed: StreamListDone[] = [];
  const clean: string[] = [];
  await inParallel(due, hands.atOnce, signal, async (name) => {
    const done = await hands.streamList({ name, table });
    if (done.changes) changed.push(done);
    else clean.push(name);
  });
  await keepTerms(deps, ledger, ...changed.map(({ terms }) => terms));
  for (const done of changed) await replace(deps, done, known.get(done.name)?.through ?? 0, through);
  await noteClean(connection, clean, through);
  return changed.length;
}

/** Under the row's lock, so that retention does not take it meanwhile; then what is left of it is retention's too. */
async function replace(
  deps: Rewriting["deps"],
  { name, left, epoch, parts }: StreamListDone,
  after: number,
  through: number,
): Promise<void> {
  const { connection, log } = deps;
  const place = parseFileListName(name);
  if (place === null) throw new HoldfastError("internal", `${name} is no list of files`);
  await noteRemains(connection, await objectRemains(deps, [name, ...parts], after, through));
  log.step("rewrite.list", { name });
  await connection.execute("begin");
  try {
    const held = await holdName(connection, "list", name);
    if (held === "held") {
      await recordRewrittenList(connection, {
        before: name,
        chain_id: place.chain,
        lsn: formatLsn(place.lsn),
        epoch,
        through,
        left: left === null ? [] : [left],
      });
    }
    await connection.execute("commit");
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
  log.step("rewrite.listed_files", { name });
}
