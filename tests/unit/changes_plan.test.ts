/** Which full and which segments give a moment, and what is refused: a store in memory, no server. */
import { beforeAll, describe, expect, it } from "vitest";
import type { Message } from "../../src/shared/changes/decode/messages.ts";
import { formatLsn } from "../../src/shared/changes/decode/lsn.ts";
import { planPoint, type PointChoices } from "../../src/shared/changes/plan/plan_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { RecordBuffer, sealSegment, type SegmentHeader } from "../../src/shared/changes/segments/segment.ts";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { sealManifest } from "../../src/shared/format/manifest_codec.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { encode } from "./changes_encoder.ts";
import { makeSmallBackup, type SmallBackup } from "./verify_fixture.ts";

const start = Date.UTC(2026, 0, 1);
/** Microseconds since 1970. */
const at = (minute: number, micros = 0) => BigInt(start + minute * 60_000) * 1000n + BigInt(micros);
const iso = (minute: number) => new Date(start + minute * 60_000).toISOString().replace("Z", "000Z");

interface Transaction {
  readonly xid: number;
  readonly commit: number;
  readonly minute: number;
}

interface Stretch {
  readonly from: number;
  readonly to: number;
  readonly takenAt: number;
  readonly has?: readonly Transaction[];
  /** Of one transaction that stands in several segments. */
  readonly part?: number;
  readonly startsInTransaction?: boolean;
  readonly endsInTransaction?: boolean;
  /** Updates that the server counted of a table without identity; absent: there is no such table. */
  readonly unseen?: number;
}

/** 702 commits before the newest full's position, and its snapshot did not see it; ids are not in the order of commits. */
const late: Transaction = { xid: 702, commit: 0x1d0, minute: 9 };
const stretches: readonly Stretch[] = [
  { from: 0x100, to: 0x140, takenAt: 3, has: [{ xid: 690, commit: 0x110, minute: 2 }] },
  { from: 0x140, to: 0x180, takenAt: 4, has: [{ xid: 691, commit: 0x150, minute: 3 }] },
  { from: 0x180, to: 0x1c0, takenAt: 8, has: [{ xid: 692, commit: 0x190, minute: 7 }] },
  { from: 0x1c0, to: 0x200, takenAt: 9, has: [late] },
  { from: 0x200, to: 0x280, takenAt: 9, has: [{ xid: 699, commit: 0x210, minute: 9 }] },
  { from: 0x280, to: 0x300, takenAt: 10, has: [{ xid: 704, commit: 0x290, minute: 9 }] },
  {
    from: 0x300,
    to: 0x400,
    takenAt: 12,
    has: [{ xid: 710, commit: 0x310, minute: 11 }, { xid: 706, commit: 0x350, minute: 12 }],
  },
  {
    from: 0x400,
    to: 0x500,
    takenAt: 15,
    has: [{ xid: 720, commit: 0x410, minute: 13 }, { xid: 707, commit: 0x450, minute: 14 }],
  },
  { from: 0x500, to: 0x600, takenAt: 20 },
];

const notes = { oid: 16400, schema: "app", name: "notes", identity: "default" as const, columns: [] };

const bare = {
  schema: "app",
  name: "bare",
  missing: "updates and deletes" as const,
  reason: "no identity",
  updated: 0,
  deleted: 0,
  inserted: 0,
};

function recordsOf({ has = [], startsInTransaction = false, endsInTransaction = false }: Stretch): Uint8Array {
  const buffer = new RecordBuffer();
  for (const { xid, commit, minute } of has) {
    const commitLsn = BigInt(commit);
    const add = (message: Message) => buffer.append(commitLsn, xid, encode(message));
    if (!startsInTransaction) {
      add({ kind: "begin", commitLsn, committedAt: at(minute), xid });
      add({ kind: "relation", relation: notes });
    }
    add({ kind: "insert", relation: notes.oid, row: [] });
    if (!endsInTransaction) add({ kind: "commit", commitLsn, endLsn: commitLsn + 8n, committedAt: at(minute) });
  }
  return buffer.bytes().slice();
}

/** A store with two fulls, of minute 1 and half a millisecond past minute 10, and this chain. */
class Chain {
  readonly small: SmallBackup;
  /** Of the segments, in order. */
  names: readonly string[] = [];

