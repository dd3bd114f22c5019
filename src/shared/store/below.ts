/** A part of a store as a store of its own. */
import { HoldfastError } from "../errors.ts";
import { checkName, checkPrefix } from "./names.ts";
import type { Store } from "./store.ts";

/** Where a label has no address any more: `s3://bucket at host`. */
const place = / at \S+$/;

/**
 * The same store with all names below `prefix`, a name without a slash at its end; itself where that is empty. Its label is its
 * address. Errors: as those of the store, and `store_lied` for a listing with names from elsewhere.
 */
export function below(store: Store, prefix: string): Store {
  if (prefix === "") return store;
  checkName(prefix);
  const full = (name: string) => {
    checkName(name);
    return `${prefix}/${name}`;
  };
  const address = store.label.replace(place, "");
  const label = `${address}/${prefix}${store.label.slice(address.length)}`;
  const { lock } = store;
  return {
    kind: store.kind,
    label,
    lock: lock === null ? null : {
      inForce: async () => await lock.inForce(),
      hold: async (name) => await lock.hold(full(name)),
      retentionOf: async (name) => await lock.retentionOf(full(name)),
      forgetEarlier: async (name) => await lock.forgetEarlier(full(name)),
    },
    create: async (name, bytes) => await store.create(full(name), bytes),
    replace: async (name, bytes) => await store.replace(full(name), bytes),
    read: async (name) => await store.read(full(name)),
    size: async (name) => await store.size(full(name)),
    remove: async (names) => await store.remove(names.map(full)),
    async *list(wanted) {
      checkPrefix(wanted);
      for await (const { name, size } of store.list(`${prefix}/${wanted}`)) {
        if (!name.startsWith(`${prefix}/`)) throw new HoldfastError("store_lied", `${label} lists names of elsewhere`);
        yield { name: name.slice(prefix.length + 1), size };
      }
    },
  };
}

/** Is that what the store's address names already? */
export function isBelow(store: Store, prefix: string): boolean {
  return prefix !== "" && store.label.replace(place, "").endsWith(`/${prefix}`);
}
