import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { parseArguments } from "../../src/cli/arguments.ts";
import { parseDotenv } from "../../src/cli/dotenv.ts";
import { keysText, sourceOptions } from "../../src/cli/open.ts";
import type { OptionName } from "../../src/cli/options.ts";
import { readSettings, Settings } from "../../src/cli/settings.ts";

describe(".env", () => {
  it("gives values bare, quoted, exported and commented, and never expands a $", () => {
    const text = [
      "# a comment",
      "A=plain # comment",
      "export B = spaced ",
      "C='single $HOME # kept'",
      'D="line\\nbreak \\"quoted\\""',
      "E=pass$word#with-hash",
      "F=",
      "not a line",
    ].join("\r\n");
    expect(Object.fromEntries(parseDotenv(text))).toEqual({
      A: "plain",
      B: "spaced",
      C: "single $HOME # kept",
      D: 'line\nbreak "quoted"',
      E: "pass$word#with-hash",
      F: "",
    });
  });
});

describe("what settings open", () => {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "holdfast-settings-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  function given(flags: Record<string, string>, variables: Record<string, string> = {}) {
    const notes: string[] = [];
    const settings = new Settings(
      new Map(Object.entries(flags)) as Map<OptionName, string>,
      (name) => variables[name],
    );
    return { settings, notes, note: (text: string) => void notes.push(text) };
  }

  it("takes a keys file with the bare value, or with the line that keygen prints", async () => {
    const file = join(folder, "keys");
    for (
      const text of ["a:value", "a:value\n", "BACKUP_KEYS=a:value\n", "# kept by me\nexport BACKUP_KEYS='a:value'\n"]
    ) {
      await writeFile(file, text);
      expect(await keysText(given({ "keys-file": file }).settings), text).toBe("a:value");
    }
    expect(await keysText(given({ "keys-file": file }, { BACKUP_KEYS: "b:nearer" }).settings)).toBe("b:nearer");
  });

  it("warns of a password on the command line, and only there", async () => {
    const url = "postgresql://me:hunter2@host/db";
    const onLine = given({ "db-url": url });
    await sourceOptions(onLine);
    expect(onLine.notes).toEqual([expect.stringContaining("PGPASSWORD")]);
    expect(onLine.notes[0]).not.toContain("hunter2");
    const elsewhere = given({}, { BACKUP_DB_URL: url });
    await sourceOptions(elsewhere);
    expect(elsewhere.notes).toEqual([]);
  });

  it("reads the password from a file before PGPASSWORD, and the authority from sslrootcert as libpq does", async () => {
    const [password, authority] = [join(folder, "password"), join(folder, "ca.pem")];
    await writeFile(password, "from the file\n");
    await writeFile(authority, "-----BEGIN CERTIFICATE-----\n");
    const url = `postgresql://me@host/db?sslmode=verify-full&sslrootcert=${encodeURIComponent(authority)}`;
    const both = given({ "db-url": url, "db-password-file": password }, { PGPASSWORD: "from the environment" });
    expect(await sourceOptions(both)).toEqual({
      url,
      password: "from the file",
      caPem: "-----BEGIN CERTIFICATE-----\n",
    });
  });
});

describe("settings", () => {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "holdfast-settings-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  async function settings(argv: string[], environment: Record<string, string>, dotenv: string) {
    const file = join(folder, "env");
    await writeFile(file, dotenv);
    const parsed = parseArguments([...argv, "--env-file", file]);
    if ("help" in parsed) throw new Error("this is no question for help");
    return await readSettings(parsed, environment);
  }

  it("come from the flag before the environment before .env before the preset", async () => {
    const all = await settings(["list", "--store", "file:///flag"], {
      BACKUP_STORE: "file:///environment",
      BACKUP_DB_URL: "environment",
    }, "BACKUP_STORE=file:///dotenv\nBACKUP_DB_URL=dotenv\nBACKUP_DB_CA=dotenv");
    expect(all.get("store")).toBe("file:///flag");
    expect(all.get("db-url")).toBe("environment");
    expect(all.get("db-ca")).toBe("dotenv");
    expect(all.get("limit")).toBe("50");
    expect(all.isFlag("store")).toBe(true);
    expect(all.isFlag("db-url")).toBe(false);
  });

  it("count as missing when they are empty, and are then named with every way to give them", async () => {
    const none = await settings(["list"], { BACKUP_STORE: "" }, "BACKUP_STORE=");
    expect(() => none.need("store")).toThrow(expect.objectContaining({ code: "setting_missing", exit: 2 }));
    expect(() => none.need("store")).toThrow(/--store is not set/);
    expect(() => none.need("store")).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("BACKUP_STORE") }),
    );
  });

  it("refuse numbers that are none, or out of bounds", async () => {
    for (const text of ["0", "17", "2.5", "-1", "two", "1e1"]) {
      const given = await settings(["create", `--jobs=${text}`], {}, "");
      expect(() => given.integer("jobs", 1, 16), text).toThrow(expect.objectContaining({ code: "usage" }));
    }
  });

  it("say when the file that was named is not there", async () => {
    const parsed = parseArguments(["list", "--env-file", join(folder, "absent")]);
    if ("help" in parsed) throw new Error("this is no question for help");
    await expect(readSettings(parsed, {})).rejects.toMatchObject({ code: "usage", exit: 2 });
  });
});
