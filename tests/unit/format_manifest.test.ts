import { describe, expect, it } from "vitest";
import { lineageProblems } from "../../src/shared/format/lineage.ts";
import { contradictions, type Manifest, objectsOf } from "../../src/shared/format/manifest.ts";
import { decodeManifest, encodeManifest, openManifest, sealManifest } from "../../src/shared/format/manifest_codec.ts";
import { seal } from "../../src/shared/format/container.ts";
import { failureOf, pick, sampleManifest, seeded, world } from "./format_fixture.ts";

const text = (words: string) => new TextEncoder().encode(words);
const plain = sampleManifest({
  repositoryId: "692d9696-d7f3-434a-9968-830fcb2656d4",
  epoch: "e20261121T184500Z-0db5aae6",
});

async function sealedManifest(change: (manifest: Manifest) => Manifest = (manifest) => manifest, seed = 1) {
  const here = await world(seed);
  const manifest = change(sampleManifest({ repositoryId: here.repository.id, epoch: here.epoch.id }));
  return { ...here, manifest, ...(await sealManifest(here.sealDeps, here.epoch, manifest)) };
}

describe("a manifest", () => {
  it("comes back as it was written, names with tabs, quotes and umlauts included", async () => {
    const { openDeps, name, bytes, manifest } = await sealedManifest();
    expect(name).toBe(`v1/backups/20261121T184500Z-daily-${manifest.id}/manifest`);
    const opened = await openManifest(openDeps, name, bytes);
    expect(opened.manifest).toEqual(manifest);
    expect(opened.hash).toMatch(/^[0-9a-f]{64}$/);
  });

  it("shows nothing of what it says in its sealed bytes", async () => {
    const { bytes } = await sealedManifest();
    const shown = String.fromCharCode(...bytes);
    for (const word of ["public", "journal", "holdfast/manifest", "Odd", "7300000000000000001"]) {
      expect(shown).not.toContain(word);
    }
  });

  it("lists every object once, the schema capture first", () => {
    expect(objectsOf(plain).map(({ kind }) => kind)).toEqual(["schema", "chunk", "chunk"]);
    const [, first] = objectsOf(plain);
    expect(first).toMatchObject({ rawBytes: 30, storedBytes: 100, hash: "11".repeat(32), storedHash: "22".repeat(32) });
  });

  it("is refused when any one byte of it is flipped (F-9)", async () => {
    const { openDeps, name, bytes } = await sealedManifest();
    for (let at = 0; at < bytes.byteLength; at++) {
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
      const error = await failureOf(openManifest(openDeps, name, flipped));
      expect(["object_damaged", "format_newer", "key_wrong"]).toContain(error.code);
    }
  });

  it("is refused under another time, tier, id, or in another repository (F-9)", async () => {
    const here = await sealedManifest();
    const there = await sealedManifest(undefined, 2);
    const elsewhere = here.name.replace("T184500Z", "T184501Z");
    for (const name of [elsewhere, here.name.replace("daily", "weekly"), here.name.replace("7b0c", "7b0d")]) {
      expect((await failureOf(openManifest(here.openDeps, name, here.bytes))).code).toBe("object_damaged");
    }
    expect((await failureOf(openManifest(there.openDeps, here.name, here.bytes))).code).toBe("key_wrong");
    expect((await failureOf(openManifest(here.openDeps, "v1/objects/ab/cd", here.bytes))).code).toBe(
      "manifest_damaged",
    );
  });

  it("sealed under one name but saying another is refused", async () => {
    const { sealDeps, openDeps, epoch, manifest } = await sealedManifest();
    const name = `v1/backups/20200101T000000Z-daily-${manifest.id}/manifest`;
    const bytes = await seal(sealDeps, epoch, { kind: "manifest", name, plaintext: encodeManifest(manifest) });
    expect((await failureOf(openManifest(openDeps, name, bytes))).code).toBe("manifest_damaged");
  });

  it("of a newer version is format_newer and names both, before anything else is looked at (F-13)", async () => {
    const error = await failureOf(() => decodeManifest(text('{"format":"holdfast/manifest","version":7,"tables":9}')));
    expect(error.code).toBe("format_newer");
    expect(error.message).toMatch(/version 7.*up to 1/);
  });

  it("with fields that this version does not know is read without them (F-13)", () => {
    const later = {
      ...plain,
      somethingLater: { a: 1 },
      tables: plain.tables.map((table) => ({ ...table, hint: "x" })),
    };
    expect(decodeManifest(text(JSON.stringify(later)))).toEqual(plain);
  });

  it.each<[string, (manifest: Manifest) => unknown]>([
    [
      "rows of a table that its chunks do not have",
      (m) => ({ ...m, tables: m.tables.map((t) => ({ ...t, rows: 6 })) }),
    ],
    ["a wrong total of rows", (m) => ({ ...m, totals: { ...m.totals, rows: 4 } })],
    ["a wrong total of tables", (m) => ({ ...m, totals: { ...m.totals, tables: 2 } })],
    ["a wrong number of objects", (m) => ({ ...m, totals: { ...m.totals, objects: 4 } })],
    [
      "a table twice",
      (m) => ({ ...m, tables: [...m.tables, ...m.tables], totals: { ...m.totals, tables: 2, rows: 10 } }),
    ],
    ["a second generation without a first", (m) => ({ ...m, generation: 2 })],
    ["generation 0", (m) => ({ ...m, generation: 0 })],
    ["no tier", (m) => ({ ...m, tiers: [] })],
    ["more rows than a number holds exactly", (m) => ({ ...m, totals: { ...m.totals, rows: 2 ** 53 } })],
    ["half a row", (m) => ({ ...m, totals: { ...m.totals, rows: 0.5 } })],
    ["an object outside v1/objects", (m) => ({ ...m, schemaObject: { ...m.schemaObject, name: "v1/keys/../x" } })],
    ["an epoch that is none", (m) => ({ ...m, epoch: "e1" })],
    [
      "a sequence's value that is no number",
      (m) => ({ ...m, sequences: [{ ...m.sequences[0], lastValue: "1; drop" }] }),
    ],
    ["a large object", (m) => ({ ...m, largeObjects: [{ oid: 1 }] })],
    ["no tables at all", ({ tables: _, ...m }) => m],
  ])("with %s is refused when read, and never written", async (_, change) => {
    const broken = change(plain);
    const error = await failureOf(() => decodeManifest(text(JSON.stringify(broken))));
    expect(error.code).toBe("manifest_damaged");
    const written = await failureOf(() => Reflect.apply(encodeManifest, null, [broken]));
    expect(written.code).toBe("internal");
    for (const words of ["Odd", "drop", "journal"]) expect(error.message + written.message).not.toContain(words);
  });

  it("without tables is sound", () => {
    const empty = { ...plain, tables: [], totals: { ...plain.totals, tables: 0, rows: 0, objects: 1 } };
    expect(contradictions(empty)).toEqual([]);
    expect(decodeManifest(encodeManifest(empty))).toEqual(empty);
  });

  it("fuzzed in any way is a sound manifest or our own error, never anything else", () => {
    const random = seeded(31337);
    const bytes = encodeManifest(plain);
    const words = ["null", "{}", "[]", "-1", "1e999", '""', "true", '{"__proto__":1}', "\ufeff", '"\\ud800"'];
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      let fuzzed = bytes.slice(0, round % 5 === 0 ? pick(random, bytes.byteLength) : undefined);
      if (round % 3 === 0) {
        const at = pick(random, bytes.byteLength);
        const inserted = text(words[pick(random, words.length)] ?? "");
        fuzzed = new Uint8Array([...bytes.subarray(0, at), ...inserted, ...bytes.subarray(at + pick(random, 12))]);
      }
      for (let edits = pick(random, 4); edits > 0 && fuzzed.byteLength > 0; edits--) {
        fuzzed[pick(random, fuzzed.byteLength)] = pick(random, 256);
      }
      try {
        expect(contradictions(decodeManifest(fuzzed))).toEqual([]);
      } catch (error) {
        expect(error).toMatchObject({ name: "HoldfastError" });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(1500);
  });
});

describe("generations (F-16)", () => {
  const name = (number: number) => `v1/backups/2026112${number}T000000Z-daily-${plain.id}/manifest`;
  const history = [1, 2, 3].map((number) => ({
    name: name(number),
    hash: `${number}`.repeat(64),
    generation: number,
    previous: number === 1 ? null : { name: name(number - 1), hash: `${number - 1}`.repeat(64) },
  }));
  const kinds = (...args: Parameters<typeof lineageProblems>) => lineageProblems(...args).map(({ kind }) => kind);
  const known = { generation: 3, hash: "3".repeat(64) };

  it("find nothing wrong with an honest history, also after retention took old ones away", () => {
    expect(kinds(history, known)).toEqual([]);
    expect(kinds(history.slice(1), known)).toEqual([]);
    expect(kinds(history.slice(2), null)).toEqual([]);
    expect(kinds([], null)).toEqual([]);
  });

  it("show a store from which the newest were taken away, even all of them", () => {
    expect(kinds(history.slice(0, 2), known)).toEqual(["rolled_back"]);
    expect(kinds([], known)).toEqual(["rolled_back"]);
  });

  it("show a manifest in another's place", () => {
    const replaced = history.map((each) => (each.generation === 2 ? { ...each, hash: "f".repeat(64) } : each));
    expect(kinds(replaced, known)).toEqual(["replaced"]);
    expect(kinds(history, { ...known, hash: "e".repeat(64) })).toEqual(["replaced"]);
  });

  it("show a fork and a wrong order", () => {
    const twin = { ...history[2]!, name: `${name(4)}` };
    expect(kinds([...history, twin], known)).toEqual(["forked"]);
    const turned = history.map((each) => (each.generation === 1 ? { ...each, generation: 9 } : each));
    expect(kinds(turned, null)).toContain("wrong_order");
  });
});
