import { json, jsonObject } from "./answer.ts";
import type { AuthDeps } from "./auth.ts";
import { AuthFailure, notJson } from "./auth_errors.ts";
import { enroll } from "./auth_factor_enroll.ts";
import { auditAct, type OpenSession, sessionAnswer, sessionGone, sessionOf } from "./auth_sessions.ts";
import type { Statements } from "./database.ts";
import { stepOfCode } from "./totp.ts";

/** How long a challenge may be answered. */
const challengeSeconds = 300;

type Act = (deps: AuthDeps, at: OpenSession, factorId: string, request: Request) => Promise<Response>;

const acts: ReadonlyMap<string, Act> = new Map<string, Act>([
  ["POST challenge", challenge],
  ["POST verify", verify],
  ["DELETE ", unenroll],
]);

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/**
 * `/factors…`, second factors by time-based codes: enroll, challenge, verify, unenroll, as Auth answers them. Listing is
 * `GET /user`. Codes work once each, which is stricter than Auth. Null when this is no such request.
 */
export async function factorRoute(deps: AuthDeps, request: Request, path: string): Promise<Response | null> {
  const { pathname } = new URL(path, "http://auth");
  const [there, id, verb = ""] = /^\/factors(?:\/([^/]+)(?:\/(challenge|verify))?)?\/?$/.exec(pathname) ?? [];
  if (there === undefined) return null;
  if (id === undefined) {
    return request.method === "POST" ? await enroll(deps, await sessionOf(deps, request), request) : null;
  }
  const act = acts.get(`${request.method} ${verb}`);
  if (act === undefined) return null;
  const at = await sessionOf(deps, request);
  if (!uuid.test(id)) throw new AuthFailure(404, "validation_failed", "factor_id must be an UUID");
  return await act(deps, at, id, request);
}

async function challenge(deps: AuthDeps, at: OpenSession, factorId: string): Promise<Response> {
  const id = crypto.randomUUID();
  return await deps.login.transaction(async (sql) => {
    const factor = await ownFactor(sql, at, factorId);
    const [made] = await sql.query(
      `insert into auth.mfa_challenges (id, factor_id, created_at, ip_address) values ($1::uuid, $2::uuid, now(), '127.0.0.1')
       returning floor(extract(epoch from created_at) + ${challengeSeconds})::text as expires`,
      [id, factorId],
    );
    await sql.query("update auth.mfa_factors set last_challenged_at = now() where id = $1::uuid", [factorId]);
    await auditAct(sql, "challenge_created", at.user, "factor", {
      factor_id: factorId,
      factor_status: factor.status,
    });
    return json(200, { id, type: "totp", expires_at: Number(made?.["expires"]) });
  });
}

/**
 * A right code lifts the caller's session to `aal2` under a new refresh token and ends the user's sessions below; factors
 * that were never verified go.
 */
async function verify(deps: AuthDeps, at: OpenSession, factorId: string, request: Request): Promise<Response> {
  const body = await jsonObject(request);
  if (body === null) throw notJson();
  const code = typeof body["code"] === "string" ? body["code"].trim() : "";
  const challengeId = body["challenge_id"];
  const outcome = await deps.login.transaction(async (sql) => {
    const { secret } = await ownFactor(sql, at, factorId);
    if (code === "") throw new AuthFailure(400, "validation_failed", "Code needs to be non-empty");
    if (typeof challengeId !== "string" || !uuid.test(challengeId)) throw notJson();
    const refused = await refusedChallenge(sql, factorId, challengeId);
    if (refused !== null) return refused;
    await useCode(sql, factorId, challengeId, secret, code);
    const parent = await liftSession(sql, at, factorId);
    await auditAct(sql, "verification_attempted", at.user, "factor", {
      factor_id: factorId,
      challenge_id: challengeId,
      factor_type: "totp",
    });
    return await sessionAnswer(sql, deps.tokens, deps.issuer, at.session, parent);
  });
  if (outcome instanceof AuthFailure) throw outcome;
  return json(200, outcome);
}

/** Why a challenge cannot be answered, or null. It is no throw, since one that is over goes for good. */
async function refusedChallenge(sql: Statements, factorId: string, challengeId: string): Promise<AuthFailure | null> {
  const [found] = await sql.query(
    `select (verified_at is not null)::text as used,
            (created_at + interval '${challengeSeconds} seconds' < now())::text as over
       from auth.mfa_challenges where id = $1::uuid and factor_id = $2::uuid`,
    [challengeId, factorId],
  );
  if (found === undefined) {
    return new AuthFailure(422, "mfa_factor_not_found", "MFA factor with the provided challenge ID not found");
  }
  if (found["used"] === "true") {
    return new AuthFailure(422, "mfa_ip_address_mismatch", "Challenge and verify IP addresses mismatch.");
  }
  if (found["over"] !== "true") return null;
  await sql.query("delete from auth.mfa_challenges where id = $1::uuid", [challengeId]);
  return new AuthFailure(
    422,
    "mfa_challenge_expired",
    `MFA challenge ${challengeId} has expired, verify against another challenge or create a new challenge.`,
  );
}

