/** Rows of storage.objects against the lists of files: orphans either way are told, whatever divides the work. */
import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { ListedFile } from "../../src/shared/format/file_list.ts";
import type { Manifest } from "../../src/shared/format/manifest.ts";
import { addTallies, FileRows, rowsProblem } from "../../src/shared/verify/file_rows.ts";

const chunks = ["v1/objects/aa/1", "v1/objects/aa/2"];
const manifest = {
  id: "692d9696-d7f3-434a-9968-830fcb2656d4",
  createdAt: "2026-11-23T10:00:00Z",
  tiers: ["daily"],
  tables: [{
    schema: "storage",
    name: "objects",
    columns: ["bucket_id", "owner", "id", "name"].map((name) => ({ name, type: "text" })),
    chunks: chunks.map((object) => ({ object })),
  }],
  files: {
    leftOut: ["unwanted"],
    buckets: ["notes", "unwanted", "a b"].map((id) => JSON.stringify({ id, name: id })),
    lists: [],
  },
} as unknown as Manifest;

const row = (id: string, bucket = "notes", name = "a\\tb") => `${bucket}\t\\N\t${id}\t${name}\n`;
const text = (rows: readonly string[]) => new TextEncoder().encode(rows.join(""));
const file = (id: string, more: Partial<ListedFile> = {}): ListedFile => ({
  bucket: "notes",
  name: "a",
  id,
  size: 0,
  inSnapshot: true,
  missed: null,
  parts: [],
  row: "{}",
  ...more,
});

describe("files of a backup", () => {
  const ids = Array.from({ length: 9 }, () => randomUUID());
  const rows = new FileRows(manifest);
  const tallied = (given: readonly string[], files: readonly ListedFile[]) =>
    rowsProblem(
      manifest,
      addTallies([
        rows.chunk(chunks[0] ?? "", text(given.slice(0, 4).map((id) => row(id)))),
        rows.list(files.slice(0, 5)),
        rows.chunk("v1/objects/bb/3", text([row(randomUUID())])),
        rows.list(files.slice(5)),
        rows.chunk(chunks[1] ?? "", text(given.slice(4).map((id) => row(id)))),
      ]),
    );

  it("are those of its rows, in whatever order they come", () => {
    expect(tallied(ids, [...ids].reverse().map((id) => file(id)))).toBeNull();
    expect(rows.chunk(chunks[0] ?? "", text([row(ids[0] ?? "", "a b")]))).toMatchObject({ rows: 1 });
  });

  it("are counted without buckets that are left out, without rows of no name, and without later versions", () => {
    const others = text([row(randomUUID(), "unwanted"), row(randomUUID(), "gone"), row(randomUUID(), "notes", "\\N")]);
    expect(rows.chunk(chunks[0] ?? "", others)).toMatchObject({ rows: 0, rowsMark: 0 });
    const [first = "", ...more] = ids;
    const files = [
      file(first, { missed: "changed" }),
      file(first, { inSnapshot: false }),
      file(more[0] ?? "", { missed: "unreadable" }),
      ...more.slice(1).map((id) => file(id)),
    ];
    expect(rows.list(files)).toMatchObject({ listed: 9, withoutContent: 2, withoutRow: 1 });
    expect(tallied(ids, files)).toBeNull();
  });

  it.each([
    ["a row that no list names", (): string[] => ids.slice(1)],
    ["an entry without its row", () => [...ids, randomUUID()]],
    ["another file in the place of one", () => [...ids.slice(1), randomUUID()]],
  ])("that lack their counterpart are a problem: %s", (_, listed) => {
    expect(tallied(ids, listed().map((id) => file(id)))).toMatchObject({
      object: "v1/backups/20261123T100000Z-daily-692d9696-d7f3-434a-9968-830fcb2656d4/manifest",
      code: "counts_differ",
    });
  });

  it("are nobody's question where a backup says nothing of files", () => {
    const silent = new FileRows({ ...manifest, files: null });
    expect(silent.chunk(chunks[0] ?? "", text([row(ids[0] ?? "")]))).toMatchObject({ rows: 0 });
  });
});
