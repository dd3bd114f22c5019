/** What the inventory lists and no draft defines. Pure. */
import type { NotCaptured } from "./capture_format.ts";
import type { Draft } from "./draft.ts";
import type { CatalogObject, Inventory } from "./inventory.ts";
import type { Edge } from "./order.ts";
import { groupBy } from "./relations.ts";

const reasons: Readonly<Record<string, string>> = {
  pg_type: "a base type or a range with a canonical function needs C code and a superuser",
  pg_operator: "a shell operator without a function",
  pg_tablespace: "belongs to the server; objects come back in the default tablespace",
  pg_class: "not usable as it is: rebuild or drop it",
  pg_largeobject_metadata: "large objects and their content are not backed up",
  pg_amop: "added to an operator family of the system or of an extension",
  pg_amproc: "added to an operator family of the system or of an extension",
};

/** What we have outside of our own schema comes back with it: the installer makes it. */
const ownOutside =
  /^(view|function) public\.backup_[a-z_]+(\(|$)|^view public\.my_exports$|^trigger holdfast_(maintenance|departures) on |^policy holdfast_buckets on storage\./;

/** Large objects are listed in one line each up to this many, then by their number. */
const maxLargeObjects = 20;

/** Keys of the inventory's rows that no draft defines. */
export function undefinedKeys(drafts: readonly Draft[], inventory: Inventory): Set<string> {
  const keys = new Set(inventory.objects.keys());
  for (const one of drafts) {
    for (const key of [one.key, ...one.covers, ...one.parts.map((part) => part.key)]) keys.delete(key);
  }
  return keys;
}

export interface Possible {
  readonly drafts: Draft[];
  /** What would be made of something that is not captured: it cannot be made either. */
  readonly impossible: { readonly draft: Draft; readonly needs: string }[];
}

/** Leaves out what needs, over however many steps, one of the `missing` rows. */
export function splitPossible(
  drafts: readonly Draft[],
  edges: readonly Edge[],
  missing: ReadonlySet<string>,
): Possible {
  const links = [
    ...edges.map(({ from, to }) => ({ from, to })),
    ...drafts.flatMap((one) => one.after.map((to) => ({ from: one.key, to }))),
  ];
  const users = groupBy(links, (link) => link.to);
  const needs = new Map<string, string>();
  const queue = [...missing];
  for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
    for (const { from: user } of users.get(key) ?? []) {
      if (needs.has(user) || missing.has(user)) continue;
      needs.set(user, key);
      queue.push(user);
    }
  }
  return {
    drafts: drafts.filter((one) => !needs.has(one.key)),
    impossible: drafts.flatMap((draft) => {
      const need = needs.get(draft.key);
      return need === undefined ? [] : [{ draft, needs: need }];
    }),
  };
}

/** The list for the manifest. `impossible` are drafts that were left out for what they need. */
export function notCapturedOf(
  missing: ReadonlySet<string>,
  impossible: Possible["impossible"],
  inventory: Inventory,
): NotCaptured[] {
  const rest = [...missing].flatMap((key) => inventory.objects.get(key) ?? []);
  const largeObjects = rest.filter((object) => object.catalog === "pg_largeobject_metadata");
  const shown = new Set(largeObjects.slice(0, maxLargeObjects));
  const list: NotCaptured[] = rest.filter((object) => object.catalog !== "pg_largeobject_metadata" || shown.has(object))
    .map((object) => ({
      catalog: object.catalog,
      identity: nameOf(object),
      reason: reasons[object.catalog] ?? "this kind of object is not captured",
    }));
  if (largeObjects.length > shown.size) {
    list.push({
      catalog: "pg_largeobject_metadata",
      identity: `${largeObjects.length - shown.size} more large objects`,
      reason: reasons["pg_largeobject_metadata"] ?? "",
    });
  }
  for (const { draft, needs } of impossible) {
    if (ownOutside.test(draft.identity ?? "")) continue;
    const need = inventory.objects.get(needs);
    const cause = need === undefined ? "an object of a schema that is left out" : nameOf(need);
    list.push({
      catalog: draft.key.split(":")[0] ?? "",
      identity: draft.identity ?? draft.key,
      reason: `needs ${cause}${need === undefined ? "" : ", which is not captured"}`,
    });
  }
  for (const object of inventory.onExtensions.filter((candidate) => !candidate.madeWithExtension)) {
    list.push({
      catalog: object.catalog,
      identity: nameOf(object),
      reason: `hangs on an object of extension ${object.extension ?? ""}, which did not make it`,
    });
  }
  return list;
}

function nameOf(object: CatalogObject): string {
  return `${object.type ?? "object"} ${object.identity ?? object.name}`;
}
