/** What came out of a drill, as a command tells it. */
import type { DrillRow } from "../shared/drills/drill_queries.ts";
import { evidenceFormat } from "../shared/drills/evidence.ts";
import { type ErrorCode, errorTable } from "../shared/errors.ts";
import type { Outcome } from "./output.ts";

/**
 * The document: `{id, ok, rtoSeconds, rpoSeconds, evidence}`, and `error` where it could not be brought to its end. Exit 3 where
 * what was restored is not what the backup says; that of the error where there is one.
 */
export function drillOutcome(
  { id, title, ok, rtoSeconds, rpoSeconds, recoveryObjective, lossObjective, evidence }: DrillRow,
): Outcome {
  const parsed = evidenceFormat.partial().safeParse(evidence);
  const { failure = null, proof = null } = parsed.success ? parsed.data : {};
  const document = { id, ok: ok === true, rtoSeconds, rpoSeconds, evidence };
  if (failure !== null) {
    const known = Object.hasOwn(errorTable, failure.code) ? errorTable[failure.code as ErrorCode].exit : 1;
    return {
      exit: known,
      document: { ...document, error: failure },
      lines: [
        `${title} failed: ${failure.message} (${failure.code})`,
        ...(failure.hint === undefined ? [] : [failure.hint]),
        more(id),
      ],
    };
  }
  const measured = [
    ...(rtoSeconds === null ? [] : [`recovered in ${rtoSeconds} s${kept(rtoSeconds, recoveryObjective)}`]),
    ...(rpoSeconds === null ? [] : [`${rpoSeconds} s would have been lost${kept(rpoSeconds, lossObjective)}`]),
  ].join(", ");
  const compared = proof === null ? [] : [
    `${proof.tables} tables, ${proof.rows} rows and ${proof.foreignKeys} foreign keys compared: ${proof.differencesTotal} differences`,
  ];
  return {
    exit: ok === true ? 0 : 3,
    document,
    lines: [
      `${title}: ${ok === true ? "Success" : "FAILURE"}${measured === "" ? "" : `, ${measured}`}`,
      ...compared,
      ...(ok === true
        ? []
        : (proof?.differences ?? []).slice(0, 20).map(({ kind, name, detail }) => `  ${kind}: ${name}: ${detail}`)),
      more(id),
    ],
  };
}

function kept(seconds: number, promised: number | null): string {
  return promised === null
    ? ""
    : seconds <= promised
    ? ` of ${promised} s promised`
    : `, MORE than the ${promised} s promised`;
}

function more(id: string): string {
  return `\`holdfast drills report ${id}\` has the evidence.`;
}
