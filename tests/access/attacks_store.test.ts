/** A thief of one store, without the keys: what they read, and what becomes of what they write. */
import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli, type CliResult } from "../integration/cli_fixture.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { lookInFolder, needlesOf } from "./secret_forms.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-thief-"));
const store = join(folder, "store");
/** As it was after the first backup. */
const older = join(folder, "older");
/** Of another project whose people use the same key. */
const strange = join(folder, "strange");

let settings: Record<string, string>;
const word = (what: string) => `${what}_${randomBytes(6).toString("hex")}`;
/** Written where a backup could show it: in rows, names, comments, functions, roles, files of people. */
const told = {
  "a row": word("dear diary, today"),
  "a later row": word("and tomorrow"),
  "a row of the stream": word("the day after"),
  "an e-mail": `${word("child")}@people.example`,
  "a table": word("secret_table"),
  "a column": word("secret_column"),
  "a comment": word("our secret comment"),
  "a function": word("secret_function_body"),
  "a role": word("secret_role"),
  "a default": word("secret_default"),
};

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const at = (path: string) => ({ ...settings, BACKUP_STORE: `file://${path}` });

beforeAll(async () => {
  const source = cluster().plainUrl("postgres");
  settings = {
    BACKUP_DB_URL: cluster().url("postgres"),
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_STORE: `file://${store}`,
  };
  await ok(["init"]);
  await query(source, "select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await query(
    source,
    `create table public.${told["a table"]} (id int primary key, ${told["a column"]} text default '${
      told["a default"]
    }');
     comment on table public.${told["a table"]} is '${told["a comment"]}';
     create role ${told["a role"]};
     grant select on public.${told["a table"]} to ${told["a role"]};
     create function public.told() returns text language sql as $$ select '${told["a function"]}' $$;
     insert into public.${told["a table"]} select i, '${told["a row"]}' from generate_series(1, 50) as i;
     create table public.others (id int primary key, v text);
     insert into public.others select i, md5(i::text) from generate_series(1, 500) as i;
     create table public.mails (mail text primary key);
     insert into public.mails values ('${told["an e-mail"]}')`,
  );
  await ok(["incremental"]);
  await ok(["create"]);
  cpSync(store, older, { recursive: true });
  for (const value of ["a row of the stream", "a later row"] as const) {
    await query(source, `insert into public.${told["a table"]} values (1000 + $1, $2)`, [value.length, told[value]]);
    await ok(["incremental"]);
  }
  await ok(["create"]);
  await query(source, "insert into public.others select i, 'more' from generate_series(501, 600) as i");
  await ok(["incremental"]);
  const stranger = await freshDatabase(cluster());
  const theirs = { ...at(strange), BACKUP_DB_URL: cluster().url("postgres", stranger) };
  await query(cluster().plainUrl("postgres", stranger), "create table public.others as select 1 as id");
  await ok(["init"], theirs);
  await ok(["create"], theirs);
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Names of the store's objects below the prefix, in order. */
function names(place: string, prefix: string): string[] {
  const below = join(place, "v1", prefix);
  return readdirSync(below, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .map((entry) => relative(place, join(entry.parentPath ?? entry.path, entry.name))).sort();
}

const chunks = () => names(store, "objects");
const manifests = (place = store) => names(place, "backups");
const keyFile = (place = store) => names(place, "keys")[0] ?? "";
const segments = () => names(store, "changes");

describe("who reads the store", () => {
  it("finds no value, name, comment, address or definition in any object or name", () => {
    const secrets = { ...told, "the key": settings["BACKUP_KEYS"]?.split(":")[1] ?? "" };
    const { found, files } = lookInFolder(store, needlesOf(secrets));
    expect(found).toEqual([]);
    expect(files).toBeGreaterThan(15);
    const planted = join(store, "planted");
    writeFileSync(planted, `xx${Buffer.from(`-${told["a row"]}-`).toString("base64")}`);
    expect(lookInFolder(store, needlesOf(secrets)).found).toMatchObject([{ secret: "a row", place: "planted" }]);
    rmSync(planted);
  });

  it("reads in clear who the repository is and which keys open it, and sees times, tiers, sizes and positions", () => {
    const sealed = names(store, "").filter((name) =>
      !readFileSync(join(store, name)).subarray(0, 1).equals(Buffer.from("{"))
    );
    const clear = names(store, "").filter((name) => !sealed.includes(name));
    expect(clear).toEqual([keyFile(), "v1/repository.json"].sort());
    const repository = JSON.parse(readFileSync(join(store, "v1/repository.json"), "utf8")) as Record<string, unknown>;
    expect(Object.keys(repository).sort()).toEqual(["createdAt", "format", "id", "version"]);
    const magic = new Set(sealed.map((name) => readFileSync(join(store, name)).subarray(0, 4).toString("latin1")));
    expect(magic.size).toBe(1);
    for (const name of names(store, "")) {
      expect(name).toMatch(
        /^v1\/(repository\.json|keys\/e\d{8}T\d{6}Z-[0-9a-f]{8}\.jwe\.json|objects\/[0-9a-f]{2}\/[0-9a-f]{64}|changes\/[a-z0-9-]+\/[0-9A-F]{16}-[0-9A-F]{16}(\.\d{6})?|backups\/\d{8}T\d{6}Z-[a-z]+-[0-9a-f-]{36}\/manifest|anchors\/[0-9a-f-]{36}\/\d{15}-[0-9a-f]{64}|claims\/\d{15})$/i,
      );
    }
  });

  it("opens nothing with a key of their own", async () => {
    const result = await cli(["verify", "latest", "--json"], {
      ...settings,
      BACKUP_KEYS: `mine:${randomBytes(32).toString("base64url")}`,
    });
    expect(codeOf(result)).toBe("key_wrong");
    expect(result.exit).not.toBe(0);
  }, 60_000);
});

function codeOf({ document }: CliResult): string {
  const { error, problems } = document as { error?: { code: string }; problems?: { code: string }[] };
  return error?.code ?? problems?.map(({ code }) => code).join(",") ?? "";
}

function swap(place: string, one: string, two: string): void {
  renameSync(join(place, one), join(place, "between"));
  renameSync(join(place, two), join(place, one));
  renameSync(join(place, "between"), join(place, two));
}

function put(place: string, from: string, to: string): void {
  mkdirSync(dirname(join(place, to)), { recursive: true });
  cpSync(from, join(place, to));
}

/** A copy of the store of its own, in which something was done. */
function tampered(act: (place: string) => void): string {
  const place = mkdtempSync(join(folder, "tampered-"));
  cpSync(store, place, { recursive: true });
  act(place);
  return place;
}

const newest = (place = store) => manifests(place).at(-1) ?? "";
const largest = () =>
  chunks().toSorted((a, b) => readFileSync(join(store, b)).length - readFileSync(join(store, a)).length);
const anotherName = (name: string, id = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee") =>
  name.replace(/\d{8}T\d{6}Z-([a-z]+)-[0-9a-f-]{36}/, `20991231T000000Z-$1-${id}`);

describe("who writes the store is refused by verify and by a restore", () => {
  const acts: readonly (readonly [string, (place: string) => void, RegExp])[] = [
    ["two objects swapped", (place) => swap(place, largest()[0] ?? "", largest()[1] ?? ""), /object_damaged/],
    ["every object cut in half", (place) => {
      for (const name of chunks()) truncateSync(join(place, name), readFileSync(join(place, name)).length >> 1);
    }, /object_damaged/],
    ["an object emptied", (place) => truncateSync(join(place, largest()[0] ?? ""), 0), /object_damaged/],
    ["an object longer by a byte", (place) => {
      const name = join(place, largest()[0] ?? "");
      writeFileSync(name, Buffer.concat([readFileSync(name), Buffer.from([0])]));
    }, /object_damaged/],
    ["an object removed", (place) => rmSync(join(place, largest()[0] ?? "")), /object_missing/],
    ["every object of another project under these names", (place) => {
      const others = names(strange, "objects");
      chunks().forEach((name, index) => put(place, join(strange, others[index % others.length] ?? ""), name));
    }, /object_damaged|key_wrong|object_missing/],
    [
      "the manifest of the backup before in the place of the newest",
      (place) => put(place, join(store, manifests()[0] ?? ""), newest()),
      /object_damaged|manifest_damaged/,
    ],
    ["the manifest under a newer name", (place) => put(place, join(store, newest()), anotherName(newest())), /damaged/],
    [
      "an older manifest under a newer name",
      (place) => put(place, join(store, manifests()[0] ?? ""), anotherName(newest())),
      /damaged/,
    ],
    [
      "another project's manifest as the newest",
      (place) => put(place, join(strange, newest(strange)), anotherName(newest(strange))),
      /damaged|key_wrong|object_missing/,
    ],
    ["another project's manifest, with its key", (place) => {
      put(place, join(strange, newest(strange)), anotherName(newest(strange)));
      put(place, join(strange, keyFile(strange)), keyFile(strange));
    }, /damaged|key_wrong/],
    ["the manifest cut", (place) => truncateSync(join(place, newest()), 60), /damaged/],
    [
      "another project's repository",
      (place) => put(place, join(strange, "v1/repository.json"), "v1/repository.json"),
      /key_wrong|damaged/,
    ],
    [
      "another project's key in the place of this one",
      (place) => put(place, join(strange, keyFile(strange)), keyFile()),
      /key_wrong|object_damaged/,
    ],
    ["the key cut", (place) => truncateSync(join(place, keyFile()), 100), /key|damaged/],
    ["the key gone", (place) => rmSync(join(place, keyFile())), /key|missing/],
    [
      "a repository that is a link to elsewhere",
      (place) => writeFileSync(join(place, "v1/repository.json"), `{"__proto__": {"id": "../../etc"}}`),
      /damaged|missing|lied|format/,
    ],
  ];
  it.each(acts)("%s", async (_what, act, code) => {
    const place = tampered(act);
    const verified = await cli(["verify", "latest", "--json"], at(place));
    expect(verified.exit, verified.stdout).not.toBe(0);
    expect(codeOf(verified)).toMatch(code);
    const target = await freshDatabase(cluster(), { platform: false });
    const restored = await cli(["restore-full", "latest", "--yes", "--json"], {
      BACKUP_STORE: `file://${place}`,
      BACKUP_KEYS: settings["BACKUP_KEYS"] ?? "",
      BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", target),
    });
    expect(restored.exit, restored.stdout).not.toBe(0);
    expect(codeOf(restored)).toMatch(code);
    expect(`${verified.stdout}${verified.stderr}${restored.stdout}${restored.stderr}`).not.toContain(
      settings["BACKUP_KEYS"]?.split(":")[1],
    );
  }, 120_000);

  const ofTheStream: readonly (readonly [string, (place: string) => void, RegExp])[] = [
    ["two segments swapped", (place) => swap(place, segments().at(-1) ?? "", segments().at(-2) ?? ""), /damaged/],
    [
      "an older segment in the place of the newest",
      (place) => put(place, join(store, segments()[0] ?? ""), segments().at(-1) ?? ""),
      /damaged/,
    ],
    ["a segment cut", (place) => truncateSync(join(place, segments().at(-1) ?? ""), 70), /damaged/],
  ];
  it.each(ofTheStream)("%s, for a restore to a moment", async (_what, act, code) => {
    const place = tampered(act);
    const target = await freshDatabase(cluster(), { platform: false });
    const restored = await cli(["restore-point", "latest", "--yes", "--json"], {
      BACKUP_STORE: `file://${place}`,
      BACKUP_KEYS: settings["BACKUP_KEYS"] ?? "",
      BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", target),
    });
    expect(restored.exit, restored.stdout).not.toBe(0);
    expect(codeOf(restored)).toMatch(code);
  }, 120_000);
});

describe("who puts the whole store back to an older state, each object of which is sound,", () => {
  it("is found by doctor and by audit verify, which know what was there", async () => {
    const before = await cli(["doctor", "--json"], settings);
    const check = (result: CliResult) =>
      (result.document as { checks: { name: string; state: string; message: string }[] }).checks
        .find(({ name }) => name === "backups");
    expect(check(before)).toMatchObject({ state: "ok" });
    expect((await cli(["verify", "latest", "--json"], at(older))).exit, "by itself it is whole").toBe(0);
    // In the place of the newer one: the audit knows its anchors by the place where they stand.
    renameSync(store, `${store}.newer`);
    cpSync(older, store, { recursive: true });
    try {
      expect(check(await cli(["doctor", "--json"], settings))).toMatchObject({
        state: "warn",
        message: expect.stringMatching(/^1 of 2 that the database knows are not in/),
      });
      const audit = await cli(["audit", "verify", "--json"], settings);
      expect(audit).toMatchObject({ exit: 3, document: { ok: false } });
      expect((audit.document as { tampered: string[] }).tampered.join("\n")).toMatch(/is gone from file/);
    } finally {
      rmSync(store, { recursive: true });
      renameSync(`${store}.newer`, store);
    }
  }, 120_000);
});
