/** What a download holds, against what the server itself writes, and what it reads back. */
import { Buffer } from "node:buffer";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open as openFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  archiveNames,
  type DownloadFormat,
  fileNameOf,
  type NamedTable,
  type PlainFormat,
} from "../../src/shared/download/format.ts";
import { namedTable, openContents, plainContents } from "../../src/shared/download/open_contents.ts";
import { crc32, zipDescriptor, zipEnd, zipHeader } from "../../src/shared/download/zip.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { openBackupRows } from "../../src/shared/rows/past/backup_rows.ts";
import type { PastRows, PastTable } from "../../src/shared/rows/past/past.ts";
import { quoteIdent, quoteQualified } from "../../src/shared/schema/quote.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import type { ReadDeps } from "../../src/shared/verify/find_backup.ts";
import { corpusFiles, loadCorpus } from "../corpus/load.ts";
import { type Cluster, clusterMs, query, startTestCluster } from "../support/cluster.ts";
import { bytesInLegs, bytesOf, hostileSql } from "./download_fixture.ts";
import { databaseOf, writeBackup, type WrittenBackup } from "./restore_fixture.ts";

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "holdfast-download-"));
let source: Cluster;
let backup: WrittenBackup;
let deps: ReadDeps;
let server: Connection;
let rowsOfThen: PastRows;
let tables: readonly PastTable[];
let partitioned: ReadonlySet<string>;

beforeAll(async () => {
  source = await startTestCluster();
  const postgres = await databaseOf(source).connect("corpus");
  const superuser = await databaseOf(source, source.superuser).connect("corpus");
  expect(await loadCorpus({ postgres, superuser })).toEqual(await corpusFiles());
  await postgres.execute(hostileSql);
  await postgres.close();
  await superuser.close();
  const store = createFileStore(join(folder, "store"));
  mkdirSync(join(folder, "store"));
  backup = await writeBackup(databaseOf(source, source.superuser), store);
  deps = { store, ring: backup.ring, compressor: await loadZstd() };
  rowsOfThen = await openBackupRows(deps, backup.id);
  tables = rowsOfThen.tables;
  partitioned = new Set(rowsOfThen.graph.tables.filter((one) => one.partitions.length > 0).map((one) => label(one)));
  server = await databaseOf(source, source.superuser).connect("oracle");
  await server.execute(
    `set search_path = ''; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC';
     set extra_float_digits = 3; set bytea_output = 'hex'; set lc_monetary = 'C'; set xmloption = 'content';
     set xmlbinary = 'base64'; set session_replication_role = replica`,
  );
}, clusterMs);

afterAll(async () => {
  await server?.close();
  await source?.destroy();
  rmSync(folder, { recursive: true, force: true });
}, clusterMs);

const label = ({ schema, name }: NamedTable) => quoteQualified(schema, name);
const listOf = (table: PastTable) => table.columns.map(({ name }) => quoteIdent(name)).join(", ");
const open = (table: NamedTable | null, format: DownloadFormat) =>
  openContents(deps, null, { backup: backup.id, table, format, files: null }, { ahead: false });
/** The same without reading manifest and capture again. */
const plain = (table: NamedTable | null, format: PlainFormat) => plainContents(rowsOfThen, table, format);
const stored = () => tables.filter((table) => !partitioned.has(label(table)));

async function copied(sql: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  await server.copyOut(sql, (bytes) => void parts.push(Buffer.from(bytes)));
  return Buffer.concat(parts);
}

/** Of every row, as the server writes it, whatever their order. */
async function hashOf(relation: string, list: string): Promise<string> {
  const [row] = await server.query(hashSql(relation, list));
  return row?.["hash"] ?? "";
}

describe("csv", () => {
  it("of every table of the corpus is, byte for byte, what COPY … (FORMAT csv, HEADER) writes", async () => {
    let [rows, several] = [0, 0];
    for (const table of stored()) {
      const list = listOf(table);
      const expected = await copied(
        `copy (select ${list} from only ${label(table)}) to stdout (format csv, header)`,
      );
      const found = await bytesOf(plain(table, "csv"));
      expect(found.equals(expected), `${label(table)}:\n${found.subarray(0, 400)}\n---\n${expected.subarray(0, 400)}`)
        .toBe(true);
      rows += table.rows;
      if (table.rawBytes > 20_000) several++;
    }
    expect(stored().length).toBeGreaterThan(60);
    expect(rows).toBeGreaterThan(4500);
    expect(several, "tables of several chunks").toBeGreaterThan(0);
  });

  it("of a partitioned table holds the rows of all its partitions", async () => {
    const whole = tables.find((table) => partitioned.has(label(table)) && table.rows > 1);
    if (whole === undefined) throw new Error("the corpus has no partitioned table with rows");
    const found = (await bytesOf(plain(whole, "csv"))).toString();
    const expected =
      (await copied(`copy (select ${listOf(whole)} from ${label(whole)}) to stdout (format csv, header)`))
        .toString();
    expect(found.split("\n").sort()).toEqual(expected.split("\n").sort());
  });
});

