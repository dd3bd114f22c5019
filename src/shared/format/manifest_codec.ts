/** Manifests as bytes, and as sealed objects in a store. docs/format.md, "Manifest". */
import { sha256Hex } from "../crypto/digest.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";
import { z } from "zod";
import { open, type OpenDeps, seal, type SealDeps } from "./container.ts";
import { manifestName, parseManifestName, parseUtcStamp, utcStamp } from "./layout.ts";
import { contradictions, type Manifest, manifestFormat, manifestSchema, manifestVersion } from "./manifest.ts";

/** Some 500,000 chunks, which is 4 TB of rows. Bounds what a reader unpacks. */
export const maxManifestBytes = 256 * 1024 * 1024;

/** A manifest with where it is, as a successor names it. */
export interface OpenedManifest {
  readonly name: string;
  /** SHA-256 of the sealed bytes; of those that were there first, where lawful erasures have rewritten it: what successors name. */
  readonly hash: string;
  /** SHA-256 of the sealed bytes as they are. */
  readonly storedHash: string;
  readonly manifest: Manifest;
}

export interface SealedManifest {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** `internal` for a manifest that a reader would refuse: nothing is written that cannot be read. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  const parsed = manifestSchema.safeParse(manifest);
  const problems = parsed.success ? contradictions(parsed.data) : parsed.error.issues.map(at);
  if (!parsed.success || problems.length > 0) {
    throw new HoldfastError("internal", `a manifest was to be written that does not hold together: ${problems[0]}`);
  }
  return new TextEncoder().encode(JSON.stringify(parsed.data));
}

/**
 * Any bytes in, a sound manifest or a `HoldfastError` out: `format_newer` when the version is newer, decided before
 * anything else is looked at, else `manifest_damaged`. Fields that this version does not know are left out.
 */
export function decodeManifest(bytes: Uint8Array): Manifest {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new HoldfastError("manifest_damaged", "the manifest is no JSON text", { cause });
  }
  const head = z.object({ format: z.literal(manifestFormat), version: z.int() }).safeParse(json);
  if (!head.success) throw new HoldfastError("manifest_damaged", "this is no manifest");
  if (head.data.version > manifestVersion) {
    throw new HoldfastError(
      "format_newer",
      `the manifest has version ${head.data.version}, this Holdfast reads up to ${manifestVersion}`,
    );
  }
  const parsed = manifestSchema.safeParse(json);
  const problems = parsed.success ? contradictions(parsed.data) : parsed.error.issues.map(at);
  if (!parsed.success || problems.length > 0) {
    throw new HoldfastError("manifest_damaged", `the manifest does not hold together: ${problems[0]}`);
  }
  return parsed.data;
}

/** Under the name that its creation, first tier and id give. The epoch is the manifest's own. */
export async function sealManifest(deps: SealDeps, epoch: Epoch, manifest: Manifest): Promise<SealedManifest> {
  if (epoch.id !== manifest.epoch || epoch.repositoryId !== manifest.repositoryId) {
    throw new HoldfastError("internal", "a manifest was to be sealed under an epoch that it does not name");
  }
  const name = nameOfManifest(manifest);
  const bytes = await seal(deps, epoch, { kind: "manifest", name, plaintext: encodeManifest(manifest) });
  return { name, bytes };
}

/** What was read under `name`, opened and checked. Errors: those of `open` and `decodeManifest`. */
export async function openManifest(deps: OpenDeps, name: string, bytes: Uint8Array): Promise<OpenedManifest> {
  if (parseManifestName(name) === null) throw new HoldfastError("manifest_damaged", "this is no name of a manifest");
  const plaintext = await open(deps, { kind: "manifest", name, bytes, maxBytes: maxManifestBytes });
  const manifest = decodeManifest(plaintext);
  if (nameOfManifest(manifest) !== name) {
    throw new HoldfastError("manifest_damaged", `${name} holds a manifest of another name`);
  }
  const storedHash = await sha256Hex(bytes);
  return { name, hash: manifest.rewritten?.original ?? storedHash, storedHash, manifest };
}

/** Of the object that holds it. Errors: `manifest_damaged`. */
export function nameOfManifest(manifest: Manifest): string {
  const createdAt = parseUtcStamp(utcStamp(new Date(manifest.createdAt)));
  const [tier] = manifest.tiers;
  if (createdAt === null || tier === undefined) throw new HoldfastError("manifest_damaged", "the manifest has no name");
  return manifestName({ createdAt, tier, id: manifest.id });
}

/** Where in the document, without what stood there: a manifest holds names from the database. */
function at(issue: z.core.$ZodIssue): string {
  return `${issue.code} at ${issue.path.map(String).join(".")}`;
}
