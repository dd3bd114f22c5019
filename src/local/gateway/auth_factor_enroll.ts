import { json, jsonObject } from "./answer.ts";
import type { AuthDeps } from "./auth.ts";
import { AuthFailure, notJson } from "./auth_errors.ts";
import { auditAct, type OpenSession } from "./auth_sessions.ts";
import type { Statements } from "./database.ts";
import { toBase32 } from "./totp.ts";

/** Of one user, verified or not. */
const mostFactors = 10;

/** RFC 4226 recommends 160 bits. */
const secretBytes = 20;

/** `POST /factors`: an unverified factor of the user's with its secret, which is shown this once. */
export async function enroll(deps: AuthDeps, at: OpenSession, request: Request): Promise<Response> {
  const body = await jsonObject(request);
  if (body === null) throw notJson();
  const name = typeof body["friendly_name"] === "string" ? body["friendly_name"] : "";
  checkKind(body["factor_type"]);
  const id = crypto.randomUUID();
  const secret = toBase32(crypto.getRandomValues(new Uint8Array(secretBytes)));
  const email = await deps.login.transaction(async (sql) => {
    const [user] = await sql.query("select email from auth.users where id = $1::uuid for no key update", [at.user]);
    await sql.query(
      `delete from auth.mfa_factors f where status = 'unverified' and created_at < now() - interval '5 minutes'
          and not exists (select from auth.mfa_challenges c where c.factor_id = f.id)`,
    );
    await checkRoom(sql, at, name);
    await sql.query(
      `insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, secret, created_at, updated_at)
       values ($1::uuid, $2::uuid, $3, 'totp', 'unverified', $4, now(), now())`,
      [id, at.user, name, secret],
    );
    await auditAct(sql, "factor_in_progress", at.user, "factor", { factor_id: id });
    return user?.["email"] ?? "";
  });
  const issuer = typeof body["issuer"] === "string" && body["issuer"] !== ""
    ? body["issuer"]
    : new URL(deps.issuer).host;
  const uri = otpUri(issuer, email, secret);
  return json(200, { id, type: "totp", friendly_name: name, totp: { qr_code: picture(uri), secret, uri } });
}

function checkKind(kind: unknown): void {
  if (kind === "totp") return;
  if (kind === "phone" || kind === "webauthn") {
    const title = kind === "phone" ? "Phone" : "WebAuthn";
    throw new AuthFailure(422, `mfa_${kind}_enroll_not_enabled`, `MFA enroll is disabled for ${title}`);
  }
  throw new AuthFailure(400, "validation_failed", "factor_type needs to be totp, phone, or webauthn");
}

/** Whether the user may have one more factor of this name; two without a name are of the same one, as with Auth. */
async function checkRoom(sql: Statements, at: OpenSession, name: string): Promise<void> {
  const factors = await sql.query(
    "select coalesce(friendly_name, '') as name, status::text from auth.mfa_factors where user_id = $1::uuid",
    [at.user],
  );
  if (factors.some((factor) => factor["name"] === name)) {
    throw new AuthFailure(
      422,
      "mfa_factor_name_conflict",
      `A factor with the friendly name ${JSON.stringify(name)} for this user already exists`,
    );
  }
  if (factors.length >= mostFactors) {
    throw new AuthFailure(
      422,
      "too_many_enrolled_mfa_factors",
      "Maximum number of verified factors reached, unenroll to continue",
    );
  }
  if (at.aal !== "aal2" && factors.some((factor) => factor["status"] === "verified")) {
    throw new AuthFailure(403, "insufficient_aal", "AAL2 required to enroll a new factor");
  }
}

function otpUri(issuer: string, account: string, secret: string): string {
  const label = `${encodeURIComponent(issuer)}:${encodeURIComponent(account)}`;
  const named = `issuer=${encodeURIComponent(issuer)}`;
  return `otpauth://totp/${label}?algorithm=SHA1&digits=6&${named}&period=30&secret=${secret}`;
}

/** An SVG that says the address as text: this stack draws no code to scan. */
function picture(uri: string): string {
  const text = uri.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="960" height="24"><text x="4" y="16" font-size="10">${text}</text></svg>`;
}
