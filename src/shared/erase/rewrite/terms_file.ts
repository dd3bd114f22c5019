/** The terms of one erasure, sealed in the first store and nowhere else; gone with the certificate. docs/format.md, "Terms". */
import { z } from "zod";
import { sameBytes } from "../../crypto/digest.ts";
import { epochSource, ledgerEpoch } from "../../crypto/epochs.ts";
import { HoldfastError } from "../../errors.ts";
import { open, seal } from "../../format/container.ts";
import { idPattern, termsName } from "../../format/layout.ts";
import type { PutDeps } from "../ledger.ts";
import { type Term, termKinds } from "./terms.ts";

const shape = z.object({
  format: z.literal("holdfast/terms"),
  version: z.literal(1),
  erasure: z.string().regex(idPattern),
  terms: z.array(z.object({ kind: z.enum(termKinds), text: z.string() })),
});

/** A person with a million files. */
const maxBytes = 256 * 1024 * 1024;

/** None where nothing was put. Errors: `object_damaged`, those of keys and store. */
export async function readTerms(deps: PutDeps, erasure: string): Promise<Term[]> {
  const name = termsName(erasure);
  if (await deps.store.size(name) === null) return [];
  const epochOf = epochSource(deps.store, deps.ring, deps.repositoryId);
  const bytes = await deps.store.read(name);
  const plain = await open({ compressor: deps.compressor, epochOf }, { kind: "terms", name, bytes, maxBytes });
  const parsed = shape.safeParse(readJson(plain));
  if (!parsed.success || parsed.data.erasure !== erasure) {
    throw new HoldfastError("object_damaged", `${name} does not hold what an erasure's certificate searches for`);
  }
  return parsed.data.terms;
}

/** Beside those that are there. In the store and read back. Errors: `store_lied`, those of `readTerms`. */
export async function addTerms(deps: PutDeps, erasure: string, terms: readonly Term[]): Promise<void> {
  const known = await readTerms(deps, erasure);
  const all = new Map([...known, ...terms].map(({ kind, text }) => [JSON.stringify([kind, text]), { kind, text }]));
  if (all.size === known.length) return;
  const name = termsName(erasure);
  const document = { format: "holdfast/terms", version: 1, erasure, terms: [...all.values()] };
  const plaintext = new TextEncoder().encode(JSON.stringify(document));
  const epoch = await ledgerEpoch(deps, deps.repositoryId);
  const sealed = await seal(deps, epoch, { kind: "terms", name, plaintext });
  await deps.store.replace(name, sealed);
  if (sameBytes(await deps.store.read(name), sealed)) return;
  throw new HoldfastError("store_lied", `${deps.store.label} gave back other bytes than were written to ${name}`);
}

function readJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
}
