/** What a rewriting takes out of text and of the stream, against node's own HMAC and a plain reading of the rules. */
import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type RowChange, unchanged } from "../../src/shared/changes/decode/messages.ts";
import { decodeMessage } from "../../src/shared/changes/decode/pgoutput.ts";
import { encodeChange } from "../../src/shared/changes/decode/encode_change.ts";
import { readRecords, RecordBuffer } from "../../src/shared/changes/segments/segment.ts";
import { ErasedKeys } from "../../src/shared/erase/judge_row.ts";
import { HashSet, hexOf, KeyedHasher, prepareIdentity } from "../../src/shared/erase/keyed_hash.ts";
import { listedIn, refuseUnlawful } from "../../src/shared/erase/lawful.ts";
import type { Identity, LedgerEntry } from "../../src/shared/erase/entry.ts";
import { planRemoval, type RemovalTable, usersIdentity } from "../../src/shared/erase/removal_plan.ts";
import { rewriteRecords, StreamTables } from "../../src/shared/erase/rewrite_records.ts";
import { rewriteText } from "../../src/shared/erase/rewrite_text.ts";
import { rangesToRewrite } from "../../src/shared/erase/rewrite/chain_ranges.ts";
import { planRewriting } from "../../src/shared/erase/rewrite/plan_rewriting.ts";
import { withColumns } from "../../src/shared/erase/rewrite/json_row.ts";
import { rewriteList } from "../../src/shared/erase/rewrite/rewrite_list.ts";
import { TableRewriter } from "../../src/shared/erase/table_rewriter.ts";
import { segmentName } from "../../src/shared/format/layout.ts";
import type { Graph } from "../../src/shared/rows/past/graph.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { encode } from "./changes_encoder.ts";
import { failureOf } from "./format_fixture.ts";

const key = Buffer.alloc(32, 7);
const block = (pad: number) => Uint8Array.from({ length: 64 }, (_, at) => (key[at] ?? 0) ^ pad);
const hashKey = { inner: block(0x36), outer: block(0x5c) };

/** docs/format.md, "Erasures", by node alone. */
function oracle({ schema, name, columns }: Identity, values: readonly string[]): string {
  const netstring = (text: string) => `${[...text].length}:${text},`;
  const message = netstring(schema) + netstring(name) +
    columns.map((column, at) => netstring(column) + netstring(values[at] ?? "")).join("");
  return createHmac("sha256", key).update(message).digest("hex").slice(0, 32);
}

const utf8 = (text: string) => new TextEncoder().encode(text);
const person = "0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11";
const other = "5f0c6f2b-8e0a-4d1c-9b7a-3e2d1f0c9b8a";

describe("the hash of a row", () => {
  it("is the one of docs/format.md, whatever its length and letters", () => {
    const hasher = new KeyedHasher(hashKey);
    const one: Identity = { schema: "public", name: "ünï", columns: ["a", "b ✓"] };
    const set = new HashSet();
    for (let length = 0; length < 300; length++) {
      const values = ["x".repeat(length), length % 2 === 0 ? "𝄞é" : ""];
      hasher.hash(prepareIdentity(one), values.map(utf8));
      expect(hexOf(hasher.words)).toBe(oracle(one, values));
      expect(set.has(hasher.words)).toBe(false);
      set.add(oracle(one, values));
      expect(set.has(hasher.words)).toBe(true);
    }
    const long = "ä".repeat(100_000);
    hasher.hash(prepareIdentity(usersIdentity), [utf8(long)]);
    expect(hexOf(hasher.words)).toBe(oracle(usersIdentity, [long]));
  });
});

