/**
 * What the keys of schemas auth and storage do not say: whose rows they are, and what a restore, an export and an erasure
 * do with them. Tables as the migrations of supabase/auth (to 20260625000000) and supabase/storage (to 0063) leave them.
 */
import type { TableName } from "../../restore/project_rows.ts";

/** What becomes of a user's rows of one table. */
export interface Treatment {
  /**
   * `rows`: they come back. `credentials`: into a project where the user is, only when credentials are asked for. `files`:
   * a row comes back with its file only. `never`: what they open or describe is over.
   */
  readonly restore: "rows" | "credentials" | "files" | "never";
  /**
   * A row of `rows` lets somebody in: one that is gone goes into an account that is there only when credentials are asked for,
   * since it may have been taken away on purpose.
   */
  readonly letsIn?: boolean;
  /** What a person gets who asks for their data. `without secrets`: all but the columns of `credentials` and `tokens`. */
  readonly export: "rows" | "without secrets" | "files" | "never";
  /** `scrub`: the row stays, what it says of the person goes. */
  readonly erase: "rows" | "files" | "scrub";
  /** Columns by which the user, or an app, is let in: into an existing row they go only when credentials are asked for. */
  readonly credentials: readonly string[];
  /** Columns of texts that open something once: an existing row keeps its own, a new one gets the empty text. */
  readonly tokens: readonly string[];
  readonly why: string;
}

/** A table of the user's own. */
export const plainTreatment: Treatment = {
  restore: "rows",
  export: "rows",
  erase: "rows",
  credentials: [],
  tokens: [],
  why: "the user's rows",
};

const over = (why: string): Treatment => ({ ...plainTreatment, restore: "never", export: "never", why });

/** By `schema.name`, for every table that can hold rows of one user. */
export const platformTreatments: Readonly<Record<string, Treatment>> = {
  "auth.users": {
    ...plainTreatment,
    export: "without secrets",
    credentials: ["encrypted_password"],
    tokens: [
      "confirmation_token",
      "recovery_token",
      "email_change_token_new",
      "email_change_token_current",
      "phone_change_token",
      "reauthentication_token",
    ],
    why: "the user",
  },
  "auth.identities": { ...plainTreatment, letsIn: true, why: "ways in which the user signs in with others" },
  "auth.mfa_factors": {
    ...plainTreatment,
    restore: "credentials",
    export: "without secrets",
    credentials: ["secret", "web_authn_credential", "last_webauthn_challenge_data"],
    why: "second factors",
  },
  "auth.webauthn_credentials": {
    ...plainTreatment,
    restore: "credentials",
    export: "without secrets",
    credentials: ["credential_id", "public_key", "sign_count"],
    why: "passkeys",
  },
  "auth.oauth_consents": {
    ...plainTreatment,
    letsIn: true,
    credentials: ["scopes", "granted_at", "revoked_at"],
    why: "what the user allowed other apps",
  },
  "auth.sessions": over("a session that ended does not begin again"),
  "auth.refresh_tokens": over("tokens of sessions"),
  "auth.mfa_amr_claims": over("how sessions were opened"),
  "auth.mfa_challenges": over("second factors asked for and answered"),
  "auth.webauthn_challenges": over("passkeys asked for and answered"),
  "auth.one_time_tokens": over("links that were sent and work once"),
  "auth.flow_state": over("sign-ins under way"),
  "auth.saml_relay_states": over("sign-ins under way"),
  "auth.oauth_authorizations": over("consents under way"),
  "auth.audit_log_entries": {
    ...plainTreatment,
    restore: "never",
    erase: "scrub",
    why: "what happened stays as it happened",
  },
  "storage.objects": {
    ...plainTreatment,
    restore: "files",
    export: "files",
    erase: "files",
    why: "a row without its file breaks the download",
  },
  "storage.s3_multipart_uploads": { ...over("uploads under way"), erase: "files" },
  "storage.s3_multipart_uploads_parts": { ...over("uploads under way"), erase: "files" },
};

