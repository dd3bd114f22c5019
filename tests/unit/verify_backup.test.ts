import { describe, expect, it } from "vitest";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { seal } from "../../src/shared/format/container.ts";
import { manifestName } from "../../src/shared/format/layout.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { chooseBackup, listBackups, openBackup } from "../../src/shared/verify/find_backup.ts";
import { verifyBackup, type VerifyLeg, verifyLeg, verifyResult } from "../../src/shared/verify/run.ts";
import { makeSmallBackup, type SmallBackup } from "./verify_fixture.ts";

/** What verifying comes to: the problems' codes, or the code of what was thrown. */
async function outcome(backup: SmallBackup): Promise<string> {
  try {
    const { ok, problems } = await verifyBackup(backup.deps, backup.manifest.id);
    return ok ? "ok" : problems.map((problem) => problem.code).join(",");
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    return error.code;
  }
}

describe("verifying a backup", () => {
  it("reads, opens, hashes and counts every object", async () => {
    const backup = await makeSmallBackup();
    const result = await verifyBackup(backup.deps, "latest");
    expect(result).toMatchObject({ id: backup.manifest.id, ok: true, objects: 5, rows: 26, problems: [] });
  });

  it("refuses every object in which any one byte was flipped (F-9)", async () => {
    const backup = await makeSmallBackup();
    const sealed = [backup.manifest.schemaObject.name, ...backup.chunks, backup.manifestName];
    let flips = 0;
    for (const name of sealed) {
      const sound = backup.store.objects.get(name) ?? new Uint8Array();
      for (let at = 0; at < sound.byteLength; at++) {
        const flipped = sound.slice();
        flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
        backup.store.objects.set(name, flipped);
        expect([name, at, await outcome(backup)]).not.toEqual([name, at, "ok"]);
        flips++;
      }
      backup.store.objects.set(name, sound);
    }
    expect(flips).toBeGreaterThan(1500);
    expect(await outcome(backup)).toBe("ok");
  }, 60_000);

  it("never restores something else after any byte of the clear files was flipped", async () => {
    const backup = await makeSmallBackup();
    const clear = [...backup.store.objects.keys()].filter((name) => name.endsWith(".json"));
    expect(clear).toHaveLength(2);
    let refused = 0;
    let flips = 0;
    for (const name of clear) {
      const sound = backup.store.objects.get(name) ?? new Uint8Array();
      for (let at = 0; at < sound.byteLength; at++, flips++) {
        const flipped = sound.slice();
        flipped[at] = (flipped[at] ?? 0) ^ 1;
        backup.store.objects.set(name, flipped);
        // What may pass is what says nothing: the time of creation, unused bits of a base64 digit. The backup is the same then.
        if ((await outcome(backup)) !== "ok") refused++;
      }
      backup.store.objects.set(name, sound);
    }
    expect(refused).toBeGreaterThan(flips * 0.9);
  }, 60_000);

  it("finds objects that are missing, cut, lengthened, swapped, of another repository, or under another name", async () => {
    const [first = "", second = "", third = ""] = (await makeSmallBackup()).chunks;
    expect(new Set([first, second, third]).size).toBe(3);
    const cases: Record<string, (backup: SmallBackup, other: SmallBackup) => void> = {
      missing: ({ store, chunks: [name = ""] }) => void store.objects.delete(name),
      cut: ({ store, chunks: [name = ""] }) =>
        void store.objects.set(name, (store.objects.get(name) ?? new Uint8Array()).slice(0, -1)),
      lengthened: ({ store, chunks: [name = ""] }) =>
        void store.objects.set(name, Uint8Array.from([...(store.objects.get(name) ?? []), 0])),
      swapped: ({ store, chunks: [a = "", b = ""] }) => {
        const [left, right] = [store.objects.get(a), store.objects.get(b)];
        if (left !== undefined && right !== undefined) store.objects.set(a, right).set(b, left);
      },
      foreign: ({ store, chunks: [name = ""] }, other) => {
        const bytes = other.store.objects.get(other.chunks[0] ?? "");
        if (bytes !== undefined) store.objects.set(name, bytes);
      },
      schema: ({ store, manifest, chunks: [name = ""] }) => {
        const bytes = store.objects.get(name);
        if (bytes !== undefined) store.objects.set(manifest.schemaObject.name, bytes);
      },
    };
    for (const [name, change] of Object.entries(cases)) {
      const backup = await makeSmallBackup();
      change(backup, await makeSmallBackup());
      const expected = name === "missing" ? "object_missing" : "object_damaged";
      expect([name, ...new Set((await outcome(backup)).split(","))]).toEqual([name, expected]);
    }
  });

  it("refuses an older manifest under the name of a newer one (rolled back)", async () => {
    const older = await makeSmallBackup();
    const newer = await makeSmallBackup(older.store, "2026-11-22T10:00:00Z");
    expect(await outcome(newer)).toBe("ok");
    older.store.objects.set(newer.manifestName, older.store.objects.get(older.manifestName) ?? new Uint8Array());
    expect(await outcome(newer)).toBe("object_damaged");
  });

  it("refuses a manifest of a newer format by both versions", async () => {
    const backup = await makeSmallBackup();
    const plaintext = new TextEncoder().encode(JSON.stringify({ ...backup.manifest, version: 2 }));
    const { compressor } = backup.deps;
    const bytes = await seal({ random: webCryptoRandom, compressor }, backup.epoch, {
      kind: "manifest",
      name: backup.manifestName,
      plaintext,
    });
    backup.store.objects.set(backup.manifestName, bytes);
    await expect(verifyBackup(backup.deps, "latest")).rejects.toMatchObject({
      code: "format_newer",
      message: expect.stringMatching(/version 2.*up to 1/),
    });
  });

  it("names the key that it needs, and does not take another key of the same name", async () => {
    const backup = await makeSmallBackup();
    const other = parseKeyRing(generateKey(webCryptoRandom).entry);
    await expect(verifyBackup({ ...backup.deps, ring: other }, "latest")).rejects.toMatchObject({
      code: "key_wrong",
      message: expect.stringContaining("k-test"),
    });
    const same = parseKeyRing(`k-test:${"B".repeat(42)}E`);
    await expect(verifyBackup({ ...backup.deps, ring: same }, "latest")).rejects.toMatchObject({ code: "key_wrong" });
  });

  it("finds rows that are not as many as the manifest says", async () => {
    const backup = await makeSmallBackup();
    const { manifest } = backup;
    const [letters, nothing] = manifest.tables;
    if (letters === undefined || nothing === undefined) throw new Error("the fixture has two tables");
    // A row moved from one table to the other: every sum holds.
    const moved = { ...manifest, tables: [withRows(letters, 1), withRows(nothing, -1)] };
    const bytes = await seal({ random: webCryptoRandom, compressor: backup.deps.compressor }, backup.epoch, {
      kind: "manifest",
      name: backup.manifestName,
      plaintext: new TextEncoder().encode(JSON.stringify(moved)),
    });
    backup.store.objects.set(backup.manifestName, bytes);
    const result = await verifyBackup(backup.deps, "latest");
    expect(result.problems.map((problem) => problem.code)).toEqual(["object_damaged", "object_damaged"]);
    expect(result.problems[0]?.message).toMatch(/rows, the manifest says/);
  });

  it("throws what may heal instead of calling it a verdict", async () => {
    const backup = await makeSmallBackup();
    const store = {
      ...backup.store,
      read: (name: string) =>
        name.startsWith("v1/objects/")
          ? Promise.reject(new HoldfastError("store_unreachable", "the store is away"))
          : backup.store.read(name),
    };
    await expect(verifyBackup({ ...backup.deps, store }, "latest")).rejects.toMatchObject({
      code: "store_unreachable",
    });
  });

  it("comes to the same in legs of any size, each at least one object long", async () => {
    const backup = await makeSmallBackup();
    backup.store.objects.delete(backup.chunks[1] ?? "");
    const opened = await openBackup(backup.deps, "latest");
    const whole = await verifyBackup(backup.deps, "latest");
    expect(whole.problems).toHaveLength(1);
    for (const budgetBytes of [1, 30, 500, 1_000_000]) {
      const legs: VerifyLeg[] = [];
      for (let from: number | null = 0; from !== null;) {
        const leg: VerifyLeg = await verifyLeg(backup.deps, opened, { from, budgetBytes, parallel: 2 });
        expect(leg.objects).toBeGreaterThan(0);
        legs.push(leg);
        from = leg.next;
      }
      if (budgetBytes === 1) expect(legs).toHaveLength(4);
      expect(verifyResult(opened.manifest, JSON.parse(JSON.stringify(legs)))).toEqual(whole);
    }
  });

  it("stops when it is cancelled", async () => {
    const backup = await makeSmallBackup();
    const abort = new AbortController();
    abort.abort();
    await expect(verifyBackup(backup.deps, "latest", { signal: abort.signal })).rejects.toMatchObject({
      code: "cancelled",
    });
  });
});

