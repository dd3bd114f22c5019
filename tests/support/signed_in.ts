/** People who are signed in, with or without a second factor: every token is issued by the stack's own Auth, none is forged. */
import { randomUUID } from "node:crypto";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { decodeJwt } from "jose";
import { stepAt, totpCode } from "../../src/local/gateway/totp.ts";
import type { Stack } from "../../src/local/stack.ts";
import { query } from "./cluster.ts";

// supabase-js wants a WebSocket class on Node 20 even where Realtime is never used, as here.
if (!("WebSocket" in globalThis)) Reflect.set(globalThis, "WebSocket", class {});

/** What of a stack is needed; a cluster with a gateway in front of it does as well. */
type Place = Pick<Stack, "cluster" | "gateway">;

export interface SignedIn {
  /** Signed in; renews nothing by itself. */
  readonly client: SupabaseClient;
  readonly userId: string;
  readonly email: string;
  /** As it was issued by signing in, for an hour. */
  readonly accessToken: string;
}

export interface SignInOptions {
  /** A user who is there already gets one more session. Default: a new user. */
  readonly email?: string;
  /** By a second factor too, enrolled when the user has none. It ends the user's sessions at `aal1`. Default `false`. */
  readonly aal2?: boolean;
}

const password = "a password of the tests";

export async function signedIn(place: Place, options: SignInOptions = {}): Promise<SignedIn> {
  const { url, publishableKey, secretKey } = place.gateway;
  const alone = { auth: { persistSession: false, autoRefreshToken: false } };
  const email = options.email ?? `${randomUUID()}@signed-in.example`;
  const made = await createClient(url, secretKey, alone).auth.admin.createUser({
    email,
    password,
    email_confirm: true,
  });
  if (made.error !== null && made.error.code !== "email_exists") throw made.error;
  const client = createClient(url, publishableKey, alone);
  const { data, error } = await client.auth.signInWithPassword({ email, password });
  if (error !== null) throw error;
  const person: SignedIn = { client, email, userId: data.user.id, accessToken: data.session.access_token };
  return options.aal2 === true ? { ...person, accessToken: await useFactor(place, person) } : person;
}

/**
 * The second factor used in this moment, once more or for the first time; returns the session's new token. A code works
 * once and three hold at a time, so the fourth use within 30 seconds waits for the next code.
 */
export async function useFactor(place: Place, person: SignedIn): Promise<string> {
  const { id, secret } = await factorOf(place, person);
  const deadline = performance.now() + 60_000;
  for (;;) {
    for (const away of [0, 1, -1]) {
      const code = await totpCode(secret, stepAt(Date.now()) + away);
      const { data, error } = await person.client.auth.mfa.challengeAndVerify({ factorId: id, code });
      if (error === null) return data.access_token;
      if (error.code !== "mfa_verification_failed" || performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function factorOf(
  place: Place,
  person: SignedIn,
): Promise<{ readonly id: string; readonly secret: string }> {
  const [there] = await query(
    place.cluster.url("postgres"),
    "select id, secret from auth.mfa_factors where user_id = $1 and status = 'verified' order by created_at limit 1",
    [person.userId],
  );
  if (there !== undefined) return { id: String(there["id"]), secret: String(there["secret"]) };
  const { data, error } = await person.client.auth.mfa.enroll({ factorType: "totp", friendlyName: randomUUID() });
  if (error !== null) throw error;
  return { id: data.id, secret: data.totp.secret };
}

/**
 * Makes it so that the session's second factor was used so many seconds ago, and its password before that; returns the
 * session's new token, whose `amr` says so.
 */
export async function factorUsedAgo(place: Place, person: SignedIn, seconds: number): Promise<string> {
  const session = decodeJwt(person.accessToken)["session_id"];
  const moved = await query(
    place.cluster.url("postgres"),
    `update auth.mfa_amr_claims set updated_at = case authentication_method
       when 'totp' then now() - make_interval(secs => $2)
       else least(updated_at, now() - make_interval(secs => $2 + 1)) end
     where session_id = $1 returning authentication_method as method`,
    [session, seconds],
  );
  if (!moved.some((claim) => claim["method"] === "totp")) throw new Error("the session has used no second factor");
  const { data, error } = await person.client.auth.refreshSession();
  if (error !== null) throw error;
  if (data.session === null) throw new Error("the session was not renewed");
  return data.session.access_token;
}
