import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { credentialsFrom, openStore, parseStoreAddress, preparePlace } from "../../src/shared/store/open_store.ts";
import { failureOf } from "../unit/format_fixture.ts";

const deps = {
  fetch: () => Promise.reject(new Error("no network here")),
  clock: systemClock,
  random: webCryptoRandom,
};

describe("the address of a store", () => {
  it("is a folder, a bucket of S3 or a bucket of Supabase", () => {
    expect(parseStoreAddress("file:///var/backups/a%20b/")).toEqual({ kind: "file", folder: "/var/backups/a b" });
    expect(parseStoreAddress("s3://bucket")).toEqual({
      kind: "s3",
      bucket: "bucket",
      prefix: "",
      endpoint: null,
      region: null,
      lock: null,
    });
    expect(parseStoreAddress("s3://My-bucket/a/b/?endpoint=http://127.0.0.1:9000&region=eu-central-1")).toEqual({
      kind: "s3",
      bucket: "My-bucket",
      prefix: "a/b",
      endpoint: "http://127.0.0.1:9000",
      region: "eu-central-1",
      lock: null,
    });
    expect(parseStoreAddress("supabase://holdfast/")).toEqual({
      kind: "supabase-storage",
      bucket: "holdfast",
      prefix: "",
    });
    expect(parseStoreAddress("supabase://holdfast/clone-1a2b3c4d")).toEqual({
      kind: "supabase-storage",
      bucket: "holdfast",
      prefix: "clone-1a2b3c4d",
    });
  });

  it.each([
    "",
    "/var/backups",
    "backups",
    "http://host/x",
    "file://host/x",
    "file:///",
    "file:///x?y=1",
    "s3://",
    "s3:///prefix",
    "s3://b?secret=SECRETWORD",
    "s3://b?endpoint=ftp://x",
    "s3://b?endpoint=https://SECRETWORD@x",
    "s3://b?region=../x",
    "s3://b?lock=0",
    "s3://b?lock=30",
    "s3://b?lock=1.5",
    "s3://b?lock=",
    "s3://b?lock=SECRETWORD",
    "s3://b?lock_mode=none",
    "s3://key:SECRETWORD@bucket",
    "supabase://b/c?region=x",
    "supabase://service:SECRETWORD@b",
    "supabase://",
  ])("is refused when it is %j, and what stands in it is not repeated", async (text) => {
    const error = await failureOf(() => parseStoreAddress(text));
    expect(error.code).toBe("usage");
    expect(error.message + error.hint).not.toContain("SECRETWORD");
  });

  it("says for how long what is put there is locked, at most 29 days, and how", () => {
    const lockOf = (query: string) => parseStoreAddress(`s3://b?${query}`);
    expect(lockOf("lock=29")).toMatchObject({ lock: { days: 29, mode: "GOVERNANCE" } });
    expect(lockOf("lock=1&lock_mode=compliance")).toMatchObject({ lock: { days: 1, mode: "COMPLIANCE" } });
    expect(lockOf("lock_mode=compliance")).toMatchObject({ lock: { days: 14, mode: "COMPLIANCE" } });
    expect(lockOf("lock=off")).toMatchObject({ lock: { days: 0 } });
  });

  it("with a prefix that leaves its place is refused", async () => {
    expect((await failureOf(() => parseStoreAddress("s3://b/a%2F..%2Fb"))).code).toBe("store_name_refused");
  });

  it("says which setting is missing for its kind, and needs no other", async () => {
    for (const [address, word] of [["s3://b", "AWS_ACCESS_KEY_ID"], ["supabase://b", "SUPABASE_URL"]] as const) {
      const error = await failureOf(() => openStore(address, {}, deps));
      expect(error.code).toBe("setting_missing");
      expect(error.message).toContain(word);
    }
    expect(openStore("file:///nowhere/at/all", {}, deps).kind).toBe("file");
  });

  it("takes credentials from the environment by their names, our own before AWS's", () => {
    const environment = new Map([["AWS_ACCESS_KEY_ID", "a"], ["BACKUP_S3_ACCESS_KEY_ID", "b"], ["SUPABASE_URL", ""]]);
    const found = credentialsFrom((name) => environment.get(name));
    expect(found.s3AccessKeyId).toBe("b");
    expect(found.supabaseUrl).toBeUndefined();
  });

  it("keeps credentials out of the label", () => {
    const credentials = {
      s3AccessKeyId: "AKIDWORD",
      s3SecretAccessKey: "SECRETWORD",
      supabaseServiceKey: "SECRETWORD",
    };
    const labels = [
      openStore("s3://b/p?endpoint=http://h:1", credentials, deps).label,
      openStore("supabase://b", { ...credentials, supabaseUrl: "https://ref.supabase.co" }, deps).label,
      openStore("supabase://b/c", { ...credentials, supabaseUrl: "https://ref.supabase.co" }, deps).label,
    ];
    expect(labels).toEqual(["s3://b/p at h:1", "supabase://b at ref.supabase.co", "supabase://b/c at ref.supabase.co"]);
  });

  it("is unreachable, not missing, when nobody answers", async () => {
    const store = openStore("s3://b", { s3AccessKeyId: "a", s3SecretAccessKey: "b" }, deps, { maxTries: 1 });
    expect((await failureOf(store.read("a"))).code).toBe("store_unreachable");
  });

  it("of a folder can be prepared, for this user only; until then it is missing", async () => {
    const folder = await mkdtemp(join(tmpdir(), "holdfast-open-"));
    const address = `file://${folder}/new/place`;
    const store = openStore(address, {}, deps);
    expect((await failureOf(store.create("a", new Uint8Array(1)))).code).toBe("store_missing");
    await preparePlace(address, {}, deps);
    await preparePlace(address, {}, deps);
    expect((await stat(join(folder, "new/place"))).mode & 0o777).toBe(0o700);
    expect(await store.create("a", new Uint8Array(1))).toBe("created");
    await rm(folder, { recursive: true });
  });
});
