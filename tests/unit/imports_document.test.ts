/** The reader of documents, against JSON.parse of the whole. */
import { Buffer } from "node:buffer";
import { describe, expect, it } from "vitest";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import { blockBytes } from "../../src/shared/export/document_format.ts";
import { copyText } from "../../src/shared/import/lay_document.ts";
import { readDocument } from "../../src/shared/import/read_document.ts";

const id = "6f1c8c7e-4444-4c4e-9c36-5f1f4a1f7a01";
const column = (name: string) => ({ name, type: "text", form: "text", description: null });
const table = (name: string, rows: readonly string[], more: object = {}) => {
  const head = {
    schema: "app",
    table: name,
    description: 'with "rows":[ in its words',
    why: "theirs",
    key: null,
    columns: [column("a"), column("b")],
    withheld: [],
    rowCount: rows.length,
    ...more,
  };
  return `${JSON.stringify(head).slice(0, -1)},"rows":[\n${rows.join(",\n")}\n]}`;
};
const awkward = [
  String.raw`{"row":{"a":"}]{[\"\\","b":null}}`,
  `{"row":{"a":{"rows":[{"row":1},[2]],"x":[]},"b":[1,\n\t2]},"marks":{"b":"json null"}}`,
  `{"row":{"a":1234567890123456789012345678901234567890.10,"b":"€😀"}}`,
];

function documentOf(tables: readonly string[], more: object = {}): string {
  const head = {
    format: "holdfast-export",
    version: 1,
    purpose: "for the person",
    id,
    install: id,
    project: null,
    user: id,
    consistentAt: "2024-01-09T12:00:00Z",
    timeZone: "UTC",
  };
  const rest = {
    leftOut: { shared: [], withheld: [], noPath: [], notFollowed: [], suspects: [] },
    files: [],
    ...more,
  };
  return `${JSON.stringify(head, null, 1).replace(/\n\}$/, "")},\n "tables": [\n${tables.join(",\n")}\n],\n${
    JSON.stringify(rest).slice(1, -1)
  }`;
}

const signature = {
  algorithm: "Ed25519" as const,
  keyId: "k",
  publicKey: "p",
  blockBytes,
  root: "0".repeat(64),
  value: "v",
};

/** As if it had been verified; `later`: what is there when it is read. */
async function read(text: string, later = text) {
  const bytes = Buffer.from(text);
  const whole = Buffer.from(
    `${later},"signature":${JSON.stringify({ ...signature, signedBytes: bytes.byteLength })}}\n`,
  );
  const hashes: string[] = [];
  for (let at = 0; at < bytes.byteLength; at += blockBytes) {
    hashes.push(await sha256Hex(bytes.subarray(at, at + blockBytes)));
  }
  const found: { table: string; rows: string[] }[] = [];
  const document = await readDocument(
    {
      bytes: whole.byteLength,
      read: (from, to) => Promise.resolve(new Uint8Array(whole.subarray(from, to))),
      signature: { ...signature, signedBytes: bytes.byteLength, hashes },
    },
    {
      table: (one) => Promise.resolve(void found.push({ table: one.table, rows: [] })),
      row: (row) => Promise.resolve(void found.at(-1)?.rows.push(Buffer.from(row).toString())),
    },
  );
  return { document, found };
}

const codeOf = (work: Promise<unknown>) => work.then(() => "none", (error: { code: string }) => error.code);

describe("a document", () => {
  it("is read row by row, each as it stands there, whatever is in it", async () => {
    const { document, found } = await read(
      documentOf([table("one", awkward), table("none", []), table("two", awkward.slice(1))]),
    );
    expect(found).toEqual([{ table: "one", rows: awkward }, { table: "none", rows: [] }, {
      table: "two",
      rows: awkward.slice(1),
    }]);
    expect(document.tables.map(({ table, rows, rowCount }) => [table, rows, rowCount])).toEqual([["one", [], 3], [
      "none",
      [],
      0,
    ], ["two", [], 2]]);
  });

  it("of several blocks has rows and letters over their ends", async () => {
    const long = `{"row":{"a":"${"€".repeat(3 * 1024 * 1024)}","b":null}}`;
    const { found } = await read(documentOf([table("one", [long, ...awkward, long])]));
    expect(found[0]?.rows.map((row) => row === long)).toEqual([true, false, false, false, true]);
  });

  it("is refused where it is not of its schema, with the place", async () => {
    const wrong = [
      [table("one", awkward, { rowCount: 2 })],
      [table("one", awkward, { surplus: 1 })],
      [table("one", [`{"row":{"c":1}}`])],
      [table("one", [`{"row":{"a":1},"marks":{"a":"odd"}}`])],
      [table("one", [`{"row":{"a":1}} {"row":{"a":1}}`])],
      [table("one", [`{"rows":{"a":1}}`])],
    ];
    for (const tables of wrong) expect(await codeOf(read(documentOf(tables))), tables[0]).toBe("payload_invalid");
    expect(await codeOf(read(documentOf([], { files: [{}] })))).toBe("payload_invalid");
    expect(await codeOf(read(documentOf([table("one", awkward)]).slice(0, -20)))).toBe("payload_invalid");
  });

  it("is refused where it was changed between its proof and its reading", async () => {
    const text = documentOf([table("one", awkward)]);
    expect(await codeOf(read(text, text.replace("theirs", "others")))).toBe("export_unsigned");
  });
});

describe("rows on their way to the server", () => {
  it("are a line each, with what COPY would take for its own written otherwise", () => {
    const text = Buffer.from(copyText(awkward.map((row) => Buffer.from(row)))).toString();
    const lines = text.split("\n").slice(0, -1);
    const letters: Record<string, string> = { n: "\n", t: "\t", r: "\r", "\\": "\\" };
    expect(lines.map((line) => line.replace(/\\(.)/g, (_, letter: string) => letters[letter] ?? "?"))).toEqual(awkward);
  });
});
