import { HoldfastError } from "../../shared/errors.ts";
import { inTransaction } from "../../shared/postgres/in_transaction.ts";
import { readStanding, type RetentionStanding, setPreset, setTier } from "../../shared/jobs/policy_queries.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import type { Outcome } from "../output.ts";

const presets = ["standard", "short", "gfs"];

/**
 * The document: `{tiers[{tier, keepHours, backups, oldestAt, newestAt, expected, missing[], overdue}], windowHours, atLeast, prunedAt,
 * waiting, condemned}`, after what was set; `missing`: when those were due that are not there. Errors: `usage`, `policy_refused`, and then nothing was changed.
 */
export async function run(context: Context): Promise<Outcome> {
  const [preset] = context.words;
  if (preset !== undefined && !presets.includes(preset)) {
    throw new HoldfastError("usage", `a preset is one of ${presets.join(", ")}`);
  }
  const tiers = (context.settings.get("keep") ?? "").split(",").filter((one) => one !== "").map(parseTier);
  const session = await installedSession(context, "holdfast:retention");
  try {
    if (preset !== undefined || tiers.length > 0) {
      await inTransaction(session, async () => {
        if (preset !== undefined) await setPreset(session, preset);
        for (const { tier, hours } of tiers) await setTier(session, tier, hours);
      });
    }
    const standing = await readStanding(session);
    return { exit: 0, document: standing, lines: shown(standing) };
  } finally {
    await session.close();
  }
}

function parseTier(text: string): { readonly tier: string; readonly hours: number } {
  const [, tier = "", count = "", unit] =
    /^(hourly|daily|weekly|manual|safety|monthly|yearly)=(\d{1,6})([hd]?)$/.exec(text) ?? [];
  const isNone = count === "0" && (tier === "monthly" || tier === "yearly");
  if (tier === "" || (!isNone && (unit === "" || Number(count) === 0))) {
    throw new HoldfastError("usage", "--keep is a tier and a time, such as daily=14d or hourly=24h");
  }
  return { tier, hours: Number(count) * (unit === "d" ? 24 : 1) };
}

function shown({ tiers, windowHours, atLeast, prunedAt, waiting, condemned }: RetentionStanding): string[] {
  return [
    ...tiers.flatMap(tierLines),
    `every moment of the last ${windowHours} h, and the newest ${atLeast} backups whatever their age`,
    prunedAt === null ? "never pruned" : `pruned at ${prunedAt}`,
    ...(waiting > 0 ? [`${waiting} objects are ordered to go and are still there`] : []),
    ...(condemned > 0 ? [`${condemned} objects that no backup names go when their time is over`] : []),
  ];
}

/** So many are named; `--json` has all of them. */
const namedMissing = 5;

function tierLines(
  { tier, keepHours, backups, oldestAt, expected, missing, overdue }: RetentionStanding["tiers"][number],
): string[] {
  const kept = keepHours % 24 === 0 && keepHours > 24 ? `${keepHours / 24} d` : `${keepHours} h`;
  const oldest = oldestAt === null ? "" : `, the oldest of ${oldestAt}`;
  const more = missing.length > namedMissing ? ` and ${missing.length - namedMissing} more` : "";
  const gap = " ".repeat(18);
  return [
    `${tier.padEnd(8)} ${kept.padEnd(8)} ${backups} there${oldest}`,
    ...(missing.length === 0 ? [] : [
      `${gap}${missing.length} of ${expected} missing, due at ${missing.slice(0, namedMissing).join(", ")}${more}`,
    ]),
    ...(overdue === 0 ? [] : [`${gap}${overdue} should be gone for three days and more`]),
  ];
}
