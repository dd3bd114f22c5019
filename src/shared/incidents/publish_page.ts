/** The status page in its place: a store that serves it, apart from those of the backups, since everybody may read it. */
import { sameBytes } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import { nearness } from "../store/apart.ts";
import {
  openStore,
  type OpenStoreDeps,
  parseStoreAddress,
  preparePublicPlace,
  type StoreCredentials,
} from "../store/open_store.ts";
import { secondaryCredentials } from "../store/secondary.ts";
import { secondaryVariables } from "../store/secondary_variables.ts";
import type { Store } from "../store/store.ts";
import { pageVariables } from "./page_variables.ts";
import { type PageContent, pageContent, pageFiles } from "./status_page.ts";

export interface StatusPage {
  /** Where it is, without credentials. */
  readonly label: string;
  /** Names of the files that are put there. */
  readonly files: readonly string[];
  /** Puts what it says and reads it back. Errors: those of the store. */
  put(content: PageContent, updatedAt: string): Promise<void>;
  /** What it says now; null: nothing that can be read. Errors: `store_unreachable`, `store_denied`. */
  present(): Promise<PageContent | null>;
}

type Variable = (name: string) => string | undefined;

/** Few and soon: whoever waits for it is in a hurry, and it is tried again each minute. */
const patience = { maxTries: 3, deadlineMs: 15_000 };

/**
 * The page that is set up; null: there is none. `variable` answers for names in capitals; an empty value counts as none.
 * Supabase Storage serves HTML as plain text, so that only the JSON is put there.
 * Errors: `setting_missing`; `usage` for an address that is none, or that is in a store of the backups.
 */
export function openStatusPage(variable: Variable, deps: OpenStoreDeps): StatusPage | null {
  const address = value(variable, pageVariables.address);
  if (address === undefined) return null;
  refuseNearBackups(address, variable);
  const credentials = credentialsOf(address, variable);
  const isSupabase = parseStoreAddress(address).kind === "supabase-storage";
  const files = (content: PageContent, updatedAt: string) =>
    pageFiles(content, updatedAt).filter(({ name }) => !isSupabase || name === "status.json");
  const types = new Map(pageFiles(nothing, "").map(({ name, contentType }) => [name as string, contentType]));
  const typed = {
    ...deps,
    contentTypeOf: (name: string) => types.get(name) ?? "application/octet-stream",
    isPublic: true,
  };
  const store = openStore(address, credentials, typed, patience);
  return {
    label: store.label,
    files: files(nothing, "").map(({ name }) => name),
    async put(content, updatedAt) {
      const parsed = pageContent.parse(content);
      for (const { name, text } of files(parsed, updatedAt)) {
        await putText(store, name, text, () => preparePublicPlace(address, credentials, typed));
      }
    },
    async present() {
      try {
        const found = pageContent.safeParse(JSON.parse(new TextDecoder().decode(await store.read("status.json"))));
        return found.success ? found.data : null;
      } catch (error) {
        if (!(error instanceof HoldfastError)) return null;
        if (error.code === "object_missing" || error.code === "store_missing") return null;
        throw error;
      }
    },
  };
}

async function putText(store: Store, name: string, text: string, prepare: () => Promise<void>): Promise<void> {
  const bytes = new TextEncoder().encode(text);
  try {
    await store.replace(name, bytes);
  } catch (error) {
    if (!(error instanceof HoldfastError && error.code === "store_missing")) throw error;
    await prepare();
    await store.replace(name, bytes);
  }
  if (!sameBytes(await store.read(name), bytes)) {
    throw new HoldfastError("store_lied", `${store.label} gives back another ${name} than was put there`);
  }
}

/** For the names of the files alone. */
const nothing: PageContent = {
  format: "holdfast/status",
  version: 1,
  state: "operational",
  since: null,
  message: null,
  nextUpdateAt: null,
  maintenance: null,
  planned: [],
  incidents: [],
};

/** What is public beside what is sealed: one wrong policy would open both. */
function refuseNearBackups(address: string, variable: Variable): void {
  const projectUrl = value(variable, "SUPABASE_URL");
  for (const name of ["BACKUP_STORE", secondaryVariables.address]) {
    const other = value(variable, name);
    const found = nearness({ first: other, second: address, projectUrl });
    if (found === null || other === undefined) continue;
    if (found.kind !== "same" && bucketOf(other) !== bucketOf(address)) continue;
    throw new HoldfastError("usage", `${pageVariables.address} is in the store of ${name}, and everybody may read it`, {
      hint: "Give the status page a bucket of its own.",
    });
  }
}

/** The bucket, or the folder. */
function bucketOf(address: string): string {
  const place = parseStoreAddress(address);
  return place.kind === "file" ? place.folder : place.bucket;
}

function credentialsOf(address: string, variable: Variable): StoreCredentials {
  const own = value(variable, pageVariables.s3AccessKeyId);
  const base = own === undefined ? variable : (name: string) => {
    if (name === secondaryVariables.s3AccessKeyId) return own;
    if (name === secondaryVariables.s3SecretAccessKey) return variable(pageVariables.s3SecretAccessKey);
    if (name === secondaryVariables.s3SessionToken) return variable(pageVariables.s3SessionToken);
    return variable(name);
  };
  return secondaryCredentials(address, base);
}

function value(variable: Variable, name: string): string | undefined {
  const found = variable(name)?.trim();
  return found === "" ? undefined : found;
}