const column = (name: string, notNull = false) => ({ name, type: "text", notNull });
const graph: Graph = {
  tables: [
    { schema: "auth", name: "users", columns: [column("id", true)], key: ["id"], partitions: [] },
    {
      schema: "public",
      name: "entries",
      columns: [column("id", true), column("user_id"), column("body"), column("seen_by")],
      key: ["id"],
      partitions: [],
    },
    {
      schema: "public",
      name: "notes",
      columns: [column("n", true), column("entry_id"), column("text")],
      key: ["n"],
      partitions: [],
    },
  ],
  edges: [
    edge("entries", ["user_id"], "auth.users", ["id"], "cascade"),
    edge("entries", ["seen_by"], "auth.users", ["id"], "set null"),
    edge("notes", ["entry_id"], "public.entries", ["id"], "cascade"),
  ],
};

function edge(from: string, columns: string[], to: string, toColumns: string[], onDelete: "cascade" | "set null") {
  const [schema = "", name = ""] = to.split(".");
  const constraint = `${from}_${columns.join()}`;
  return { constraint, from: { schema: "public", name: from }, columns, to: { schema, name }, toColumns, onDelete };
}

const tables = new Map(
  planRemoval(graph, emptyMap).flatMap(({ tables }) => tables).map((table) => [table.name, table]),
);
const tableOf = (name: string): RemovalTable =>
  tables.get(name) ?? (() => {
    throw new Error(name);
  })();
const entriesKey: Identity = { schema: "public", name: "entries", columns: ["id"] };
const erased = (...more: string[]) =>
  new ErasedKeys([hashKey], [oracle(usersIdentity, [person]), ...more], [usersIdentity, entriesKey]);
const columnsOf = (name: string) => tableOf(name).table.columns.map((one) => one.name);
const rewriter = (keys: ErasedKeys, name: string) => new TableRewriter(keys, tableOf(name), columnsOf(name));

describe("COPY text", () => {
  it("loses the person's rows, and what names them in others'", () => {
    const text = [
      `1\t${person}\tmine\\ttoo\t\\N`,
      `2\t${other}\ttheirs, of ${person}\t\\N`,
      `3\t${other}\tread\\\\ by\t${person}`,
      `4\t\\N\tnobody's\t\\N`,
      `5\t${other}\tby its key\t\\N`,
    ].join("\n") + "\n";
    const keys = erased(oracle(entriesKey, ["5"]));
    const done = rewriteText(utf8(text), rewriter(keys, "entries"));
    expect(done).toMatchObject({ rows: 3, removed: 2, changed: 1 });
    expect(new TextDecoder().decode(done.bytes ?? new Uint8Array())).toBe(
      `2\t${other}\ttheirs, of ${person}\t\\N\n3\t${other}\tread\\\\ by\t\\N\n4\t\\N\tnobody's\t\\N\n`,
    );
    // What it says to have left as it was stands there.
    const said = done.kept.map(({ from, to }) => text.slice(from, to));
    expect(said).toEqual([`2\t${other}\ttheirs, of ${person}\t\\N\n`, `4\t\\N\tnobody's\t\\N\n`]);
    for (const { from, to, at } of done.kept) {
      expect(new TextDecoder().decode(done.bytes?.subarray(at, at + to - from))).toBe(text.slice(from, to));
    }
    expect([...done.gone].sort()).toEqual([oracle(entriesKey, ["1"]), oracle(entriesKey, ["5"])].sort());
    // What hangs on a row that went goes too, once it is known.
    const notes = utf8(`1\t1\tof mine\n2\t2\tof theirs\n`);
    expect(rewriteText(notes, rewriter(keys, "notes")).bytes).toBe(null);
    keys.learn(done.gone, [entriesKey]);
    expect(new TextDecoder().decode(rewriteText(notes, rewriter(keys, "notes")).bytes ?? undefined)).toBe(
      "2\t2\tof theirs\n",
    );
  });

  it("is judged by what is gone now, also where as many rows went as came back", () => {
    const keys = erased();
    const notes = rewriter(keys, "notes");
    const row = utf8("1\t7\tof seven\n");
    keys.learn([oracle(entriesKey, ["8"])], [entriesKey]);
    expect(rewriteText(row, notes)).toMatchObject({ rows: 1, removed: 0 });
    keys.gone.delete(oracle(entriesKey, ["8"]));
    keys.learn([oracle(entriesKey, ["7"])], []);
    expect(rewriteText(row, notes)).toMatchObject({ rows: 0, removed: 1 });
    keys.gone.clear();
    expect(rewriteText(row, notes)).toMatchObject({ rows: 1, removed: 0 });
  });

  it("of nobody is not touched, and of one person alone nothing is left", () => {
    const keys = erased();
    expect(rewriteText(utf8(`1\t${other}\tx\t\\N\n`), rewriter(keys, "entries"))).toMatchObject({
      bytes: null,
      rows: 1,
    });
    expect(rewriteText(new Uint8Array(), rewriter(keys, "entries"))).toMatchObject({ bytes: null, rows: 0 });
    expect(rewriteText(utf8(`1\t${person}\tx\t\\N\n`), rewriter(keys, "entries"))).toMatchObject({
      rows: 0,
      removed: 1,
    });
  });

  it("is what a plain reading of the rules leaves, over random rows", () => {
    let seed = 42;
    const next = (below: number) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % below;
    const ids = [person, other, null];
    for (let round = 0; round < 50; round++) {
      const inLedger = new Set(Array.from({ length: 3 }, () => String(next(40))));
      const rows = Array.from({ length: 40 }, (_, at) => ({
        id: String(at),
        user: ids[next(3)] ?? null,
        body: ["tab\there", "line\nthere", "back\\slash", "plain", "ünï"][next(5)] ?? "",
        seen: ids[next(3)] ?? null,
      }));
      const field = (value: string | null) =>
        value === null ? "\\N" : value.replace(/\\/g, "\\\\").replace(/\t/g, "\\t").replace(/\n/g, "\\n");
      const textOf = (list: typeof rows) =>
        list.map((one) => [one.id, one.user, one.body, one.seen].map(field).join("\t") + "\n").join("");
      const left = rows.filter(({ id, user }) => !inLedger.has(id) && user !== person)
        .map((one) => one.seen === person ? { ...one, seen: null } : one);
      const keys = erased(...[...inLedger].map((id) => oracle(entriesKey, [id])));
      const done = rewriteText(utf8(textOf(rows)), rewriter(keys, "entries"));
      expect(new TextDecoder().decode(done.bytes ?? utf8(textOf(rows)))).toBe(textOf(left));
    }
  });
});