  private constructor(small: SmallBackup) {
    this.small = small;
  }

  static async make(chain = "c1", given: readonly Stretch[] = stretches): Promise<Chain> {
    const made = new Chain(await makeSmallBackup());
    await made.small.store.remove([made.small.manifestName]);
    await made.full(1, iso(1), "690:690:", "0/100", chain);
    await made.full(2, iso(10).replace("000000Z", "000500Z"), "702:705:702,703", "0/300", chain);
    made.names = await made.segments(chain, given);
    return made;
  }

  async full(generation: number, consistentAt: string, text: string, walInsertLsn: string, chain: string) {
    const { store, epoch, deps, manifest } = this.small;
    const sealed = await sealManifest({ random: webCryptoRandom, compressor: deps.compressor }, epoch, {
      ...manifest,
      id: `0000000${generation}-0000-4000-8000-000000000000`,
      generation,
      previousManifest: generation === 1 ? null : { name: this.small.manifestName, hash: "0".repeat(64) },
      createdAt: consistentAt,
      consistentAt,
      snapshot: { text, walInsertLsn },
      chain,
    });
    await store.create(sealed.name, sealed.bytes);
  }

  async segments(chain: string, given: readonly Stretch[], after: SegmentHeader["previous"] = null): Promise<string[]> {
    const { store, epoch, deps, manifest } = this.small;
    const names: string[] = [];
    let previous = after;
    for (const stretch of given) {
      const { from, to, takenAt, part = 0, startsInTransaction = false, endsInTransaction = false } = stretch;
      const header: SegmentHeader = {
        format: "holdfast/segment",
        version: 1,
        repositoryId: manifest.repositoryId,
        chain,
        startLsn: formatLsn(BigInt(from)),
        endLsn: formatLsn(BigInt(to)),
        part,
        previous,
        startsInTransaction,
        endsInTransaction,
        transactions: 0,
        changes: 0,
        ddl: 0,
        firstCommitAt: null,
        lastCommitAt: null,
        takenAt: iso(takenAt),
        // The newest full's snapshot stands between them.
        nextXid: takenAt > 10 ? "800" : "704",
        server: { systemIdentifier: "7", database: "postgres", versionNum: 150020 },
        sequences: [],
        countedUntil: iso(takenAt - 1),
        uncovered: stretch.unseen === undefined ? [] : [{ ...bare, updated: stretch.unseen }],
      };
      const { name, bytes } = await sealSegment(
        { random: webCryptoRandom, compressor: deps.compressor },
        epoch,
        header,
        recordsOf(stretch),
      );
      await store.create(name, bytes);
      previous = { name, hash: await sha256Hex(bytes) };
      names.push(name);
    }
    return names;
  }

  plan(point: Point, choices: PointChoices = {}) {
    const target = { label: "none", connect: () => Promise.reject(new Error("no plan needs its target")) };
    return planPoint({ ...this.small.deps, target }, point, choices);
  }

  /** Transactions that a replay would apply; the code of a refusal. */
  async count(point: Point): Promise<number | string> {
    return await this.plan(point).then(({ survey }) => survey.transactions, codeOf);
  }

  async without<T>(names: readonly (string | undefined)[], look: () => Promise<T>): Promise<T> {
    const { objects } = this.small.store;
    const before = new Map(objects);
    for (const name of names) objects.delete(name ?? "");
    try {
      return await look();
    } finally {
      objects.clear();
      for (const [name, bytes] of before) objects.set(name, bytes);
    }
  }
}

function codeOf(error: unknown): string {
  if (error instanceof HoldfastError) return error.code;
  throw error;
}

const time = (minute: number, micros = 0): Point => ({ by: "time", at: at(minute, micros) });
const lsn = (position: number): Point => ({ by: "lsn", lsn: BigInt(position) });
const before = (xid: number): Point => ({ by: "before_xid", xid: BigInt(xid) });
const end: Point = { by: "end" };

let whole: Chain;
beforeAll(async () => {
  whole = await Chain.make();
});

