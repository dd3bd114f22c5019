/** The end of a drill: what was measured and proven, as evidence that is signed. */
import { holdfastVersion } from "../backup/deps.ts";
import type { HoldfastError } from "../errors.ts";
import { nameOfProject } from "../format/project.ts";
import { readIdentity } from "../identity/identity_queries.ts";
import type { Validation } from "../restore/validate.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { DrillDeps, PersonResult } from "./deps.ts";
import type { DrillEnd, DrillRow } from "./drill_queries.ts";
import { type Evidence, signEvidence } from "./evidence.ts";
import { unexpected } from "./expected_absences.ts";
import type { DrillDetail } from "./leg.ts";
import { fileDifferences } from "./prove_files.ts";

export interface DrillOutcome {
  readonly proof?: Validation;
  readonly person?: PersonResult;
  /** From the order to the proof; null: the clock went back meanwhile. */
  readonly rtoSeconds?: number | null;
  /** What kept it from its end. */
  readonly failure?: HoldfastError;
  readonly notes: string;
}

/** So many of them stand in the evidence; how many there are stands beside. */
const mostListed = 200;

/** Errors: those of the connection. Without a key the evidence is not signed, and says so. */
export async function endOf(
  deps: Pick<DrillDeps, "connection" | "clock" | "ring" | "log">,
  drill: DrillRow,
  detail: DrillDetail,
  { proof, person, rtoSeconds, failure, notes }: DrillOutcome,
): Promise<DrillEnd> {
  const identity = await readIdentity(deps.connection);
  const { work } = detail;
  const stream = work?.kind === "recovery" ? work.state.stream : null;
  const files = work?.kind === "recovery" ? work.state.files : null;
  const lost = proof === undefined ? [] : unexpected(proof.notCompared);
  const differences = [
    ...proof?.differences ?? [],
    ...files === null ? [] : fileDifferences(files),
    ...lost.map(({ identity: name, reason }) => ({
      kind: "missing" as const,
      name,
      detail: `not restored: ${reason}`,
    })),
  ];
  const ok = failure === undefined && (person?.ok ?? true) && (proof === undefined || differences.length === 0);
  const rpoSeconds = proof === undefined || work === null ? null : lossOf(drill, work);
  const ring = await deps.ring().catch(() => null);
  const expected = (proof?.notCompared ?? []).filter((one) => !lost.includes(one));
  const measured = { rtoSeconds: proof === undefined ? null : rtoSeconds ?? null, rpoSeconds };
  const evidence: Evidence = {
    version: 1,
    id: drill.id,
    drill: drill.drill,
    title: drill.title,
    holdfast: holdfastVersion,
    install: identity.install,
    source: nameOfProject({ ref: identity.ref, ...identity.present }),
    orderedBy: drill.orderedBy,
    orderedAt: drill.startedAt,
    endedAt: deps.clock.now().toISOString(),
    store: work?.state.store ?? null,
    keys: [...ring?.used ?? []],
    backup: work?.state.backup ?? null,
    stream,
    target: work === null
      ? null
      : work.kind === "recovery"
      ? `database ${work.state.database}`
      : `beside the live rows, restore ${work.state.restore ?? "not begun"}`,
    subject: work?.kind === "beside" ? quoteQualified(work.state.table.schema, work.state.table.name) : null,
    steps: [{ step: "ordered", at: drill.startedAt }, ...detail.steps],
    proof: proof === undefined ? null : {
      tables: proof.tables,
      rows: proof.rows,
      foreignKeys: proof.foreignKeys,
      differences: differences.slice(0, mostListed).map(({ kind, name, detail: what }) => ({
        kind,
        name,
        detail: what,
      })),
      differencesTotal: differences.length,
      notCompared: expected.slice(0, mostListed).map((one) => ({ identity: one.identity, reason: one.reason })),
      notComparedTotal: expected.length,
    },
    files: files === null ? null : {
      files: files.files,
      withoutContent: files.withoutContent,
      checked: files.checked,
      bytes: files.bytes,
      sameMd5: files.sameMd5,
    },
    measured,
    objectives: {
      recoverySeconds: drill.recoveryObjective,
      lossSeconds: drill.lossObjective,
      met: metOf(measured, drill),
    },
    ok,
    notes,
    failure: failure === undefined ? null : { code: failure.code, message: failure.message, hint: failure.hint },
  };
  const signed = ring === null ? { ...evidence, signature: null } : await signEvidence(evidence, ring);
  return {
    ok,
    ...measured,
    evidence: signed,
    error: failure === undefined ? null : { code: failure.code, message: failure.message, hint: failure.hint },
    notes,
  };
}

/** From the newest moment of which every commit was durable when the drill was ordered. Rows beside are of a backup that was chosen. */
function lossOf({ startedAt, lossObjective }: DrillRow, work: NonNullable<DrillDetail["work"]>): number | null {
  if (lossObjective === null && work.kind === "beside") return null;
  const stream = work.kind === "recovery" ? work.state.stream : null;
  const durable = stream === null || stream.asOfBackup.length > 0
    ? work.state.backup.consistentAt
    : stream.coveredUntil;
  return Math.max(0, Math.round(new Date(startedAt).getTime() - new Date(durable).getTime()) / 1000);
}

function metOf(
  { rtoSeconds, rpoSeconds }: Evidence["measured"],
  { recoveryObjective, lossObjective }: DrillRow,
): boolean | null {
  const pairs = [[rtoSeconds, recoveryObjective], [rpoSeconds, lossObjective]] as const;
  const told = pairs.flatMap(([seconds, promised]) =>
    seconds === null || promised === null ? [] : [seconds <= promised]
  );
  return told.length === 0 ? null : told.every((kept) => kept);
}
