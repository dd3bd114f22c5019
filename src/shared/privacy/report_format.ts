/** What `backup.person_report` answers, and the report that is made of it. docs/reports.md. */
import { z } from "zod";

const moment = z.string().nullable();
const counted = z.object({ table: z.string(), rows: z.number() });

/** An act of the audit. `who`: `the person`, `administrator <id>`, a role, or a keyed hash. */
const act = z.object({
  at: z.string(),
  action: z.string(),
  subject: z.string(),
  who: z.string(),
  detail: z.record(z.string(), z.unknown()),
});
export type Act = z.infer<typeof act>;

const keptBackup = z.object({
  backup: z.string(),
  tiers: z.array(z.string()),
  takenAt: z.string(),
  /** As its tiers or a hold keep it; the newest stay until a newer one is proven. Null: no tier of it is kept. */
  until: moment,
  /** Where it is chosen as a month's or a year's backup. */
  latest: moment,
  heldUntil: moment,
  holdReason: z.string().nullable(),
  lockedUntil: moment,
  /** It stands in the second store too. */
  second: z.boolean(),
  secondLockedUntil: moment,
});
export type KeptBackup = z.infer<typeof keptBackup>;

export const keptFormat = z.object({
  at: z.string(),
  /** Keyed hash, which means nothing outside of the database. */
  person: z.string(),
  standing: z.enum(["there", "deleted", "erasing", "erased", "unknown"]),
  since: moment,
  until: moment,
  hold: z.object({ reason: z.string(), since: z.string() }).nullable(),
  isAdministrator: z.boolean(),
  stores: z.object({
    first: z.string().nullable(),
    firstLock: z.string().nullable(),
    second: z.string().nullable(),
    secondLock: z.string().nullable(),
  }).nullable(),
  backups: z.array(keptBackup),
  stream: z.object({ segments: z.number(), from: moment, to: moment, copied: z.number(), window: z.number() }),
  /** Files that are there now, and versions of them that were copied. */
  fileCopies: z.object({ files: z.number(), versions: z.number() }),
  downloads: z.array(z.object({
    download: z.string(),
    backup: z.string(),
    table: z.string().nullable(),
    format: z.string(),
    status: z.string(),
    links: z.number(),
    until: moment,
  })),
  exports: z.array(z.object({
    export: z.string(),
    origin: z.string(),
    status: z.string(),
    madeAt: moment,
    links: z.number(),
    until: moment,
  })),
  imports: z.array(z.object({
    import: z.string(),
    status: z.string(),
    askedAt: z.string(),
    endedAt: moment,
    rows: z.number().nullable(),
  })),
  sides: z.array(z.object({
    restore: z.string(),
    schema: z.string(),
    scope: z.string(),
    /** False: rows of a table, or of all, some of which may be theirs. */
    theirs: z.boolean(),
    until: moment,
  })),
  guardians: z.array(z.object({
    request: z.string(),
    relation: z.string(),
    asks: z.array(z.string()),
    identityBy: z.string(),
    saidOn: z.string(),
    recordedAt: z.string(),
    entry: z.string(),
    status: z.string(),
    reviewedAt: moment,
    erasedAt: moment,
  })),
  erasure: z.object({
    erasure: z.string(),
    status: z.string(),
    begunAt: z.string(),
    emptiedAt: moment,
    rewrittenAt: moment,
    cleanAt: moment,
    rows: z.record(z.string(), z.number()),
    files: z.number(),
    mentions: z.array(counted),
    entries: z.array(z.string()),
    certificate: z.record(z.string(), z.unknown()).nullable(),
    /** What the certificate searches for lies sealed in the first store. */
    termsKept: z.boolean(),
    remains: z.array(z.object({ store: z.string(), objects: z.number(), lockedUntil: moment })),
  }).nullable(),
  seen: z.array(act),
  mayHaveSeen: z.array(act),
  /** So many acts of each are listed, the newest. */
  most: z.number(),
});
export type Kept = z.infer<typeof keptFormat>;

/** Rows and files that are there now. */
export interface Live {
  readonly tables: readonly {
    readonly table: string;
    readonly rows: number;
    /** Rows that are others' as well. */
    readonly shared: number;
  }[];
  readonly files: readonly { readonly bucket: string; readonly files: number; readonly bytes: number }[];
  /** Tables from which no way leads to a person, and columns that look like a user's id: nobody can say whose rows they are. */
  readonly withoutPath: readonly string[];
  readonly suspects: readonly string[];
}

export interface Report extends Kept {
  /** Null: they were erased, or deleted, and `notCounted` says why nothing was counted. */
  readonly live: Live | null;
  readonly notCounted: string | null;
  /** Sentences: what neither the database nor the audit can tell. */
  readonly cannotTell: readonly string[];
}
