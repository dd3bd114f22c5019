import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  createPrivateBucket,
  createSupabaseStore,
  type SupabaseStorageSettings,
} from "../../src/shared/store/supabase_storage.ts";
import type { Cluster } from "../../src/local/postgres.ts";
import { startTestGateway, type TestGateway } from "../integration/gateway_fixture.ts";
import { clusterMs, startTestCluster } from "../support/cluster.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { startFaultProxy } from "./fault_proxy.ts";
import { describeFaults } from "./faults.ts";
import { describeStore } from "./store.ts";

const deps = { fetch: (url: string, init: RequestInit) => fetch(url, init) };
const text = (words: string) => new TextEncoder().encode(words);

let cluster: Cluster;
let gateway: TestGateway;
let buckets = 0;

beforeAll(async () => {
  cluster = await startTestCluster();
  gateway = await startTestGateway(cluster);
}, clusterMs);
afterAll(async () => {
  await gateway?.stop();
  await cluster?.destroy();
}, clusterMs);

/** A bucket of its own, by the service's key in either form. */
async function freshBucket(key: "serviceRoleKey" | "secretKey" = "serviceRoleKey"): Promise<SupabaseStorageSettings> {
  const settings = { projectUrl: gateway.url, serviceKey: gateway[key], bucket: `backups-${++buckets}` };
  await createPrivateBucket(settings, deps);
  return settings;
}

for (const key of ["serviceRoleKey", "secretKey"] as const) {
  describeStore(
    `supabase-storage, by the ${key === "secretKey" ? "sb_secret_ key" : "service role's JWT"}`,
    async () => {
      const settings = await freshBucket(key);
      return {
        store: createSupabaseStore(settings, deps),
        nowhere: createSupabaseStore({ ...settings, bucket: "not-there" }, deps),
        stranger: createSupabaseStore(
          { ...settings, serviceKey: `${settings.serviceKey.slice(0, -9)}AAAAAAAAA` },
          deps,
        ),
        secrets: [settings.serviceKey, settings.serviceKey.slice(0, 40)],
        createIsAtomic: true,
        listed: key === "serviceRoleKey" ? 1005 : 30,
        close: () => Promise.resolve(),
      };
    },
  );
}

describeFaults("supabase-storage", async () => {
  const settings = await freshBucket();
  const proxy = await startFaultProxy(gateway.url);
  return {
    proxy,
    putMethod: "POST",
    listMethod: "POST",
    open: (timeoutMs) => createSupabaseStore({ ...settings, projectUrl: proxy.endpoint }, { ...deps, timeoutMs }),
    close: () => proxy.close(),
  };
});

describe("a bucket for backups", () => {
  it("is private, may be made twice, and a public one is refused", async () => {
    const settings = await freshBucket();
    await createPrivateBucket(settings, deps);
    await createSupabaseStore(settings, deps).create("a", text("secret"));
    const open = await fetch(`${gateway.url}/storage/v1/object/public/${settings.bucket}/a`);
    expect(open.status).toBe(400);
    await open.body?.cancel();
    const bucket = "open-to-all";
    const made = await fetch(`${gateway.url}/storage/v1/bucket`, {
      method: "POST",
      headers: { authorization: `Bearer ${gateway.serviceRoleKey}`, "content-type": "application/json" },
      body: JSON.stringify({ id: bucket, name: bucket, public: true }),
    });
    expect(made.status).toBe(200);
    await made.body?.cancel();
    expect((await failureOf(createPrivateBucket({ ...settings, bucket }, deps))).code).toBe("store_denied");
  });

  it("is closed to anybody without the service's key", async () => {
    const settings = await freshBucket();
    await createSupabaseStore(settings, deps).create("a", text("secret"));
    for (const serviceKey of [gateway.anonKey, gateway.publishableKey]) {
      const outsider = createSupabaseStore({ ...settings, serviceKey }, deps);
      const read = await failureOf(outsider.read("a"));
      expect(["store_denied", "object_missing", "store_missing"]).toContain(read.code);
      expect((await failureOf(outsider.create("b", text("x")))).code).toBe("store_denied");
    }
  });
});

describe("a listing of Storage that changes while it is read", () => {
  it("is read again until it was in one state, and fails when it never is", async () => {
    const settings = { projectUrl: "http://storage.test", serviceKey: "sb_secret_x", bucket: "b" };
    const names = Array.from({ length: 1500 }, (_, index) => String(index).padStart(5, "0"));
    let pages = 0;
    const changing = (until: number) =>
      createSupabaseStore(settings, {
        fetch: (_, init) => {
          const { offset, limit } = JSON.parse(new TextDecoder().decode(init.body as Uint8Array));
          if (offset > 0 && ++pages <= until) names.shift(); // one that was on the first page goes away
          const page = names.slice(offset, offset + limit);
          const answer = page.map((name) => ({ name, id: name, metadata: { size: 1 } }));
          return Promise.resolve(new Response(JSON.stringify(answer)));
        },
      });
    const listed: string[] = [];
    for await (const { name } of changing(2).list("x/")) listed.push(name.slice(2));
    expect(listed).toEqual(names);
    expect(pages).toBe(3);
    const all = async () => {
      for await (const _ of changing(Infinity).list("x/")) { /* only its end counts */ }
    };
    expect((await failureOf(all())).code).toBe("store_unreachable");
  });
});
