/** What the functions of a simulated project reach: two buckets in this process, and receivers on loopback. */
import { Buffer } from "node:buffer";
import type { Fetch } from "../../src/shared/store/http_call.ts";
import { trustingFetch } from "../support/trusting_fetch.ts";
import { VersionedBucket } from "../support/versioned_bucket.ts";

export type Place = "first" | "second";

export interface StoreCall {
  readonly place: Place;
  readonly method: string;
  /** Empty for the bucket itself. */
  readonly key: string;
}

/** What becomes of a call instead of its answer; null: the bucket answers. */
export type Disturbance = (call: StoreCall) => "down" | "denied" | null;

export class Network {
  readonly buckets: Readonly<Record<Place, VersionedBucket>>;
  /** In force now; the first that says something counts. */
  readonly disturbances = new Set<Disturbance>();
  readonly #now: () => Date;
  readonly #outside: Fetch;

  /** `now`: what the stores' clocks say. `authority`: of the receivers' certificates (PEM). */
  constructor(now: () => Date, authority: string) {
    const plain = () => new VersionedBucket({ versioning: null, lock: null });
    this.buckets = { first: plain(), second: plain() };
    this.#now = now;
    this.#outside = trustingFetch(authority);
  }

  /** Addresses of stores at two providers. */
  address(place: Place): string {
    return `s3://backups/?endpoint=${encodeURIComponent(`https://${place}.store.test`)}`;
  }

  readonly fetch: Fetch = async (input, init) => {
    const url = new URL(input);
    const place = /^(first|second)\.store\.test$/.exec(url.hostname)?.[1] as Place | undefined;
    if (place !== undefined) return await this.#store(place, url, init);
    if (url.hostname === "localhost") return await this.#outside(input, init);
    throw new TypeError(`nothing is at ${url.hostname}`);
  };

  async #store(place: Place, url: URL, init: RequestInit): Promise<Response> {
    const method = init.method ?? "GET";
    const key = decodeURIComponent(url.pathname).split("/").slice(2).join("/");
    const bucket = this.buckets[place];
    const body = new Uint8Array(await new Response(init.body ?? null).arrayBuffer());
    const date = { date: this.#now().toUTCString() };
    for (const disturb of this.disturbances) {
      const what = disturb({ place, method, key });
      if (what === "down") throw new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED") });
      if (what === "denied") {
        return new Response("<Error><Code>AccessDenied</Code></Error>", { status: 403, headers: date });
      }
    }
    const headers = Object.fromEntries(new Headers(init.headers).entries());
    const said = bucket.answer({ method, key, query: url.searchParams, headers, body });
    bucket.calls.length = 0;
    const told = method === "HEAD" || said.body === undefined ? null : Buffer.from(said.body);
    return new Response(told, { status: said.status, headers: { ...said.headers, ...date } });
  }
}