describe("what Auth logged", () => {
  it("stays as it happened, without the person", () => {
    const log: RemovalTable = {
      ...tableOf("users"),
      schema: "auth",
      name: "audit_log_entries",
      identities: [],
      ways: [],
    };
    const table = new TableRewriter(erased(), log, ["id", "payload", "ip_address"]);
    const payload = (id: string) =>
      JSON.stringify({
        action: "login",
        actor_id: id,
        actor_username: "a@b.c",
        traits: { user_id: other, user_email: "x" },
      });
    const text = [person, other].map((id, at) => `${at}\t${payload(id)}\t10.0.0.1\n`).join("");
    const done = rewriteText(utf8(text), table);
    const [first = "", second = ""] = new TextDecoder().decode(done.bytes ?? undefined).split("\n");
    expect(JSON.parse(first.split("\t")[1] ?? "")).toEqual({
      action: "login",
      actor_id: "erased",
      actor_username: "erased",
      traits: { user_id: other, user_email: "x" },
    });
    expect(first.split("\t")[2]).toBe("");
    expect(`${second}\n`).toBe(text.split("\n")[1] + "\n");
  });
});

describe("the change stream", () => {
  const relation = {
    oid: 7,
    schema: "public",
    name: "entries",
    identity: "default" as const,
    columns: columnsOf("entries").map((name, at) => ({ name, typeOid: 25, typeModifier: -1, isKey: at === 0 })),
  };
  const records = (messages: readonly Uint8Array[]) => {
    const buffer = new RecordBuffer();
    messages.forEach((data, at) => buffer.append(BigInt(at), 9, data));
    return buffer.bytes().slice();
  };
  const row = (id: string, user: string | null, seen: string | null = null) => [id, user, "body", seen];
  const messages = [
    encode({ kind: "relation", relation }),
    encode({ kind: "insert", relation: 7, row: row("1", person) }),
    encode({ kind: "insert", relation: 7, row: row("2", other, person) }),
    encode({ kind: "update", relation: 7, old: null, row: ["1", person, unchanged, null] }),
    encode({ kind: "delete", relation: 7, old: { what: "key", values: ["1", null, null, null] } }),
    encode({ kind: "delete", relation: 7, old: { what: "key", values: ["2", null, null, null] } }),
    encode({ kind: "delete", relation: 7, old: { what: "key", values: ["5", null, null, null] } }),
  ];

  it("loses the changes of rows that go, from their beginning to their end", () => {
    const keys = erased(oracle(entriesKey, ["5"]));
    const streamTables = new StreamTables((name) => name.name === "entries" ? rewriter(keys, "entries") : null);
    const done = rewriteRecords("s", records(messages), streamTables, keys);
    expect(done).toMatchObject({ removed: 4, changed: 1 });
    const left = [...readRecords("s", done.records ?? new Uint8Array())].map((
      { lsn, data },
    ) => [lsn, decodeMessage(data)]);
    expect(left).toEqual([
      [0n, { kind: "relation", relation }],
      [2n, { kind: "insert", relation: 7, row: row("2", other, null) }],
      [5n, { kind: "delete", relation: 7, old: { what: "key", values: ["2", null, null, null] } }],
    ]);
  });

  it("has a row begin where it becomes somebody else's, and end where it becomes the person's", () => {
    const keys = erased();
    keys.learn([oracle(entriesKey, ["1"])], [entriesKey]);
    const update = (values: ReturnType<typeof row>) => encode({ kind: "update", relation: 7, old: null, row: values });
    const given = [
      encode({ kind: "relation", relation }),
      update(row("1", person)),
      update(row("1", other)),
      update(row("3", person)),
      encode({ kind: "delete", relation: 7, old: { what: "key", values: ["3", null, null, null] } }),
    ];
    const done = rewriteRecords("s", records(given), new StreamTables(() => rewriter(keys, "entries")), keys);
    expect([...readRecords("s", done.records ?? new Uint8Array())].map(({ data }) => decodeMessage(data))).toEqual([
      { kind: "relation", relation },
      { kind: "insert", relation: 7, row: row("1", other) },
      { kind: "delete", relation: 7, old: { what: "key", values: ["3", null, null, null] } },
    ]);
    expect(keys.gone.hasHex(oracle(entriesKey, ["1"]))).toBe(false);
  });

  it("is written as the server writes it", () => {
    const changes: RowChange[] = [
      { kind: "insert" as const, relation: 70000, row: ["ä", null] },
      { kind: "update" as const, relation: 7, old: null, row: [unchanged, "", "x".repeat(70_000)] },
      { kind: "update" as const, relation: 7, old: { what: "row" as const, values: ["a", null] }, row: ["b", null] },
      { kind: "delete" as const, relation: 7, old: { what: "key" as const, values: ["a", null] } },
    ];
    for (const message of changes) {
      expect(Buffer.from(encodeChange(message)).equals(Buffer.from(encode(message)))).toBe(true);
    }
  });
});

