/** What `backup.retention_facts()` tells, and what the stores list, as facts for a plan. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { parseFileListName, parseManifestName, parseSegmentName, prefixes, segmentName } from "../format/layout.ts";
import { retentionFacts } from "../jobs/retention_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Store } from "../store/store.ts";
import type { KnownChain, Listing, RetentionFacts, SnapshotPlace } from "./facts.ts";

const position = z.string().regex(/^\d{1,20}$/).transform(BigInt);
const moment = z.int();
const former = z.tuple([position, position, position]);

const format = z.object({
  guard: z.string(),
  now: moment,
  isOriginal: z.boolean(),
  latestRecorded: moment,
  newestEnd: z.enum(["succeeded", "quarantined", "failed"]).nullable(),
  backups: z.array(z.object({
    id: z.string(),
    manifest: z.string(),
    tiers: z.array(z.string()),
    consistentAt: moment,
    status: z.enum(["succeeded", "quarantined"]),
    wasQuarantined: z.boolean(),
    isVerified: z.boolean(),
    holdUntil: moment.nullable(),
    mayBeElsewhere: z.boolean(),
    chain: z.string().nullable(),
    lsn: position,
    xmin: position,
    xmax: position,
  })),
  chains: z.array(z.object({
    id: z.string(),
    isOpen: z.boolean(),
    segments: z.array(z.tuple([position, position, z.int(), moment])),
    former: z.array(former),
  })),
  uses: z.array(z.object({ backup: z.string(), why: z.string() })),
  removed: z.array(z.string()),
  waiting: z.array(z.string()),
  copied: z.array(z.string()),
  policies: z.record(z.string(), z.number()),
  windowSeconds: z.int(),
  atLeast: z.int(),
  newestHours: z.int(),
});

type Told = z.infer<typeof format>;

export interface ReadFacts extends RetentionFacts {
  readonly listings: readonly [Listing, ...Listing[]];
  /** What an order has to come with. */
  readonly guard: string;
  /** Every manifest, and every list of files beside segments, that lies in a store, also those that wait for their removal, and which store to read it from. */
  readonly lying: ReadonlyMap<string, Store>;
}

export interface FactsDeps {
  /** In no transaction. */
  readonly connection: Connection;
  readonly first: Store;
  readonly second: Store | null;
  /** Of this process. */
  readonly now: () => Date;
}

/**
 * Rows first, then the listings: what was recorded by then has to be listed. Errors: those of the connection and the stores; a
 * listing that fails is the end of it.
 */
export async function readFacts({ connection, first, second, now }: FactsDeps): Promise<ReadFacts> {
  const parsed = format.safeParse(await retentionFacts(connection));
  if (!parsed.success) {
    throw new HoldfastError("internal", "backup.retention_facts() told something else than this version knows");
  }
  const told = parsed.data;
  const elsewhere = now().getTime();
  const chains = told.chains.map(chainOf);
  const waiting = new Set(told.waiting);
  const segments = chains.flatMap((chain) => chain.segments.map(({ name }) => name));
  const manifests = told.backups.filter(({ mayBeElsewhere }) => !mayBeElsewhere).map(({ manifest }) => manifest);
  const lying = new Map<string, Store>();
  const looked = { waiting, lying };
  const listings: [Listing, ...Listing[]] = [await listed(first, [...manifests, ...segments], looked)];
  if (second !== null) listings.push(await listed(second, told.copied, looked));
  return {
    guard: told.guard,
    now: told.now,
    elsewhere,
    latestRecorded: told.latestRecorded,
    isOriginal: told.isOriginal,
    newestEnd: told.newestEnd,
    backups: told.backups.map(({ lsn, xmin, xmax, ...backup }) => ({ ...backup, snapshot: { lsn, xmin, xmax } })),
    chains,
    uses: told.uses,
    removedManifests: new Set(told.removed),
    policy: policyOf(told),
    listings,
    lying,
  };
}

function policyOf({ policies, windowSeconds, atLeast, newestHours }: Told): RetentionFacts["policy"] {
  const { monthly, yearly, ...tiers } = policies;
  return {
    keepMs: new Map(Object.entries(tiers)),
    monthlyMs: monthly,
    yearlyMs: yearly,
    windowMs: windowSeconds * 1000,
    atLeast,
    newestMs: newestHours * 3_600_000,
  };
}

function chainOf({ id, isOpen, segments, former }: Told["chains"][number]): KnownChain {
  return {
    id,
    isOpen,
    segments: segments.map(([start, end, part, takenAt]) => ({
      name: segmentName({ chain: id, startLsn: start, endLsn: end, part }),
      start,
      end,
      part,
      takenAt,
    })),
    formerSnapshots: former.map(([lsn, xmin, xmax]): SnapshotPlace => ({ lsn, xmin, xmax })),
  };
}

/** What waits for its removal is neither missing nor there. */
async function listed(
  store: Store,
  expected: readonly string[],
  { waiting, lying }: { readonly waiting: ReadonlySet<string>; readonly lying: Map<string, Store> },
): Promise<Listing> {
  const names = new Set<string>();
  for (const prefix of [prefixes.backups, prefixes.changes]) {
    for await (const { name } of store.list(prefix)) {
      const isRoot = parseManifestName(name) !== null || parseFileListName(name) !== null;
      if (isRoot && !lying.has(name)) lying.set(name, store);
      if ((isRoot || parseSegmentName(name) !== null) && !waiting.has(name)) names.add(name);
    }
  }
  return { store: store.label, names, expected };
}
