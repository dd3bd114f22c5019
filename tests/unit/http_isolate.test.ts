import { describe, expect, it } from "vitest";
import { hostedLimits } from "../../src/local/gateway/limits.ts";
import { functionBudget, prices } from "../../src/shared/backup/budget.ts";
import { defaultStore, projectRef, storageKey } from "../../src/shared/http/environment.ts";
import { backupDoorDeps } from "../../src/shared/http/backup_deps.ts";
import { verifyDoorDeps } from "../../src/shared/http/verify_deps.ts";
import { createIsolateBudget, isolateCpuMs } from "../../src/shared/http/isolate_budget.ts";
import { parseStoreAddress } from "../../src/shared/store/open_store.ts";
import { type Connection } from "../../src/shared/postgres/connection.ts";

describe("the budget of an isolate", () => {
  const mib = 1024 * 1024;

  /** MiB that a leg may read before it is spent. */
  function spend(budget: { spendText(rows: number, bytes: number): void; spent(): boolean }): number {
    let read = 0;
    for (; !budget.spent() && read < 1000; read++) budget.spendText(0, mib);
    return read;
  }

  it("gives each leg what functionBudget says until the isolate has done its part, then none", () => {
    let now = 0;
    const clock = { now: () => new Date(0), monotonicMs: () => now, sleep: () => Promise.resolve() };
    const isolate = createIsolateBudget(clock);
    const aLeg = Math.ceil((functionBudget.cpuMs - functionBudget.usedCpuMs) / prices.msPerMiB);
    const ofIsolate = Math.ceil((isolateCpuMs - functionBudget.usedCpuMs) / prices.msPerMiB);
    const legs = [1, 2, 3, 4].map(() => spend(isolate.next()));
    expect(legs).toEqual([aLeg, aLeg, ofIsolate - 2 * aLeg, 0]);
    const fresh = createIsolateBudget(clock).next();
    expect(fresh.spent()).toBe(false);
    now += functionBudget.wallMs;
    expect(fresh.spent(), "the wall time is over").toBe(true);
  });

  it("ends a leg that began late in the isolate's life before the platform ends the isolate", () => {
    let now = 5_000;
    const clock = { now: () => new Date(0), monotonicMs: () => now, sleep: () => Promise.resolve() };
    const isolate = createIsolateBudget(clock);
    // It stood ready for a minute; then a question, and a leg long after it, in the last moment in which the platform sends one.
    now += 60_000;
    const firstCallAt = now;
    isolate.called();
    now = firstCallAt + hostedLimits.wallMs / 2;
    isolate.called();
    const late = isolate.next();
    expect(late.spent()).toBe(false);
    now = firstCallAt + functionBudget.wallMs;
    expect(late.spent(), "what is left of the isolate's life is for the task that it is at").toBe(true);
    expect(functionBudget.wallMs).toBeLessThan(hostedLimits.wallMs - 30_000);
  });
});

describe("the environment of a function", () => {
  it("has a store without any setting: a bucket of this project", () => {
    expect(parseStoreAddress(defaultStore)).toEqual({
      kind: "supabase-storage",
      bucket: "holdfast-backups",
      prefix: "",
    });
  });

  it("takes the secret key named default, else the first, else the service role key", () => {
    const legacy = { SUPABASE_SERVICE_ROLE_KEY: "legacy" };
    expect(storageKey({ ...legacy, SUPABASE_SECRET_KEYS: '{"a": "one", "default": "two"}' })).toBe("two");
    expect(storageKey({ ...legacy, SUPABASE_SECRET_KEYS: '{"a": "one"}' })).toBe("one");
    expect(storageKey({ ...legacy, SUPABASE_SECRET_KEYS: "{}" })).toBe("legacy");
    expect(storageKey(legacy)).toBe("legacy");
    expect(() => storageKey({})).toThrow(expect.objectContaining({ code: "setting_missing" }));
    expect(() => storageKey({ SUPABASE_SECRET_KEYS: "sb_secret_hush" })).toThrow(/^(?!.*hush)/);
  });

  it("knows its project from the deployment, else from a hosted address, else not", () => {
    const ref = "abcdefghijklmnopqrst";
    expect(projectRef({ DENO_DEPLOYMENT_ID: `${ref}_0_1`, SUPABASE_URL: "http://127.0.0.1:1" })).toBe(ref);
    expect(projectRef({ SUPABASE_URL: `https://${ref}.supabase.co` })).toBe(ref);
    expect(projectRef({ SUPABASE_URL: "http://127.0.0.1:54321" })).toBeNull();
    expect(projectRef({})).toBeNull();
  });
});

describe("an isolate", () => {
  const nothing: Connection = {
    processId: 1,
    serverVersion: 150000,
    query: () => Promise.resolve([]),
    execute: () => Promise.resolve(),
    copyOut: () => Promise.reject(new Error("not here")),
    copyIn: () => Promise.reject(new Error("not here")),
    close: () => Promise.resolve(),
  };

  it.each([
    ["BACKUP_KEYS", {}, "key_missing"],
    ["a usable BACKUP_KEYS", { BACKUP_KEYS: "k:short" }, "key_malformed"],
    [
      "a key for its Storage",
      { BACKUP_KEYS: `k:${"A".repeat(43)}`, SUPABASE_URL: "https://x.test" },
      "setting_missing",
    ],
    ["a usable BACKUP_STORE", { BACKUP_KEYS: `k:${"A".repeat(43)}`, BACKUP_STORE: "ftp://x" }, "usage"],
  ])("without %s fails its leg with a code, for the run to keep", async (_what, environment, code) => {
    const runtime = {
      environment,
      waitUntil: () => {},
      fetch: () => Promise.reject(new Error("nothing is fetched")),
      write: () => {},
    };
    const deps = backupDoorDeps(runtime);
    for (const leg of [deps.legs.full, verifyDoorDeps(runtime).legs.verify]) {
      await expect(leg(nothing, "0b5c1f0e-5f6d-4c4e-9c36-5f1f4a1f7a01", "call:x")).rejects.toMatchObject({
        code,
        retry: "after_fix",
      });
    }
    expect(() => deps.openDatabase(environment)).toThrow(expect.objectContaining({ code: "setting_missing" }));
  });
});
