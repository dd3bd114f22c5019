/** What a bucket does with what is removed or overwritten: versioning and object lock, as the server tells it. */
import { HoldfastError } from "../errors.ts";
import type { HttpAnswer } from "./http_call.ts";
import { type S3Deps, type S3Place, s3Place, type S3Settings } from "./s3_call.ts";
import { s3Code, s3Failure } from "./s3_errors.ts";
import { maxPageBytes } from "./s3_listing.ts";
import { childText, parseXml, type XmlElement } from "./s3_xml.ts";

/** `unknown`: the server does not know the question, or these credentials may not ask it. */
export interface BucketFacts {
  readonly versioning: "on" | "suspended" | "off" | "unknown";
  readonly lock: BucketLock | "off" | "unknown";
}

export interface BucketLock {
  /** What every new object gets; null: objects are locked one by one, if at all. */
  readonly preset: { readonly mode: string; readonly days: number } | null;
}

const daysPerYear = 365;

/** Only asks. Errors: `store_missing`, `store_unreachable`, `store_denied` for credentials that are none. */
export async function readBucketFacts(settings: S3Settings, deps: S3Deps): Promise<BucketFacts> {
  const place = s3Place(settings, deps);
  return { versioning: await readVersioning(place), lock: await readLock(place) };
}

/** Errors: as `readBucketFacts`. */
export async function readVersioning(place: S3Place): Promise<BucketFacts["versioning"]> {
  return versioningOf(await ask(place, "versioning"));
}

/** Errors: as `readBucketFacts`, and `store_lied` for a lock without mode or length. */
export async function readLock(place: S3Place): Promise<BucketFacts["lock"]> {
  return lockOf(await ask(place, "object-lock"), place.label);
}

async function ask({ bucketUrl, label, send }: S3Place, question: string): Promise<HttpAnswer> {
  const answer = await send("GET", `${bucketUrl}?${question}=`, { maxBytes: maxPageBytes });
  if (answer.status === 200) return answer;
  const failure = s3Failure(answer, `tell its ${question}`, label);
  const mayNotAsk = s3Code(answer) === "AccessDenied" || answer.status === 501;
  const isFinal = ["store_missing", "store_denied", "store_unreachable"].includes(failure.code);
  if (isFinal && !mayNotAsk) throw failure;
  return answer;
}

function versioningOf(answer: HttpAnswer): BucketFacts["versioning"] {
  const root = rootOf(answer, "VersioningConfiguration");
  if (root === null) return "unknown";
  const status = childText(root, "Status");
  return status === "Enabled" ? "on" : status === "Suspended" ? "suspended" : "off";
}

function lockOf(answer: HttpAnswer, label: string): BucketFacts["lock"] {
  if (s3Code(answer) === "ObjectLockConfigurationNotFoundError") return "off";
  const root = rootOf(answer, "ObjectLockConfiguration");
  if (root === null) return "unknown";
  if (childText(root, "ObjectLockEnabled") !== "Enabled") return "off";
  const retention = child(child(root, "Rule"), "DefaultRetention");
  if (retention === null) return { preset: null };
  const days = Number(childText(retention, "Days") ?? "0") + daysPerYear * Number(childText(retention, "Years") ?? "0");
  const mode = childText(retention, "Mode") ?? "";
  if (!Number.isSafeInteger(days) || days < 1 || !["GOVERNANCE", "COMPLIANCE"].includes(mode)) {
    throw new HoldfastError("store_lied", `${label} tells of a lock by default without its mode or length`);
  }
  return { preset: { mode, days } };
}

/** Null for any other answer, such as the listing or the page of a server that does not know the question. */
function rootOf(answer: HttpAnswer, name: string): XmlElement | null {
  const text = new TextDecoder().decode(answer.body);
  if (answer.status !== 200 || !text.includes(`<${name}`)) return null;
  const root = parseXml(text);
  return root.name === name ? root : null;
}

function child(element: XmlElement | null, name: string): XmlElement | null {
  return element?.children.find((one) => one.name === name) ?? null;
}
