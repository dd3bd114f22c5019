/** A store in memory, for tests of what stands on stores. Held to the contract like the others. */
import { HoldfastError } from "../../src/shared/errors.ts";
import { checkName, checkPrefix } from "../../src/shared/store/names.ts";
import type { Store } from "../../src/shared/store/store.ts";

/** `objects` may be looked at and changed by a test, as an attacker on the store would. */
export interface MemoryStore extends Store {
  readonly objects: Map<string, Uint8Array>;
}

export function createMemoryStore(): MemoryStore {
  const objects = new Map<string, Uint8Array>();
  return {
    kind: "file",
    label: "memory",
    lock: null,
    objects,
    create(name, bytes) {
      try {
        checkName(name);
      } catch (error) {
        return Promise.reject(error);
      }
      if (objects.has(name)) return Promise.resolve("existed");
      objects.set(name, bytes.slice());
      return Promise.resolve("created");
    },
    async replace(name, bytes) {
      await Promise.resolve(checkName(name));
      objects.set(name, bytes.slice());
    },
    async read(name) {
      await Promise.resolve(checkName(name));
      const bytes = objects.get(name);
      if (bytes === undefined) throw new HoldfastError("object_missing", `${name} is not in memory`);
      return bytes.slice();
    },
    async size(name) {
      await Promise.resolve(checkName(name));
      return objects.get(name)?.byteLength ?? null;
    },
    async *list(prefix) {
      await Promise.resolve(checkPrefix(prefix));
      for (const [name, bytes] of [...objects]) if (name.startsWith(prefix)) yield { name, size: bytes.byteLength };
    },
    async remove(names) {
      await Promise.resolve(names.forEach(checkName));
      for (const name of names) objects.delete(name);
    },
  };
}
