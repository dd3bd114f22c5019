/** What the function adds to the monitor's look: what only it can see is told to the database, which then looks. */
import type { Clock } from "../clock.ts";
import { tellKeys } from "../audit/tell_keys.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { look, readClock, readTroubledStores, tellClock, tellStore } from "../jobs/monitor_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import type { StorePair } from "../store/apart.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Store } from "../store/store.ts";
import { probeStore } from "./probe.ts";
import { readRemarks } from "./remarks.ts";

export interface PlaceToProbe {
  readonly place: "first" | "second";
  readonly label: string;
  readonly open: (fetch: Fetch) => Store;
}

export interface LookDeps {
  readonly connection: Connection;
  readonly clock: Clock;
  readonly fetch: Fetch;
  readonly random: Random;
  readonly places: readonly PlaceToProbe[];
  readonly stores: StorePair;
  readonly ring: Pick<KeyRing, "ids">;
}

/** Errors: those of the connection, `usage` for what is no address of a store. A store that does not answer is told, and no error. */
export async function lookAround(
  { connection, clock, fetch, random, places, stores, ring }: LookDeps,
): Promise<void> {
  await tellKeys(connection, ring);
  const before = clock.now().getTime();
  const database = await readClock(connection);
  const here = (before + clock.now().getTime()) / 2;
  await tellClock(connection, "function", here - database);
  // Only then: each write costs a request, and in a bucket that locks or keeps versions an object.
  const troubled = await readTroubledStores(connection);
  for (const { place, label, open } of places) {
    const { failure, wrote, aheadMs } = await probeStore(open, { fetch, clock, random }, troubled.includes(place));
    await tellStore(connection, place, { label, failure, wrote });
    if (aheadMs !== null) await tellClock(connection, place, here - database + aheadMs);
  }
  await look(connection, (await readRemarks(connection, stores)).remarks);
}
