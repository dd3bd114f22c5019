/** `ListObjectVersions` of one key. */
import { HoldfastError } from "../errors.ts";
import type { S3Place } from "./s3_call.ts";
import { s3Failure } from "./s3_errors.ts";
import { maxPageBytes } from "./s3_listing.ts";
import { childText, parseXml } from "./s3_xml.ts";

export interface Version {
  readonly id: string;
  /** What a read without a version's id gives. */
  readonly isLatest: boolean;
}

/** A key file has one or two; this many were never made by us. */
const mostPages = 100;
const idPattern = /^[A-Za-z0-9._~+/=-]{1,1024}$/;

/** Markers of removals among them. Errors: those of the store; `store_lied` for a listing that cannot be read to its end. */
export async function versionsOf({ label, bucketUrl, send }: S3Place, key: string): Promise<Version[]> {
  const lied = (why: string) => new HoldfastError("store_lied", `${label} lists versions ${why}`);
  const versions: Version[] = [];
  let markers: Record<string, string> = {};
  for (let page = 0; page < mostPages; page++) {
    const query = new URLSearchParams({ versions: "", prefix: key, ...markers });
    const answer = await send("GET", `${bucketUrl}?${query}`, { maxBytes: maxPageBytes });
    if (answer.status !== 200) throw s3Failure(answer, "list versions", label);
    const root = parseXml(new TextDecoder().decode(answer.body));
    if (root.name !== "ListVersionsResult") throw lied("by something that is no listing");
    for (const entry of root.children) {
      if ((entry.name !== "Version" && entry.name !== "DeleteMarker") || childText(entry, "Key") !== key) continue;
      const id = childText(entry, "VersionId") ?? "";
      if (!idPattern.test(id)) throw lied("without their ids");
      versions.push({ id, isLatest: childText(entry, "IsLatest") === "true" });
    }
    if (childText(root, "IsTruncated") !== "true") return versions;
    const [nextKey, nextId] = [childText(root, "NextKeyMarker"), childText(root, "NextVersionIdMarker")];
    if (nextKey === undefined) throw lied("and does not say how it goes on");
    markers = { "key-marker": nextKey, ...(nextId === undefined ? {} : { "version-id-marker": nextId }) };
  }
  throw lied("without an end");
}
