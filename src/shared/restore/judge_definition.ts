/** What becomes of one captured definition on a target, by its kind. Pure. */
import type { Definition } from "../schema/capture_format.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import { ownSchema, stateSchema, type TargetFacts } from "./target.ts";

/** The mark that platform schemas and roles carry on a bare PostgreSQL. */
export const platformMark = "Made by a Holdfast restore as captured; no Supabase service manages it here.";

export type Verdict =
  | { readonly kind: "apply"; readonly statements: readonly string[] }
  /** The target has it already. */
  | { readonly kind: "present" }
  | { readonly kind: "skip"; readonly reason: string };

/** `missing`: identities left out so far. `unreachable`: roles that the restoring one may not act as. `platform`: the platform's. */
export function judge(
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
export const superuserAttribute = /^alter role .* (superuser|replication|bypassrls)$/s;

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