const entry = (number: number, erasure: string, more: Partial<LedgerEntry> = {}): LedgerEntry => ({
  number,
  erasure,
  at: "2026-11-23T00:00:00Z",
  map: emptyMap,
  rows: [],
  hashes: [],
  ...more,
});

describe("what is to be rewritten", () => {
  const at = (day: number) => new Date(Date.UTC(2026, 10, day));
  const backup = (name: string, day: number, through = 0, hold: string | null = null) => ({
    name,
    consistentAt: at(day),
    through,
    hold,
  });

  it("is what is from before an erasure and was not rewritten for it; what is held waits", () => {
    const ledger = [entry(1, "a"), entry(2, "a", { rewritten: [] }), entry(3, "b")];
    const erasures = [{ id: "a", searchedAt: at(5) }, { id: "b", searchedAt: at(10) }];
    const plan = planRewriting(ledger, erasures, [
      backup("old", 1),
      backup("done", 1, 3),
      backup("for a", 1, 1),
      backup("between", 7),
      backup("after", 11),
      backup("held", 2, 1, "a court"),
    ]);
    expect(plan.backups.map((one) => [one.backup.name, one.entries.map(({ number }) => number)])).toEqual([
      ["old", [1, 3]],
      ["for a", [1, 3]],
      ["between", [3]],
    ]);
    expect(plan.held.map(({ backup: { name }, reason }) => [name, reason])).toEqual([["held", "a court"]]);
    expect(plan).toMatchObject({ through: 3, waiting: ["b"] });
  });

  it("is everything, for an erasure of which the database knows nothing", () => {
    expect(planRewriting([entry(1, "a")], [], [backup("x", 30)]).backups).toHaveLength(1);
    expect(planRewriting([], [], [backup("x", 30)])).toEqual({ backups: [], held: [], through: 0, waiting: [] });
  });
});

