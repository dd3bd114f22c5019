/** Rows of tables as a stretch of the stream leaves them, against the history that was written into it. */
import { describe, expect, it } from "vitest";
import type { Message } from "../../src/shared/changes/decode/messages.ts";
import { countChanges } from "../../src/shared/changes/plan/count_changes.ts";
import { type OpenedSegment, RecordBuffer } from "../../src/shared/changes/segments/segment.ts";
import { snapshotView } from "../../src/shared/changes/segments/visibility.ts";
import { encode } from "./changes_encoder.ts";

const log = 900;
const logColumns = ["id", "what", "tag", "objects", "query", "role_name", "search_path"];
const micros = (minute: number) => BigInt(Date.UTC(2026, 0, 1) + minute * 60_000) * 1000n;

function relation(oid: number, schema: string, name: string, columns: readonly string[]): Message {
  return {
    kind: "relation",
    relation: {
      oid,
      schema,
      name,
      identity: "default",
      columns: columns.map((column, at) => ({ name: column, typeOid: 25, typeModifier: -1, isKey: at === 0 })),
    },
  };
}

interface Transaction {
  readonly xid: number;
  readonly minute: number;
  readonly does: readonly Message[];
}

/** Transactions in segments of three each. */
async function* segmentsOf(transactions: readonly Transaction[]): AsyncGenerator<OpenedSegment> {
  for (let from = 0; from < transactions.length; from += 3) {
    const records = new RecordBuffer();
    const put = (xid: number, message: Message) => records.append(1n, xid, encode(message));
    for (const { xid, minute, does } of transactions.slice(from, from + 3)) {
      const commitLsn = BigInt(1000 + minute);
      put(xid, { kind: "begin", commitLsn, committedAt: micros(minute), xid });
      for (const message of does) put(xid, message);
      put(xid, { kind: "commit", commitLsn, endLsn: commitLsn + 1n, committedAt: micros(minute) });
    }
    yield await Promise.resolve({
      name: "v1/changes/c/0-1",
      storedHash: "",
      header: { nextXid: "2000" },
      records: records.bytes().slice(),
    } as OpenedSegment);
  }
}

const insert = (oid: number): Message => ({ kind: "insert", relation: oid, row: ["1", "x"] });
const update = (oid: number): Message => ({ kind: "update", relation: oid, old: null, row: ["1", "y"] });
const remove = (oid: number): Message => ({ kind: "delete", relation: oid, old: { what: "key", values: ["1", null] } });
const truncate = (relations: readonly number[]): Message => ({
  kind: "truncate",
  relations,
  cascade: false,
  restartIdentity: false,
});

describe("rows that the stream adds and takes", () => {
  it("are those of the transactions that the snapshot did not see, up to the point", async () => {
    let seed = 7;
    const random = (below: number) => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below;
    for (let round = 0; round < 60; round++) {
      const until = random(40);
      const running = [1002, 1005].filter(() => random(2) === 0);
      const snapshot = snapshotView(`1002:1010:${running.join(",")}`);
      const expected = new Map<number, { emptied: boolean; added: number }>();
      const transactions = Array.from({ length: 30 }, (_, n): Transaction => {
        const xid = 1000 + n;
        const counts = n <= until && (xid >= 1010 || running.includes(xid));
        const does = Array.from({ length: random(6) }, (): Message => {
          const oid = 100 + random(3);
          const table = expected.get(oid) ?? { emptied: false, added: 0 };
          const note = (now: { emptied: boolean; added: number }) => void (counts && expected.set(oid, now));
          switch (random(8)) {
            case 0:
              note({ emptied: true, added: 0 });
              return truncate([oid]);
            case 1:
            case 2:
              note({ ...table, added: table.added - 1 });
              return remove(oid);
            case 3:
              note(table);
              return update(oid);
            default:
              note({ ...table, added: table.added + 1 });
              return insert(oid);
          }
        });
        return { xid, minute: n, does: n === 0 ? [relation(100, "public", "a", ["id", "v"]), ...does] : does };
      });
      const found = await countChanges(segmentsOf(transactions), { by: "time", at: micros(until) }, snapshot);
      expect(Object.fromEntries(found.tables), `round ${round}`).toEqual(Object.fromEntries(expected));
    }
  });

  it("are told apart from definitions, of which the names are told", async () => {
    const row = (objects: unknown): Message => ({
      kind: "insert",
      relation: log,
      row: ["1", "command", "CREATE TABLE", JSON.stringify(objects), "q", "postgres", ""],
    });
    const found = await countChanges(
      segmentsOf([
        {
          xid: 1001,
          minute: 0,
          does: [relation(log, "backup", "ddl_log", logColumns), row([{ type: "table", identity: "public.before" }])],
        },
        {
          xid: 1011,
          minute: 1,
          does: [row([{ type: "table", identity: "public.t" }]), row([{ type: "table", identity: null }]), insert(100)],
        },
      ]),
      { by: "end" },
      snapshotView("1002:1010:"),
    );
    expect(found.definitions).toEqual(["public.t"]);
    expect(found.unnamed).toBe(true);
    expect([...found.tables.keys()]).toEqual([100]);
  });
});
