/** Names for drafts: the server's own words for a row, or what the collector said. Pure. */
import type { Draft } from "./draft.ts";
import type { CatalogObject } from "./inventory.ts";

export function identitiesOf(
  drafts: readonly Draft[],
  objects: ReadonlyMap<string, CatalogObject>,
): { named: Draft[]; identities: Map<string, string> } {
  const identities = new Map<string, string>();
  const name = (one: Draft): Draft => {
    const object = objects.get(one.key);
    const identity = one.identity ?? (object === undefined ? one.key : `${object.type ?? ""} ${object.identity ?? ""}`);
    return { ...one, identity, parts: one.parts.map(name) };
  };
  const named = drafts.map(name);
  for (const one of named) identities.set(one.key, one.identity ?? one.key);
  return { named, identities };
}
