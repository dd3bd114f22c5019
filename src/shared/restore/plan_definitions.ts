/** Which captured definitions a target takes, and which it has, holds back or cannot have. Pure. */
import type { Definition, SchemaCapture } from "../schema/capture_format.ts";
import { judge, superuserAttribute } from "./judge_definition.ts";
import type { AbsentObjects } from "./plan_data.ts";
import type { HeldObject } from "./state.ts";
import type { TargetFacts } from "./target.ts";

/** A definition as this target gets it. */
export interface AppliedDefinition {
  readonly definition: Definition;
  /** With the owner, whom later definitions count on; a schema's with its grants, which its objects' owners need. */
  readonly statements: readonly string[];
  readonly privileges: readonly string[];
}

export interface SkippedObject {
  readonly identity: string;
  readonly reason: string;
}

export interface DefinitionChoice {
  /** In the capture's order. */
  readonly applied: readonly AppliedDefinition[];
  /** Not restored although a person may want it, each with its reason. */
  readonly skipped: readonly SkippedObject[];
  /** Identities that the target will not have. */
  readonly missing: ReadonlySet<string>;
  /** Their tables and sequences. */
  readonly absent: AbsentObjects;
  readonly held: readonly HeldObject[];
  readonly rolesCreated: readonly string[];
  /** Identities of settings that come back in part. */
  readonly settingsLost: readonly string[];
  /** Identities of what belongs to the restoring role, since it may not give it to the captured owner. */
  readonly ownersKept: readonly string[];
  readonly warnings: readonly string[];
}

export function chooseDefinitions(capture: SchemaCapture, facts: TargetFacts): DefinitionChoice {
  const applied: AppliedDefinition[] = [];
  const skipped: SkippedObject[] = [];
  const missing = new Set<string>();
  const held: HeldObject[] = [];
  const rolesCreated: string[] = [];
  const ownersKept: string[] = [];
  const settingsLost: string[] = [];
  const warnings: string[] = [];
  const unreachable = new Set(facts.superuser ? [] : facts.roles.filter((role) => !role.reachable).map((r) => r.name));

  const keptFrom = new Map<string, string[]>();
  const platform = new Set(capture.definitions.filter((one) => one.platform !== null).map((one) => one.identity));

  for (const definition of capture.definitions) {
    const verdict = judge(definition, facts, missing, unreachable, platform);
    if (verdict.kind === "present") continue;
    if (verdict.kind === "skip") {
      missing.add(definition.identity);
      skipped.push({ identity: definition.identity, reason: verdict.reason });
      continue;
    }
    if (definition.kind === "settings" && verdict.statements.length < definition.statements.length) {
      settingsLost.push(definition.identity);
      warnings.push(`${definition.identity} come back in part: ${facts.user} may not set all of them`);
    }
    const keepsOwner = definition.owner !== null && unreachable.has(definition.owner) &&
      definition.ownership.length > 0;
    if (keepsOwner && definition.owner !== null) {
      ownersKept.push(definition.identity);
      const ofOwner = keptFrom.get(definition.owner) ?? [];
      keptFrom.set(definition.owner, [...ofOwner, definition.identity]);
    }
    const foreign = definition.owner !== null && unreachable.has(definition.owner) && !keepsOwner &&
      definition.privileges.length > 0;
    if (foreign && verdict.statements.length === 0) {
      missing.add(definition.identity);
      skipped.push({ identity: definition.identity, reason: `the object belongs to ${definition.owner}` });
      continue;
    }
    if (foreign) warnings.push(`grants on ${definition.identity} are not restored: it belongs to ${definition.owner}`);
    const privileges = foreign ? [] : definition.privileges;
    applied.push({
      definition,
      statements: [
        ...verdict.statements,
        ...(keepsOwner ? [] : definition.ownership),
        ...(definition.kind === "schema" ? privileges : []),
      ],
      privileges,
    });
    if (definition.kind === "role") {
      rolesCreated.push(definition.name);
      if (!facts.superuser && definition.statements.some((text) => superuserAttribute.test(text))) {
        warnings.push(
          `role ${definition.name} comes back without what only a superuser gives (superuser, replication, bypassrls)`,
        );
      }
    }
    if (definition.held !== null && (definition.release.length > 0 || definition.held !== "cron")) {
      held.push({ identity: definition.identity, kind: definition.held, release: definition.release });
    }
  }
  for (const [owner, identities] of keptFrom) warnings.push(...keptWarnings(facts.user, owner, identities));
  const names = new Set(
    capture.definitions.filter((one) => missing.has(one.identity)).map((one) => JSON.stringify([one.schema, one.name])),
  );
  const absent: AbsentObjects = { has: ({ schema, name }) => names.has(JSON.stringify([schema, name])) };
  return { applied, skipped, missing, absent, held, ownersKept, settingsLost, rolesCreated, warnings };
}

/** One line each for a few; a line for all of an owner's where they would drown the rest. `ownersKept` has every name. */
function keptWarnings(user: string, owner: string, identities: readonly string[]): string[] {
  const why = `${user} may not give`;
  if (identities.length <= 3) return identities.map((one) => `${one} belongs to ${user}: ${why} it to ${owner}`);
  return [
    `${identities.length} objects belong to ${user}: ${why} them to ${owner} (${identities.slice(0, 3).join(", ")}, …)`,
  ];
}
