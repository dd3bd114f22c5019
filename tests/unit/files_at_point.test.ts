import { describe, expect, it } from "vitest";
import { type FileChanges, SeenFiles } from "../../src/shared/changes/plan/file_changes.ts";
import { type Relation, unchanged, type Value } from "../../src/shared/changes/decode/messages.ts";
import { filesAtPoint } from "../../src/shared/files/files_at_point.ts";
import type { ListedFile } from "../../src/shared/format/file_list.ts";
import { encode } from "./changes_encoder.ts";

const columns = ["id", "bucket_id", "name", "owner_id", "version", "metadata", "user_metadata", "path_tokens"] as const;
const relation: Relation = {
  oid: 7,
  schema: "storage",
  name: "objects",
  identity: "default",
  columns: columns.map((name) => ({
    name,
    typeOid: name.endsWith("metadata") ? 3802 : 25,
    typeModifier: -1,
    isKey: name === "id",
  })),
};

function valuesOf(id: string, name: string, version: string, more: Record<string, Value> = {}): Value[] {
  const row: Record<string, Value> = {
    id,
    bucket_id: "notes",
    name,
    owner_id: null,
    version,
    metadata: `{"size": 3, "eTag": "\\"${version}\\""}`,
    user_metadata: null,
    path_tokens: "{a}",
    ...more,
  };
  return columns.map((column) => row[column] ?? null);
}

function seen(
  ...changes: readonly (
    | readonly ["insert" | "update", Value[]]
    | readonly ["delete", string]
    | readonly ["truncate"]
    | readonly ["renamed", string, Value[]]
  )[]
): FileChanges {
  const files = new SeenFiles();
  files.relation(relation);
  const key = (id: string): Value[] => columns.map((column) => column === "id" ? id : null);
  for (const [what, ...rest] of changes) {
    if (what === "truncate") {
      files.change(null, encode({ kind: "truncate", relations: [3, 7], cascade: false, restartIdentity: false }));
      continue;
    }
    const data = what === "delete"
      ? encode({ kind: "delete", relation: 7, old: { what: "key", values: key(rest[0] as string) } })
      : what === "renamed"
      ? encode({
        kind: "update",
        relation: 7,
        old: { what: "key", values: key(rest[0] as string) },
        row: rest[1] as Value[],
      })
      : what === "insert"
      ? encode({ kind: "insert", relation: 7, row: rest[0] as Value[] })
      : encode({ kind: "update", relation: 7, old: null, row: rest[0] as Value[] });
    files.change(7, data);
  }
  return files.changes;
}

const part = (n: number) => ({
  object: `v1/blobs/aa/aa${String(n).padStart(62, "0")}`,
  rawBytes: 3,
  storedBytes: 80,
  hash: "0".repeat(64),
  storedHash: "1".repeat(64),
});

function listed(
  id: string,
  name: string,
  version: string,
  n: number | null,
  more: Partial<ListedFile> = {},
): ListedFile {
  return {
    bucket: "notes",
    name,
    id,
    size: 3,
    inSnapshot: true,
    missed: n === null ? "changed" : null,
    parts: n === null ? [] : [part(n)],
    row:
      `{"id": "${id}", "name": "${name}", "version": "${version}", "metadata": {"size": 3, "eTag": "\\"${version}\\""}, ` +
      `"bucket_id": "notes", "user_metadata": {"n": 12345678901234567890}}`,
    ...more,
  };
}

const nothing = seen();
const at = (base: ListedFile[], changes: FileChanges, copied: ListedFile[] = [], leftOut: string[] = []) =>
  filesAtPoint(base, changes, copied, leftOut).map(({ id, name, missed, parts }) => [
    id,
    name,
    missed ?? parts.map(({ object }) => Number(object.slice(-3))),
  ]);

describe("the files of a moment", () => {
  it("are those of the full where nothing changed, without what came after its snapshot", () => {
    const base = [listed("a", "a", "1", 1), listed("b", "b", "2", 2, { inSnapshot: false })];
    expect(at(base, nothing)).toEqual([["a", "a", [1]]]);
  });

  it("have the content of the version that the stream tells, wherever it was listed", () => {
    const base = [listed("a", "a", "1", 1), listed("b", "b", "2", 2)];
    const changes = seen(["update", valuesOf("a", "a", "9")], ["insert", valuesOf("c", "c", "3")], ["delete", "b"]);
    const copied = [listed("a", "a", "9", 9, { inSnapshot: false }), listed("c", "c", "3", 3, { inSnapshot: false })];
    expect(at(base, changes, copied)).toEqual([["a", "a", [9]], ["c", "c", [3]]]);
    expect(at(base, changes, copied.slice(1))).toEqual([["a", "a", "changed"], ["c", "c", [3]]]);
    // The version that was put over it, or the same version of another file, is no stand-in.
    expect(at(base, seen(["insert", valuesOf("d", "d", "3")]), copied).at(-1)).toEqual(["d", "d", "changed"]);
  });

  it("keep their content where only the row changed, under a new name too", () => {
    const base = [listed("a", "a", "1", 1)];
    expect(at(base, seen(["update", valuesOf("a", "renamed", "1")]))).toEqual([["a", "renamed", [1]]]);
    expect(at(base, seen(["renamed", "a", valuesOf("z", "z", "1")]))).toEqual([["z", "z", "changed"]]);
  });

  it("have what the full missed where it was copied later", () => {
    const base = [listed("a", "a", "1", null)];
    expect(at(base, nothing)).toEqual([["a", "a", "changed"]]);
    expect(at(base, nothing, [listed("a", "a", "1", 5, { inSnapshot: false })])).toEqual([["a", "a", [5]]]);
  });

  it("are none that were emptied away, came and went, or lie in our buckets and those left out", () => {
    const base = [listed("a", "a", "1", 1)];
    expect(at(base, seen(["truncate"]))).toEqual([]);
    expect(at(base, seen(["insert", valuesOf("b", "b", "2")], ["truncate"]))).toEqual([]);
    expect(at([], seen(["insert", valuesOf("b", "b", "2")], ["delete", "b"]))).toEqual([]);
    const elsewhere = seen(
      ["insert", valuesOf("x", "x", "1", { bucket_id: "data-exports" })],
      ["insert", valuesOf("y", "y", "1", { bucket_id: "unwanted" })],
    );
    expect(at([], elsewhere, [], ["unwanted"])).toEqual([]);
  });

  it("have the row of the moment, with what an update left out of line as it was, digit by digit", () => {
    const base = [listed("a", "a", "1", 1)];
    const row = valuesOf("a", "a", "1", { user_metadata: unchanged, owner_id: 'f3 "x"' });
    const [file] = filesAtPoint(base, seen(["update", row]), [], []);
    expect(file?.row).toContain("12345678901234567890");
    expect(JSON.parse(file?.row ?? "")).toMatchObject({ owner_id: 'f3 "x"', bucket_id: "notes", version: "1" });
    expect(JSON.parse(file?.row ?? "")).not.toHaveProperty("path_tokens");
    const twice = seen(
      ["insert", valuesOf("n", "n", "1", { user_metadata: '{"m": 98765432109876543210}' })],
      ["update", valuesOf("n", "n", "2", { user_metadata: unchanged })],
    );
    const [later] = filesAtPoint([], twice, [], []);
    expect(later?.row).toContain("98765432109876543210");
    expect(JSON.parse(later?.row ?? "")).toMatchObject({ version: "2" });
  });
});
