/** Whether a store answers, and what its clock says. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { probeStore } from "../../src/shared/monitor/probe.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import type { Fetch } from "../../src/shared/store/http_call.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { faulty } from "../support/faulty_store.ts";
import { openStore } from "../../src/shared/store/open_store.ts";

let server: Server | undefined;
afterEach(() => void server?.close());

/** A real server with an empty bucket, whose clock is this many seconds ahead when it answers; null: its answers bear no date. */
async function s3At(ahead: number | null, status = 404): Promise<(fetch: Fetch) => ReturnType<typeof openStore>> {
  server = createServer((request, response) => {
    response.sendDate = false;
    const isBucket = /^\/[^/]+$/.test(request.url ?? "");
    response.writeHead(
      isBucket && status === 404 ? 200 : status,
      ahead === null ? {} : { date: new Date(Date.now() + ahead * 1000).toUTCString() },
    );
    response.end();
  });
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const address = `s3://bucket?endpoint=http://127.0.0.1:${port}`;
  const credentials = { s3AccessKeyId: "a", s3SecretAccessKey: "b" };
  return (fetch) =>
    openStore(address, credentials, { fetch, clock: systemClock, random: webCryptoRandom }, { maxTries: 1 });
}

const real: Fetch = (input, init) => fetch(input, init);
const deps = { fetch: real, clock: systemClock, random: webCryptoRandom };

describe("a store that is probed", () => {
  it("answers, and its clock is no way off within a second", async () => {
    expect(await probeStore(await s3At(0), deps, false)).toEqual({
      failure: null,
      wrote: false,
      aheadMs: 0,
    });
  });

  it.each([[600], [-600]])("answers with a clock that is %i s off", async (seconds) => {
    const { failure, aheadMs } = await probeStore(await s3At(seconds), deps, false);
    expect(failure).toBeNull();
    expect(Math.abs((aheadMs ?? 0) - seconds * 1000)).toBeLessThan(3_000);
  });

  it("says nothing of a clock where the answer bears no date", async () => {
    expect(await probeStore(await s3At(null), deps, false)).toEqual({ failure: null, wrote: false, aheadMs: null });
  });

  it("is told with code and message where it refuses, with its clock all the same", async () => {
    const { failure, aheadMs } = await probeStore(await s3At(0, 403), deps, false);
    expect(failure).toMatch(/\(store_denied\)$/);
    expect(aheadMs).toBe(0);
  });

  it("is told where nobody listens, and where its settings are no settings", async () => {
    const open = await s3At(null);
    server?.close();
    expect((await probeStore(open, deps, false)).failure).toMatch(/\(store_unreachable\)$/);
    const broken = () => {
      throw new Error("boom");
    };
    expect((await probeStore(broken, deps, false)).failure).toMatch(/\(internal\)$/);
  });

  it("is written to where that is asked for, and nothing of it stays", async () => {
    const store = createMemoryStore();
    const watched = faulty(store, []);
    expect(await probeStore(() => watched, deps, true)).toEqual({ failure: null, wrote: true, aheadMs: null });
    expect(store.objects.size).toBe(0);
    // Without it nothing is written: a store that takes nothing is none the worse.
    const full = faulty(store, [{ call: "create", kind: "store_full", times: Infinity }]);
    expect((await probeStore(() => full, deps, false)).failure).toBeNull();
  });

  it.each(
    [
      ["takes nothing", { call: "create", kind: "store_full" }, /\(store_full\)$/],
      ["keeps nothing", { call: "create", kind: "forget" }, /\(object_missing\)$/],
      ["gives back other bytes", { call: "read", kind: "flip" }, /other bytes than were written \(store_lied\)$/],
      ["may not be read", { call: "read", kind: "store_denied" }, /\(store_denied\)$/],
      ["removes nothing", { call: "remove", kind: "store_denied" }, /\(store_denied\)$/],
    ] as const,
  )("that %s is told, and what was written is removed where it can be", async (_, fault, told) => {
    const store = createMemoryStore();
    const broken = faulty(store, [fault]);
    const { failure, wrote } = await probeStore(() => broken, deps, true);
    expect(failure).toMatch(told);
    expect(wrote).toBe(false);
    broken.assertAllFired();
    if (fault.call !== "remove") expect(store.objects.size).toBe(0);
  });
});
