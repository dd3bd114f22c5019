/** What files are called in a folder or an archive, and that stock tar reads it. */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { filesContents, type FilesMark } from "../../src/shared/download/files_contents.ts";
import type { FilePart, ListedFile } from "../../src/shared/format/file_list.ts";
import { parseFilesNamed } from "../../src/shared/files/files_named.ts";
import { openProjectFiles } from "../../src/shared/files/project_files.ts";
import { folderName, folderNames } from "../../src/shared/files/folder_names.ts";

const named = (name: string, bucket = "notes") => ({ id: randomUUID(), bucket, name });
const nfc = "caf\u00e9";
const nfd = "cafe\u0301";

describe("the name of a file in a folder", () => {
  it.each(["a", "a b", ".hidden", "100%.webm", "q?x=1&y=2", "deep/er/one", nfc, nfd, "日本/\u{1F600}", "-rf", "~"])(
    "is its own: %s",
    (name) => expect(folderName(named(name))).toBe(`notes/${name}`),
  );

  it.each(["..", "../../etc/passwd", "a/../b", "a//b", "/a", "a/", ".", "a\\b", "a\nb", "a\u007fb"])(
    "is one that leads nowhere else: %j",
    (name) => {
      const path = folderName(named(name));
      expect(path).toBe(`odd-names/${encodeURIComponent(`notes/${name}`)}`);
      expect(path.split("/").length).toBe(2);
    },
  );

  it("is the file's id where it is too long", () => {
    const file = named(`x${"ä".repeat(150)}/..`);
    expect(folderName(file)).toBe(`odd-names/${file.id}`);
    expect(folderName(named("x".repeat(201)))).toMatch(/^odd-names\/[0-9a-f-]{36}$/);
  });

  it("is nobody else's, whatever the file system takes for the same", () => {
    const files = ["a", "a/b", "A", nfc, nfd, "é/x", "..", "%2E%2E", "Straße", "b"].map((name) => named(name));
    files.push(named("notes%2Fa", "odd-names"), named("a", "Notes"));
    const names = folderNames(files);
    expect(new Set(names.map((name) => name.normalize("NFKC").toLowerCase())).size).toBe(files.length);
    expect([names[1], names[9]]).toEqual(["notes/a/b", "notes/b"]);
    for (const name of names) for (const other of names) expect(other.startsWith(`${name}/`)).toBe(false);
  });
});

describe("the address of a file in Storage", () => {
  const asked: string[] = [];
  const files = openProjectFiles({ projectUrl: "https://ref.supabase.co/", serviceKey: "sb_secret_x" }, (url) => {
    asked.push(url);
    return Promise.resolve(new Response("abc", { status: 200 }));
  });
  const read = (name: string) =>
    files.read({ bucket: "notes", name, version: "v 1", etag: null, from: 0, to: 3, whole: true });

  it.each([["100%", "100%25"], ["a b/c#?d", "a%20b/c%23%3Fd"], [nfc, "caf%C3%A9"], [nfd, "cafe%CC%81"], [".x", ".x"], [
    "...",
    "...",
  ]])(
    "has each of its signs: %s",
    async (name, path) => {
      await read(name);
      expect(asked.at(-1)).toBe(`https://ref.supabase.co/storage/v1/object/notes/${path}?version=v%201`);
      expect(new URL(asked.at(-1) ?? "").pathname).toBe(`/storage/v1/object/notes/${path}`);
    },
  );

  it.each(["..", "a/../b", ".", "./a"])("is none for a name that would be resolved on the way: %s", async (name) => {
    const before = asked.length;
    await expect(read(name)).rejects.toMatchObject({ code: "object_missing" });
    expect(asked.length).toBe(before);
  });
});

it("a wish names a file, a bucket or all", () => {
  expect(parseFilesNamed("notes/a/b")).toEqual({ bucket: "notes", name: "a/b" });
  expect(parseFilesNamed("notes/")).toEqual({ bucket: "notes", name: null });
  expect(parseFilesNamed("all")).toEqual({ bucket: null, name: null });
  expect([parseFilesNamed("notes"), parseFilesNamed("/a"), parseFilesNamed("")]).toEqual([null, null, null]);
});

