import { describe, expect, it } from "vitest";
import { adoptRepository, openOrCreateRepository, readRepository } from "../../src/shared/format/repository.ts";
import { putAndReadBack } from "../../src/shared/store/put.ts";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { faulty } from "../support/faulty_store.ts";
import { clockAt, failureOf, seeded, world } from "./format_fixture.ts";

const text = (words: string) => new TextEncoder().encode(words);
const clock = clockAt("2026-11-21T18:45:00Z");

describe("a repository", () => {
  it("is made once, and is one for two that start at once", async () => {
    const store = createMemoryStore();
    expect(await readRepository(store)).toBeNull();
    const make = (seed: number) => openOrCreateRepository({ store, clock, random: seeded(seed) });
    const made = await Promise.all([make(1), make(2), make(3)]);
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(made[0]?.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(await readRepository(store)).toEqual(made[0]);
  });

  it("is the same in the second store, which refuses to be another's", async () => {
    const { repository } = await world();
    const second = createMemoryStore();
    await adoptRepository(second, repository);
    await adoptRepository(second, repository);
    expect(await readRepository(second)).toEqual(repository);
    const { repository: other } = await world(2);
    expect((await failureOf(adoptRepository(second, other))).code).toBe("object_conflict");
  });

  it.each([
    ["object_damaged", "{"],
    ["object_damaged", "[]"],
    ["object_damaged", '{"format":"holdfast/repository","version":1,"id":"x","createdAt":"2026-11-21T18:45:00Z"}'],
    ["format_newer", '{"format":"holdfast/repository","version":2}'],
  ])("that cannot be used is %s: %s", async (code, words) => {
    const store = createMemoryStore();
    await store.create("v1/repository.json", text(words));
    expect((await failureOf(readRepository(store))).code).toBe(code);
    expect((await failureOf(openOrCreateRepository({ store, clock, random: seeded(1) }))).code).toBe(code);
    expect(store.objects.get("v1/repository.json")).toEqual(text(words));
  });

  it("is not made anew when the store fails to answer", async () => {
    const store = createMemoryStore();
    const shaky = faulty(store, [{ call: "read", kind: "store_unreachable" }]);
    const error = await failureOf(openOrCreateRepository({ store: shaky, clock, random: seeded(1) }));
    expect(error.code).toBe("store_unreachable");
    expect(store.objects.size).toBe(0);
    shaky.assertAllFired();
  });
});

describe("putting and reading back (F-1, F-2)", () => {
  const never = () => Promise.reject(new Error("not asked"));

  it("says what is in the store", async () => {
    const store = createMemoryStore();
    const result = await putAndReadBack(store, "a", text("abc"), never);
    expect(result).toEqual({ outcome: "created", storedBytes: 3, storedHash: await sha256Hex(text("abc")) });
  });

  it("adopts what is there under the name when its content is the same, with the sizes of what is there", async () => {
    const store = createMemoryStore();
    await store.create("a", text("older seal"));
    const result = await putAndReadBack(store, "a", text("newer"), () => Promise.resolve(true));
    expect(result).toEqual({ outcome: "adopted", storedBytes: 10, storedHash: await sha256Hex(text("older seal")) });
    expect(await store.read("a")).toEqual(text("older seal"));
  });

  it("refuses another content under the name, and overwrites nothing", async () => {
    const store = createMemoryStore();
    await store.create("a", text("other"));
    const error = await failureOf(putAndReadBack(store, "a", text("mine"), () => Promise.resolve(false)));
    expect(error.code).toBe("object_conflict");
    expect(await store.read("a")).toEqual(text("other"));
  });

  it.each(["flip", "cut", "object_missing"] as const)(
    "says store_lied when the store answers with a %s",
    async (kind) => {
      const store = faulty(createMemoryStore(), [{ call: "read", kind }]);
      expect((await failureOf(putAndReadBack(store, "a", text("abcdef"), never))).code).toBe("store_lied");
      store.assertAllFired();
    },
  );

  it("says store_lied when the store kept nothing", async () => {
    const store = faulty(createMemoryStore(), [{ call: "create", kind: "forget" }]);
    expect((await failureOf(putAndReadBack(store, "a", text("abcdef"), never))).code).toBe("store_lied");
    store.assertAllFired();
  });
});
