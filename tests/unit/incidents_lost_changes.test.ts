/** What a stretch of the stream did, which transactions may have done the damage, and what is offered: no store, no server. */
import { describe, expect, it } from "vitest";
import type { Message } from "../../src/shared/changes/decode/messages.ts";
import { type OpenedSegment, RecordBuffer } from "../../src/shared/changes/segments/segment.ts";
import { compareCounts, isMuchSmaller, parentsFirst } from "../../src/shared/incidents/live_counts.ts";
import { LostChangesReader } from "../../src/shared/incidents/lost_changes.ts";
import { offersOf, shellQuoted } from "../../src/shared/incidents/offers.ts";
import { momentBefore, suspectsOf } from "../../src/shared/incidents/suspects.ts";
import { encode } from "./changes_encoder.ts";
import { shellWords } from "./runbook_pages.ts";

const start = BigInt(Date.UTC(2026, 0, 1)) * 1000n;
const minute = 60_000_000n;
const column = (name: string) => ({ name, typeOid: 25, typeModifier: -1, isKey: false });
const notes = { oid: 101, schema: "public", name: "notes", identity: "default" as const, columns: [] };
const odd = { oid: 102, schema: "App", name: "Big table", identity: "default" as const, columns: [] };
const ddl = {
  oid: 103,
  schema: "backup",
  name: "ddl_log",
  identity: "default" as const,
  columns: ["id", "what", "tag", "objects", "query", "role_name", "search_path", "settings"].map(column),
};

const changeOf = {
  insert: (relation: number): Message => ({ kind: "insert", relation, row: [] }),
  update: (relation: number): Message => ({ kind: "update", relation, old: null, row: [] }),
  delete: (relation: number): Message => ({ kind: "delete", relation, old: { what: "key", values: [] } }),
};
const many = (times: number, message: Message) => Array.from({ length: times }, () => message);
const dropRow = (objects: readonly { type: string; identity: string }[]): Message => ({
  kind: "insert",
  relation: ddl.oid,
  row: ["1", "drop", "DROP TABLE", JSON.stringify(objects), "drop", "postgres", "", "{}"],
});

interface Made {
  readonly xid: number;
  readonly lsn: number;
  readonly at: bigint;
  readonly changes: readonly Message[];
}

/** `cut`: the transaction is continued in the next segment, or is one that goes on. */
function segmentOf(
  made: readonly Made[],
  cut: { readonly begin?: boolean; readonly end?: boolean } = {},
): OpenedSegment {
  const buffer = new RecordBuffer();
  for (const { xid, lsn, at, changes } of made) {
    const add = (message: Message) => buffer.append(BigInt(lsn), xid, encode(message));
    if (cut.begin !== false) {
      add({ kind: "begin", commitLsn: BigInt(lsn), committedAt: at, xid });
      for (const relation of [notes, odd, ddl]) add({ kind: "relation", relation });
    }
    for (const change of changes) add(change);
    if (cut.end !== false) add({ kind: "commit", commitLsn: BigInt(lsn), endLsn: BigInt(lsn + 8), committedAt: at });
  }
  // The reader looks at the next transaction's id alone.
  const header = { nextXid: String((7n << 32n) + 1000n) } as OpenedSegment["header"];
  return { name: "segment", storedHash: "", linkHash: "", header, records: buffer.bytes().slice() };
}

function read(segments: readonly OpenedSegment[], since = start) {
  const reader = new LostChangesReader(since);
  for (const segment of segments) reader.take(segment);
  return reader.result();
}

const wide = (xid: number) => String((7n << 32n) + BigInt(xid));