describe("a plan for a moment", () => {
  it("takes every transaction that the full's snapshot did not see, also one that commits before the full's position", async () => {
    const plan = await whole.plan(end);
    expect(plan.full.manifest.generation).toBe(2);
    expect(plan.survey).toMatchObject({ transactions: 5, changes: 5, reachedLsn: "0/458", passedPoint: false });
    expect(plan.segments.map(({ name }) => name)).toEqual(whole.names.slice(3));
  });

  it("has the commit of the very moment, and none behind it", async () => {
    expect(await whole.count(time(13))).toBe(4);
    expect(await whole.count(time(13, -1))).toBe(3);
    expect(await whole.count(time(14))).toBe(5);
  });

  it("ends before the commit record that begins at a position", async () => {
    expect(await whole.count(lsn(0x410))).toBe(3);
    expect(await whole.count(lsn(0x411))).toBe(4);
    expect(await whole.count(lsn(0x310))).toBe(1);
  });

  it("ends before the commit of one transaction, whatever the ids of those that committed before it", async () => {
    expect(await whole.count(before(710))).toBe(1);
    expect(await whole.count(before(706))).toBe(2);
    expect(await whole.count(before(707))).toBe(4);
    expect(await whole.count(before(708)), "no commit of it is stored").toBe("point_uncovered");
  });

  it("is covered up to the moment at which the last segment was taken, and to its end, not further", async () => {
    expect(await whole.count(time(20))).toBe(5);
    expect(await whole.count(time(20, 1))).toBe("point_uncovered");
    expect(await whole.count(lsn(0x600))).toBe(5);
    expect(await whole.count(lsn(0x601))).toBe("point_uncovered");
  });

  it("begins with the newest full that is no later, to the microsecond, the position and the transaction", async () => {
    const generation = async (point: Point) => (await whole.plan(point)).full.manifest.generation;
    expect(await generation(time(10, 500))).toBe(2);
    expect(await generation(time(10, 499))).toBe(1);
    expect(await generation(lsn(0x300))).toBe(2);
    expect(await generation(lsn(0x2ff))).toBe(1);
    expect(await generation(before(702))).toBe(2);
    expect(await generation(before(699))).toBe(1);
    expect(await whole.count(before(699))).toBe(4);
    expect(await whole.count(before(704)), "the newest full's snapshot saw it").toBe(5);
    expect(await whole.count(time(0, 59_999_999))).toBe("point_uncovered");
    expect(await whole.count(lsn(0xff))).toBe("point_uncovered");
  });
});

describe("a chain of which a segment is missing", () => {
  it("gives what lies before the gap, and nothing in it or behind it", async () => {
    await whole.without([whole.names[7]], async () => {
      expect(await whole.count(time(11))).toBe(2);
      expect(await whole.count(time(12))).toBe(3);
      const lost = [time(12, 1), time(13), time(14), time(20), lsn(0x401), lsn(0x500), lsn(0x600), before(707)];
      for (const [nth, point] of lost.entries()) {
        expect(await whole.count(point), `point ${nth}`).toBe("point_uncovered");
      }
      await expect(whole.plan(time(13))).rejects.toMatchObject({
        message: expect.stringMatching(
          new RegExp(`in the gap from ${iso(12)} to ${iso(20)} \\(the segment before .+ is missing\\); covered: `),
        ) as string,
      });
      await expect(whole.plan(time(20, 1))).rejects.toMatchObject({
        message: expect.not.stringContaining("in the gap") as string,
      });
      await expect(whole.plan(end)).rejects.toMatchObject({
        code: "chain_broken",
        message: expect.stringContaining(whole.names[8] ?? "none") as string,
      });
    });
  });

  it("right behind the full is refused for every moment of that full", async () => {
    await whole.without(whole.names.slice(0, 7), async () => {
      for (const point of [time(12), time(13), time(20), lsn(0x410), before(707), end]) {
        expect(await whole.count(point)).toBe("chain_broken");
      }
    });
  });

  it("right before the full is refused: a transaction that the full does not hold may be in it", async () => {
    for (const lost of [1, 2, 3]) {
      await whole.without(whole.names.slice(0, lost), async () => expect(await whole.count(end)).toBe(5));
    }
    for (const lost of [4, 5, 6]) {
      await whole.without(whole.names.slice(0, lost), async () => {
        for (const point of [time(12), lsn(0x410), before(707), end]) {
          expect(await whole.count(point), `${lost} segments lost`).toBe("chain_broken");
        }
      });
    }
  });

  it("is not filled by one that was sealed again under its name", async () => {
    const [before = "", exchanged = ""] = whole.names.slice(5);
    const hash = await sha256Hex(whole.small.store.objects.get(before) ?? new Uint8Array());
    await whole.without([exchanged], async () => {
      const again = stretches.slice(6, 7).map((one) => ({ ...one, has: [] }));
      expect(await whole.segments("c1", again, { name: before, hash })).toEqual([exchanged]);
      await expect(whole.plan(end)).rejects.toMatchObject({
        code: "chain_broken",
        message: expect.stringContaining(whole.names[7] ?? "none") as string,
      });
    });
  });

  it("is not filled by segments of another chain", async () => {
    const foreign = await Chain.make("c2", stretches.map((one) => ({ ...one, has: [] })));
    await foreign.small.store.remove(foreign.names);
    await foreign.segments("c1", stretches);
    expect(await foreign.count(time(12))).toBe("point_uncovered");
    await whole.without([whole.names[7]], async () => {
      await whole.segments("c2", stretches);
      expect(await whole.count(time(13))).toBe("point_uncovered");
      expect((await whole.plan(time(12))).segments.map(({ chain }) => chain)).not.toContain("c2");
    });
  });
});

