/** What a bucket does with what is removed or overwritten: versioning and object lock, as the server tells it. */
import { HoldfastError } from "../errors.ts";
import type { HttpAnswer } from "./http_call.ts";
import { type S3Deps, s3Place, type S3Settings } from "./s3_call.ts";
import { s3Code, s3Failure } from "./s3_errors.ts";
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
  const ask = async (question: string) => {
    const answer = await place.send("GET", `${place.bucketUrl}?${question}=`);
    const failure = s3Failure(answer, `tell its ${question}`, place.label);
    const mayNotAsk = s3Code(answer) === "AccessDenied" || answer.status === 501;
    const isFinal = ["store_missing", "store_denied", "store_unreachable"].includes(failure.code);
    if (isFinal && !mayNotAsk) throw failure;
    return answer;
  };
  return { versioning: versioningOf(await ask("versioning")), lock: lockOf(await ask("object-lock")) };
}

function versioningOf(answer: HttpAnswer): BucketFacts["versioning"] {
  const root = rootOf(answer, "VersioningConfiguration");
  if (root === null) return "unknown";
  const status = childText(root, "Status");
  return status === "Enabled" ? "on" : status === "Suspended" ? "suspended" : "off";
}

function lockOf(answer: HttpAnswer): BucketFacts["lock"] {
  if (s3Code(answer) === "ObjectLockConfigurationNotFoundError") return "off";
  const root = rootOf(answer, "ObjectLockConfiguration");
  if (root === null) return "unknown";
  if (childText(root, "ObjectLockEnabled") !== "Enabled") return "off";
  const retention = child(child(root, "Rule"), "DefaultRetention");
  if (retention === null) return { preset: null };
  const days = Number(childText(retention, "Days") ?? "0") + daysPerYear * Number(childText(retention, "Years") ?? "0");
  if (!Number.isSafeInteger(days)) throw new HoldfastError("store_lied", "the bucket tells a lock without a length");
  return { preset: { mode: childText(retention, "Mode") ?? "", days } };
}

/** Null for any other answer. */
function rootOf(answer: HttpAnswer, name: string): XmlElement | null {
  if (answer.status !== 200) return null;
  const root = parseXml(new TextDecoder().decode(answer.body));
  return root.name === name ? root : null;
}

function child(element: XmlElement | null, name: string): XmlElement | null {
  return element?.children.find((one) => one.name === name) ?? null;
}