describe("what stands under a name", () => {
  const name = "v1/changes/a/1";
  const hash = "a".repeat(64);
  const ledger = [entry(1, "a"), entry(2, "a", { rewritten: [{ name, revision: 2, hash }] })];
  const refused = async (storedHash: string, rewritten?: { revision: number; through: number }) =>
    await failureOf(() =>
      Promise.resolve().then(() => refuseUnlawful(ledger, listedIn(ledger), { name, storedHash, rewritten }))
    );

  it("is what the ledger lists or a later revision, and nothing else", async () => {
    const listed = listedIn(ledger);
    refuseUnlawful(ledger, listed, { name, storedHash: hash, rewritten: { revision: 2, through: 1 } });
    refuseUnlawful(ledger, listed, { name, storedHash: "b", rewritten: { revision: 3, through: 2 } });
    refuseUnlawful(ledger, listed, { name: "another", storedHash: "b", rewritten: undefined });
    expect(await refused(hash)).toMatchObject({ code: "rewrite_unlawful" });
    expect(await refused("b", { revision: 1, through: 1 })).toMatchObject({ code: "rewrite_unlawful" });
    expect(await refused("b", { revision: 2, through: 1 })).toMatchObject({ code: "rewrite_unlawful" });
    // Nobody was erased for it.
    expect(await refused(hash, { revision: 2, through: 3 })).toMatchObject({ code: "rewrite_unlawful" });
  });
});

describe("the segments of a chain", () => {
  const segment = (start: number, end: number, part = 0) => {
    const place = { chain: "c", startLsn: BigInt(start), endLsn: BigInt(end), part };
    return { ...place, name: segmentName(place), size: 1 };
  };
  const [one, short, long, large, larger, largest, last] = [
    segment(1, 2),
    segment(2, 3),
    segment(2, 4),
    segment(4, 9),
    segment(4, 9, 1),
    segment(4, 9, 2),
    segment(9, 10),
  ];
  const all = [last, largest, larger, large, long, short, one];
  const names = (...ranges: { name: string }[][]) => ranges.map((range) => range.map(({ name }) => name));

  it("come in their order, the parts of a range together, and not again behind where one was broken off", () => {
    expect(rangesToRewrite(all, null, () => false)).toEqual(
      names([one], [short], [long], [large, larger, largest], [last]).map((own) => ({ names: own, told: 0 })),
    );
    // Of a range that is begun all parts are read: the first ones describe the tables of the others.
    expect(rangesToRewrite(all, larger.name, () => false)).toEqual([
      { names: names([large, larger, largest])[0], told: 2 },
      { names: names([last])[0], told: 0 },
    ]);
    expect(rangesToRewrite(all, null, (name) => name === one.name || name === large.name)).toEqual([
      ...names([short], [long]).map((own) => ({ names: own, told: 0 })),
      { names: names([large, larger, largest])[0], told: 1 },
      { names: names([last])[0], told: 0 },
    ]);
    expect(rangesToRewrite(all, last.name, () => false)).toEqual([]);
  });
});