describe("a transaction in several segments", () => {
  const parted = [
    ...stretches.slice(0, 3),
    { from: 0x1c0, to: 0x200, takenAt: 9, has: [late], endsInTransaction: true },
    {
      from: 0x1c0,
      to: 0x200,
      takenAt: 9,
      has: [late],
      part: 1,
      startsInTransaction: true,
      endsInTransaction: true,
    },
    { from: 0x1c0, to: 0x200, takenAt: 9, has: [late], part: 2, startsInTransaction: true },
    ...stretches.slice(4),
  ];

  it("is read from its first part on", async () => {
    const chain = await Chain.make("c1", parted);
    const { segments, survey } = await chain.plan(end);
    expect(segments.map(({ name }) => name)).toEqual(chain.names.slice(3));
    expect(survey).toMatchObject({ transactions: 5, changes: 7 });
  });

  it("is no part of what is covered until its last part is stored", async () => {
    const chain = await Chain.make("c1", [
      ...stretches.slice(0, 7),
      { from: 0x400, to: 0x500, takenAt: 15, has: [{ xid: 720, commit: 0x410, minute: 13 }], endsInTransaction: true },
    ]);
    expect(await chain.count(time(12))).toBe(3);
    expect(await chain.count(time(13))).toBe("point_uncovered");
    expect(await chain.plan(end)).toMatchObject({ survey: { transactions: 3, changes: 3 } });
    const [window] = (await ChangeHistory.read(chain.small.deps)).timeline().windows;
    expect(window).toEqual({ from: iso(1), to: iso(12), chain: "c1" });
  });

  it("is a gap at the end of the chain where a part before its last one is missing", async () => {
    const has = stretches[7]?.has?.slice(0, 1) ?? [];
    const chain = await Chain.make("c1", [
      ...stretches.slice(0, 7),
      { from: 0x400, to: 0x500, takenAt: 15, has, endsInTransaction: true },
      { from: 0x400, to: 0x500, takenAt: 15, has, part: 1, startsInTransaction: true, endsInTransaction: true },
      { from: 0x400, to: 0x500, takenAt: 15, has, part: 2, startsInTransaction: true },
    ]);
    expect(await chain.count(end)).toBe(4);
    for (const part of [7, 8]) {
      await chain.without([chain.names[part]], async () => {
        expect([await chain.count(end), await chain.count(time(13)), await chain.count(time(12))])
          .toEqual(["chain_broken", "point_uncovered", 3]);
      });
    }
  });

  it("is refused where a part says that it goes on with a transaction, and the one before ended none", async () => {
    const chain = await Chain.make(
      "c1",
      stretches.map((one, index) => index === 7 ? { ...one, startsInTransaction: true } : one),
    );
    expect(await chain.count(end)).toBe("chain_broken");
  });
});

