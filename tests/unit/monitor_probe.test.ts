/** Whether a store answers, and what its clock says. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { probeStore } from "../../src/shared/monitor/probe.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import type { Fetch } from "../../src/shared/store/http_call.ts";
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

describe("a store that is probed", () => {
  it("answers, and its clock is no way off within a second", async () => {
    expect(await probeStore(await s3At(0), real, systemClock)).toEqual({ failure: null, aheadMs: 0 });
  });

  it.each([[600], [-600]])("answers with a clock that is %i s off", async (seconds) => {
    const { failure, aheadMs } = await probeStore(await s3At(seconds), real, systemClock);
    expect(failure).toBeNull();
    expect(Math.abs((aheadMs ?? 0) - seconds * 1000)).toBeLessThan(3_000);
  });

  it("says nothing of a clock where the answer bears no date", async () => {
    expect(await probeStore(await s3At(null), real, systemClock)).toEqual({ failure: null, aheadMs: null });
  });

  it("is told with code and message where it refuses, with its clock all the same", async () => {
    const { failure, aheadMs } = await probeStore(await s3At(0, 403), real, systemClock);
    expect(failure).toMatch(/\(store_denied\)$/);
    expect(aheadMs).toBe(0);
  });

  it("is told where nobody listens, and where its settings are no settings", async () => {
    const open = await s3At(null);
    server?.close();
    expect((await probeStore(open, real, systemClock)).failure).toMatch(/\(store_unreachable\)$/);
    const broken = () => {
      throw new Error("boom");
    };
    expect((await probeStore(broken, real, systemClock)).failure).toMatch(/\(internal\)$/);
  });
});
