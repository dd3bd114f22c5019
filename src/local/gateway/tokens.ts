import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CryptoKey,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  type JWTPayload,
  jwtVerify,
  SignJWT,
} from "jose";

/** The keys of a project: a signing pair for sessions, the legacy secret with its two keys, and the new kind of keys. */
export interface ProjectKeys {
  readonly projectRef: string;
  /** Signs the legacy keys and signed URLs (HS256). */
  readonly jwtSecret: string;
  /** Private half of the key that signs sessions (ES256). */
  readonly signingKey: JWK;
  readonly anonKey: string;
  readonly serviceRoleKey: string;
  readonly publishableKey: string;
  readonly secretKey: string;
}

const tenYears = 10 * 365 * 24 * 3600;

/** The keys kept in `folder`, made there at the first call (mode 0600). */
export async function projectKeys(folder: string, projectRef: string): Promise<ProjectKeys> {
  const file = join(folder, "keys.json");
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8"));
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const jwtSecret = randomBytes(32).toString("base64url");
  const legacy = (role: string) =>
    new SignJWT({ iss: "supabase", ref: projectRef, role })
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .setIssuedAt()
      .setExpirationTime(Math.floor(Date.now() / 1000) + tenYears)
      .sign(new TextEncoder().encode(jwtSecret));
  const keys: ProjectKeys = {
    projectRef,
    jwtSecret,
    signingKey: { ...await exportJWK(privateKey), kid: crypto.randomUUID(), alg: "ES256", use: "sig" },
    anonKey: await legacy("anon"),
    serviceRoleKey: await legacy("service_role"),
    publishableKey: `sb_publishable_${randomBytes(24).toString("base64url")}`,
    secretKey: `sb_secret_${randomBytes(24).toString("base64url")}`,
  };
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, JSON.stringify(keys), { mode: 0o600 });
  renameSync(`${file}.new`, file);
  return keys;
}

/** Whoever makes a request: the database role and the claims that the database gets to see. */
export interface Caller {
  readonly role: string;
  readonly claims: JWTPayload;
}

/** The platform's services themselves, where they act for nobody. */
export const serviceCaller: Caller = { role: "service_role", claims: { role: "service_role" } };

/** `no_key`: nothing was given; `bad_key`: not one of the project's; `expired`, `bad_token`: the JWT does not hold. */
export class NotLetIn extends Error {
  readonly kind: "no_key" | "bad_key" | "expired" | "bad_token";
  constructor(kind: NotLetIn["kind"], message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Signs and checks tokens with the project's keys. */
export class Tokens {
  readonly keys: ProjectKeys;
  readonly #secret: Uint8Array;
  readonly #public: JWK;
  readonly #signing: Promise<CryptoKey | Uint8Array>;
  readonly #verifying: Promise<CryptoKey | Uint8Array>;

  constructor(keys: ProjectKeys) {
    this.keys = keys;
    this.#secret = new TextEncoder().encode(keys.jwtSecret);
    const { d: _private, ...rest } = keys.signingKey;
    this.#public = { ...rest, key_ops: ["verify"], ext: true };
    this.#signing = importJWK(keys.signingKey, "ES256");
    this.#verifying = importJWK(this.#public, "ES256");
  }

  /** What `/auth/v1/.well-known/jwks.json` shows. */
  jwks(): { readonly keys: readonly JWK[] } {
    return { keys: [this.#public] };
  }

  /** A session's access token. */
  async signSession(claims: JWTPayload): Promise<string> {
    return await new SignJWT(claims)
      .setProtectedHeader({ alg: "ES256", typ: "JWT", kid: this.keys.signingKey.kid ?? "" })
      .sign(await this.#signing);
  }

  /** A token only this gateway reads, such as a signed URL's. */
  async signInternal(claims: JWTPayload, expiresInSeconds: number): Promise<string> {
    return await new SignJWT(claims)
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .setIssuedAt()
      .setExpirationTime(Math.floor(Date.now() / 1000) + expiresInSeconds)
      .sign(this.#secret);
  }

  /** The claims of a token of this project, by either algorithm; `NotLetIn` where it does not hold. */
  async verify(token: string): Promise<JWTPayload> {
    try {
      const { payload } = await jwtVerify(
        token,
        async (header) => {
          if (header.alg === "HS256") return this.#secret;
          if (header.kid !== this.#public.kid) throw new NotLetIn("bad_token", "unknown signing key");
          return await this.#verifying;
        },
        { algorithms: ["HS256", "ES256"] },
      );
      return payload;
    } catch (error) {
      if (error instanceof NotLetIn) throw error;
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "ERR_JWT_EXPIRED") throw new NotLetIn("expired", "jwt expired");
      throw new NotLetIn(
        "bad_token",
        code === "ERR_JWS_SIGNATURE_VERIFICATION_FAILED" ? "invalid signature" : "jwt malformed",
      );
    }
  }

  /**
   * Who calls, from `Authorization` and `apikey` (header or query). A publishable or secret key stands for its role unless
   * a user's token comes with it.
   */
  async callerOf(request: Request): Promise<Caller> {
    const apikey = request.headers.get("apikey") ?? new URL(request.url).searchParams.get("apikey");
    const bearer = /^Bearer\s+(.+)$/i.exec(request.headers.get("authorization") ?? "")?.[1]?.trim();
    if (apikey === null && bearer === undefined) throw new NotLetIn("no_key", "No API key found in request");
    const keyRole = apikey === null ? null : await this.#roleOfKey(apikey);
    const token = bearer === undefined || bearer === apikey ? apikey ?? "" : bearer;
    if (token === apikey && keyRole !== null) {
      return { role: keyRole, claims: { role: keyRole, ref: this.keys.projectRef } };
    }
    const ownRole = token.startsWith("sb_") ? await this.#roleOfKey(token) : null;
    if (ownRole !== null) return { role: ownRole, claims: { role: ownRole, ref: this.keys.projectRef } };
    const claims = await this.verify(token);
    return { role: typeof claims.role === "string" ? claims.role : "anon", claims };
  }

  /** The role a key stands for; a legacy key is a JWT and speaks for itself. */
  async #roleOfKey(key: string): Promise<string> {
    if (key === this.keys.publishableKey) return "anon";
    if (key === this.keys.secretKey) return "service_role";
    try {
      const { role } = await this.verify(key);
      if (typeof role === "string") return role;
    } catch {
      // not a JWT of this project: refused below
    }
    throw new NotLetIn("bad_key", "Invalid API key");
  }
}
