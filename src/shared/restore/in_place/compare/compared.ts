/** Which captured definitions a restore in place looks at, and what kind of thing each is to it. Pure. */
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";
import { isUnnamedJob, stableJobs } from "../../../schema/unnamed_jobs.ts";
import { ownSchema, stateSchema } from "../../target.ts";

/** Our own schemas, those of other restores, and the platform's objects, are never touched. */
function isForeign(one: Definition): boolean {
  const schema = one.kind === "schema" ? one.name : one.schema;
  return one.platform !== null ||
    (schema !== null && (schema === ownSchema || schema === stateSchema || /^restore_[0-9a-f]{8}$/.test(schema)));
}

/** Logins wait for a password, server settings and extensions are the server's and the platform's business. */
const neverCompared = new Set(["login", "parameter", "extension", "access method", "language", "shell type"]);

export function comparedDefinitions(capture: SchemaCapture): Definition[] {
  return stableJobs(capture.definitions).filter((one) => !isForeign(one) && !neverCompared.has(one.kind));
}

/** What is compared; a job without a name says there whether it is active, however its release is written. */
export function comparedStatements(one: Definition): readonly string[] {
  if (!isUnnamedJob(one)) return effectiveStatements(one);
  return [...one.statements, one.release.length > 0 ? "active" : "inactive"];
}

/** With what switches on that comes back switched off elsewhere: in place, jobs and webhooks go on as they were. */
export function effectiveStatements(one: Definition): readonly string[] {
  return one.held === "cron" || one.held === "webhook" ? [...one.statements, ...one.release] : one.statements;
}

/** Kinds that stand alone and stay when they came after the backup, unless extra objects are to go. */
const alone = new Set([
  "schema",
  "table",
  "foreign table",
  "view",
  "materialized view",
  "sequence",
  "function",
  "procedure",
  "aggregate",
  "enum",
  "domain",
  "composite type",
  "range",
  "collation",
  "conversion",
  "cast",
  "transform",
  "operator",
  "operator class",
  "operator family",
  "text search dictionary",
  "text search configuration",
  "text search parser",
  "text search template",
  "foreign data wrapper",
  "server",
  "user mapping",
  "publication",
  "event trigger",
  "cron job",
]);

export function standsAlone(one: Definition): boolean {
  return alone.has(one.kind) && !one.identity.startsWith("body of ");
}

/** Of the whole server or of its roles: made where missing, never taken away. */
const ofServer = new Set(["role", "membership", "settings", "database", "subscription"]);

export function isOfServer(one: Definition): boolean {
  return ofServer.has(one.kind);
}

/** Made of grants alone. */
export function isGrantsOnly(one: Definition): boolean {
  return one.kind === "default privileges" || one.kind === "extension privileges";
}

const types = new Set(["enum", "domain", "composite type", "range"]);

export function isType(one: Definition): boolean {
  return types.has(one.kind);
}