describe("a stretch of the stream", () => {
  it("is counted by table, and its transactions are known by id, position and moment", () => {
    const found = read([segmentOf([
      { xid: 900, lsn: 0x110, at: start + minute, changes: many(3, changeOf.insert(notes.oid)) },
      {
        xid: 901,
        lsn: 0x120,
        at: start + 2n * minute,
        changes: [changeOf.update(notes.oid), changeOf.delete(odd.oid)],
      },
    ])]);
    const [first, second] = ["2026-01-01T00:01:00.000000Z", "2026-01-01T00:02:00.000000Z"];
    expect(found.tables).toEqual([
      {
        table: '"App"."Big table"',
        inserted: 0,
        updated: 0,
        deleted: 1,
        truncated: 0,
        firstAt: second,
        lastAt: second,
      },
      { table: "public.notes", inserted: 3, updated: 1, deleted: 0, truncated: 0, firstAt: first, lastAt: second },
    ]);
    expect(found).toMatchObject({
      transactionsSeen: 2,
      firstCommitAt: "2026-01-01T00:01:00.000000Z",
      lastCommitAt: "2026-01-01T00:02:00.000000Z",
      transactions: [{ xid: wide(901), lsn: "0/120", committedAt: "2026-01-01T00:02:00.000000Z" }],
    });
  });

  it("leaves out what was committed before the moment, and goes on over the parts of a large transaction", () => {
    const large: Made = {
      xid: 910,
      lsn: 0x200,
      at: start + 5n * minute,
      changes: many(40, changeOf.delete(notes.oid)),
    };
    const found = read([
      segmentOf([{ xid: 905, lsn: 0x110, at: start + minute, changes: many(99, changeOf.delete(notes.oid)) }]),
      segmentOf([large], { end: false }),
      segmentOf([large], { begin: false }),
    ], start + 2n * minute);
    expect(found.tables).toMatchObject([{ table: "public.notes", deleted: 80 }]);
    expect(found.transactionsSeen).toBe(1);
    // Its end is not stored yet: nobody knows that it will commit.
    expect(read([segmentOf([large], { end: false })])).toMatchObject({ tables: [], transactionsSeen: 0 });
  });

  it("knows drops by the log of definitions, and takes a table's parts for the table", () => {
    const found = read([segmentOf([{
      xid: 920,
      lsn: 0x110,
      at: start + minute,
      changes: [
        dropRow([
          { type: "table", identity: "public.notes" },
          { type: "index", identity: "public.notes_pkey" },
          { type: "table column", identity: "public.notes.body" },
          { type: "table column", identity: "public.letters.sent" },
        ]),
      ],
    }])]);
    expect(found.transactions).toEqual([expect.objectContaining({
      droppedTables: ["public.notes"],
      droppedColumns: ["public.letters.sent"],
      tables: [],
    })]);
    // Its rows are nobody's changes.
    expect(found.tables).toEqual([]);
  });

  it("keeps the largest of a long time, whatever came after, in bounded memory", () => {
    const made = Array.from({ length: 3_000 }, (_, index): Made => ({
      xid: 1 + index,
      lsn: 0x1000 + index * 16,
      at: start + BigInt(index) * 1000n,
      changes: many(index === 700 ? 50 : 1 + index % 3, changeOf.delete(notes.oid)),
    }));
    const found = read([segmentOf(made)]);
    expect(found.transactions.length).toBeLessThanOrEqual(40);
    expect(suspectsOf(found, () => null)[0]).toMatchObject({ xid: wide(701), rows: 50 });
    const all = made.reduce((sum, one) => sum + one.changes.length, 0);
    expect(found.tables[0]?.deleted).toBe(all);
  });
});

const seen = (more: Partial<Parameters<typeof suspectsOf>[0]["transactions"][number]>) => ({
  xid: "1",
  lsn: "0/1",
  committedAt: "2026-01-01T00:00:01.000000Z",
  tables: [],
  droppedTables: [],
  droppedColumns: [],
  ...more,
});
const changed = (
  table: string,
  more: Partial<{ inserted: number; updated: number; deleted: number; truncated: number }>,
) => ({ table, inserted: 0, updated: 0, deleted: 0, truncated: 0, ...more });

describe("suspects", () => {
  const rows = (table: string) => ({ "public.notes": 500, "public.tags": 20 })[table] ?? null;

  it("are drops and emptied tables first, then deletes, then updates, each with its reason", () => {
    const found = suspectsOf({
      transactions: [
        seen({ xid: "5", tables: [changed("public.notes", { updated: 400 })] }),
        seen({ xid: "4", tables: [changed("public.notes", { deleted: 30, inserted: 30 })] }),
        seen({ xid: "3", tables: [changed("public.notes", { deleted: 300 })] }),
        seen({ xid: "2", tables: [changed("public.tags", { truncated: 1 })] }),
        seen({ xid: "1", droppedTables: ["public.notes"] }),
        // Nothing but ordinary work.
        seen({ xid: "6", tables: [changed("public.notes", { inserted: 1000, updated: 1 })] }),
      ],
    }, rows);
    expect(found.map(({ xid }) => xid)).toEqual(["1", "2", "3", "4", "5"]);
    expect(found.map(({ why }) => why)).toEqual([
      "dropped public.notes (500 rows in the backup)",
      "emptied public.tags (20 rows in the backup)",
      "deleted 300 rows of 500 in the backup from public.notes",
      "deleted 30 rows of 500 in the backup from public.notes",
      "changed 400 rows of public.notes",
    ]);
    expect(found.map((one) => one.rows)).toEqual([500, 20, 300, 30, 400]);
  });

  it.each([
    ["2026-01-01T00:00:01.000001Z", "2026-01-01T00:00:01.000000Z"],
    ["2026-01-01T00:00:00.000000Z", "2025-12-31T23:59:59.999999Z"],
    ["2026-03-01T12:30:00.100000Z", "2026-03-01T12:30:00.099999Z"],
  ])("say the moment right before %s, to the microsecond", (moment, before) => {
    expect(momentBefore(moment)).toBe(before);
  });
});

