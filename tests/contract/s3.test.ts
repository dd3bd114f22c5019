import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { S3Settings } from "../../src/shared/store/s3_call.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { describeFaults } from "./faults.ts";
import { startFaultProxy } from "./fault_proxy.ts";
import { describeStore } from "./store.ts";

const deps = { fetch: (url: string, init: RequestInit) => fetch(url, init), clock: systemClock };

const settingsOf = (server: S3Server): S3Settings => ({
  endpoint: server.endpoint,
  region: server.region,
  bucket: server.bucket,
  prefix: "some/prefix",
  accessKeyId: server.accessKeyId,
  secretAccessKey: server.secretAccessKey,
});

for (const conditions of [true, false]) {
  describeStore(`s3, on a server that ${conditions ? "keeps" : "ignores"} If-None-Match`, async () => {
    const server = await startS3Server({ conditions });
    const settings = settingsOf(server);
    return {
      store: createS3Store(settings, deps),
      nowhere: createS3Store({ ...settings, bucket: "not-there" }, deps),
      stranger: createS3Store({ ...settings, secretAccessKey: `${settings.secretAccessKey}x` }, deps),
      secrets: [server.accessKeyId, server.secretAccessKey],
      createIsAtomic: conditions,
      listed: 90,
      async close() {
        expect(server.counts.accepted).toBeGreaterThan(100);
        await server.close();
      },
    };
  });
}

describeFaults("s3", async () => {
  const server = await startS3Server();
  const proxy = await startFaultProxy(server.endpoint);
  return {
    proxy,
    putMethod: "PUT",
    listMethod: "GET",
    open: (timeoutMs) => createS3Store({ ...settingsOf(server), endpoint: proxy.endpoint }, { ...deps, timeoutMs }),
    async close() {
      await proxy.close();
      await server.close();
    },
  };
});

describe("s3 signatures", () => {
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3Server();
  });
  afterAll(() => server.close());

  it("are really checked by the server of these tests: a body changed on the way is refused", async () => {
    const store = createS3Store(settingsOf(server), {
      ...deps,
      fetch: (url, init) => fetch(url, { ...init, body: init.method === "PUT" ? "other" : null }),
    });
    await expect(store.create("a", new Uint8Array(5))).rejects.toMatchObject({ code: "store_unreachable" });
    expect(server.counts.refused).toBe(1);
  });

  it("made by a clock that is an hour off are denied, and the hint says so", async () => {
    const clock = { ...systemClock, now: () => new Date(Date.now() - 3_600_000) };
    const store = createS3Store(settingsOf(server), { ...deps, clock });
    await expect(store.read("a")).rejects.toMatchObject({
      code: "store_denied",
      hint: expect.stringContaining("clock"),
    });
  });
});
