/** What retention knows before it decides: rows of the catalogue, and what the stores list. All moments are of the database's clock. */

/** Milliseconds since 1970, UTC. */
export type Moment = number;

/** A full backup that the catalogue offers. */
export interface KnownBackup {
  readonly id: string;
  readonly manifest: string;
  readonly tiers: readonly string[];
  readonly consistentAt: Moment;
  readonly status: "succeeded" | "quarantined";
  /** It was quarantined once, whether or not somebody accepted it since: no restore to a moment takes it unasked. */
  readonly wasQuarantined: boolean;
  readonly isVerified: boolean;
  readonly holdUntil: Moment | null;
  /** A run of the CLI, whose store may be another one: that its manifest is not listed says nothing. */
  readonly mayBeElsewhere: boolean;
  /** The chain of the change stream that it is on. */
  readonly chain: string | null;
  readonly snapshot: SnapshotPlace;
}

/** Where a snapshot stands in the stream. */
export interface SnapshotPlace {
  readonly lsn: bigint;
  readonly xmin: bigint;
  readonly xmax: bigint;
}

/** A segment that the catalogue has recorded. */
export interface KnownSegment {
  readonly name: string;
  readonly start: bigint;
  readonly end: bigint;
  readonly part: number;
  /** Every commit up to its end was made before. */
  readonly takenAt: Moment;
}

export interface KnownChain {
  readonly id: string;
  readonly isOpen: boolean;
  /** In the order of the stream. */
  readonly segments: readonly KnownSegment[];
  /** Snapshots of backups on it that are removed: they tell which transactions were over then. */
  readonly formerSnapshots: readonly SnapshotPlace[];
}

/** Somebody needs the backup now: a restore, a verification, a download. */
export interface Use {
  readonly backup: string;
  readonly why: string;
}

export interface Policy {
  /** How long a backup of each tier is kept, in milliseconds. */
  readonly keepMs: ReadonlyMap<string, number>;
  /** The first backup of each month, and of each year (UTC), is kept so long; absent: not for that. */
  readonly monthlyMs?: number | undefined;
  readonly yearlyMs?: number | undefined;
  /** Every moment back to there can be restored. */
  readonly windowMs: number;
  /** So many of the newest backups stay, however old they are. */
  readonly atLeast: number;
  /** With a newest backup older than this nothing is removed. */
  readonly newestMs: number;
}

/** The manifests, segments and lists of files beside them of one store, listed to the end after the rows were read. */
export interface Listing {
  readonly store: string;
  readonly names: ReadonlySet<string>;
  /** Recorded as being there before the store was listed. */
  readonly expected: readonly string[];
}

export interface RetentionFacts {
  /** The database's clock, and that of the process that asks. */
  readonly now: Moment;
  readonly elsewhere: Moment;
  /** The latest moment of any run, backup and segment on record. */
  readonly latestRecorded: Moment;
  readonly isOriginal: boolean;
  /** Of the newest full run that has ended, but for cancelled ones; null: there is none. */
  readonly newestEnd: "succeeded" | "quarantined" | "failed" | null;
  readonly backups: readonly KnownBackup[];
  readonly chains: readonly KnownChain[];
  readonly uses: readonly Use[];
  /** Manifests that were removed: one that is listed again was put there by somebody who came late. */
  readonly removedManifests: ReadonlySet<string>;
  readonly policy: Policy;
  /** The first store first; null where one of them could not be listed. */
  readonly listings: readonly [Listing, ...Listing[]] | null;
}