describe("offers", () => {
  const points = {
    windows: [{ from: "2026-01-01T00:00:00.000000Z", to: "2026-01-01T01:00:00.000000Z" }],
    gaps: [],
    stores: [{
      store: "file:///a",
      place: "first" as const,
      failure: null,
      fulls: [
        { id: "77aa-late", tier: "daily", consistentAt: "2026-01-01T00:30:00.000Z" },
        { id: "1b9d-early", tier: "daily", consistentAt: "2026-01-01T00:00:00.000Z" },
      ],
    }],
  };
  const times = [{ scope: "table", objectiveSeconds: 14_400, measuredSeconds: 12 }];
  const suspect = suspectsOf({
    transactions: [seen({
      xid: "42",
      committedAt: "2026-01-01T00:10:00.000000Z",
      tables: [changed("public.tags", { deleted: 3 }), changed("public.notes", { deleted: 5, updated: 2 })],
    })],
  }, () => 10);
  const offered = (more: Partial<Parameters<typeof offersOf>[0]> = {}) =>
    offersOf({ suspects: suspect, points, times, order: ["public.notes", "public.tags"], totalRows: 30, ...more });
  const lines = (offers: ReturnType<typeof offered>) =>
    offers.flatMap(({ steps }) => steps.map(({ command }) => command));

  it("bring tables back parents first, missing rows alone where nothing else changed; each is looked at first", () => {
    expect(lines(offered())).toEqual([
      "npm run -s backup:restore-table public.notes -- --at 2026-01-01T00:09:59.999999Z --apply merge --dry-run",
      "npm run -s backup:restore-table public.notes -- --at 2026-01-01T00:09:59.999999Z --apply merge",
      "npm run -s backup:restore-table public.tags -- --at 2026-01-01T00:09:59.999999Z --apply missing --dry-run",
      "npm run -s backup:restore-table public.tags -- --at 2026-01-01T00:09:59.999999Z --apply missing",
      "npm run -s backup:restore-point -- --before-xid 42",
      "npm run -s backup:restore-point -- --before-xid 42 --yes",
      "npm run -s backup:restore-full 1b9d-early -- --apply replace --dry-run",
      "npm run -s backup:restore-full 1b9d-early -- --apply replace",
      "npm run -s backup:restore-full 1b9d-early",
    ]);
    expect(offered()[0]).toMatchObject({ rows: 7, seconds: { measured: 12, objective: 14_400 } });
  });

  it("never put anything into place without asking: no line but of a new database says --yes", () => {
    expect(lines(offered()).filter((line) => / --yes/.test(line) && !line.includes("restore-point"))).toEqual([]);
  });

  it("are not made for a moment that cannot be restored; a backup from before it is", () => {
    const uncovered = lines(offered({ points: { ...points, windows: [] } }));
    expect(uncovered.filter((line) => !line.includes("restore-full"))).toEqual([]);
    expect(uncovered).toHaveLength(3);
    for (const [from, to] of [["00:10:00", "01:00:00"], ["00:00:00", "00:09:59"]]) {
      const windows = [{ from: `2026-01-01T${from}.000000Z`, to: `2026-01-01T${to}.000000Z` }];
      expect(lines(offered({ points: { ...points, windows } })), `${from} to ${to}`).toEqual(uncovered);
    }
  });

  it("make a dropped table again, with all that hung on it, in one line that is looked at first", () => {
    const dropped = suspectsOf({
      transactions: [seen({ xid: "43", committedAt: "2026-01-01T00:10:00.000000Z", droppedTables: ["public.notes"] })],
    }, () => 10);
    const offers = offered({ suspects: dropped });
    expect(offers[0]).toMatchObject({ scope: "table", rows: 10 });
    const line = "npm run -s backup:restore-table public.notes -- --at 2026-01-01T00:09:59.999999Z --apply missing";
    expect(lines(offers).slice(0, 4)).toEqual([
      `${line} --dry-run`,
      line,
      "npm run -s backup:restore-point -- --before-xid 43",
      "npm run -s backup:restore-point -- --before-xid 43 --yes",
    ]);
    const service = suspectsOf({
      transactions: [seen({ xid: "44", committedAt: "2026-01-01T00:10:00.000000Z", droppedTables: ["auth.users"] })],
    }, () => 10);
    expect(lines(offered({ suspects: service })).filter((one) => one.includes("restore-table"))).toEqual([]);
  });

  it("bring people back with what is theirs, never rows of Auth or Storage by themselves", () => {
    const people = suspectsOf({
      transactions: [seen({
        xid: "44",
        committedAt: "2026-01-01T00:10:00.000000Z",
        tables: [changed("auth.users", { deleted: 2 }), changed("storage.objects", { deleted: 9 })],
      })],
    }, () => 10);
    const offers = offered({ suspects: people });
    expect(offers.map(({ scope }) => scope)).toEqual(["user", "point", "full"]);
    expect(lines(offers)[0]).toBe(
      'npm run -s backup:restore-user "$PERSON" -- --at 2026-01-01T00:09:59.999999Z --apply missing --dry-run',
    );
  });

  it("name the second store where the first is gone", () => {
    const [there] = points.stores;
    const fulls = there?.fulls ?? [];
    const stores = [
      { store: "file:///a", place: "first" as const, fulls: [], failure: "store_unreachable: no answer" },
      { store: "s3://b", place: "second" as const, fulls, failure: null },
    ];
    expect(lines(offered({ points: { ...points, windows: [], stores } }))[0]).toBe(
      "npm run -s backup:restore-full 1b9d-early -- --store second --apply replace --dry-run",
    );
  });

  it("are one word a name for the shell, whatever a table is called", () => {
    const name = `"App"."it's $HOME; rm -rf /"`;
    expect(shellQuoted(name)).toBe(`'"App"."it'\\''s $HOME; rm -rf /"'`);
    expect(shellWords("a 'b c'")).toEqual(["a", "b c"]);
  });
});

