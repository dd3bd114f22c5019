import { randomBytes } from "node:crypto";
import type { AuthDeps } from "./auth.ts";
import { AuthFailure } from "./auth_errors.ts";
import type { Statements } from "./database.ts";
import type { Tokens } from "./tokens.ts";

/** Lifetime of an access token. */
const sessionSeconds = 3_600;

const goTime = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

/** A row of `auth.users` as the API shows it. */
export const userJson = `json_build_object(
  'id', u.id, 'aud', u.aud, 'role', u.role, 'email', coalesce(u.email, ''), 'phone', coalesce(u.phone, ''),
  'email_confirmed_at', ${goTime("u.email_confirmed_at")}, 'confirmed_at', ${goTime("u.confirmed_at")},
  'last_sign_in_at', ${goTime("u.last_sign_in_at")},
  'app_metadata', coalesce(u.raw_app_meta_data, '{}'), 'user_metadata', coalesce(u.raw_user_meta_data, '{}'),
  'identities', coalesce((
    select json_agg(json_build_object(
             'identity_id', i.id, 'id', i.provider_id, 'user_id', i.user_id, 'identity_data', i.identity_data,
             'provider', i.provider, 'email', i.email, 'last_sign_in_at', ${goTime("i.last_sign_in_at")},
             'created_at', ${goTime("i.created_at")}, 'updated_at', ${goTime("i.updated_at")}) order by i.created_at)
      from auth.identities i where i.user_id = u.id), '[]'),
  'factors', (
    select json_agg(json_strip_nulls(json_build_object(
             'id', f.id, 'friendly_name', nullif(f.friendly_name, ''), 'factor_type', f.factor_type, 'status', f.status,
             'created_at', ${goTime("f.created_at")}, 'updated_at', ${goTime("f.updated_at")},
             'last_challenged_at', ${goTime("f.last_challenged_at")})) order by f.created_at)
      from auth.mfa_factors f where f.user_id = u.id),
  'created_at', ${goTime("u.created_at")}, 'updated_at', ${
  goTime("u.updated_at")
}, 'is_anonymous', u.is_anonymous)::text`;

/** What `userJson` selected, without the fields that say nothing. */
export function profileOf(text: string | null | undefined): Record<string, unknown> {
  const all: Record<string, unknown> = JSON.parse(text ?? "{}");
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null));
}

/** What a user's token says of its session, and how far the session itself has come. */
export interface OpenSession {
  readonly user: string;
  readonly session: string;
  readonly aal: string;
}

/** The session of the user's token that came with a request; `session_not_found` where it has ended. */
export async function sessionOf(deps: Pick<AuthDeps, "login" | "tokens">, request: Request): Promise<OpenSession> {
  const { claims } = await deps.tokens.callerOf(request);
  const session = claims["session_id"];
  if (claims.sub === undefined || typeof session !== "string") {
    throw new AuthFailure(403, "bad_jwt", "invalid claim: missing sub claim");
  }
  const [row] = await deps.login.transaction((sql) =>
    sql.query("select aal::text from auth.sessions where id = $1::uuid", [session])
  );
  if (row === undefined) throw sessionGone();
  return { user: claims.sub, session, aal: row["aal"] ?? "aal1" };
}

export const sessionGone = () =>
  new AuthFailure(403, "session_not_found", "Session from session_id claim in JWT does not exist");

/** A new session at `aal1`, signed in by `method`. Returns its id. */
export async function openSession(sql: Statements, userId: string, method: string): Promise<string> {
  const session = crypto.randomUUID();
  await sql.query(
    `insert into auth.sessions (id, user_id, created_at, updated_at, aal) values ($1::uuid, $2::uuid, now(), now(), 'aal1')`,
    [session, userId],
  );
  await sql.query(
    `insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method)
     values (gen_random_uuid(), $1::uuid, now(), now(), $2)`,
    [session, method],
  );
  await sql.query("update auth.users set last_sign_in_at = now(), updated_at = now() where id = $1::uuid", [userId]);
  return session;
}

/** An entry of the claim `amr`: seconds since 1970 at which the method was used last. */
interface MethodUsed {
  readonly method: string;
  readonly timestamp: number;
}

/**
 * Access and refresh token of a session, as `/token` answers. `parent` is the refresh token that was given for it. The
 * token's `amr` is made of the session's rows of `auth.mfa_amr_claims`, newest first, and its `aal` follows from them.
 */
export async function sessionAnswer(
  sql: Statements,
  tokens: Tokens,
  issuer: string,
  sessionId: string,
  parent: string | null,
): Promise<Record<string, unknown>> {
  const [row] = await sql.query(
    `select s.user_id::text, ${userJson} as profile,
            (select coalesce(json_agg(json_build_object('method', c.authentication_method,
                      'timestamp', floor(extract(epoch from c.updated_at))) order by c.updated_at desc), '[]')::text
               from auth.mfa_amr_claims c where c.session_id = s.id) as amr
       from auth.sessions s join auth.users u on u.id = s.user_id where s.id = $1::uuid`,
    [sessionId],
  );
  const user = profileOf(row?.["profile"]);
  const amr: readonly MethodUsed[] = JSON.parse(row?.["amr"] ?? "[]");
  const now = Math.floor(Date.now() / 1000);
  const accessToken = await tokens.signSession({
    iss: issuer,
    sub: row?.["user_id"] ?? "",
    aud: "authenticated",
    exp: now + sessionSeconds,
    iat: now,
    email: user["email"],
    phone: user["phone"],
    app_metadata: user["app_metadata"],
    user_metadata: user["user_metadata"],
    role: user["role"] ?? "authenticated",
    aal: amr.some(({ method }) => method === "totp") ? "aal2" : "aal1",
    amr,
    session_id: sessionId,
    is_anonymous: user["is_anonymous"] ?? false,
  });
  const refreshToken = randomBytes(9).toString("base64url");
  await sql.query(
    `insert into auth.refresh_tokens (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)
     values ('00000000-0000-0000-0000-000000000000', $1, $2, false, now(), now(), $3, $4::uuid)`,
    [refreshToken, row?.["user_id"] ?? "", parent, sessionId],
  );
  return {
    access_token: accessToken,
    token_type: "bearer",
    expires_in: sessionSeconds,
    expires_at: now + sessionSeconds,
    refresh_token: refreshToken,
    user,
    weak_password: null,
  };
}

/** One line of Auth's own audit log. */
export async function auditAct(
  sql: Statements,
  action: string,
  userId: string,
  kind: "account" | "factor" = "account",
  traits: Readonly<Record<string, string>> = { provider: "email" },
): Promise<void> {
  await sql.query(
    `insert into auth.audit_log_entries (instance_id, id, payload, created_at)
     select '00000000-0000-0000-0000-000000000000', gen_random_uuid(),
            json_build_object('action', $1::text, 'actor_id', u.id, 'actor_username', u.email, 'actor_via_sso', false,
                              'log_type', $3::text, 'traits', $4::json), now()
       from auth.users u where u.id = $2::uuid`,
    [action, userId, kind, JSON.stringify(traits)],
  );
}
