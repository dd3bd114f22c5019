/** Who a person's token says they are: a session of this project's Auth, by its signing keys or, for the old secret, by Auth itself. */
import {
  createRemoteJWKSet,
  customFetch,
  decodeJwt,
  decodeProtectedHeader,
  type JWTPayload,
  jwtVerify,
  type JWTVerifyGetKey,
} from "jose";
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Fetch } from "../store/http_call.ts";
import { refusal } from "./caller.ts";
import { createTurns } from "./turns.ts";

/** What the database judges. */
export interface PersonClaims {
  readonly sub: string;
  readonly session_id: string;
  readonly aal: string;
  readonly amr: readonly unknown[];
}

/** Auth of this project. */
export interface AuthService {
  /** Such as `https://<project>.supabase.co`. */
  readonly projectUrl: string;
  /** What its tokens name as their issuer. */
  readonly issuer: string;
  /** A key that the platform's edge lets through. */
  readonly apiKey: string;
  readonly fetch: Fetch;
}

/**
 * Claims of a genuine token that is in force at `now`. Asymmetric keys are checked here; a token by the project's old secret
 * (HS256), which a function does not have, is shown to Auth. `unauthorised` for whatever is wrong with it, with one message
 * for all of it; `project_unreachable` where Auth does not answer, `too_many_calls` where too many wait to be shown to it.
 */
export type CheckPerson = (token: string, now: Date, address: string) => Promise<PersonClaims>;

const claimsSchema = z.object({
  sub: z.guid(),
  session_id: z.guid(),
  aal: z.string(),
  amr: z.array(z.unknown()).default([]),
  role: z.literal("authenticated"),
  is_anonymous: z.literal(false).optional(),
});

const signedByKeys = ["ES256", "RS256", "EdDSA"];
const longestToken = 8192;
const fetchMs = 5_000;
/** Tokens that an isolate shows to Auth at a time. Anybody can write one that has to be shown, so addresses take turns. */
const showing = { atOnce: 4, waiting: 20, waitingOfOne: 8 } as const;

/** Of one isolate: the signing keys are fetched when the first token is shown, and kept. */
export function createCheckPerson(service: AuthService): CheckPerson {
  const keys = createRemoteJWKSet(new URL(`${service.projectUrl}/auth/v1/.well-known/jwks.json`), {
    timeoutDuration: fetchMs,
    [customFetch]: (url, init) => reached(service.fetch(url, init)),
  });
  const turns = createTurns(showing);
  return async (token, now, address) => {
    if (token.length > longestToken) throw refusal();
    const payload = algorithmOf(token) === "HS256"
      ? await shownToAuth(token, service, now, (show) => turns.take(address, show))
      : await checkedByKeys(token, keys, service, now);
    const claims = claimsSchema.safeParse(payload);
    if (!claims.success) throw refusal();
    const { sub, session_id, aal, amr } = claims.data;
    return { sub, session_id, aal, amr };
  };
}

function algorithmOf(token: string): unknown {
  try {
    return decodeProtectedHeader(token).alg;
  } catch {
    throw refusal();
  }
}

async function checkedByKeys(
  token: string,
  keys: JWTVerifyGetKey,
  { issuer }: AuthService,
  now: Date,
): Promise<JWTPayload> {
  try {
    const { payload } = await jwtVerify(token, keys, {
      algorithms: signedByKeys,
      issuer,
      audience: "authenticated",
      requiredClaims: ["exp", "sub", "iat"],
      currentDate: now,
    });
    return payload;
  } catch (error) {
    throw error instanceof HoldfastError || timedOut(error) ? unanswered() : refusal();
  }
}

/**
 * Auth checks the signature and that the session is there; time, issuer and audience are checked here as well, before. `inTurn`
 * waits until the token may be shown.
 */
async function shownToAuth(
  token: string,
  service: AuthService,
  now: Date,
  inTurn: (show: () => Promise<unknown>) => Promise<unknown>,
): Promise<JWTPayload> {
  const payload = decodedOf(token);
  const seconds = now.getTime() / 1000;
  const inForce = payload.iss === service.issuer && payload.aud === "authenticated" &&
    typeof payload.exp === "number" && payload.exp > seconds && typeof payload.iat === "number" &&
    (payload.nbf === undefined || payload.nbf <= seconds);
  if (!inForce) throw refusal();
  const user = z.object({ id: z.string() }).safeParse(await inTurn(() => userOf(token, service)));
  if (!user.success || user.data.id !== payload.sub) throw refusal();
  return payload;
}

/** What Auth answers; null for no JSON. Errors: `unauthorised` where it does not know the token. */
async function userOf(token: string, service: AuthService): Promise<unknown> {
  const response = await reached(service.fetch(`${service.projectUrl}/auth/v1/user`, {
    headers: { apikey: service.apiKey, authorization: `Bearer ${token}` },
    redirect: "error",
    signal: AbortSignal.timeout(fetchMs),
  }));
  if (response.ok) return await response.json().catch(() => null);
  await response.body?.cancel();
  throw refusal();
}

function decodedOf(token: string): JWTPayload {
  try {
    return decodeJwt(token);
  } catch {
    throw refusal();
  }
}

/** Errors: `project_unreachable` where there is no answer, or one that says that Auth is not well. */
async function reached(answer: Promise<Response>): Promise<Response> {
  const response = await answer.catch(() => {
    throw unanswered();
  });
  if (response.status < 500) return response;
  await response.body?.cancel();
  throw unanswered();
}

const timedOut = (error: unknown): boolean =>
  error instanceof Error && "code" in error && error.code === "ERR_JWKS_TIMEOUT";

function unanswered(): HoldfastError {
  return new HoldfastError("project_unreachable", "Auth does not answer, so nobody can be recognised");
}
