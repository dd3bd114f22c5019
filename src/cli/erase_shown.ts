/** An erasure for people, and its documents. No id of the person stands in either. */
import type { ErasureResult } from "../shared/erase/carry_out.ts";
import type { ErasurePlan } from "../shared/erase/plan_erasure.ts";
import { amount } from "./progress.ts";

export function planDocument({ rows, sides, ...plan }: ErasurePlan) {
  return { dryRun: true, rows, ...plan, sides: sides.map(({ schema }) => schema) };
}

export function planLines(plan: ErasurePlan): string[] {
  const { rows, referring, undecided, files, withoutPath, suspects, unmatched, sides, goesOn, guardians } = plan;
  return [
    ...(goesOn ? ["An erasure of this person was broken off; this goes on with it."] : []),
    ...guardians.map((request) => `A guardian asks for it: request ${request}`),
    ...rows.filter(({ rows, files }) => rows > 0 && !files).map(({ table, rows }) =>
      `erase   ${table}: ${amount(rows, "rows")}`
    ),
    ...(files > 0 ? [`erase   ${counted(files, "files")} in Storage`] : []),
    ...rows.filter(({ shared, decided }) => shared > 0 && decided).map(({ table, shared }) =>
      `keep    ${table}: ${amount(shared, "rows")} that are others' as well, as the map says`
    ),
    ...referring.filter(({ clear, decided }) => decided && clear.length > 0).map(({ table, by, rows, clear }) =>
      `clear   ${table}: ${clear.join(", ")} of ${amount(rows, "rows")} (${by})`
    ),
    ...sides.map(({ schema }) => `drop    side schema ${schema}, which holds rows from before`),
    ...undecided.map((one) => `decide  ${one}`),
    ...(withoutPath.length === 0 ? [] : [`no way from these tables to a person: ${withoutPath.join(", ")}`]),
    ...(suspects.length === 0 ? [] : [`not followed, and named like a user's id: ${suspects.join(", ")}`]),
    ...unmatched.map((one) => `the map: ${one}`),
    retainedLine(plan),
  ];
}

export function erasureDocument({ rows, ...result }: ErasureResult, { retained, guardians }: ErasurePlan) {
  return {
    dryRun: false,
    ...result,
    rows: [...rows].map(([table, count]) => ({ table, rows: count })),
    retained,
    guardians,
  };
}

export function resultLines(result: ErasureResult, plan: ErasurePlan): string[] {
  const { id, status, rows, files, mentions } = result;
  const total = [...rows.values()].reduce((sum, count) => sum + count, 0);
  return [
    `Erasure ${id}: ${amount(total, "rows")} and ${counted(files, "files")} are gone, and were looked for once more.`,
    ...mentions.map(({ table, rows }) =>
      `the id still stands in ${amount(rows, "rows")} of ${table}, which are not theirs`
    ),
    status === "done"
      ? "The ledger is in every store."
      : "The ledger is in the first store; it is copied to the second, and the erasure is done then.",
    retainedLine(plan),
  ];
}

/** Said as it is: the copies are another matter. */
function retainedLine({ retained: { backups, held, until } }: ErasurePlan): string {
  if (backups === 0) return "No backup holds the person.";
  return `${counted(backups, "backups")} may still hold the person; no restore brings them back. ` +
    (held > 0
      ? `${held} of them are on hold and stay until that ends.`
      : `As retention stands the last of them goes after ${until ?? "an unknown day"}.`);
}

const counted = (count: number, what: string): string => `${count.toLocaleString("en-GB")} ${what}`;