describe("read by the server into an empty table, each format gives the same rows", () => {
  it.each(["csv", "json", "sql"] as const)("%s", async (format) => {
    const file = join(folder, `rows.${format}`);
    let loaded = 0;
    for (const table of stored()) {
      const [list, name] = [listOf(table), label(table)];
      const before = await hashOf(name, list);
      const bytes = await bytesOf(plain(table, format));
      await server.execute("begin");
      try {
        if (format === "sql") {
          // In the table itself, emptied, by psql; the session of the test sees it through the hash alone.
          writeFileSync(file, bytes);
          const { stdout } = await run(join(source.bin, "psql"), [
            ...["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"],
            ...[
              "-c",
              "begin",
              "-c",
              "set session_replication_role = replica",
              "-c",
              withoutPublications,
              "-c",
              `delete from only ${name}`,
            ],
            ...["-c", `select count(*) from only ${name}`, "-f", file, "-c", hashSql(name, list), "-c", "rollback"],
          ], { env: { ...process.env, ...source.environment(source.superuser) } });
          expect(stdout.replace(/\n$/, "").split("\n"), name).toEqual(["0", before]);
        } else {
          await server.execute(
            `create temp table loaded on commit drop as select ${list} from only ${name} with no data`,
          );
          if (format === "csv") {
            await server.copyIn(`copy pg_temp.loaded from stdin (format csv, header)`, [bytes]);
          } else await loadJson(table, bytes);
          expect(await hashOf("pg_temp.loaded", list), name).toBe(before);
        }
        loaded++;
      } finally {
        await server.execute("rollback");
      }
    }
    expect(loaded).toBe(stored().length);
  });
});

/** One of the corpus keeps rows from being deleted. */
const withoutPublications = `do $$ declare one record; begin
  for one in select pubname from pg_catalog.pg_publication loop
    execute pg_catalog.format('drop publication %I', one.pubname);
  end loop; end $$`;

function hashSql(relation: string, list: string): string {
  const whole = list === "" ? "''" : `row(${list})::text`;
  return `select count(*) || ' ' || coalesce(md5(string_agg(h, '' order by h)), '') as hash
    from (select md5(${whole}) as h from only ${relation}) as hashed`;
}

/** As docs/http.md says it: each text, cast to the column's type. */
async function loadJson(table: PastTable, bytes: Buffer): Promise<void> {
  const text = bytes.toString();
  const lines = text === "" ? [] : text.trimEnd().split("\n");
  for (const line of lines) JSON.parse(line);
  await server.execute("create temp table lines (line json) on commit drop");
  // CSV with signs that JSON lines do not hold keeps every backslash.
  await server.copyIn(`copy pg_temp.lines from stdin (format csv, delimiter e'\\x01', quote e'\\x02')`, [bytes]);
  const values = table.columns.map(({ name, type }) => `(line ->> '${name.replaceAll("'", "''")}')::${type}`);
  await server.execute(`insert into pg_temp.loaded select ${values.join(", ")} from pg_temp.lines`);
}

describe("json", () => {
  it("tells SQL's NULL from JSON's, and keeps every digit", async () => {
    const table = tables.find(({ schema }) => schema === "../up");
    if (table === undefined) throw new Error("no such table");
    const rows = (await bytesOf(plain(table, "json"))).toString().trimEnd().split("\n")
      .map((line) => JSON.parse(line) as Record<string, string | null>);
    expect(rows.map((row) => row["ÄÖ"])).toEqual(["null", null, '{"a": 1.000000000000000000001}', '"null"']);
    expect(rows[0]?.["n"]).toBe("12345678901234567890.12345678901234567890");
    expect(rows.map((row) => row["x,y"])).toEqual(["a,b", "", null, "\\N"]);
  });
});

