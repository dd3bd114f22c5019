/** The second store: another provider, with credentials of its own and an age layer. docs/format.md, "The second store". */
import { parseRecipients } from "../crypto/age.ts";
import { HoldfastError } from "../errors.ts";
import { isLayered } from "./layered.ts";
import { openStore, type OpenStoreDeps, parseStoreAddress, type StoreCredentials } from "./open_store.ts";
import { secondaryVariables } from "./secondary_variables.ts";
import type { Store } from "./store.ts";

export { isLayered };

export interface Secondary {
  /** Objects as they lie there, with retries. */
  readonly store: Store;
  /** `age1…` of those who can open what is wrapped. */
  readonly recipients: readonly string[];
  /**
   * What is put there under `name`: an age file for the names that are layered, the bytes themselves for all else. Never the
   * same bytes twice, so that a repeated put is told by the hash that was recorded of the first.
   */
  wrap(name: string, sealed: Uint8Array): Promise<Uint8Array>;
}

type Variable = (name: string) => string | undefined;

/**
 * The second store that is configured; null: there is none. `variable` answers for names in capitals; an empty value counts as
 * none. Nothing is asked of the store yet. Errors: `setting_missing` (without BACKUP_RECIPIENTS too: a layer is never left
 * out in silence), `age_key_malformed`, `usage`.
 */
export function openSecondary(variable: Variable, deps: OpenStoreDeps): Secondary | null {
  const address = value(variable, secondaryVariables.address);
  if (address === undefined) return null;
  const recipients = parseRecipients(value(variable, secondaryVariables.recipients));
  return {
    store: openStore(address, secondaryCredentials(address, variable), deps),
    recipients: recipients.names,
    wrap: async (name, sealed) => isLayered(name) ? await recipients.wrap(sealed) : sealed,
  };
}

/** A bucket of this project's own Storage is reached with the project's key. Errors: `setting_missing`, `usage`. */
export function secondaryCredentials(address: string, variable: Variable): StoreCredentials {
  const isS3 = parseStoreAddress(address).kind === "s3";
  const needed = (name: string) => {
    const found = value(variable, name);
    if (found === undefined && isS3) {
      throw new HoldfastError("setting_missing", `the second store needs ${name}`, {
        hint: "The first store's credentials are not taken for it.",
      });
    }
    return found;
  };
  return {
    s3AccessKeyId: needed(secondaryVariables.s3AccessKeyId),
    s3SecretAccessKey: needed(secondaryVariables.s3SecretAccessKey),
    s3SessionToken: value(variable, secondaryVariables.s3SessionToken),
    supabaseUrl: value(variable, "SUPABASE_URL"),
    supabaseServiceKey: value(variable, "SUPABASE_SECRET_KEY") ?? value(variable, "SUPABASE_SERVICE_ROLE_KEY"),
  };
}

function value(variable: Variable, name: string): string | undefined {
  const found = variable(name)?.trim();
  return found === "" ? undefined : found;
}
