/** What an answer of an S3 server that is no success means. */
import { type ErrorCode, HoldfastError } from "../errors.ts";
import type { HttpAnswer } from "./http_call.ts";
import { childText, parseXml } from "./s3_xml.ts";

const fullCodes = [
  "InsufficientStorage",
  "QuotaExceeded",
  "StorageQuotaExceeded",
  "XMinioStorageFull",
  "XMinioAdminBucketQuotaExceeded",
  "EntityTooLarge",
];
/** Broken on the way or too busy: the same request may do next time. */
const transientCodes = [
  "RequestTimeout",
  "IncompleteBody",
  "BadDigest",
  "XAmzContentSHA256Mismatch",
  "OperationAborted",
  "ConditionalRequestConflict",
  "SlowDown",
  "InternalError",
  "ServiceUnavailable",
];
const deniedCodes = [
  "ExpiredToken",
  "InvalidToken",
  "InvalidAccessKeyId",
  "SignatureDoesNotMatch",
  "AuthorizationHeaderMalformed",
  "InvalidSecurity",
];

/** The server's code, such as `NoSuchBucket`; empty where the answer has none. */
export function s3Code(answer: HttpAnswer): string {
  try {
    const root = parseXml(new TextDecoder().decode(answer.body));
    const code = root.name === "Error" ? childText(root, "Code") ?? "" : "";
    return /^[A-Za-z0-9.]{1,64}$/.test(code) ? code : "";
  } catch {
    return "";
  }
}

/** `what` is the call in words, such as "read v1/objects/…". Only the server's code is taken into the message. */
export function s3Failure(answer: HttpAnswer, what: string, label: string): HoldfastError {
  const code = s3Code(answer);
  const message = `${label} refused to ${what}: ${answer.status}${code === "" ? "" : ` ${code}`}`;
  const { error, hint } = meaning(answer.status, code);
  return new HoldfastError(error, message, hint === undefined ? {} : { hint });
}

function meaning(status: number, code: string): { readonly error: ErrorCode; readonly hint?: string } {
  if (code === "RequestTimeTooSkewed") {
    return { error: "store_denied", hint: "This machine's clock and the store's differ by more than 15 minutes." };
  }
  if (code === "NoSuchBucket") return { error: "store_missing" };
  if (fullCodes.includes(code) || status === 507) return { error: "store_full" };
  if (transientCodes.includes(code)) return { error: "store_unreachable" };
  if (deniedCodes.includes(code) || status === 401 || status === 403) return { error: "store_denied" };
  if (status >= 300 && status < 400) {
    return { error: "store_missing", hint: "The bucket is in another region; name it with ?region= in the address." };
  }
  if (status === 404) return { error: "object_missing" };
  if (status === 405) return { error: "store_read_only" };
  if (status === 501) return { error: "store_denied", hint: "This server does not know the call; use another one." };
  if (status === 408 || status === 425 || status === 429 || status >= 500) return { error: "store_unreachable" };
  return { error: "store_lied" };
}
