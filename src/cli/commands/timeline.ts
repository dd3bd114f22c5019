import { ChangeHistory, type Timeline } from "../../shared/changes/segments/timeline.ts";
import { asHoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { timelinePicture } from "../timeline_picture.ts";

interface KnownGap {
  readonly from: string;
  /** Null while it is open. */
  readonly to: string | null;
  readonly reason: string;
}

interface ShownGap {
  readonly from: string;
  readonly to: string;
  readonly reason?: string;
}

/**
 * The document: `{windows: [{from, to, chain}], gaps: [{from, to, reason}], fulls: [{id, consistentAt, chain}]}`, oldest
 * first; `reason` only where the store or the database knows it. Errors: `backup_not_found`, `backup_ambiguous` where the store
 * holds several databases' and none is named, those of keys and store.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings, progress } = context;
  const read = { store: await openStore(context), ring: await keyRing(settings), compressor: await loadZstd() };
  progress.update({ label: "opening manifests and chains", done: 0, total: null, unit: "objects" });
  const { windows, gaps, fulls } = (await ChangeHistory.read(read)).of(settings.get("source") ?? null)
    .timeline();
  progress.clear();
  const known = settings.get("db-url") === undefined ? [] : await readGaps(context);
  const shown = gaps.map((gap): ShownGap => withReason(gap, known));
  const picture = timelinePicture({
    windows: windows.map(span),
    gaps: gaps.map(span),
    fulls: fulls.map((full) => Date.parse(full.consistentAt)),
  }, context.columns);
  const spans = [
    ...windows.map(({ from, to }): [string, string, string, string] => [from, to, "every moment", ""]),
    ...shown.map(({ from, to, reason }): [string, string, string, string] => [from, to, "gap", reason ?? ""]),
  ].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    exit: 0,
    document: { windows, gaps: shown, fulls },
    lines: [
      ...picture,
      "",
      ...(spans.length === 0
        ? ["No moment between full backups can be restored: `holdfast incremental` begins the change stream."]
        : columns([["FROM", "TO", "WHAT", "WHY"], ...spans]).map((line) => line.trimEnd())),
    ],
  };
}

/** The project may be gone: what the store says stands without it. */
async function readGaps(context: Context): Promise<KnownGap[]> {
  try {
    const session = await installedSession(context, "holdfast:timeline");
    try {
      const rows = await session.query(
        `select ${moment("from_at")} as from, ${moment("to_at")} as to, reason from backup.gaps order by from_at`,
      );
      return rows.map((row) => ({ from: row["from"] ?? "", to: row["to"] ?? null, reason: row["reason"] ?? "" }));
    } finally {
      await session.close();
    }
  } catch (error) {
    context.note(`why there are gaps is not known: ${asHoldfastError(error).message}`);
    return [];
  }
}

/** A gap in the store lasts until the next full backup, the one in the database until the next chain begins. */
function withReason({ from, to, reason }: Timeline["gaps"][number], known: readonly KnownGap[]): ShownGap {
  const [start, end] = [Date.parse(from), Date.parse(to)];
  const reasons = known
    .filter((gap) => Date.parse(gap.from) < end && (gap.to === null || Date.parse(gap.to) >= start))
    .map((gap) => gap.reason);
  if (reason !== undefined) reasons.unshift(reason);
  return reasons.length === 0 ? { from, to } : { from, to, reason: [...new Set(reasons)].join("; ") };
}

function span({ from, to }: { readonly from: string; readonly to: string }) {
  return { from: Date.parse(from), to: Date.parse(to) };
}

function moment(column: string): string {
  return `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}
