/** A store whose objects may lie in an age layer, read as if they did not. docs/format.md, "The second store". */
import { type Identities, isAgeFile } from "../crypto/age.ts";
import { HoldfastError } from "../errors.ts";
import { prefixes } from "../format/layout.ts";
import type { Store } from "./store.ts";

const layeredPrefixes = [prefixes.objects, prefixes.changes, prefixes.blobs];

/** Has an object of this name an age layer in the second store? Manifests, keys, anchors and the repository have none. */
export function isLayered(name: string): boolean {
  return layeredPrefixes.some((prefix) => name.startsWith(prefix));
}

/**
 * The same store; `read` opens the age layer where there is one. Nothing tells a second store from a first one but its
 * objects, so whatever has no layer is given as it is: the seal inside says whether it is genuine, the layer never did
 * (whoever knows a recipient can make one).
 *
 * `size` and `list` tell the bytes as they lie there, layer included: how many recipients an object has is known once it is
 * read (`ageFileBytes`). An object that was cut does not open.
 *
 * Writing is the store's own: with a second store that became the first one, backups go on as in any store. What must stay
 * a second store is opened `withoutNewObjects`.
 *
 * Errors of `read`, beside the store's: `identity_missing`, `identity_wrong`, `object_damaged`.
 */
export function withIdentities(raw: Store, identities: Identities): Store {
  return {
    kind: raw.kind,
    label: raw.label,
    lock: raw.lock,
    create: (name, bytes) => raw.create(name, bytes),
    replace: (name, bytes) => raw.replace(name, bytes),
    read: async (name) => {
      const bytes = await raw.read(name);
      return isLayered(name) && isAgeFile(bytes) ? await identities.open(name, bytes) : bytes;
    },
    size: (name) => raw.size(name),
    list: (prefix) => raw.list(prefix),
    remove: (names) => raw.remove(names),
  };
}

/**
 * The same store, into which nothing can be written that would need a layer: identities open and do not wrap, and an object
 * without its layer would lie there unnoticed. Key files can be rewritten, and probes made. Errors: `store_read_only`.
 */
export function withoutNewObjects(store: Store): Store {
  const refuse = (name: string) => {
    if (!isLayered(name)) return;
    throw new HoldfastError(
      "store_read_only",
      `${store.label} is the second store: ${name} comes there by replication`,
      {
        hint: "Write to the first store (--store); `holdfast replicate` brings it there.",
      },
    );
  };
  return {
    kind: store.kind,
    label: store.label,
    lock: store.lock,
    create: async (name, bytes) => {
      refuse(name);
      return await store.create(name, bytes);
    },
    replace: async (name, bytes) => {
      refuse(name);
      await store.replace(name, bytes);
    },
    read: (name) => store.read(name),
    size: (name) => store.size(name),
    list: (prefix) => store.list(prefix),
    remove: (names) => store.remove(names),
  };
}
