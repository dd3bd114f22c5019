/** What a restore will do to a target, in order and with reasons, computed before anything is done. Pure. */
import { HoldfastError } from "../errors.ts";
import type { Definition, DefinitionSection } from "../schema/capture_format.ts";
import type { LaneSqlStep, SqlStep } from "./apply.ts";
import type { BackupContents } from "./contents.ts";
import type { TableLoad } from "./load.ts";
import { historyColumn, historyTable, isOwnMigration } from "./migration_history.ts";
import { chooseData } from "./plan_data.ts";
import { type AppliedDefinition, chooseDefinitions, type SkippedObject } from "./plan_definitions.ts";
import { laneSteps } from "./plan_lanes.ts";
import { filesWarning } from "./project_rows.ts";
import type { HeldObject, RestoreRecord } from "./state.ts";
import type { TargetFacts, TargetKind } from "./target.ts";

export interface RestorePlan {
  readonly kind: TargetKind;
  readonly roles: readonly SqlStep[];
  readonly preData: readonly SqlStep[];
  readonly loads: readonly TableLoad[];
  /** Side by side where `locks` allow it. */
  readonly postData: readonly LaneSqlStep[];
  readonly sequences: readonly SqlStep[];
  readonly privileges: readonly SqlStep[];
  readonly last: readonly SqlStep[];
  /** Statements of the transaction that ends the restore. */
  readonly ending: readonly string[];
  /** Roles that own or grant something: a restoring role that is no superuser joins them while it works. */
  readonly actsAs: readonly string[];
  /** What comes back switched off until `release`. */
  readonly held: readonly HeldObject[];
  readonly rolesCreated: readonly string[];
  readonly ownersKept: readonly string[];
  readonly settingsLost: readonly string[];
  readonly skipped: readonly SkippedObject[];
  readonly filesNotRestored: number;
  readonly rows: number;
  /** Bytes of COPY text. */
  readonly rawBytes: number;
  readonly warnings: readonly string[];
}

/** One line of a plan for people. */
export interface PlanLine {
  readonly step: string;
  readonly count: number;
  readonly reason: string;
}

/** Says where a target's content comes from; null where the target remembers no restore. */
export type EarlierRestore = Pick<RestoreRecord, "backupId" | "manifestHash" | "finishedAt"> | null;

/** Errors: `target_is_source`, `target_not_empty` with what is in the way. */
export function checkTarget(contents: BackupContents, facts: TargetFacts, earlier: EarlierRestore): void {
  const { count, names } = facts.obstacles;
  if (count === 0) return;
  const { systemIdentifier, database } = contents.source;
  if (systemIdentifier === facts.systemIdentifier && database === facts.database) {
    throw new HoldfastError("target_is_source", `${facts.database} is the database that this backup was taken of`);
  }
  const more = count > names.length ? ` and ${count - names.length} more` : "";
  const found = `${names.join(", ")}${more}`;
  if (
    earlier?.backupId === contents.backupId && earlier.manifestHash === contents.manifestHash &&
    earlier.finishedAt !== null
  ) {
    const restore = `the restore of backup ${earlier.backupId} that finished at ${earlier.finishedAt}`;
    throw new HoldfastError("target_not_empty", `the target holds ${restore}: ${found}`, {
      // The target remembers a finished restore only while it holds something back.
      hint: "Restore into a new database for another copy; `holdfast release` turns on what this one left off.",
    });
  }
  throw new HoldfastError("target_not_empty", `the target holds ${found}`);
}

export function planRestore(contents: BackupContents, facts: TargetFacts): RestorePlan {
  const definitions = chooseDefinitions(contents.capture, facts);
  const data = chooseData(contents, facts, definitions.absent);
  const skipped = [...definitions.skipped, ...data.skipped];
  const section = (wanted: DefinitionSection) => definitions.applied.filter((one) => one.definition.section === wanted);
  const statements = (wanted: DefinitionSection) =>
    section(wanted).map((one) => step(one.definition, one.statements)).filter(hasStatements);
  const privileges = definitions.applied.filter(({ definition }) =>
    definition.section !== "last" && definition.kind !== "schema"
  )
    .map((one) => step(one.definition, one.privileges)).filter(hasStatements);
  const last = section("last").map((one) => step(one.definition, [...one.statements, ...one.privileges]))
    .filter(hasStatements);
  const forgets = data.loads.some((load) => load.identity === historyTable && load.columns.includes(historyColumn));
  return {
    kind: facts.kind,
    roles: statements("roles"),
    preData: [
      { title: "default privileges of the target", statements: facts.neutralDefaults },
      ...statements("pre-data"),
    ].filter(hasStatements),
    loads: data.loads,
    postData: laneSteps(section("post-data"), contents),
    sequences: data.sequences,
    privileges,
    last,
    ending: forgets ? [`delete from supabase_migrations.schema_migrations where ${isOwnMigration}`] : [],
    actsAs: facts.superuser ? [] : actors(definitions.applied, facts),
    held: definitions.held,
    rolesCreated: definitions.rolesCreated,
    ownersKept: definitions.ownersKept,
    settingsLost: definitions.settingsLost,
    skipped,
    filesNotRestored: data.filesNotRestored,
    rows: sum(data.loads.map((load) => load.rows)),
    rawBytes: sum(data.loads.map((load) => load.rawBytes)),
    warnings: [
      ...skipped.map((one) => `not restored: ${one.identity}: ${one.reason}`),
      ...(forgets ? ["records of Holdfast's own migrations do not come back: `holdfast init` installs it again"] : []),
      ...definitions.warnings,
      ...data.warnings,
      ...definitions.rolesCreated.map((role) => `role ${role} was created without password or login`),
      ...filesWarning(data.filesNotRestored),
      ...contents.capture.notCaptured.map((one) => `${one.identity} is not in the backup: ${one.reason}`),
    ],
  };
}

/** The plan in the order in which it runs. */
export function outlinePlan(plan: RestorePlan): PlanLine[] {
  const lines: PlanLine[] = [
    { step: "roles", count: plan.roles.length, reason: "owners and grantees must exist; none can log in" },
    { step: "definitions", count: plan.preData.length, reason: "tables and what they need, before their rows" },
    { step: "tables loaded", count: plan.loads.length, reason: `${plan.rows} rows, largest table first` },
    {
      step: "indexes, constraints, triggers, policies",
      count: plan.postData.length,
      reason: "faster and safe after the rows",
    },
    { step: "sequence values", count: plan.sequences.length, reason: "as captured" },
    { step: "privileges", count: plan.privileges.length, reason: "once everything is made" },
    { step: "materialised views, jobs, subscriptions", count: plan.last.length, reason: "they need all of the above" },
  ];
  return lines.filter((line) => line.count > 0);
}

function step(definition: Definition, statements: readonly string[]): SqlStep {
  return { title: definition.identity, statements };
}

/** Owners of what is made, and who else grants something on it (`set role` in the captured statements). */
function actors(applied: readonly AppliedDefinition[], facts: TargetFacts): string[] {
  const names = applied.flatMap(({ definition, statements, privileges }) => [
    ...(definition.owner === null || statements.length + privileges.length === 0 ? [] : [definition.owner]),
    ...privileges.flatMap((text) => {
      const name = /^set role (.+)$/s.exec(text)?.[1];
      if (name === undefined) return [];
      return [name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name];
    }),
  ]);
  const known = new Map(facts.roles.map((role) => [role.name, role]));
  return [...new Set(names)].filter((name) => known.get(name)?.reachable !== false).sort();
}

const hasStatements = (one: SqlStep): boolean => one.statements.length > 0;
const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);
