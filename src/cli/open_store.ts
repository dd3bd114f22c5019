/** The store of --store with its credentials, none of which has a flag. */
import { type Identities, parseIdentities } from "../shared/crypto/age.ts";
import type { ProjectFilesSettings } from "../shared/files/project_files.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { StorePair } from "../shared/store/apart.ts";
import { withIdentities, withoutNewObjects } from "../shared/store/layered.ts";
import {
  credentialsFrom,
  openStore as openStoreAt,
  type OpenStoreDeps,
  preparePlace,
  type StoreCredentials,
} from "../shared/store/open_store.ts";
import { openSecondary, type Secondary, secondaryCredentials } from "../shared/store/secondary.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";
import { readSettingFile, type Settings } from "./settings.ts";

/** What --store says for the store of BACKUP_SECONDARY. */
const secondWord = "second";

/** Where a store is and what opens it; plain data, so that it can be handed to a worker. */
export interface StorePlace {
  readonly address: string;
  readonly credentials: StoreCredentials;
  /** Whether it is the one of BACKUP_SECONDARY. */
  readonly isSecond: boolean;
}

/**
 * The store of --store; what lies there in an age layer is opened with the identities that are set. Of the second store
 * everything can be read, and nothing put that needs a layer. Nothing is asked of the store yet.
 * Errors: `setting_missing`, `age_key_malformed`, `usage`.
 */
export async function openStore(context: Context): Promise<Store> {
  return await openPlace(context, storePlace(context.settings));
}

/** A store at a place of the settings. Errors: `age_key_malformed`, `usage`. */
export async function openPlace(context: Context, place: StorePlace): Promise<Store> {
  const identities = await identitiesOf(context.settings);
  const store = withIdentities(openStoreAt(place.address, place.credentials, storeDeps(context)), identities);
  return place.isSecond ? withoutNewObjects(store) : store;
}

/** That of --store, then the second one where it is set and another. Errors: those of `openStore`. */
export async function openStores(context: Context): Promise<Store[]> {
  const { settings } = context;
  const [place, second] = [storePlace(settings), settings.get("secondary")];
  const places = place.isSecond || second === undefined ? [place] : [place, secondPlace(settings, second)];
  return await Promise.all(places.map((one) => openPlace(context, one)));
}

/** The second store, for what brings objects there; null where none is set. Errors: those of `openSecondary`. */
export function openSecond(context: Context): Secondary | null {
  return openSecondary(variables(context.settings), storeDeps(context));
}

/** Makes the folder or the private bucket, of the second store too. Errors: those of the store. */
export async function prepareStores(context: Context): Promise<void> {
  const { settings } = context;
  const second = settings.get("secondary");
  const places = [
    ...(settings.get("store") === undefined ? [] : [storePlace(settings)]),
    ...(second === undefined ? [] : [secondPlace(settings, second)]),
  ];
  for (const { address, credentials } of places) await preparePlace(address, credentials, storeDeps(context));
}

/** The second store is known by its word, or by its address as BACKUP_SECONDARY has it. Errors: `setting_missing`. */
export function storePlace(settings: Settings): StorePlace {
  const address = storeAddress(settings);
  if (address === settings.get("secondary")) return secondPlace(settings, address);
  return { address, credentials: credentialsFrom(variables(settings)), isSecond: false };
}

/** Of --store. Errors: `setting_missing`. */
export function storeAddress(settings: Settings): string {
  const wanted = settings.need("store");
  if (wanted !== secondWord) return wanted;
  const second = settings.get("secondary");
  if (second !== undefined) return second;
  throw new HoldfastError("setting_missing", "--store second is asked for, and BACKUP_SECONDARY is not set");
}

/**
 * Where backups and segments are written: never into the second store, where they come by replication. What has to be written
 * while a restore reads from there goes into the store of BACKUP_STORE. Errors: `store_read_only`, `setting_missing`.
 */
export function placeToWrite(settings: Settings, forRestore = false): StorePlace {
  const place = storePlace(settings);
  if (!place.isSecond) return place;
  const first = settings.variable("BACKUP_STORE");
  if (forRestore && first !== undefined && first !== secondWord && first !== place.address) {
    return { address: first, credentials: credentialsFrom(variables(settings)), isSecond: false };
  }
  throw new HoldfastError("store_read_only", "backups and changes are written into the first store, not the second", {
    hint: "Name the first store with --store or BACKUP_STORE; replication brings what it holds to the second.",
  });
}

/** Both stores as the settings have them; nothing is opened. */
export function storePair(settings: Settings): StorePair {
  const projectUrl = settings.get("project-url") ?? settings.variable("SUPABASE_URL");
  const first = settings.get("store") === undefined ? undefined : storeAddress(settings);
  return { first, second: settings.get("secondary"), projectUrl };
}

/** What the settings know of credentials for Supabase and the first store. */
export function storeCredentials(settings: Settings): StoreCredentials {
  return credentialsFrom(variables(settings));
}

/** Storage of the project whose database is backed up; null where its address or a key is not set. */
export function projectStorage(settings: Settings): ProjectFilesSettings | null {
  const { supabaseUrl: projectUrl, supabaseServiceKey: serviceKey } = storeCredentials(settings);
  return projectUrl === undefined || serviceKey === undefined ? null : { projectUrl, serviceKey };
}

/** Storage of the project that --target-db-url belongs to; null where its address or a key is not set. */
export function targetStorage(settings: Settings): ProjectFilesSettings | null {
  const projectUrl = settings.get("target-project-url");
  const serviceKey = settings.variable("BACKUP_TARGET_SECRET_KEY");
  return projectUrl === undefined || serviceKey === undefined ? null : { projectUrl, serviceKey };
}

/** Of BACKUP_SECONDARY. Errors: `setting_missing`, `usage`. */
export function secondPlace(settings: Settings, address: string): StorePlace {
  return { address, credentials: secondaryCredentials(address, variables(settings)), isSecond: true };
}

/** BACKUP_IDENTITIES, or the file of --identities-file; none where neither is set. Errors: `age_key_malformed`, `usage`. */
export async function identitiesOf(settings: Settings): Promise<Identities> {
  return parseIdentities(await identitiesText(settings));
}

export async function identitiesText(settings: Settings): Promise<string | undefined> {
  const inline = settings.variable("BACKUP_IDENTITIES");
  const file = settings.get("identities-file");
  return inline !== undefined || file === undefined ? inline : await readSettingFile(file, "identities-file");
}

/** The project of --project-url is the one whose Storage is meant, and --secondary stands before its variable. */
function variables(settings: Settings): (name: string) => string | undefined {
  return (name) => {
    if (name === "BACKUP_SECONDARY") return settings.get("secondary");
    return settings.variable(name) ?? (name === "SUPABASE_URL" ? settings.get("project-url") : undefined);
  };
}

export function storeDeps({ clock, random, log }: Context): OpenStoreDeps {
  return { fetch: (input, init) => fetch(input, init), clock, random, log };
}
