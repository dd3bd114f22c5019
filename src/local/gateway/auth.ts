import { json, jsonObject } from "./answer.ts";
import { AuthFailure, authFailureAnswer } from "./auth_errors.ts";
import { factorRoute } from "./auth_factors.ts";
import { auditAct, openSession, sessionAnswer, sessionOf } from "./auth_sessions.ts";
import { adminRoute, findUser, insertUser, newUser } from "./auth_users.ts";
import type { Login } from "./database.ts";
import { passwordFits } from "./passwords.ts";
import type { Tokens } from "./tokens.ts";

export interface AuthDeps {
  /** As `supabase_auth_admin`, which owns schema `auth`. */
  readonly login: Login;
  /** As `authenticator`, for bcrypt. */
  readonly passwords: Login;
  readonly tokens: Tokens;
  /** `iss` of the sessions, such as `http://127.0.0.1:1234/auth/v1`. */
  readonly issuer: string;
}

/** `/auth/v1`: sign-up and sign-in by password, refresh, user, sign-out, second factors, signing keys, users for the service role. */
export async function authRoute(deps: AuthDeps, request: Request, path: string): Promise<Response> {
  try {
    const { pathname, searchParams } = new URL(path, "http://auth");
    switch (`${request.method} ${pathname}`) {
      case "GET /.well-known/jwks.json":
        return json(200, deps.tokens.jwks(), { "cache-control": "public, max-age=600" });
      case "GET /health":
        return json(200, { name: "GoTrue", description: "GoTrue is a user registration and authentication API" });
      case "POST /token":
        return await grant(deps, request, searchParams.get("grant_type"));
      case "POST /signup":
        return await signUp(deps, request);
      case "GET /user":
        return await currentUser(deps, request);
      case "POST /logout":
        return await signOut(deps, request, searchParams.get("scope") ?? "global");
    }
    return await factorRoute(deps, request, path) ?? await adminRoute(deps, request, path) ??
      json(404, { code: 404, error_code: "not_found", msg: "Not found" });
  } catch (error) {
    const answer = authFailureAnswer(error);
    if (answer === null) throw error;
    return answer;
  }
}

async function grant(deps: AuthDeps, request: Request, kind: string | null): Promise<Response> {
  await deps.tokens.callerOf(request);
  const body = await jsonObject(request) ?? {};
  if (kind === "password") return await signIn(deps, body);
  if (kind === "refresh_token") return await refresh(deps, body);
  throw new AuthFailure(400, "unsupported_grant_type", "unsupported_grant_type");
}

async function signIn(deps: AuthDeps, body: Record<string, unknown>): Promise<Response> {
  const refused = new AuthFailure(400, "invalid_credentials", "Invalid login credentials");
  const { email, password } = body;
  if (typeof email !== "string" || typeof password !== "string") throw refused;
  const [user] = await deps.login.transaction((sql) =>
    sql.query(
      `select id::text, encrypted_password, email_confirmed_at::text, coalesce(banned_until > now(), false)::text as banned
         from auth.users where lower(email) = lower($1) and not is_sso_user and deleted_at is null`,
      [email],
    )
  );
  const id = user?.["id"];
  if (id == null || !await passwordFits(deps.passwords, password, user?.["encrypted_password"] ?? "")) throw refused;
  if (user?.["banned"] === "true") throw new AuthFailure(400, "user_banned", "User is banned");
  if (user?.["email_confirmed_at"] == null) throw new AuthFailure(400, "email_not_confirmed", "Email not confirmed");
  return await startSession(deps, id);
}

async function startSession(deps: AuthDeps, userId: string): Promise<Response> {
  return await deps.login.transaction(async (sql) => {
    const session = await openSession(sql, userId, "password");
    await auditAct(sql, "login", userId);
    return json(200, await sessionAnswer(sql, deps.tokens, deps.issuer, session, null));
  });
}

async function signUp(deps: AuthDeps, request: Request): Promise<Response> {
  await deps.tokens.callerOf(request);
  const user = await newUser(deps, await jsonObject(request) ?? {}, false);
  const id = await deps.login.transaction((sql) => insertUser(sql, user));
  return await startSession(deps, id);
}

/** A refresh token works once; the session goes on under the next one. */
async function refresh(deps: AuthDeps, body: Record<string, unknown>): Promise<Response> {
  const given = typeof body["refresh_token"] === "string" ? body["refresh_token"] : "";
  return await deps.login.transaction(async (sql) => {
    // the session before its token, in the order in which a verified factor takes them
    await sql.query(
      "select from auth.sessions where id = (select session_id from auth.refresh_tokens where token = $1) for update",
      [given],
    );
    const [token] = await sql.query(
      "select id::text, session_id::text, revoked::text, user_id from auth.refresh_tokens where token = $1 for update",
      [given],
    );
    const session = token?.["session_id"];
    if (token === undefined || session == null) {
      throw new AuthFailure(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found");
    }
    if (token["revoked"] === "true") {
      throw new AuthFailure(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used");
    }
    await sql.query("update auth.refresh_tokens set revoked = true, updated_at = now() where id = $1::bigint", [
      token["id"] ?? null,
    ]);
    await sql.query(
      "update auth.sessions set refreshed_at = now() at time zone 'UTC', updated_at = now() where id = $1::uuid",
      [
        session,
      ],
    );
    await auditAct(sql, "token_refreshed", token["user_id"] ?? "");
    return json(200, await sessionAnswer(sql, deps.tokens, deps.issuer, session, given));
  });
}

async function currentUser(deps: AuthDeps, request: Request): Promise<Response> {
  const { user } = await sessionOf(deps, request);
  return await deps.login.transaction(async (sql) => json(200, await findUser(sql, user)));
}

async function signOut(deps: AuthDeps, request: Request, scope: string): Promise<Response> {
  const { user, session } = await sessionOf(deps, request);
  const which = { local: "id = $2::uuid", others: "id <> $2::uuid", global: "$2::uuid is not null" }[scope];
  if (which === undefined) throw new AuthFailure(400, "validation_failed", `Unsupported logout scope "${scope}"`);
  await deps.login.transaction(async (sql) => {
    await sql.query(`delete from auth.sessions where user_id = $1::uuid and ${which}`, [user, session]);
    await auditAct(sql, "logout", user);
  });
  return new Response(null, { status: 204 });
}