describe("a table without identity", () => {
  const counted = (of: (index: number) => number) =>
    Chain.make("c1", stretches.map((one, index) => ({ ...one, unseen: of(index) })));
  const named = [{ schema: "app", name: "bare", reason: "no identity" }];
  const doubted = named.map((table) => ({ ...table, before: "point" }));

  it("is in doubt where not all that was before the moment was counted", async () => {
    const chain = await counted(() => 5);
    const doubt = async (point: Point) => (await chain.plan(point)).survey.unsettled;
    expect(await doubt(time(19))).toEqual(doubted);
    expect(await doubt(time(20))).toEqual(doubted);
    expect(await doubt(time(19, -1))).toEqual([]);
    expect(await doubt(time(13))).toEqual([]);
  });

  it("is in doubt at the end of the stream, and at a place that the counters do not reach", async () => {
    const chain = await counted(() => 5);
    const doubt = async (point: Point) => (await chain.plan(point)).survey.unsettled;
    // The last commit of the stream is six minutes older: a change that it does not carry can be younger.
    expect((await chain.plan(end)).survey.reachedAt).toBe(iso(14));
    expect(await doubt(end)).toEqual(doubted);
    expect(await doubt(lsn(0x600))).toEqual(doubted);
    expect(await doubt(lsn(0x501)), "the log was there by the last segment at the latest").toEqual(doubted);
    expect(await doubt(lsn(0x500)), "the log was there five minutes before").toEqual([]);
    // The commit behind the place is of the moment at which its segment was taken, the one before it a minute older.
    expect(await doubt(lsn(0x350))).toEqual(doubted);
    expect(await doubt(before(706))).toEqual(doubted);
    expect(await doubt(lsn(0x410))).toEqual([]);
    expect(await doubt(before(707))).toEqual(doubted);
    expect(await doubt(before(720))).toEqual([]);
  });

  it("is refused behind a change that was counted, and then not in doubt as well", async () => {
    const chain = await counted((index) => index < 8 ? 5 : 6);
    await expect(chain.plan(time(20))).rejects.toMatchObject({ code: "tables_uncovered", message: /app\.bare/ });
    expect(await chain.count(time(13)), "its segment knows of none").toBe(4);
    const { survey } = await chain.plan(time(20), { atFull: ["app.bare"] });
    expect([survey.uncovered, survey.unsettled]).toEqual([named, []]);
  });

  it("is fine behind a change that the full has", async () => {
    const chain = await counted((index) => index < 4 ? 5 : 6);
    expect(await chain.count(time(20))).toBe(5);
    expect(await chain.count(time(10, 499)), "behind the older full nobody knows when it happened").toBe(
      "tables_uncovered",
    );
  });
});

describe("the latest state", () => {
  it("is none of an older chain while the newest full's own has no segment", async () => {
    const two = await Chain.make();
    await two.full(3, iso(40), "900:900:", "0/900", "c2");
    await expect(two.plan(end)).rejects.toMatchObject({
      code: "point_uncovered",
      message: expect.stringContaining(`no change after the full backup of ${iso(40)} is stored`) as string,
      hint: expect.stringContaining("00000003-0000-4000-8000-000000000000") as string,
    });
    expect(await two.count(time(20)), "asked for by its time it is given").toBe(5);
  });
});

describe("the timeline", () => {
  it("has a window a chain, from its first full to its last segment, and the gap between two", async () => {
    const two = await Chain.make();
    await two.full(3, iso(40), "900:900:", "0/900", "c2");
    await two.segments("c2", [{ from: 0x800, to: 0x900, takenAt: 39 }, { from: 0x900, to: 0xa00, takenAt: 50 }]);
    const { windows, gaps, fulls } = (await ChangeHistory.read(two.small.deps)).timeline();
    expect(windows).toEqual([
      { from: iso(1), to: iso(20), chain: "c1" },
      { from: iso(40), to: iso(50), chain: "c2" },
    ]);
    expect(gaps).toEqual([{ from: iso(20), to: iso(40) }]);
    expect(fulls.map(({ chain }) => chain)).toEqual(["c1", "c1", "c2"]);
    for (const minute of [20.5, 39]) expect(await two.count(time(minute))).toBe("point_uncovered");
    expect((await two.plan(end)).full.manifest.generation).toBe(3);
  });
});
