/** Putting an object so that it can be relied on: create, read back, compare. docs/format.md, F-2. */
import { sameBytes, sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Store } from "./store.ts";

export interface PutResult {
  /** `adopted`: the name was there already and holds the same plaintext. */
  readonly outcome: "created" | "adopted";
  /** Size of what the store holds. After `adopted` this is not the size of what was given. */
  readonly storedBytes: number;
  /** SHA-256 of what the store holds, in hex. */
  readonly storedHash: string;
}

/**
 * Creates `name` and reads it back. Where the name is taken, the object there is adopted if `sameContent` says that it
 * opens to the same plaintext (a seal never gives the same bytes twice, so bytes cannot be compared), else it is
 * `object_conflict` and nothing was written.
 *
 * Errors: the store's; `store_lied` when other bytes come back than were written; what `sameContent` throws, which is
 * `object_damaged` for an object that does not open.
 */
export async function putAndReadBack(
  store: Store,
  name: string,
  bytes: Uint8Array,
  sameContent: (stored: Uint8Array) => Promise<boolean>,
): Promise<PutResult> {
  const outcome = await store.create(name, bytes);
  const stored = await readBack(store, name);
  if (sameBytes(stored, bytes)) {
    return { outcome: outcome === "created" ? "created" : "adopted", ...(await facts(stored)) };
  }
  if (outcome === "created") {
    throw new HoldfastError("store_lied", `${store.label} gave back other bytes than were written to ${name}`);
  }
  if (!(await sameContent(stored))) {
    throw new HoldfastError("object_conflict", `${name} in ${store.label} holds something else`);
  }
  return { outcome: "adopted", ...(await facts(stored)) };
}

/** Missing right after the store said that it is there is the store's fault, and heals when put again. */
async function readBack(store: Store, name: string): Promise<Uint8Array> {
  try {
    return await store.read(name);
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.code !== "object_missing") throw cause;
    throw new HoldfastError("store_lied", `${store.label} does not have ${name}, which it took just now`, { cause });
  }
}

async function facts(stored: Uint8Array): Promise<{ storedBytes: number; storedHash: string }> {
  return { storedBytes: stored.byteLength, storedHash: await sha256Hex(stored) };
}