describe("an archive of all tables", () => {
  it.each(["csv", "json", "sql"] as const)(
    "of %s holds a file for each, whole, under names that lead nowhere",
    async (format) => {
      const file = join(folder, `tables-${format}.zip`);
      writeFileSync(file, await bytesOf(await open(null, format)));
      // Python's own reader checks each checksum; it knows nothing of ours.
      const target = join(folder, `unpacked-${format}`);
      const { stdout } = await run("python3", ["-c", unpack, file, target]);
      expect(stdout.trim()).toBe("None");
      const list = JSON.parse(readFileSync(join(target, "tables.json"), "utf8"));
      expect(readdirSync(target).sort()).toEqual(
        [...list.tables.map((one: { file: string }) => one.file), "tables.json"].sort(),
      );
      expect(list.tables).toHaveLength(stored().length);
      for (const [index, table] of stored().entries()) {
        const one = list.tables[index];
        expect(one).toMatchObject({ schema: table.schema, table: table.name, rows: table.rows });
        expect(readFileSync(join(target, one.file)).equals(await bytesOf(plain(table, format))), one.file).toBe(true);
      }
      expect(existsSync(join(folder, "up"))).toBe(false);
    },
  );
});

const unpack = `
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
print(archive.testzip())
for info in archive.infolist():
    assert "/" not in info.filename and ".." not in info.filename and "\\\\" not in info.filename, info.filename
archive.extractall(sys.argv[2])
`;

describe("an archive beyond 4 GiB", () => {
  it("is read by a program that knows nothing of ours: a file far behind, and a file as large", async () => {
    const far = 4_500_000_000;
    const at = new Date("2026-11-22T10:20:30Z");
    const text = Buffer.from("far behind\n");
    const entries = [
      { crc: crc32(0, text), size: text.byteLength, offset: 0 },
      { crc: crc32(crc32(0, text.subarray(0, 4)), text.subarray(4)), size: text.byteLength, offset: far },
      { crc: 0, size: far, offset: 200 },
    ];
    const names = ["near", "far", "large"];
    const file = join(folder, "large.zip");
    const handle = await openFile(file, "w");
    try {
      const [near, behind] = entries;
      if (near === undefined || behind === undefined) throw new Error("no entries");
      await handle.write(
        Buffer.concat([zipHeader("near", at, true), text, zipDescriptor(near, true)]),
        0,
        undefined,
        0,
      );
      const last = Buffer.concat([zipHeader("far", at, false), text, zipDescriptor(behind, false)]);
      // The disk keeps nothing for what is between.
      await handle.write(last, 0, undefined, far);
      const end = far + last.byteLength;
      await handle.write(Buffer.from(zipEnd(names, entries, end, at)), 0, undefined, end);
    } finally {
      await handle.close();
    }
    const { stdout } = await run("python3", [
      "-c",
      `import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
print(archive.read("near"), archive.read("far"), archive.getinfo("large").file_size, archive.getinfo("far").date_time)`,
      file,
    ]);
    rmSync(file);
    expect(stdout.trim()).toBe(`b'far behind\\n' b'far behind\\n' ${far} (2026, 11, 22, 10, 20, 30)`);
  });
});

describe("names of files", () => {
  it("never lead out of a folder, collide where letters' case is nothing, or grow too long", () => {
    const names = archiveNames([
      { schema: "..", name: ".." },
      { schema: "a/b", name: "c\\d\n\0" },
      { schema: "public", name: "Twin" },
      { schema: "public", name: "twin" },
      { schema: "x".repeat(63), name: "ü/".repeat(30) },
      { schema: "a.b", name: "c" },
      { schema: "a", name: "b.c" },
      { schema: "наука", name: "日本" },
    ], "csv");
    expect(names.slice(0, 4)).toEqual(["%2E%2E.%2E%2E.csv", "a%2Fb.c%5Cd%0A%00.csv", "public.Twin.csv", "table-4.csv"]);
    expect(names.slice(5)).toEqual(["a%2Eb.c.csv", "a.b%2Ec.csv", "наука.日本.csv"]);
    for (const name of names) expect(Buffer.byteLength(name)).toBeLessThan(256);
    expect(fileNameOf("csv", backup.id, { schema: "../up", name: 'a/b"\r\nSet-Cookie: x' })).toMatch(
      /^[A-Za-z0-9%._-]+$/,
    );
  });

  it("of tables are read back from their label, whatever is in them", () => {
    for (const { schema, name } of tables) expect(namedTable(label({ schema, name }))).toEqual({ schema, name });
  });
});