describe("files on their way out", () => {
  const contents = new Map<string, Uint8Array>();
  const part = (bytes: Uint8Array): FilePart => {
    const hash = createHash("sha256").update(bytes).digest("hex");
    contents.set(hash, bytes);
    return { object: "", rawBytes: bytes.byteLength, storedBytes: 0, hash, storedHash: hash };
  };
  const file = (name: string, parts: readonly Uint8Array[], missed: ListedFile["missed"] = null): ListedFile => ({
    ...named(name),
    size: parts.reduce((sum, bytes) => sum + bytes.byteLength, 0),
    inSnapshot: true,
    missed,
    parts: parts.map(part),
    row: JSON.stringify({ updated_at: "2024-06-07T08:09:10.654321+00:00" }),
  });
  const contentOf = ({ parts }: ListedFile) =>
    Buffer.concat(parts.map(({ hash }) => contents.get(hash) ?? new Uint8Array(0)));
  const long = `${"folder-of-some-length/".repeat(6)}${"n".repeat(120)}`;
  const lists = [
    [file("a b", [randomBytes(700)]), file("gone", [], "changed"), file("empty", [])],
    [],
    [file(nfd, [randomBytes(1024), randomBytes(100)]), file(long, [randomBytes(513)]), file("../up", [randomBytes(5)])],
  ];
  const source = {
    backup: "692d9696-d7f3-434a-9968-830fcb2656d4",
    at: "2026-11-23T10:00:00Z",
    lists: lists.map((files) => ({
      files: files.length,
      rawBytes: 1,
      contentBytes: 1,
      read: () => Promise.resolve(files),
    })),
    part: ({ hash }: FilePart) => Promise.resolve(contents.get(hash) ?? new Uint8Array(0)),
    ledger: { entries: [], keys: [] },
  };

  /** All bytes, with a new process for each step where `legs`. */
  async function sent(wanted: string, legs: boolean): Promise<Uint8Array> {
    const asked = parseFilesNamed(wanted) ?? { bucket: null, name: null };
    const pieces: Uint8Array[] = [];
    let mark: FilesMark | null = null;
    for (let isOver = false; !isOver;) {
      const { steps, markSchema } = filesContents(source, asked);
      isOver = true;
      for await (const step of steps(mark)) {
        for (const piece of step.pieces) pieces.push(piece);
        mark = markSchema.parse(JSON.parse(JSON.stringify(step.mark())));
        if (legs) {
          isOver = false;
          break;
        }
      }
    }
    return Buffer.concat(pieces);
  }

  it("are an archive that stock tar unpacks, byte for byte, whatever their names", async () => {
    const folder = mkdtempSync(join(tmpdir(), "holdfast-tar-"));
    try {
      const archive = await sent("notes/", false);
      expect(Buffer.compare(await sent("notes/", true), archive)).toBe(0);
      writeFileSync(join(folder, "files.tar"), archive);
      execFileSync("tar", ["-xf", "files.tar"], { cwd: folder });
      for (const one of lists.flat()) {
        const path = join(folder, folderName(one));
        if (one.missed !== null) expect(() => statSync(path)).toThrow();
        else {
          expect(readFileSync(path).equals(contentOf(one))).toBe(true);
          expect(statSync(path).mtime.toISOString()).toBe("2024-06-07T08:09:10.000Z");
        }
      }
      expect(readdirSync(folder).sort()).toEqual(["about.json", "files.tar", "notes", "odd-names"]);
      expect(JSON.parse(readFileSync(join(folder, "about.json"), "utf8"))).toEqual({
        backup: source.backup,
        at: source.at,
        bucket: "notes",
        files: 5,
        missed: 1,
        erased: 0,
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("are the file itself where one is named, in one leg or in several", async () => {
    const [first] = lists[2] ?? [];
    const expected = first === undefined ? Buffer.alloc(0) : contentOf(first);
    expect(expected.byteLength).toBe(1124);
    for (const legs of [false, true]) expect(expected.equals(await sent(`notes/${nfd}`, legs))).toBe(true);
    expect((await sent("notes/empty", true)).byteLength).toBe(0);
  });

  it("are refused where one is named that is not there, or has no content", async () => {
    await expect(sent("notes/none", true)).rejects.toMatchObject({ code: "not_found" });
    await expect(sent(`notes/${nfc}`, false)).rejects.toMatchObject({ code: "not_found" });
    await expect(sent("notes/gone", true)).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining("no content") as string,
    });
  });
});
