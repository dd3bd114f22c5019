import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import type { Condition } from "../rows/beside/conditions.ts";
import type { ReadDeps } from "../verify/find_backup.ts";
import type { DrillRow } from "./drill_queries.ts";

/** Where databases of drills are made. */
export interface DrillServer {
  /** Any database of it, as a role that may create databases and set `session_replication_role`. */
  readonly database: Database;
  /** Another of its databases, as the same role. */
  inDatabase(name: string): Database;
  /** It is the server of the database that is backed up: what is restored there takes room from it. */
  readonly isOwn: boolean;
}

/** What is to come back beside the live rows. */
export interface BesideRequest {
  readonly scope: "table" | "record";
  /** Id of the full backup. */
  readonly backup: string;
  readonly table: { readonly schema: string; readonly name: string };
  /** For a record: the columns of its key. */
  readonly where: readonly Condition[];
}

/** How rows are laid beside: by the function `restore`, or by this process. */
export interface BesideWorker {
  /** Begins the restore; its id. Errors: those of `beginRestore`. */
  begin(connection: Connection, request: BesideRequest): Promise<string>;
  /** Works on it here until it has ended; nothing where somebody else does. What ends it is written down with it. */
  work(connection: Connection, restore: string, request: BesideRequest): Promise<void>;
}

export interface DrillDeps {
  /** The database that is backed up, where drills are recorded. */
  readonly database: Database;
  /** A session there, in no transaction. */
  readonly connection: Connection;
  readonly server: DrillServer;
  readonly beside: BesideWorker;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The store that this drill reads from, and its keys. Errors: those of settings and keys. */
  readonly open: (drill: DrillRow) => Promise<ReadDeps>;
  /** What signs the evidence. Errors: those of keys. */
  readonly ring: () => Promise<KeyRing>;
  /** Which database's backups, where the store holds those of several. */
  readonly source?: string;
  /** Drills that only a person can do, by their names: what they did, and whether it went well. */
  readonly byPerson?: (drill: DrillRow) => Promise<PersonResult>;
}

/** What a person did and saw. */
export interface PersonResult {
  readonly ok: boolean;
  readonly notes: string;
}

export interface DrillOptions {
  /** Names the worker in `backup.tasks`; unique among those that work at the same time. */
  readonly worker: string;
  readonly budget: Budget;
  /** Sessions that load at once; default 1. */
  readonly parallel?: number;
  /** Ends the drill: its database is dropped. */
  readonly signal?: AbortSignal;
  readonly progress?: (at: {
    readonly label: string;
    readonly done: number;
    readonly total: number | null;
    readonly unit: "rows" | "transactions" | "files";
  }) => void;
}