describe("cut at every step and gone on with by another process", () => {
  it.each(["csv", "json", "sql"] as const)("one table as %s, and all of them, are the same bytes", async (format) => {
    const many = tables.find(({ name }) => name === "many");
    if (many === undefined) throw new Error("no such table");
    const legs = await bytesInLegs(() => open(many, format));
    expect(legs.steps).toBeGreaterThan(5);
    expect(legs.bytes.equals(await bytesOf(await open(many, format)))).toBe(true);
    const all = await bytesInLegs(() => Promise.resolve(plain(null, format)));
    expect(all.steps).toBeGreaterThan(stored().length * 2);
    expect(all.bytes.equals(await bytesOf(await open(null, format)))).toBe(true);
  });

  it("a bundle is the same bytes, as many as were told", async () => {
    const whole = await open(null, "bundle");
    const legs = await bytesInLegs(() => open(null, "bundle"));
    const bytes = await bytesOf(whole);
    expect(legs.bytes.equals(bytes)).toBe(true);
    expect({ bytes: whole.bytes, isExact: whole.isExact }).toEqual({ bytes: bytes.byteLength, isExact: true });
  });
});

describe("a bundle", () => {
  it("alone, with the keys and stock tools, brings the database back", async () => {
    const target = await startTestCluster({ platform: false });
    const place = mkdtempSync(join(tmpdir(), "holdfast-bundle-"));
    try {
      writeFileSync(join(place, "bundle.tar"), await bytesOf(await open(null, "bundle")));
      await run("tar", ["--extract", "--file", "bundle.tar"], { cwd: place });
      const unpacked = join(place, `holdfast-${backup.id.slice(0, 8)}`);
      expect(readdirSync(unpacked).sort()).toEqual(["restore-by-hand.md", "restore-by-hand.mjs", "v1"]);
      const env = {
        ...target.environment("postgres"),
        BACKUP_KEYS: backup.keys,
        PATH: `${target.bin}:${process.env["PATH"] ?? ""}`,
      };
      const { stderr } = await run(process.execPath, ["restore-by-hand.mjs", ".", "latest"], { cwd: unpacked, env });
      expect(stderr).toContain(`restored backup ${backup.id}`);
      const isHere = (table: PastTable) => !stderr.includes(`not made: table ${label(table)}`);
      let same = 0;
      for (const table of stored().filter(({ dataOwner }) => dataOwner === "user").filter(isHere)) {
        const [there] = await query(
          target.plainUrl(),
          `set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC'; set search_path = '';
           set extra_float_digits = 3; set bytea_output = 'hex'; set lc_monetary = 'C'; ${
            hashSql(label(table), listOf(table))
          }`,
        );
        expect(there?.["hash"], label(table)).toBe(await hashOf(label(table), listOf(table)));
        same++;
      }
      expect(same).toBeGreaterThan(50);
    } finally {
      await target.destroy();
      rmSync(place, { recursive: true, force: true });
    }
  });

  it("is refused where an object of it was changed in the store", async () => {
    const name = backup.manifest.tables.find((table) => table.chunks.length > 0)?.chunks[0]?.object ?? "";
    const file = join(folder, "store", name);
    const sound = readFileSync(file);
    const flipped = Buffer.from(sound);
    flipped[60] = (flipped[60] ?? 0) ^ 1;
    rmSync(file);
    writeFileSync(file, flipped);
    try {
      await expect(open(null, "bundle").then((one) => bytesOf(one))).rejects.toMatchObject({ code: "object_damaged" });
    } finally {
      rmSync(file);
      writeFileSync(file, sound);
    }
  });
});

describe("what is not there", () => {
  it("is said by its own error", async () => {
    await expect(open({ schema: "public", name: "nowhere" }, "csv")).rejects.toMatchObject({ code: "table_not_found" });
    await expect(open({ schema: "public", name: "' or true --" }, "sql")).rejects.toMatchObject({
      code: "table_not_found",
    });
    await expect(
      openContents(deps, null, { backup: crypto.randomUUID(), table: null, format: "bundle", files: null }, {
        ahead: true,
      }),
    )
      .rejects.toMatchObject({ code: "backup_not_found" });
  });
});