describe("finding a backup", () => {
  it("lists the newest first and ignores names that are no manifests", async () => {
    const older = await makeSmallBackup();
    const newer = await makeSmallBackup(older.store, "2026-11-22T10:00:00Z");
    await older.store.create("v1/backups/readme", new Uint8Array());
    expect((await listBackups(older.store)).map((one) => one.id)).toEqual([newer.manifest.id, older.manifest.id]);
    expect((await openBackup(older.deps, "latest")).manifest.id).toBe(newer.manifest.id);
  });

  it("never takes a quarantined one for the latest, but opens it by its id", async () => {
    const good = await makeSmallBackup();
    const emptied = [{ code: "quarantined", message: "public.letters went from 4 rows to none without a cause" }];
    const bad = await makeSmallBackup(good.store, "2026-11-22T10:00:00Z", emptied);
    expect((await openBackup(good.deps, "latest")).manifest.id).toBe(good.manifest.id);
    expect((await openBackup(good.deps, bad.manifest.id)).manifest.id).toBe(bad.manifest.id);
    good.store.objects.delete(good.manifestName);
    await expect(openBackup(good.deps, "latest")).rejects.toMatchObject({ code: "backup_quarantined" });
  });

  it("takes a full id, its first letters in any case, and latest; else says why not", () => {
    const listed = ["0aaa1111-0000-4000-8000-000000000001", "0aaa2222-0000-4000-8000-000000000002"].map((id) => {
      const name = { createdAt: new Date("2026-11-21T10:00:00Z"), tier: "daily", id };
      return { ...name, name: manifestName(name), size: 1 };
    });
    expect(chooseBackup(listed, "0AAA1").id).toMatch(/1$/);
    expect(chooseBackup(listed, "0aaa2222-0000-4000-8000-000000000002").id).toMatch(/2$/);
    expect(chooseBackup(listed, "latest")).toBe(listed[0]);
    const taken = listed.map((one) => ({ ...one, tier: "safety" }));
    expect(chooseBackup([...taken, ...listed], "latest"), "none that a restore took before it changed something").toBe(
      listed[0],
    );
    const failing = (wanted: string, of = listed) => {
      try {
        return chooseBackup(of, wanted).id;
      } catch (error) {
        return error instanceof HoldfastError ? error.code : "?";
      }
    };
    expect(failing("0aaa")).toBe("backup_ambiguous");
    expect(failing("0aa")).toBe("backup_not_found");
    expect(failing("ffff")).toBe("backup_not_found");
    expect(failing("latest", [])).toBe("backup_not_found");
    expect(failing("latest", taken)).toBe("backup_not_found");
  });

  it("says so where the store has backups but not the file that names the repository", async () => {
    const backup = await makeSmallBackup();
    backup.store.objects.delete("v1/repository.json");
    await expect(openBackup(backup.deps, "latest")).rejects.toMatchObject({ code: "object_missing" });
  });
});

function withRows(table: SmallBackup["manifest"]["tables"][number], more: number) {
  const [first, ...rest] = table.chunks;
  if (first === undefined) throw new Error("the table has chunks");
  return { ...table, rows: table.rows + more, chunks: [{ ...first, rows: first.rows + more }, ...rest] };
}
