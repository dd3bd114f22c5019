/** What stores over HTTP do when the way to their server fails, without and with patience. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { retrying } from "../../src/shared/store/retrying.ts";
import type { Store } from "../../src/shared/store/store.ts";
import type { FaultProxy, ProxyFault } from "./fault_proxy.ts";
import { noise } from "./store.ts";

export interface FaultSubject {
  readonly proxy: FaultProxy;
  readonly putMethod: ProxyFault["method"];
  readonly listMethod: ProxyFault["method"];
  readonly open: (timeoutMs: number) => Store;
  close(): Promise<void>;
}

const kindsOfTrouble = [408, 425, 429, 500, 502, 503, 504, "reset"] as const;

export function describeFaults(title: string, start: () => Promise<FaultSubject>): void {
  describe(`${title}, on a way that fails`, () => {
    let subject: FaultSubject;
    let store: Store;
    let patient: Store;
    let proxy: FaultProxy;
    const body = noise(50_000, 11);
    let count = 0;
    const fresh = () => `f/${++count}`;

    beforeAll(async () => {
      subject = await start();
      proxy = subject.proxy;
      store = subject.open(20_000);
      patient = retrying(store, { clock: systemClock, random: webCryptoRandom }, { firstWaitMs: 2 });
      await store.create("f/there", body);
    }, 60_000);
    afterAll(async () => {
      await subject?.close();
    });

    it.each(kindsOfTrouble)("says store_unreachable on %s, once, without trying again by itself", async (kind) => {
      proxy.set({ method: subject.putMethod, times: 9, kind });
      await expect(store.replace(fresh(), body)).rejects.toMatchObject({ code: "store_unreachable", retry: "backoff" });
      expect(proxy.fired()).toBe(1);
    });

    it.each(kindsOfTrouble)("gets a put through three times %s with patience", async (kind) => {
      const name = fresh();
      proxy.set({ method: subject.putMethod, times: 3, kind });
      expect(await patient.create(name, body)).toBe("created");
      expect(proxy.fired()).toBe(3);
      expect(sameBytes(await store.read(name), body)).toBe(true);
    });

    it("says created, not existed, for its own put whose answer was lost", async () => {
      const name = fresh();
      proxy.set({ method: subject.putMethod, times: 1, kind: "lost_answer" });
      expect(await patient.create(name, body)).toBe("created");
      expect(proxy.fired()).toBe(1);
      expect(sameBytes(await store.read(name), body)).toBe(true);
    });

    it("says existed when the put was lost and another had written the name", async () => {
      const name = fresh();
      await store.create(name, noise(10, 5));
      proxy.set({ method: subject.putMethod, times: 1, kind: "reset" });
      expect(await patient.create(name, body)).toBe("existed");
    });

    it.each(["cut_body", "short_body"] as const)(
      "never takes a body of half its length for whole (%s)",
      async (kind) => {
        proxy.set({ method: "GET", times: 1, kind });
        if (kind === "cut_body") {
          await expect(store.read("f/there")).rejects.toMatchObject({ code: "store_lied" });
        } else {
          expect((await store.read("f/there")).byteLength).toBe(25_000); // the seal and the stored hash tell
        }
        expect(proxy.fired()).toBe(1);
      },
    );

    it("reads the whole with patience after two answers were cut", async () => {
      proxy.set({ method: "GET", times: 2, kind: "cut_body" });
      expect(sameBytes(await patient.read("f/there"), body)).toBe(true);
      expect(proxy.fired()).toBe(2);
    });

    it.each(["cut_body", "short_body"] as const)(
      "never takes a listing that was cut for complete (%s)",
      async (kind) => {
        proxy.set({ method: subject.listMethod, times: 1, kind });
        const names = async () => {
          for await (const _ of store.list("f/")) { /* only its end counts */ }
        };
        await expect(names()).rejects.toMatchObject({ code: "store_lied" });
        expect(proxy.fired()).toBe(1);
      },
    );

    it("lists each name once with patience although listings break off", async () => {
      const all: string[] = [];
      proxy.set({ method: subject.listMethod, times: 2, kind: "cut_body" });
      for await (const { name } of patient.list("f/")) all.push(name);
      expect(proxy.fired()).toBe(2);
      expect(all).toContain("f/there");
      expect(new Set(all).size).toBe(all.length);
    });

    it("gives up on a server that never answers within the time it was given", async () => {
      const hasty = subject.open(300);
      proxy.set({ method: "GET", times: 1, kind: "hang" });
      await expect(hasty.read("f/there")).rejects.toMatchObject({ code: "store_unreachable" });
      expect(proxy.fired()).toBe(1);
    });

    it.each([[401, "store_denied"], [403, "store_denied"], [507, "store_full"]] as const)(
      "does not try again what cannot heal (%s is %s)",
      async (status, code) => {
        proxy.set({ method: subject.putMethod, times: 9, kind: status });
        await expect(patient.replace(fresh(), body)).rejects.toMatchObject({ code });
        expect(proxy.fired()).toBe(1);
      },
    );

    it("ends after its tries when the trouble does not", async () => {
      proxy.set({ method: "GET", times: 99, kind: 503 });
      await expect(patient.read("f/there")).rejects.toMatchObject({ code: "store_unreachable" });
      expect(proxy.fired()).toBe(6);
      proxy.set(null);
    });
  });
}
