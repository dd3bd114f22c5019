/** Which segments an assessment reads: all that can hold a change since the moment, held against a plain list of what was committed. */
import { beforeAll, describe, expect, it } from "vitest";
import { formatLsn } from "../../src/shared/changes/decode/lsn.ts";
import type { Message } from "../../src/shared/changes/decode/messages.ts";
import { RecordBuffer, sealSegment, type SegmentHeader } from "../../src/shared/changes/segments/segment.ts";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import { assess } from "../../src/shared/incidents/assess.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { encode } from "./changes_encoder.ts";
import { makeSmallBackup, type SmallBackup } from "./verify_fixture.ts";

const start = Date.UTC(2026, 0, 1);
const iso = (seconds: number) => new Date(start + seconds * 1000).toISOString().replace("Z", "000Z");
const micros = (seconds: number) => BigInt(start + seconds * 1000) * 1000n;

/** Seconds since the start; `rows` are deleted. */
interface Committed {
  readonly at: number;
  readonly rows: number;
}

const notes = { oid: 101, schema: "public", name: "notes", identity: "default" as const, columns: [] };
const segments = 40;
const names: string[] = [];
const committed: Committed[] = [];
let small: SmallBackup;

/** One segment a minute, of which every fourth has nothing; the 20th and what follows are three parts of one transaction. */
beforeAll(async () => {
  small = await makeSmallBackup();
  let previous: SegmentHeader["previous"] = null;
  for (let index = 0; index < segments; index++) {
    const part = index >= 20 && index < 23 ? index - 20 : 0;
    const isPart = index >= 20 && index < 23;
    const takenAt = isPart ? 21 * 60 + part * 20 : (index + 1) * 60;
    const at = isPart ? 20 * 60 + 30 : takenAt - 20;
    const lsn = BigInt(0x1000 + (isPart ? 20 : index) * 0x100);
    const buffer = new RecordBuffer();
    const add = (message: Message) => buffer.append(lsn, 700 + index, encode(message));
    const rows = index % 4 === 3 && !isPart ? 0 : 1 + index % 5;
    if (rows > 0) {
      if (part === 0) {
        add({ kind: "begin", commitLsn: lsn + 8n, committedAt: micros(at), xid: 700 + index });
        add({ kind: "relation", relation: notes });
      }
      for (let row = 0; row < rows; row++) {
        add({ kind: "delete", relation: notes.oid, old: { what: "key", values: [] } });
      }
      if (!isPart || part === 2) {
        add({ kind: "commit", commitLsn: lsn + 8n, endLsn: lsn + 16n, committedAt: micros(at) });
      }
      committed.push({ at, rows });
    }
    const header: SegmentHeader = {
      format: "holdfast/segment",
      version: 1,
      repositoryId: small.manifest.repositoryId,
      chain: "c1",
      startLsn: formatLsn(lsn),
      endLsn: formatLsn(BigInt(0x1000 + (isPart ? 23 : index + 1) * 0x100)),
      part,
      previous,
      startsInTransaction: part > 0,
      endsInTransaction: isPart && part < 2,
      transactions: 0,
      changes: 0,
      ddl: 0,
      firstCommitAt: null,
      lastCommitAt: null,
      takenAt: iso(takenAt),
      nextXid: "1000",
      server: { systemIdentifier: "7", database: "postgres", versionNum: 150020 },
      sequences: [],
      uncovered: [],
    };
    const deps = { random: webCryptoRandom, compressor: small.deps.compressor };
    const { name, bytes } = await sealSegment(deps, small.epoch, header, buffer.bytes().slice());
    await small.store.create(name, bytes);
    previous = { name, hash: await sha256Hex(bytes) };
    names.push(name);
  }
});

async function assessed(since: string) {
  let read = 0;
  const history = await ChangeHistory.read(small.deps);
  const found = await assess({ ...small.deps, onSegment: () => read++ }, history, since);
  return { ...found, segmentsRead: read };
}

const deletedSince = (seconds: number) =>
  committed.filter(({ at }) => at >= seconds).reduce((sum, { rows }) => sum + rows, 0);

describe("an assessment", () => {
  it("counts every change since any moment, and opens few segments from before it", async () => {
    for (
      const since of [
        0,
        39,
        40,
        41,
        59,
        60,
        61,
        1199,
        1200,
        1229,
        1230,
        1231,
        1260,
        1261,
        1270,
        1290,
        1380,
        2300,
        2379,
        2380,
        2381,
      ]
    ) {
      const { tables, segmentsRead, read } = await assessed(iso(since));
      expect(tables[0]?.deleted ?? 0, `since ${since}`).toBe(deletedSince(since));
      expect(segmentsRead, `since ${since}`).toBeLessThanOrEqual(segments - Math.floor(since / 60) + 3);
      expect(read.map(({ to }) => to)).toEqual([iso(segments * 60)]);
    }
  });

  it("says that nothing is stored of a time after the stream", async () => {
    const { tables, notDone } = await assessed(iso(segments * 60 + 1));
    expect(tables).toEqual([]);
    expect(notDone).toEqual([expect.stringContaining("does not reach there")]);
  });

  it("says which span is missing where a segment is gone, and reads what can be read", async () => {
    const { objects } = small.store;
    const kept = new Map(objects);
    objects.delete(names[30] ?? "");
    try {
      const { tables, notDone, read } = await assessed(iso(0));
      expect(notDone).toEqual([expect.stringMatching(/from 0\/[0-9A-F]+ on: a segment before is missing/)]);
      expect(read.map(({ to }) => to)).toEqual([iso(30 * 60)]);
      expect(tables[0]?.deleted).toBe(deletedSince(0) - deletedSince(30 * 60));
    } finally {
      for (const [name, bytes] of kept) objects.set(name, bytes);
    }
  });

  it("goes on with what it has where a segment is damaged, and says so", async () => {
    const name = names[35] ?? "";
    const good = small.store.objects.get(name);
    if (good === undefined) throw new Error("the segment is not there");
    const bad = good.slice();
    bad[bad.length - 5] = (bad[bad.length - 5] ?? 0) ^ 1;
    small.store.objects.set(name, bad);
    try {
      const { tables, notDone } = await assessed(iso(0));
      expect(notDone[0]).toMatch(/^chain c1 could not be read to its end: /);
      expect(tables[0]?.deleted).toBe(deletedSince(0) - deletedSince(35 * 60));
    } finally {
      small.store.objects.set(name, good);
    }
  });
});
