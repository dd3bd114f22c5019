/** Which captured definitions a target takes, and which it has, holds back or cannot have. Pure. */
import type { Definition, SchemaCapture } from "../schema/capture_format.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import type { AbsentObjects } from "./plan_data.ts";
import type { HeldObject } from "./state.ts";
import { ownSchema, stateSchema, type TargetFacts } from "./target.ts";

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

/** The mark that platform schemas and roles carry on a bare PostgreSQL. */
export const platformMark = "Made by a Holdfast restore as captured; no Supabase service manages it here.";

type Verdict =
  | { readonly kind: "apply"; readonly statements: readonly string[] }
  /** The target has it already. */
  | { readonly kind: "present" }
  | { readonly kind: "skip"; readonly reason: string };

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
    if (keepsOwner) {
      ownersKept.push(definition.identity);
      warnings.push(
        `${definition.identity} belongs to ${facts.user}: ${facts.user} may not give it to ${definition.owner}`,
      );
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
  const names = new Set(
    capture.definitions.filter((one) => missing.has(one.identity)).map((one) => JSON.stringify([one.schema, one.name])),
  );
  const absent: AbsentObjects = { has: ({ schema, name }) => names.has(JSON.stringify([schema, name])) };
  return { applied, skipped, missing, absent, held, ownersKept, settingsLost, rolesCreated, warnings };
}

function judge(
  definition: Definition,
  facts: TargetFacts,
  missing: ReadonlySet<string>,
  unreachable: ReadonlySet<string>,
  platform: ReadonlySet<string>,
): Verdict {
  const { kind, name, statements } = definition;
  if (definition.schema === ownSchema || definition.schema === stateSchema) return { kind: "present" };
  const needed = [...definition.dependsOn, ...(definition.table === null ? [] : [definition.table])]
    .find((identity) => missing.has(identity));
  if (needed !== undefined) return { kind: "skip", reason: `needs ${needed}` };
  if (kind === "extension") return judgeExtension(name, statements, facts);
  if (kind === "role") return judgeRole(definition, facts);
  if (isOfRolesThatAreThere(definition, facts)) return { kind: "present" };
  if (kind === "cron job") return judgeJob(definition, facts, missing);
  if (kind === "parameter" && !facts.superuser) {
    return { kind: "skip", reason: `${facts.user} may not grant server settings` };
  }
  if (kind === "publication") return judgePublication(definition, facts);
  if (kind === "event trigger") return judgeEventTrigger(definition, facts, platform);
  if (definition.platform !== null && facts.kind === "project") return judgePlatform(definition, facts);
  if (kind === "schema") {
    const own = facts.schemas.includes(name) ? statements.filter((text) => !/^create schema /i.test(text)) : statements;
    return {
      kind: "apply",
      statements: marked({ ...definition, statements: own }, facts, `schema ${quoteIdent(name)}`),
    };
  }
  if (!facts.superuser && needsSuperuser(definition, facts)) {
    return { kind: "skip", reason: `only a superuser may make it, which ${facts.user} is not on the target` };
  }
  if (kind === "default privileges" && definition.owner !== null && unreachable.has(definition.owner)) {
    return { kind: "skip", reason: `${facts.user} may not set default privileges for ${definition.owner}` };
  }
  if (kind !== "settings") return { kind: "apply", statements };
  return { kind: "apply", statements: statements.filter((text) => !facts.refusedSettings.includes(text)) };
}

/** Whether somebody may log in, and settings and memberships of the platform's roles, are the business of who made them. */
function isOfRolesThatAreThere({ kind, platform, dependsOn }: Definition, facts: TargetFacts): boolean {
  const there = new Set(facts.roles.map((role) => `role ${quoteIdent(role.name)}`));
  if (kind === "login") return dependsOn.some((identity) => there.has(identity));
  if ((kind !== "settings" && kind !== "membership") || platform === null) return false;
  return dependsOn.filter((identity) => identity.startsWith("role ")).every((identity) => there.has(identity));
}

/** Kinds that PostgreSQL leaves to superusers, and functions in languages that it trusts nobody else with. */
function needsSuperuser({ kind, statements }: Definition, facts: TargetFacts): boolean {
  if (superuserKinds.has(kind)) return true;
  if (kind === "subscription") return !facts.subscriptionsAllowed;
  if (kind === "publication schema") return !facts.allTablesAllowed;
  if (kind === "aggregate") return statements.some((text) => /\bm?stype = internal\b/i.test(text));
  return kind === "function" && statements.some((text) => /^\s*LANGUAGE (c|internal)$/m.test(text));
}

