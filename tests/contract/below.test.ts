import { describe, expect, it } from "vitest";
import { below, isBelow } from "../../src/shared/store/below.ts";
import { createMemoryStore } from "./memory_store.ts";
import { describeStore } from "./store.ts";

describeStore("a part of a store, beside names that begin alike", async () => {
  const whole = createMemoryStore();
  for (const name of ["part", "partner/a", "v1/objects/aa/a", "a/part/b"]) await whole.create(name, new Uint8Array(3));
  return {
    store: below(whole, "part"),
    nowhere: null,
    stranger: null,
    secrets: [],
    createIsAtomic: true,
    listed: 1005,
    close: () => {
      const others = [...whole.objects.keys()].filter((name) => !name.startsWith("part/"));
      expect(others).toEqual(["part", "partner/a", "v1/objects/aa/a", "a/part/b"]);
      return Promise.resolve();
    },
  };
});

describe("a part of a store", () => {
  it("is known by its address, so that nothing is put below it twice", () => {
    const at = (label: string) => ({ ...createMemoryStore(), label });
    expect(below(at("s3://b/p at h:1"), "clone-1").label).toBe("s3://b/p/clone-1 at h:1");
    expect(below(at("file:///srv/a at home"), "clone-1").label).toBe("file:///srv/a/clone-1 at home");
    expect(isBelow(at("s3://b/clone-1 at h:1"), "clone-1")).toBe(true);
    expect(isBelow(at("s3://b/my-clone-1 at h:1"), "clone-1")).toBe(false);
    expect(isBelow(at("s3://b at clone-1"), "clone-1")).toBe(false);
    expect(isBelow(at("s3://b"), "")).toBe(false);
  });

  it("is the store itself without a prefix, and refuses one that leaves its place", () => {
    const whole = createMemoryStore();
    expect(below(whole, "")).toBe(whole);
    expect(() => below(whole, "../x")).toThrow(expect.objectContaining({ code: "store_name_refused" }));
  });
});
