/** What is known of a command, and the options and words that several take. */
import type { OptionName } from "../options.ts";

export interface CommandFacts {
  readonly summary: string;
  /** Sentences below the summary in --help. */
  readonly about: string;
  readonly words: readonly { readonly name: string; readonly required: boolean; readonly help: string }[];
  readonly options: readonly OptionName[];
  /** After `npm run -s backup:`, with what it does. */
  readonly examples: readonly { readonly line: string; readonly does: string }[];
}

export const database = ["db-url", "db-password-file", "db-ca"] as const satisfies readonly OptionName[];
export const store = ["store", "keys-file", "identities-file"] as const satisfies readonly OptionName[];
export const target = [
  "target-db-url",
  "target-db-password-file",
  "target-db-ca",
] as const satisfies readonly OptionName[];

export const id = {
  name: "id",
  required: true,
  help:
    "a backup's id, its first letters (4 or more), or `latest`: the newest but for safety backups and those in quarantine",
};
