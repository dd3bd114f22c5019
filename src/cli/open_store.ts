/** The store of --store with its credentials, none of which has a flag. */
import {
  credentialsFrom,
  openStore as openStoreAt,
  type OpenStoreDeps,
  preparePlace,
  type StoreCredentials,
} from "../shared/store/open_store.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";
import type { Settings } from "./settings.ts";

/** Nothing is asked of the store yet. Errors: `setting_missing`, `usage`. */
export function openStore(context: Context): Promise<Store> {
  return Promise.resolve(
    openStoreAt(context.settings.need("store"), storeCredentials(context.settings), storeDeps(context)),
  );
}

/** Makes the folder or the private bucket. Errors: those of the store. */
export async function prepareStore(context: Context): Promise<void> {
  await preparePlace(context.settings.need("store"), storeCredentials(context.settings), storeDeps(context));
}

/** Plain data, so that it can be handed to a worker. The project of --project-url is the one whose Storage is meant. */
export function storeCredentials(settings: Settings): StoreCredentials {
  return credentialsFrom((name) =>
    settings.variable(name) ?? (name === "SUPABASE_URL" ? settings.get("project-url") : undefined)
  );
}

function storeDeps({ clock, random, log }: Context): OpenStoreDeps {
  return { fetch: (input, init) => fetch(input, init), clock, random, log };
}
