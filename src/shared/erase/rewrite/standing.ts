/** What stands under the name of a segment, where a rewriting has put it there. */
import { encodeSegment, type OpenedSegment, openSegment } from "../../changes/segments/segment.ts";
import { sha256Hex } from "../../crypto/digest.ts";
import type { OpenDeps } from "../../format/container.ts";
import type { Store } from "../../store/store.ts";

/** As the database records it. */
export interface StandingSegment {
  readonly revision: number;
  readonly original: string;
  readonly through: number;
  readonly hash: string;
  readonly stored_bytes: number;
  readonly raw_bytes: number;
  readonly plain_hash: string;
  readonly changes: number;
}

/** Null for one that was never rewritten. */
export async function standingOf(
  { header, records, storedHash }: OpenedSegment,
  storedBytes: number,
): Promise<StandingSegment | null> {
  if (header.rewritten === undefined) return null;
  const plaintext = encodeSegment(header, records);
  return {
    ...header.rewritten,
    hash: storedHash,
    stored_bytes: storedBytes,
    raw_bytes: plaintext.byteLength,
    plain_hash: await sha256Hex(plaintext),
    changes: header.changes,
  };
}

/** `gone`: there is none of the name. Errors: those of `openSegment` and the store. */
export async function readStanding(
  deps: OpenDeps & { readonly store: Store },
  name: string,
): Promise<StandingSegment | "gone" | null> {
  if (await deps.store.size(name) === null) return "gone";
  const stored = await deps.store.read(name);
  return await standingOf(await openSegment(deps, name, stored), stored.byteLength);
}
