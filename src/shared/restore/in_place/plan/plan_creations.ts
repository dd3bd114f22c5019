/** What is missing, or went and comes back, is made. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { quoteLiteral } from "../../../schema/quote.ts";
import { isUnnamedJob } from "../../../schema/unnamed_jobs.ts";
import { superuserAttribute } from "../../judge_definition.ts";
import { mayActAs } from "../actor.ts";
import { effectiveStatements, isGrantsOnly } from "../compare/compared.ts";
import { locksOf } from "./locks.ts";
import { type Planning, refusesForOwner, stays, whyMade } from "./planning.ts";
import { resetAccess } from "./reset_access.ts";

const afterPartitions = new Set([
  "index partition",
  "index marks",
  "check constraint",
  "foreign key",
  "statistics",
  "rule",
  "trigger",
  "partition trigger",
  "row security",
]);

/** In which of three rounds it is made: a partition that is attached without the indexes that it had gets others. */
export function roundOf({ kind }: Definition): 0 | 1 | 2 {
  return kind === "partition" ? 1 : afterPartitions.has(kind) ? 2 : 0;
}

/** Nothing for what is there and stays, and for what has a place of its own: grants, policies, section `last`. */
export function planCreation(planning: Planning, one: Definition): void {
  if (stays(planning, one) || isGrantsOnly(one) || one.section === "last" || one.kind === "policy") return;
  const { changes, steps, missingExtensions } = planning;
  const needs = one.dependsOn.find((need) => missingExtensions.has(need));
  if (needs !== undefined) return steps.refuse(one, `it is missing, and needs ${needs}, which is not there`);
  const { action, reason } = whyMade(planning, one);
  if (refusesForOwner(planning, one, reason)) return;
  const table = changes.isBy.get(one.table ?? "");
  const isOnOldTable = table !== undefined && stays(planning, table);
  // On rows that are there already it would be checked before they are the backup's.
  const waits = one.section === "post-data" ||
    (isOnOldTable && (one.kind === "identity" || one.kind === "partition"));
  steps.add(one, {
    action,
    reason,
    phase: waits ? "after" : "before",
    statements: creation(planning, one),
    locks: locksOf(one, false),
  });
}

/** What needs grants: publications, jobs, event triggers, what fills materialised views. */
export function planLastSection(planning: Planning): void {
  const { changes, options, steps } = planning;
  for (const one of changes.was) {
    if (one.section !== "last" || stays(planning, one) || isGrantsOnly(one)) continue;
    const statements = one.kind === "cron job" ? jobCreation(planning, one) : creation(planning, one);
    if (statements === null) {
      steps.keep(one, `it is missing, and ${options.user} may not schedule for another role`);
      continue;
    }
    steps.add(one, { ...whyMade(planning, one), phase: "after", statements, locks: locksOf(one, false) });
  }
}

/** With its owner, and without grants that default privileges would give it. */
function creation(planning: Planning, one: Definition): readonly string[] {
  const { options, steps } = planning;
  const { statements, ownership } = one;
  if (one.kind === "role" && !options.superuser) return statements.filter((text) => !superuserAttribute.test(text));
  const keepsOwner = ownership.length > 0 && !mayActAs(options, one.owner);
  if (keepsOwner) steps.keep(one, `it belongs to ${options.user}, who may not give it to ${one.owner}`);
  const made = effectiveStatements(one);
  if (made.length === 0) return [];
  const reset = planning.resetsAccess ? resetAccess(one) : null;
  return [...made, ...(reset === null ? [] : [reset]), ...(keepsOwner ? [] : ownership)];
}

/** pg_cron takes a user's name from superusers only; everybody else schedules for himself. Null: it is another's. */
function jobCreation({ options }: Planning, one: Definition): readonly string[] | null {
  // By its release a job without a name would switch on others that run the same command.
  const all = isUnnamedJob(one) && one.release.length > 0
    ? one.statements.map((text) => text.replace(/active => false\)$/, "active => true)"))
    : effectiveStatements(one);
  if (options.superuser) return all;
  const user = quoteLiteral(options.user);
  const statements = all.map((text) => {
    if (text.endsWith(`, ${user}, false)`)) return `${text.slice(0, -`, ${user}, false)`.length)}, active => false)`;
    for (const end of [", active => false)", ", active => true)"]) {
      const long = `, username => ${user}${end}`;
      if (text.endsWith(long)) return text.slice(0, -long.length) + end;
    }
    return text.endsWith(` and j.username = ${user}`) ? text : null;
  });
  return statements.includes(null) ? null : statements.flatMap((text) => text ?? []);
}
