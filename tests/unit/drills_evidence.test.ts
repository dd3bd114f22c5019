/** Evidence of drills: signed so that a second program can check it, refused once anything in it was changed. */
import { Buffer } from "node:buffer";
import { createHmac, hkdfSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { canonical } from "../../src/shared/crypto/signed_document.ts";
import { type Evidence, signEvidence, verifyEvidence } from "../../src/shared/drills/evidence.ts";
import { reportOf } from "../../src/shared/drills/report.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";

const evidence: Evidence = {
  version: 1,
  id: "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed",
  drill: "recovery",
  title: "Recovery test",
  holdfast: "0.1.0",
  install: "6f1c8c7e-4444-4c4e-9c36-5f1f4a1f7a01",
  source: "database postgres of server 7",
  orderedBy: "role:postgres",
  orderedAt: "2026-11-22T03:47:00.000Z",
  endedAt: "2026-11-22T03:48:00.000Z",
  store: "file:///srv/backups",
  keys: ["k-1"],
  backup: { id: "b", consistentAt: "2026-11-22T00:00:00Z", rows: 12, rawBytes: 1e21 },
  stream: { coveredUntil: "2026-11-22T03:46:58Z", transactions: 3, asOfBackup: ['public."é"'] },
  target: "database holdfast_drill_x",
  subject: null,
  steps: [{ step: "ordered", at: "2026-11-22T03:47:00.000Z" }],
  proof: {
    tables: 3,
    rows: 12,
    foreignKeys: 1,
    differences: [],
    differencesTotal: 0,
    notCompared: [{ identity: "extension pg_cron", reason: "needs it" }],
    notComparedTotal: 1,
  },
  measured: { rtoSeconds: 60.25, rpoSeconds: 0.000001 },
  objectives: { recoverySeconds: 86400, lossSeconds: 75, met: true },
  ok: true,
  notes: "",
  failure: null,
};

const key = generateKey(webCryptoRandom);
const ring = parseKeyRing(key.entry);

/** As docs/format.md has it, by another library and another order of names. */
function oracle(document: unknown, secret: Uint8Array): string {
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(sorted);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([k, v]) => [k, sorted(v)]));
  };
  const derived = hkdfSync("sha256", secret, new Uint8Array(), "holdfast drill evidence v1", 32);
  return createHmac("sha256", new Uint8Array(derived)).update(JSON.stringify(sorted(document))).digest("hex");
}

const codeOf = async (work: Promise<unknown>) =>
  await work.then(() => "none", (error: unknown) => error instanceof HoldfastError ? error.code : String(error));

describe("the signature of evidence", () => {
  it("is what the format says, whatever order the document comes back in", async () => {
    const { signature, ...plain } = await signEvidence(evidence, ring);
    expect(plain).toEqual(evidence);
    expect(signature).toEqual({
      algorithm: "HMAC-SHA256",
      key: key.id,
      value: oracle(evidence, Buffer.from(key.entry.split(":")[1] ?? "", "base64url")),
    });
    const turned = Object.fromEntries(Object.entries({ ...plain, signature }).reverse());
    expect(await verifyEvidence(JSON.parse(JSON.stringify(turned, null, 3)), ring)).toBe(true);
  });

  it("holds for no document in which a single value is another", async () => {
    const signed = await signEvidence(evidence, ring);
    const paths: (readonly (string | number)[])[] = [];
    const walk = (value: unknown, path: readonly (string | number)[]) => {
      if (typeof value !== "object" || value === null) return void paths.push(path);
      const entries = Object.entries(value);
      if (entries.length === 0) paths.push(path);
      for (const [name, one] of entries) walk(one, [...path, name]);
    };
    walk(evidence, []);
    expect(paths.length).toBeGreaterThan(35);
    for (const path of paths) {
      const copy = JSON.parse(JSON.stringify(signed)) as Record<string, unknown>;
      let at = copy;
      for (const name of path.slice(0, -1)) at = at[name] as Record<string, unknown>;
      const last = path.at(-1) ?? "";
      at[last] = at[last] === "changed" ? "other" : "changed";
      expect(await verifyEvidence(copy, ring), path.join(".")).toBe(false);
    }
    expect(await verifyEvidence({ ...signed, more: 1 }, ring)).toBe(false);
  });

  it("is by the recovery key where that is all there is, and can be checked by nobody else", async () => {
    const { publicEntry, privateEntry } = await generateRecoveryKey(webCryptoRandom);
    const recovery = parseKeyRing(privateEntry);
    const signed = await signEvidence(evidence, recovery);
    expect(await verifyEvidence(signed, recovery)).toBe(true);
    expect(await codeOf(verifyEvidence(signed, parseKeyRing(`${key.entry},${publicEntry}`)))).toBe("key_missing");
  });

  it("is missing where nobody could sign, and that is said", async () => {
    expect(await codeOf(verifyEvidence({ ...evidence, signature: null }, ring))).toBe("evidence_unsigned");
    expect(await codeOf(verifyEvidence({}, ring))).toBe("evidence_unsigned");
  });
});

it("canonical JSON has names in order at every depth, and no blanks", () => {
  expect(canonical({ b: [1, { d: null, c: "é\n" }], a: true })).toBe('{"a":true,"b":[1,{"c":"é\\n","d":null}]}');
});

it("a report says what was measured against what was promised, and what was not compared", () => {
  const text = reportOf({ ...evidence, measured: { rtoSeconds: 90_000, rpoSeconds: 3 } }, "k-1").join("\n");
  expect(text).toContain("# Recovery test: Success");
  expect(text).toMatch(/RTO.*\| 90000 \| 86400 \| NO \|/);
  expect(text).toMatch(/RPO.*\| 3 \| 75 \| yes \|/);
  expect(text).toContain("extension pg_cron: needs it");
  const failed = reportOf({
    ...evidence,
    ok: false,
    proof: null,
    failure: { code: "space_missing", message: "no room", hint: "make room" },
  }, null);
  expect(failed.join("\n")).toMatch(/# Recovery test: Failure[^]*no room \(space_missing\)[^]*make room[^]*Not signed/);
});
