/** The stores of a function, as its environment names them. */
import { parseIdentities } from "../crypto/age.ts";
import { readIdentity } from "../identity/identity_queries.ts";
import { placeIn } from "../identity/settle_place.ts";
import type { Connection } from "../postgres/connection.ts";
import type { StorePair } from "../store/apart.ts";
import { withIdentities } from "../store/layered.ts";
import { credentialsFrom, openStore, type OpenStoreDeps } from "../store/open_store.ts";
import { openSecondary } from "../store/secondary.ts";
import type { Store } from "../store/store.ts";
import { defaultStore, type Environment, optional, storageKey, variables } from "./environment.ts";

/** What there is to open stores with. */
export type PlaceDeps = OpenStoreDeps & { readonly environment: Environment };

/** The first store, at its top. Errors: `setting_missing`, `usage`. */
export function firstStore(deps: PlaceDeps): Store {
  const address = storeAddress(deps.environment);
  // What was a second store may be the first one now: without an identity, which no function has, that is told by name.
  return withIdentities(openStore(address, credentials(deps.environment, address), deps), parseIdentities(undefined));
}

/** Both stores, below where this database writes; the second one may not be set. Errors: `setting_missing`, `usage`, those of the database. */
export async function storesOf(connection: Connection, deps: PlaceDeps) {
  const { prefix } = await readIdentity(connection);
  const second = openSecondary((name) => secondVariable(deps.environment, name), deps);
  return {
    first: placeIn(firstStore(deps), prefix),
    second: second === null ? null : { ...second, store: placeIn(second.store, prefix) },
  };
}

/** The addresses alone. */
export function storePair(environment: Environment): StorePair {
  return {
    first: storeAddress(environment),
    second: optional(environment, variables.secondary),
    projectUrl: optional(environment, variables.projectUrl),
  };
}

export function storeAddress(environment: Environment): string {
  return optional(environment, variables.store) ?? defaultStore;
}

/** Storage of this project is reached with its own key; other stores by the variables that `open_store.ts` names. */
export function credentials(environment: Environment, address: string) {
  const found = credentialsFrom((name) => environment[name]);
  return address.startsWith("supabase:") ? { ...found, supabaseServiceKey: storageKey(environment) } : found;
}

/** A second store in this project's own Storage, which is no other provider's, is reached with the project's key. */
export function secondVariable(environment: Environment, name: string): string | undefined {
  return name === "SUPABASE_SECRET_KEY" ? storageKey(environment) : environment[name];
}