describe("live rows beside the backup", () => {
  it("are counted for a minute at most, the smallest tables first; the rest is said not to have been", async () => {
    let nowMs = 0;
    const asked: string[] = [];
    const limits: string[] = [];
    const connection = {
      execute: (sql: string) => Promise.resolve(void limits.push(sql)),
      query: (sql: string) => {
        asked.push(sql.replace(/^.* from only /, ""));
        nowMs += 25_000;
        return Promise.resolve([{ rows: "0" }]);
      },
    };
    const table = (name: string, rows: number) => ({
      schema: "public",
      name,
      rows,
      dataOwner: "user",
      relfilenode: 1,
    });
    const tables = [table("d", 40), table("b", 20), table("a", 10), table("e", 50), table("c", 30)];
    const found = await compareCounts(connection, { tables }, { monotonicMs: () => nowMs });
    expect(asked).toEqual(["public.a", "public.b", "public.c"]);
    expect(found.tables.map((one) => one.table)).toEqual(asked);
    expect(found.notDone).toEqual([
      "2 tables were not counted, the smallest of them public.d: the others took a minute",
    ]);
    expect(limits.slice(1)).toEqual([15_000, 15_000, 10_000].map((ms) => `set statement_timeout = ${ms}`));
  });

  it.each([[100, 100, false], [100, 91, false], [100, 90, true], [5, 4, false], [5, 0, true], [0, 0, false], [
    9,
    null,
    true,
  ]])(
    "of %s in the backup %s are left: told %s",
    (atBackup, now, told) => {
      expect(isMuchSmaller({ table: "t", atBackup, now })).toBe(told);
    },
  );

  it("are filled parents first, and in a circle all the same", () => {
    const keys = [["c", "b"], ["b", "a"], ["x", "y"], ["y", "x"]] as const;
    expect(parentsFirst(["c", "b", "a"], keys)).toEqual(["a", "b", "c"]);
    expect(parentsFirst(["y", "x", "c"], keys)).toEqual(["c", "x", "y"]);
  });
});