describe("a row as JSON text", () => {
  it("has other values at its top alone, as a parser reads it, and all else byte by byte", () => {
    const texts = ['a "b" \\\\', "{}", ",", "\u0000é", "]"];
    for (let seed = 0; seed < 500; seed++) {
      const pick = (n: number) => (seed * 7919 + n * 104729) % 5;
      const inner = { b: texts[pick(1)], c: [texts[pick(2)], { b: 1 }], d: null };
      const row = {
        [texts[pick(3)] ?? ""]: inner,
        b: [null, 1.5, texts[pick(4)], inner, true][pick(5)],
        "ü": texts[pick(6)],
      };
      const spaced = JSON.stringify(row, null, pick(7));
      const value = seed % 2 === 0 ? null : texts[pick(8)] ?? "";
      expect(JSON.parse(withColumns(spaced, new Map([["b", value]])))).toEqual({ ...row, b: value });
      expect(withColumns(spaced, new Map([["z", null]]))).toBe(spaced);
    }
    expect(withColumns('{"n": 1e400, "b": {"x": [1]}, "b": 2}', new Map([["b", null]]))).toBe(
      '{"n": 1e400, "b": null, "b": null}',
    );
  });
});

describe("a list of files", () => {
  const objects: Graph = {
    tables: [
      { schema: "auth", name: "users", columns: [column("id", true)], key: ["id"], partitions: [] },
      {
        schema: "storage",
        name: "objects",
        columns: [column("id", true), column("bucket_id"), column("name"), column("owner"), column("owner_id")],
        key: ["id"],
        partitions: [],
      },
    ],
    edges: [],
  };
  const table = planRemoval(objects, emptyMap).flatMap(({ tables: own }) => own).find(({ name }) => name === "objects");
  const file = (id: string, owner: string | null, more = "") => ({
    bucket: "notes",
    name: `n ${id}`,
    id,
    size: 1,
    inSnapshot: false,
    missed: null,
    parts: [{
      object: `v1/blobs/aa/${"a".repeat(63)}${id.at(-1)}`,
      rawBytes: 1,
      storedBytes: 1,
      hash: "a".repeat(64),
      storedHash: "a".repeat(64),
    }],
    row: `{"id": "${id}", "name": "n ${id}", "owner_id": ${owner === null ? "null" : `"${owner}"`}${more}}`,
  });

  it("loses the person's files, by their owner and by their key, and nobody else's", () => {
    const id = (n: number) => `00000000-0000-4000-8000-00000000000${n}`;
    const files = [file(id(1), person), file(id(2), other), file(id(3), null), file(id(4), other)];
    const key: Identity = { schema: "storage", name: "objects", columns: ["id"] };
    const keys = new ErasedKeys([hashKey], [oracle(usersIdentity, [person]), oracle(key, [id(4)])], [
      usersIdentity,
      key,
    ]);
    if (table === undefined) throw new Error("there is no table");
    const done = rewriteList(files, table, keys);
    expect(done.kept).toEqual([files[1], files[2]]);
    expect([done.removed, done.parts.length]).toEqual([2, 2]);
    expect(done.terms.map(({ kind, text }) => [kind, text])).toEqual(
      expect.arrayContaining([["id", person], ["file name", `n ${id(1)}`]]),
    );
    // Of two users that a row names one is gone: the row stays, and every digit of it.
    const both = file(
      id(5),
      other,
      `, "owner": "${person}", "user_metadata": {"owner": "${person}", "n": 12345678901234567890}`,
    );
    expect(rewriteList([both], table, keys).kept).toEqual([
      { ...both, row: both.row.replace(`"owner": "${person}", "user`, '"owner": null, "user') },
    ]);
    expect(rewriteList(done.kept, table, keys)).toMatchObject({ plaintext: null, removed: 0, parts: [] });
  });
});
