import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { ProjectFiles } from "../files/project_files.ts";
import type { Compressor } from "../format/compressor.ts";
import type { Log } from "../log.ts";
import type { Database } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import type { Store } from "../store/store.ts";

/** All that a backup touches; it reaches for nothing else. */
export interface BackupDeps {
  /** Sessions as the role that takes the backup. */
  readonly database: Database;
  /** Already wrapped in `retrying`. */
  readonly store: Store;
  /** The files of the project; null or absent: this process does not know its Storage, or has no key to it. */
  readonly files?: ProjectFiles | null;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** As package.json says; a test compares. It stands in every manifest. */
export const holdfastVersion = "0.1.0";
