/** Who may call a function: whoever holds the worker secret and signs the call with it. The secret itself never travels. */
import { HoldfastError } from "../errors.ts";

/** How far the caller's clock and ours may be apart, and how long a signed call may be under way. */
export const callValidMs = 5 * 60_000;
/** Shorter secrets are refused here and by `backup.invoke`; `openssl rand -base64 48` gives 64 characters. */
export const minSecretLength = 32;

export const callHeaders = {
  timestamp: "x-holdfast-timestamp",
  nonce: "x-holdfast-nonce",
  signature: "x-holdfast-signature",
} as const;

export interface CallToCheck {
  /** The function that was called; a call signed for another one is refused. */
  readonly functionName: string;
  readonly headers: Headers;
  /** The body's bytes as they came. */
  readonly body: Uint8Array;
  /** The worker secret; when it is missing or too short nobody may call. */
  readonly secret: string | undefined;
  readonly now: Date;
}

export interface SignedCall {
  /** Accepted once by `backup.accept_call`: the signature alone does not tell a repeated call. */
  readonly nonce: string;
  readonly expiresAt: Date;
}

/** What the headers say, before anybody knows whether it is true. */
interface Form {
  readonly timestamp: string;
  readonly nonce: string;
  readonly signature: Uint8Array;
  readonly secret: string;
  readonly issuedMs: number;
}

/** Looks at headers and time alone, which costs nothing. `unauthorised` for what no body could make good. */
export function requireForm({ headers, secret, now }: Pick<CallToCheck, "headers" | "secret" | "now">): Form {
  const timestamp = headers.get(callHeaders.timestamp) ?? "";
  const nonce = headers.get(callHeaders.nonce) ?? "";
  const signature = bytesOfHex(headers.get(callHeaders.signature) ?? "");
  const wellFormed = /^[0-9]{1,12}$/.test(timestamp) && /^[A-Za-z0-9_-]{16,64}$/.test(nonce);
  const issuedMs = Number(timestamp) * 1000;
  const inTime = Math.abs(now.getTime() - issuedMs) <= callValidMs;
  if (!wellFormed || !inTime || signature === null || secret === undefined || secret.length < minSecretLength) {
    throw refusal();
  }
  return { timestamp, nonce, signature, secret, issuedMs };
}

/**
 * Checks headers and signature: HMAC-SHA256 over function, timestamp, nonce and the body's SHA-256, as docs/http.md says.
 * `unauthorised` for whatever is wrong, with one message for all of it: a caller learns nothing about the reason.
 */
export async function checkSignature(call: CallToCheck): Promise<SignedCall> {
  const { timestamp, nonce, signature, secret, issuedMs } = requireForm(call);
  const lines = [call.functionName, timestamp, nonce, await sha256Hex(call.body)].join("\n");
  // WebCrypto's verify compares in constant time.
  if (!await crypto.subtle.verify("HMAC", await importKey(secret), signature, utf8(lines))) throw refusal();
  return { nonce, expiresAt: new Date(issuedMs + callValidMs) };
}

/** The one answer to every call that is not accepted. */
export function refusal(): HoldfastError {
  return new HoldfastError("unauthorised", "this call is not signed, or no longer valid");
}

async function importKey(secret: string): Promise<CryptoKey> {
  return await crypto.subtle.importKey("raw", utf8(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
}

async function sha256Hex(bytes: Uint8Array): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The 32 bytes of a signature in hexadecimal, or null for anything else. */
function bytesOfHex(text: string): Uint8Array | null {
  if (!/^[0-9a-f]{64}$/.test(text)) return null;
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
