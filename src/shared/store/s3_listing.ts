/** One page of `ListObjectsV2`. */
import { HoldfastError } from "../errors.ts";
import { childText, parseXml } from "./s3_xml.ts";
import type { StoredObject } from "./store.ts";

export interface ListingPage {
  /** Full keys, with whatever prefix the store has. */
  readonly objects: readonly StoredObject[];
  /** What to ask the next page with; null on the last page. */
  readonly next: string | null;
}

/** A full page has about 300 kB. */
export const maxPageBytes = 16 * 1024 * 1024;

/** Any bytes in, a complete page or `store_lied` out: a page that cannot be trusted is never a shorter one. */
export function parseListing(bytes: Uint8Array, prefix: string): ListingPage {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new HoldfastError("store_lied", "the store answered a listing that is no text", { cause });
  }
  const root = parseXml(text);
  if (root.name !== "ListBucketResult") throw lied("is no listing");
  const objects = root.children.filter((child) => child.name === "Contents").map((entry): StoredObject => {
    const name = childText(entry, "Key");
    const size = childText(entry, "Size") ?? "";
    if (name === undefined || !/^\d{1,15}$/.test(size)) throw lied("has an entry without name or size");
    if (!name.startsWith(prefix)) throw lied("has names that were not asked for");
    return { name, size: Number(size) };
  });
  const keyCount = childText(root, "KeyCount");
  if (keyCount !== undefined && keyCount !== String(objects.length)) {
    throw lied("has another number of names than it says");
  }
  const truncated = childText(root, "IsTruncated");
  const next = childText(root, "NextContinuationToken");
  if (truncated === "false") return { objects, next: null };
  if (truncated !== "true" || next === undefined || next === "") throw lied("does not say how it goes on");
  return { objects, next };
}

function lied(why: string): HoldfastError {
  return new HoldfastError("store_lied", `the store's listing ${why}`);
}
