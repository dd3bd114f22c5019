/** What a function finds in its environment: the hosted variables, and the secrets that are set for Holdfast. */
import { HoldfastError } from "../errors.ts";
import { channelVariables } from "../alerts/variables.ts";
import type { ProjectFilesSettings } from "../files/project_files.ts";
import { pageVariables } from "../incidents/page_variables.ts";
import { secondaryVariables } from "../store/secondary_variables.ts";

/** Values by name, as the runtime gives them. Nothing below here asks the runtime itself. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Names as people set them with `supabase secrets set`; those with SUPABASE_ are set by the platform. */
export const variables = {
  databaseUrl: "SUPABASE_DB_URL",
  projectUrl: "SUPABASE_URL",
  secretKeys: "SUPABASE_SECRET_KEYS",
  serviceRoleKey: "SUPABASE_SERVICE_ROLE_KEY",
  publishableKeys: "SUPABASE_PUBLISHABLE_KEYS",
  anonKey: "SUPABASE_ANON_KEY",
  authIssuer: "BACKUP_AUTH_ISSUER",
  allowedOrigins: "BACKUP_ALLOWED_ORIGINS",
  keys: "BACKUP_KEYS",
  workerSecret: "BACKUP_WORKER_SECRET",
  store: "BACKUP_STORE",
  secondary: secondaryVariables.address,
  recipients: secondaryVariables.recipients,
  secondaryAccessKeyId: secondaryVariables.s3AccessKeyId,
  secondarySecretAccessKey: secondaryVariables.s3SecretAccessKey,
  secondarySessionToken: secondaryVariables.s3SessionToken,
  statusPage: pageVariables.address,
  statusPageAccessKeyId: pageVariables.s3AccessKeyId,
  statusPageSecretAccessKey: pageVariables.s3SecretAccessKey,
  statusPageSessionToken: pageVariables.s3SessionToken,
  databaseAuthority: "BACKUP_DB_CA",
  drillDatabaseUrl: "BACKUP_DRILL_DB_URL",
  drillDatabaseAuthority: "BACKUP_DRILL_DB_CA",
  metricsTokenHash: "BACKUP_METRICS_TOKEN_SHA256",
  publicUrl: "BACKUP_PUBLIC_URL",
  logLevel: "BACKUP_LOG_LEVEL",
  ...channelVariables,
} as const;

/** Where backups go when BACKUP_STORE is not set: a private bucket of this project, made by the installer. */
export const defaultStore = "supabase://holdfast-backups";

/** A variable that must be there; `setting_missing` names it. */
export function required(environment: Environment, name: string): string {
  const value = environment[name]?.trim();
  if (value === undefined || value === "") {
    throw new HoldfastError("setting_missing", `the function has no ${name}`, {
      hint: `Set it with: supabase secrets set ${name}=…`,
    });
  }
  return value;
}

/** A variable that may be left out; an empty one counts as left out. */
export function optional(environment: Environment, name: string): string | undefined {
  const value = environment[name]?.trim();
  return value === "" ? undefined : value;
}

/**
 * The key for Storage: the `default` entry of SUPABASE_SECRET_KEYS (a JSON object of names and keys), else its first,
 * else SUPABASE_SERVICE_ROLE_KEY. `setting_missing` when there is neither.
 */
export function storageKey(environment: Environment): string {
  return keyOf(environment, variables.secretKeys) ?? required(environment, variables.serviceRoleKey);
}

/** Storage of the project that this function runs in; null where its address or a key is missing. */
export function projectStorage(environment: Environment): ProjectFilesSettings | null {
  const projectUrl = optional(environment, variables.projectUrl);
  const serviceKey = keyOf(environment, variables.secretKeys) ?? optional(environment, variables.serviceRoleKey);
  return projectUrl === undefined || serviceKey === undefined ? null : { projectUrl, serviceKey };
}

/** The key that anybody may have, which the platform's edge wants to see; of SUPABASE_PUBLISHABLE_KEYS, else SUPABASE_ANON_KEY. */
export function publishableKey(environment: Environment): string {
  return keyOf(environment, variables.publishableKeys) ?? optional(environment, variables.anonKey) ?? "";
}

function keyOf(environment: Environment, variable: string): string | undefined {
  const dictionary = optional(environment, variable);
  const keys = dictionary === undefined ? {} : keysByName(dictionary, variable);
  return keys["default"] ?? Object.values(keys)[0];
}

function keysByName(text: string, variable: string): Record<string, string> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new HoldfastError("setting_missing", `${variable} is not a JSON object of keys by name`);
  }
  if (typeof value !== "object" || value === null) return {};
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === "string" && entry[1] !== ""),
  );
}

/** The project that this function runs in: of its deployment (`<ref>_…`), else of its address; null where neither says. */
export function projectRef(environment: Environment): string | null {
  const ofDeployment = /^([a-z]{20})_/.exec(optional(environment, "DENO_DEPLOYMENT_ID") ?? "");
  const ofAddress = /^https:\/\/([a-z]{20})\.supabase\./.exec(optional(environment, variables.projectUrl) ?? "");
  return ofDeployment?.[1] ?? ofAddress?.[1] ?? null;
}
