/** A repository: all that one installation keeps, in one store or copied to several. docs/format.md, "Repository". */
import { z } from "zod";
import type { Clock } from "../clock.ts";
import { sameBytes, toHex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Random } from "../random.ts";
import type { Store } from "../store/store.ts";
import { repositoryName } from "./layout.ts";

export const repositoryVersion = 1;
const maxFileBytes = 4096;

export interface Repository {
  /** Random UUID; part of every seal. The same in all stores of one installation. */
  readonly id: string;
  /** Whole seconds. */
  readonly createdAt: Date;
}

const shape = z.object({
  format: z.literal("holdfast/repository"),
  version: z.literal(repositoryVersion),
  id: z.uuid().lowercase(),
  createdAt: z.iso.datetime({ precision: 0 }),
});
const versionOnly = z.object({ format: z.literal("holdfast/repository"), version: z.number().int() });

/** The repository of the store, or null where none was made. Errors: `object_damaged`, `format_newer`. */
export async function readRepository(store: Store): Promise<Repository | null> {
  try {
    return decodeRepository(await store.read(repositoryName));
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "object_missing") return null;
    throw error;
  }
}

/** The repository of the store; a new one where there is none. Two callers at once end with the same one. */
export async function openOrCreateRepository(
  deps: { readonly store: Store; readonly clock: Clock; readonly random: Random },
): Promise<Repository> {
  const present = await readRepository(deps.store);
  if (present !== null) return present;
  const fresh = { id: uuid(deps.random), createdAt: new Date(Math.floor(deps.clock.now().getTime() / 1000) * 1000) };
  return await placeRepository(deps.store, fresh);
}

/**
 * Gives a further store the repository of the first; once there, it does nothing.
 * Errors: `object_conflict` where that store already holds another repository.
 */
export async function adoptRepository(store: Store, repository: Repository): Promise<void> {
  const present = (await readRepository(store)) ?? (await placeRepository(store, repository));
  if (present.id !== repository.id) {
    throw new HoldfastError("object_conflict", `${store.label} holds another repository`, {
      hint: "Give the second store a bucket, folder or prefix of its own.",
    });
  }
}

async function placeRepository(store: Store, repository: Repository): Promise<Repository> {
  const bytes = encodeRepository(repository);
  const outcome = await store.create(repositoryName, bytes);
  const stored = await store.read(repositoryName);
  if (outcome === "created" && !sameBytes(stored, bytes)) {
    throw new HoldfastError(
      "store_lied",
      `${store.label} gave back other bytes than were written to ${repositoryName}`,
    );
  }
  return decodeRepository(stored);
}

function encodeRepository(repository: Repository): Uint8Array {
  const document = {
    format: "holdfast/repository",
    version: repositoryVersion,
    id: repository.id,
    createdAt: repository.createdAt.toISOString().replace(".000Z", "Z"),
  } satisfies z.infer<typeof shape>;
  return new TextEncoder().encode(JSON.stringify(document) + "\n");
}

export function decodeRepository(bytes: Uint8Array): Repository {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, maxFileBytes)));
  } catch (cause) {
    throw new HoldfastError("object_damaged", `${repositoryName} is not readable`, { cause });
  }
  const version = versionOnly.safeParse(json);
  if (version.success && version.data.version > repositoryVersion) {
    throw new HoldfastError(
      "format_newer",
      `${repositoryName} has version ${version.data.version}, this Holdfast reads up to ${repositoryVersion}`,
    );
  }
  const parsed = shape.safeParse(json);
  if (!parsed.success) throw new HoldfastError("object_damaged", `${repositoryName} is not what Holdfast writes`);
  return { id: parsed.data.id, createdAt: new Date(parsed.data.createdAt) };
}

/** Version 4 (RFC 9562). */
function uuid(random: Random): string {
  const bytes = random(16).slice();
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return toHex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
