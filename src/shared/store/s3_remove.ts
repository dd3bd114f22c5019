/** `DeleteObjects`: many keys, or versions of them, in one call. */
import { createHash } from "node:crypto";
import { HoldfastError } from "../errors.ts";
import type { S3Place } from "./s3_call.ts";
import { s3Failure } from "./s3_errors.ts";
import { parseXml } from "./s3_xml.ts";

/** The protocol's own limit. */
const namesPerRemoval = 1000;

/** Without `version` a bucket that keeps versions puts a marker in the object's place, and keeps its bytes. */
export interface Removed {
  readonly key: string;
  readonly version?: string;
}

/** `kept`: how many the server did not remove. Errors: those of the store. */
export async function removal(place: S3Place, objects: readonly Removed[]): Promise<{ readonly kept: number }> {
  let kept = 0;
  for (let at = 0; at < objects.length; at += namesPerRemoval) {
    kept += await removeBatch(place, objects.slice(at, at + namesPerRemoval));
  }
  return { kept };
}

async function removeBatch({ label, bucketUrl, send }: S3Place, objects: readonly Removed[]): Promise<number> {
  const entries = objects.map(({ key, version }) =>
    `<Object><Key>${key}</Key>${version === undefined ? "" : `<VersionId>${version}</VersionId>`}</Object>`
  );
  const body = new TextEncoder().encode(
    `<?xml version="1.0" encoding="UTF-8"?><Delete><Quiet>true</Quiet>${entries.join("")}</Delete>`,
  );
  const headers = { "content-md5": md5(body), "content-type": "application/xml" };
  const answer = await send("POST", `${bucketUrl}?delete=`, { body, headers });
  if (answer.status !== 200) throw s3Failure(answer, `remove ${objects.length} objects`, label);
  const result = parseXml(new TextDecoder().decode(answer.body));
  if (result.name !== "DeleteResult") {
    throw new HoldfastError("store_lied", `${label} answered something else than a removal`);
  }
  return result.children.filter((child) => child.name === "Error").length;
}

/** Asked for by the protocol in removals, and in puts to a bucket that locks what it takes. */
export function md5(body: Uint8Array): string {
  return createHash("md5").update(body).digest("base64");
}