/** Tables whose rows are the project's, whoever made them: nothing reaches a user through them. */
export const projectTables: ReadonlySet<string> = new Set([
  "auth.schema_migrations",
  "auth.instances",
  "auth.sso_providers",
  "auth.sso_domains",
  "auth.saml_providers",
  "auth.oauth_clients",
  "auth.oauth_client_states",
  "auth.custom_oauth_providers",
  "storage.migrations",
  "storage.buckets",
  "storage.prefixes",
  "storage.buckets_analytics",
  "storage.buckets_vectors",
  "storage.iceberg_namespaces",
  "storage.iceberg_tables",
  "storage.vector_indexes",
]);

const unknownTreatment = over("this version does not know the table");

/** Of a table of auth or storage that this version does not know, nothing comes back. */
export function treatmentOf({ schema, name }: TableName): Treatment {
  if (schema !== "auth" && schema !== "storage") return plainTreatment;
  return platformTreatments[`${schema}.${name}`] ?? unknownTreatment;
}

export interface UserColumn {
  readonly table: TableName;
  readonly column: string;
}

const column = (schema: string, name: string, column: string): UserColumn => ({ table: { schema, name }, column });

/** Columns that hold a user's id (uuid or text) without a foreign key. */
export const platformUserColumns: readonly UserColumn[] = [
  column("auth", "refresh_tokens", "user_id"),
  column("auth", "flow_state", "user_id"),
  column("auth", "flow_state", "linking_target_id"),
  column("storage", "objects", "owner"),
  column("storage", "objects", "owner_id"),
  column("storage", "s3_multipart_uploads", "owner_id"),
  column("storage", "s3_multipart_uploads_parts", "owner_id"),
];

/** Documents and texts that name a user: for exports and erasures, which search them; no link of the graph. */
export interface Mention {
  readonly table: TableName;
  readonly column: string;
  /** Keys within a document; null: the whole text. */
  readonly path: readonly string[] | null;
  readonly holds: "user id" | "e-mail" | "phone" | "e-mail or phone" | "name" | "provider id";
}

const entry = { schema: "auth", name: "audit_log_entries" } as const;
const user = { schema: "auth", name: "users" } as const;
const identity = { schema: "auth", name: "identities" } as const;

export const platformMentions: readonly Mention[] = [
  { table: entry, column: "payload", path: ["actor_id"], holds: "user id" },
  { table: entry, column: "payload", path: ["actor_username"], holds: "e-mail or phone" },
  { table: entry, column: "payload", path: ["actor_name"], holds: "name" },
  { table: entry, column: "payload", path: ["traits", "user_id"], holds: "user id" },
  { table: entry, column: "payload", path: ["traits", "user_email"], holds: "e-mail" },
  { table: entry, column: "payload", path: ["traits", "user_phone"], holds: "phone" },
  { table: user, column: "email", path: null, holds: "e-mail" },
  { table: user, column: "email_change", path: null, holds: "e-mail" },
  { table: user, column: "phone", path: null, holds: "phone" },
  { table: user, column: "phone_change", path: null, holds: "phone" },
  { table: user, column: "raw_user_meta_data", path: ["full_name"], holds: "name" },
  { table: user, column: "raw_user_meta_data", path: ["email"], holds: "e-mail" },
  { table: user, column: "raw_user_meta_data", path: ["phone"], holds: "phone" },
  { table: identity, column: "provider_id", path: null, holds: "provider id" },
  { table: identity, column: "identity_data", path: ["sub"], holds: "provider id" },
  { table: identity, column: "identity_data", path: ["email"], holds: "e-mail" },
  { table: identity, column: "identity_data", path: ["phone"], holds: "phone" },
  { table: { schema: "auth", name: "mfa_factors" }, column: "phone", path: null, holds: "phone" },
  { table: { schema: "auth", name: "one_time_tokens" }, column: "relates_to", path: null, holds: "e-mail or phone" },
  { table: { schema: "auth", name: "saml_relay_states" }, column: "for_email", path: null, holds: "e-mail" },
];