const superuserKinds = new Set([
  "access method",
  "foreign data wrapper",
  "language",
  "operator class",
  "operator family",
  "operator family members",
  "shell type",
  "base type",
  "text search parser",
  "text search template",
]);

/** A role that is there keeps its attributes. What only a superuser gives is left out elsewhere. */
function judgeRole(definition: Definition, facts: TargetFacts): Verdict {
  if (facts.roles.some((role) => role.name === definition.name)) return { kind: "present" };
  const statements = facts.superuser
    ? definition.statements
    : definition.statements.filter((text) => !superuserAttribute.test(text));
  return {
    kind: "apply",
    statements: marked({ ...definition, statements }, facts, `role ${quoteIdent(definition.name)}`),
  };
}

/** The capture gives these attributes a statement of their own. */
const superuserAttribute = /^alter role .* (superuser|replication|bypassrls)$/s;

/** pg_cron takes a user's name from superusers only; everybody else schedules for himself. */
function judgeJob({ statements }: Definition, facts: TargetFacts, missing: ReadonlySet<string>): Verdict {
  if (missing.has("extension pg_cron")) return { kind: "skip", reason: "needs extension pg_cron" };
  if (facts.superuser) return { kind: "apply", statements };
  const user = quoteLiteral(facts.user);
  const own = statements.map((text) =>
    withoutEnd(text, `, ${user}, false)`, ", active => false)") ??
      withoutEnd(text, `, username => ${user}, active => false)`, ", active => false)")
  );
  if (own.includes(null)) return { kind: "skip", reason: `${facts.user} may not schedule for another role` };
  return { kind: "apply", statements: own.filter((text) => text !== null) };
}

function withoutEnd(text: string, end: string, instead: string): string | null {
  return text.endsWith(end) ? text.slice(0, -end.length) + instead : null;
}

/** One that calls a platform's function keeps a project as the platform wants it, and nothing else. */
function judgeEventTrigger(definition: Definition, facts: TargetFacts, platform: ReadonlySet<string>): Verdict {
  if (facts.eventTriggers.includes(definition.name)) return { kind: "present" };
  if (definition.dependsOn.some((identity) => platform.has(identity) && !identity.startsWith("role "))) {
    return { kind: "skip", reason: "it does the platform's work, on a project only" };
  }
  if (!facts.superuser && !facts.eventTriggersAllowed) {
    return { kind: "skip", reason: `${facts.user} may not create event triggers on the target` };
  }
  return { kind: "apply", statements: definition.statements };
}

function judgeExtension(name: string, statements: readonly string[], facts: TargetFacts): Verdict {
  if (facts.extensions.installed.includes(name)) return { kind: "present" };
  const refusal = facts.extensions.refused.find((one) => one.name === name);
  if (refusal !== undefined) return { kind: "skip", reason: refusal.reason };
  return { kind: "apply", statements };
}

/** Objects of the platform's services are there already on a project; a table that is not is lost with its rows. */
function judgePlatform(definition: Definition, facts: TargetFacts): Verdict {
  if (definition.kind !== "table" || definition.schema === null) return { kind: "present" };
  const there = facts.tables.some((table) => table.schema === definition.schema && table.name === definition.name);
  return there ? { kind: "present" } : { kind: "skip", reason: "the project does not have it" };
}

/** A project has an empty `supabase_realtime`; that one makes way for the captured one. */
function judgePublication(definition: Definition, facts: TargetFacts): Verdict {
  const there = facts.publications.find((publication) => publication.name === definition.name);
  if (!facts.allTablesAllowed && definition.statements.some((text) => / for all tables/.test(text))) {
    return { kind: "skip", reason: `${facts.user} may not publish all tables` };
  }
  if (there === undefined) return { kind: "apply", statements: definition.statements };
  if (!there.empty) return { kind: "skip", reason: "the target has a publication of this name that is in use" };
  if (!there.ours) return { kind: "skip", reason: `the target's own does not belong to ${facts.user}` };
  const drop = `drop publication ${quoteIdent(definition.name)}`;
  return { kind: "apply", statements: [drop, ...definition.statements] };
}

function marked(
  definition: Pick<Definition, "platform" | "statements">,
  facts: TargetFacts,
  target: string,
): readonly string[] {
  if (definition.platform === null || facts.kind === "project") return definition.statements;
  return [...definition.statements, `comment on ${target} is ${quoteLiteral(platformMark)}`];
}