/** The step of a code that was taken stays in the challenge's `otp_code`, which Auth uses for phones only. */
async function useCode(
  sql: Statements,
  factorId: string,
  challengeId: string,
  secret: string,
  code: string,
): Promise<void> {
  const wrong = new AuthFailure(422, "mfa_verification_failed", "Invalid TOTP code entered");
  const step = await stepOfCode(secret, code, Date.now());
  if (step === null) throw wrong;
  const [used] = await sql.query(
    "select from auth.mfa_challenges where factor_id = $1::uuid and verified_at is not null and otp_code = $2",
    [factorId, String(step)],
  );
  if (used !== undefined) throw wrong;
  await sql.query("update auth.mfa_challenges set verified_at = now(), otp_code = $2 where id = $1::uuid", [
    challengeId,
    String(step),
  ]);
}

/** Returns the refresh token that was the session's last; it is revoked. */
async function liftSession(sql: Statements, at: OpenSession, factorId: string): Promise<string | null> {
  const [open] = await sql.query("select from auth.sessions where id = $1::uuid for update", [at.session]);
  if (open === undefined) throw sessionGone();
  await sql.query(
    "update auth.mfa_factors set status = 'verified', updated_at = now() where id = $1::uuid and status <> 'verified'",
    [factorId],
  );
  await sql.query(
    "delete from auth.mfa_factors where user_id = $1::uuid and status = 'unverified' and factor_type = 'totp'",
    [at.user],
  );
  await sql.query(
    `insert into auth.mfa_amr_claims (id, session_id, created_at, updated_at, authentication_method)
     values (gen_random_uuid(), $1::uuid, now(), now(), 'totp')
     on conflict (session_id, authentication_method) do update set updated_at = now()`,
    [at.session],
  );
  await sql.query(
    "update auth.sessions set aal = 'aal2', factor_id = $2::uuid, updated_at = now() where id = $1::uuid",
    [at.session, factorId],
  );
  await sql.query("delete from auth.sessions where user_id = $1::uuid and aal < 'aal2'", [at.user]);
  const [last] = await sql.query(
    `update auth.refresh_tokens set revoked = true, updated_at = now() where session_id = $1::uuid and not revoked
     returning token`,
    [at.session],
  );
  return last?.["token"] ?? null;
}

/** Sessions that came to `aal2` by the factor are at `aal1` again from their next token on. */
async function unenroll(deps: AuthDeps, at: OpenSession, factorId: string): Promise<Response> {
  return await deps.login.transaction(async (sql) => {
    const { status } = await ownFactor(sql, at, factorId);
    if (status === "verified" && at.aal !== "aal2") {
      throw new AuthFailure(422, "insufficient_aal", "AAL2 required to unenroll verified factor");
    }
    await sql.query("delete from auth.mfa_factors where id = $1::uuid", [factorId]);
    await sql.query(
      `delete from auth.mfa_amr_claims where authentication_method = 'totp'
          and session_id in (select id from auth.sessions where factor_id = $1::uuid)`,
      [factorId],
    );
    await sql.query("update auth.sessions set aal = 'aal1', factor_id = null where factor_id = $1::uuid", [factorId]);
    await auditAct(sql, "factor_unenrolled", at.user, "factor", {
      factor_id: factorId,
      factor_status: status,
      session_id: at.session,
    });
    return json(200, { id: factorId });
  });
}

/** The caller's own factor of this id. Whatever is done with a user's factors waits for its turn, until commit. */
async function ownFactor(
  sql: Statements,
  at: OpenSession,
  id: string,
): Promise<{ readonly status: string; readonly secret: string }> {
  await sql.query("select from auth.users where id = $1::uuid for no key update", [at.user]);
  const [row] = await sql.query(
    `select status::text, secret from auth.mfa_factors
      where id = $1::uuid and user_id = $2::uuid and factor_type = 'totp'`,
    [id, at.user],
  );
  if (row === undefined) throw new AuthFailure(404, "mfa_factor_not_found", "Factor not found");
  return { status: row["status"] ?? "", secret: row["secret"] ?? "" };
}
