import { json, jsonObject } from "./answer.ts";
import type { AuthDeps } from "./auth.ts";
import { AuthFailure } from "./auth_errors.ts";
import { profileOf, userJson } from "./auth_sessions.ts";
import type { Statements } from "./database.ts";
import { hashPassword } from "./passwords.ts";

export interface NewUser {
  readonly id: string | null;
  readonly email: string;
  /** bcrypt. */
  readonly passwordHash: string;
  readonly confirmed: boolean;
  readonly userMetadata: unknown;
  readonly appMetadata: unknown;
}

const shortestPassword = 6;

/** The user a request's body describes, checked, its password hashed. */
export async function newUser(deps: AuthDeps, body: Record<string, unknown>, byAdmin: boolean): Promise<NewUser> {
  const email = typeof body["email"] === "string" ? body["email"].trim().toLowerCase() : "";
  const password = typeof body["password"] === "string" ? body["password"] : "";
  if (!/^[^@\s]+@[^@\s]+$/.test(email)) {
    throw new AuthFailure(400, "validation_failed", "Unable to validate email address: invalid format");
  }
  if (password.length < shortestPassword && !(byAdmin && password === "")) {
    throw new AuthFailure(422, "weak_password", `Password should be at least ${shortestPassword} characters.`);
  }
  return {
    id: byAdmin && typeof body["id"] === "string" ? body["id"] : null,
    email,
    passwordHash: password === "" ? "" : await hashPassword(deps.passwords, password),
    confirmed: !byAdmin || body["email_confirm"] === true,
    userMetadata: (byAdmin ? body["user_metadata"] : body["data"]) ?? {},
    appMetadata: byAdmin ? body["app_metadata"] ?? {} : {},
  };
}

/** Inserts user and identity; `email_exists` when the address is taken. Returns the id. */
export async function insertUser(sql: Statements, user: NewUser): Promise<string> {
  const [row] = await sql.query(
    `insert into auth.users as u (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
       confirmation_token, recovery_token, email_change_token_new, email_change, raw_app_meta_data, raw_user_meta_data,
       created_at, updated_at)
     select '00000000-0000-0000-0000-000000000000', coalesce($1::uuid, gen_random_uuid()), 'authenticated', 'authenticated',
            $2, $3, case when $4::boolean then now() end, '', '', '', '',
            '{"provider": "email", "providers": ["email"]}'::jsonb || $5::jsonb, $6::jsonb, now(), now()
     on conflict do nothing returning u.id::text`,
    [
      user.id,
      user.email,
      user.passwordHash,
      String(user.confirmed),
      JSON.stringify(user.appMetadata),
      JSON.stringify({ email_verified: true, ...Object(user.userMetadata) }),
    ],
  );
  const id = row?.["id"];
  if (id == null) {
    throw new AuthFailure(422, "email_exists", "A user with this email address has already been registered");
  }
  await sql.query(
    `insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
     values ($1::text, ($1::text)::uuid, json_build_object('sub', $1::text, 'email', $2::text, 'email_verified', false,
       'phone_verified', false)::jsonb, 'email', now(), now(), now())`,
    [id, user.email],
  );
  return id;
}

export async function findUser(sql: Statements, id: string): Promise<unknown> {
  const [row] = await sql.query(`select ${userJson} as profile from auth.users u where u.id::text = $1`, [id]);
  if (row === undefined) throw new AuthFailure(404, "user_not_found", "User not found");
  return profileOf(row["profile"]);
}

/** `/admin/users…` for the service role; null when this is no such request. */
export async function adminRoute(deps: AuthDeps, request: Request, path: string): Promise<Response | null> {
  const { pathname, searchParams } = new URL(path, "http://auth");
  const [, id] = /^\/admin\/users(?:\/([^/]+))?$/.exec(pathname) ?? [undefined, undefined];
  if (!pathname.startsWith("/admin/users")) return null;
  const caller = await deps.tokens.callerOf(request);
  if (caller.role !== "service_role") throw new AuthFailure(403, "not_admin", "User not allowed");
  if (id === undefined) {
    if (request.method === "POST") {
      const user = await newUser(deps, await jsonObject(request) ?? {}, true);
      return await deps.login.transaction(async (sql) => json(200, await findUser(sql, await insertUser(sql, user))));
    }
    if (request.method === "GET") return await listUsers(deps, searchParams);
    return null;
  }
  if (request.method === "GET") return await deps.login.transaction(async (sql) => json(200, await findUser(sql, id)));
  if (request.method !== "DELETE") return null;
  return await deps.login.transaction(async (sql) => {
    await findUser(sql, id);
    await sql.query("delete from auth.users where id = $1::uuid", [id]);
    return json(200, {});
  });
}

async function listUsers(deps: AuthDeps, search: URLSearchParams): Promise<Response> {
  const size = Math.min(Number(search.get("per_page") || "50"), 1_000);
  const skip = (Number(search.get("page") || "1") - 1) * size;
  const rows = await deps.login.transaction((sql) =>
    sql.query(`select ${userJson} as profile from auth.users u order by u.created_at desc, u.id limit $1 offset $2`, [
      String(size),
      String(skip),
    ])
  );
  return json(200, { users: rows.map((row) => profileOf(row["profile"])), aud: "authenticated" });
}
