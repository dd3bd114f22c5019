/** Claims: which database wrote to a place in a store last. docs/format.md, "Claims". */
import { z } from "zod";
import type { Epoch, EpochSource } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { open, seal, type SealDeps } from "../format/container.ts";
import { claimName, idPattern, parseClaimName, prefixes } from "../format/layout.ts";
import { putAndReadBack } from "../store/put.ts";
import type { Store } from "../store/store.ts";

export interface Claim {
  /** From 1 on, without a gap: a store takes each number once, so of two writers one is told that it came late. */
  readonly number: number;
  /** 16 random bytes in hex, which the database that made the claim knows. */
  readonly nonce: string;
  readonly install: string;
  /** Of the Supabase project; null: not known. */
  readonly ref: string | null;
  readonly systemIdentifier: string;
  readonly database: string;
  /** In UTC, to the second; for people. */
  readonly at: string;
}

export const noncePattern = /^[0-9a-f]{32}$/;
const shape = z.object({
  format: z.literal("holdfast/claim"),
  version: z.literal(1),
  number: z.int().positive(),
  nonce: z.string().regex(noncePattern),
  install: z.string().regex(idPattern),
  ref: z.string().max(63).nullable(),
  systemIdentifier: z.string().max(20),
  database: z.string().max(63),
  at: z.iso.datetime({ precision: 0 }),
});
const maxBytes = 4096;
/** Days of them, for people who want to know who wrote when; older ones go. */
const kept = 100;

/** The numbers of all claims at a place, newest first. Errors: those of the store. */
export async function claimNumbers(store: Store): Promise<number[]> {
  const numbers: number[] = [];
  for await (const { name } of store.list(prefixes.claims)) {
    const number = parseClaimName(name);
    if (number !== null) numbers.push(number);
  }
  return numbers.sort((a, b) => b - a);
}

export interface OpenClaimDeps {
  readonly store: Store;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
}

/** Null: what is there is no claim of that number. Errors: those of keys and store, `format_newer`. */
export async function readClaim(deps: OpenClaimDeps, number: number): Promise<Claim | null> {
  return await openClaim(deps, number, await deps.store.read(claimName(number)));
}

async function openClaim(
  deps: Pick<OpenClaimDeps, "compressor" | "epochOf">,
  number: number,
  bytes: Uint8Array,
): Promise<Claim | null> {
  let said: unknown;
  try {
    const plain = await open(deps, { kind: "claim", name: claimName(number), bytes, maxBytes });
    said = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(plain));
  } catch (error) {
    if (error instanceof HoldfastError && error.code !== "object_damaged") throw error;
    return null;
  }
  const parsed = shape.safeParse(said);
  if (!parsed.success || parsed.data.number !== number) return null;
  const { format: _, version: __, ...claim } = parsed.data;
  return claim;
}

/**
 * Puts a claim, and returns the one that has its number now: this, or that of whoever was faster; null for something that is
 * no claim. Errors: those of the store.
 */
export async function putClaim(
  deps: SealDeps & { readonly store: Store },
  epoch: Epoch,
  claim: Claim,
): Promise<Claim | null> {
  const name = claimName(claim.number);
  const document = { format: "holdfast/claim", version: 1, ...claim } satisfies z.infer<typeof shape>;
  const plaintext = new TextEncoder().encode(JSON.stringify(document));
  const sealed = await seal(deps, epoch, { kind: "claim", name, plaintext });
  let there: Claim | null = claim;
  await putAndReadBack(deps.store, name, sealed, async (stored) => {
    there = await openClaim(
      { compressor: deps.compressor, epochOf: () => Promise.resolve(epoch) },
      claim.number,
      stored,
    );
    return true;
  });
  return there;
}

/** Removes claims that are long past, oldest first. `numbers` as listed. Errors: those of the store. */
export async function dropOldClaims(store: Store, numbers: readonly number[]): Promise<void> {
  const old = numbers.slice(kept).reverse();
  if (old.length > 0) await store.remove(old.map(claimName));
}
