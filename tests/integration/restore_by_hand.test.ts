import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureAge } from "../../src/local/packages.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { proveCopy } from "../../src/shared/restore/prove.ts";
import { createFileStore, createFolder } from "../../src/shared/store/file.ts";
import { openSecondary } from "../../src/shared/store/secondary.ts";
import { corpusFiles, loadCorpus } from "../corpus/load.ts";
import { type Cluster, clusterMs, freshDatabase, query, startTestCluster } from "../support/cluster.ts";
import { databaseOf, writeBackup, type WrittenBackup } from "./restore_fixture.ts";

const script = fileURLToPath(new URL("../../docs/restore-by-hand.mjs", import.meta.url));

describe("docs/restore-by-hand.mjs", () => {
  let source: Cluster;
  let target: Cluster;
  let backup: WrittenBackup;
  const folder = mkdtempSync(join(tmpdir(), "holdfast-by-hand-"));
  const store = mkdtempSync(join(tmpdir(), "holdfast-by-hand-store-"));
  const copy = join(folder, "restore-by-hand.mjs");

  beforeAll(async () => {
    cpSync(script, copy);
    source = await startTestCluster();
    target = await startTestCluster({ platform: false });
    const postgres = await databaseOf(source).connect("corpus");
    const superuser = await databaseOf(source, source.superuser).connect("corpus");
    expect(await loadCorpus({ postgres, superuser })).toEqual(await corpusFiles());
    await postgres.close();
    await superuser.close();
    backup = await writeBackup(databaseOf(source, source.superuser), createFileStore(store));
  }, clusterMs);

  afterAll(async () => {
    for (const cluster of [source, target]) await cluster?.destroy();
    for (const one of [folder, store]) rmSync(one, { recursive: true, force: true });
  }, clusterMs);

  const restore = async (
    database: string,
    keys: string,
    { id = "latest", from = store, more = {} }: { id?: string; from?: string; more?: Record<string, string> } = {},
  ) => {
    const { PATH } = process.env;
    const own = { BACKUP_KEYS: keys, PATH: `${target.bin}:${PATH ?? ""}`, ...more };
    const env = { ...target.environment("postgres", database), ...own };
    return await promisify(execFile)(process.execPath, [copy, from, id], { cwd: folder, env });
  };

  it("has at most 150 lines and imports nothing but Node's own modules", () => {
    const text = readFileSync(script, "utf8");
    expect(text.trimEnd().split("\n").length).toBeLessThanOrEqual(150);
    const imports = [...text.matchAll(/from "([^"]+)"/g)].map((match) => match[1]);
    expect(imports.filter((name) => !name?.startsWith("node:"))).toEqual([]);
    expect(text).not.toMatch(/import\(|require\(/);
  });

  it("restores a backup where neither this project nor node_modules is", async () => {
    for (let at = folder; at !== "/"; at = dirname(at)) expect(existsSync(join(at, "node_modules"))).toBe(false);
    const { stderr } = await restore("postgres", backup.keys, { id: backup.id.slice(0, 8) });
    expect(stderr).toContain(`restored backup ${backup.id}`);
    const from = await databaseOf(source, source.superuser).connect("prove");
    const to = await databaseOf(target).connect("prove");
    try {
      const eventTriggers = backup.capture.definitions.filter((one) => one.kind === "event trigger");
      const differences = await proveCopy(from, to, {
        target: "bare",
        skipped: eventTriggers.filter((one) => stderr.includes(`not made: ${one.identity}: it does the platform's`)),
        rolesCreated: backup.capture.definitions.filter((one) => one.kind === "role" && one.name !== "postgres")
          .map((one) => one.name),
        ownersKept: [],
        settingsLost: [],
      });
      const extensions = differences.filter((one) => !/pg_cron|cron job|schema cron|cron\./.test(one.name));
      expect(extensions).toEqual([]);
    } finally {
      await from.close();
      await to.close();
    }
  });

  it("refuses a database that is not empty", async () => {
    await expect(restore("postgres", backup.keys)).rejects.toThrow(/is not empty/);
  });

  it("names the key that is missing, and refuses a wrong one", async () => {
    const database = await freshDatabase(target);
    await expect(restore(database, `other:${"A".repeat(43)}`)).rejects.toThrow(/BACKUP_KEYS lacks k-/);
    const id = backup.keys.split(":")[0] ?? "";
    await expect(restore(database, `${id}:${"A".repeat(43)}`)).rejects.toThrow(/unable to authenticate/);
  });

  it("restores from the second store with the stock age program, and from none without its identity", async () => {
    ensureAge();
    const [mine, other] = [await generateX25519Identity(), await generateX25519Identity()];
    const settings: Record<string, string> = {
      BACKUP_SECONDARY: `file://${folder}/second`,
      BACKUP_RECIPIENTS: await identityToRecipient(mine),
    };
    const deps = { fetch, clock: systemClock, random: webCryptoRandom };
    const second = openSecondary((name) => settings[name], deps);
    if (second === null) throw new Error("it is set");
    await createFolder(`${folder}/second`);
    const first = createFileStore(store);
    for await (const { name } of first.list("v1/")) {
      await second.store.create(name, await second.wrap(name, await first.read(name)));
    }
    const database = await freshDatabase(target);
    const from = `${folder}/second`;
    for (const wrong of [{}, { BACKUP_IDENTITIES: other }]) {
      await expect(restore(database, backup.keys, { from, more: wrong })).rejects.toThrow(
        /opened by BACKUP_IDENTITIES/,
      );
    }
    const more = { BACKUP_IDENTITIES: `${other},${mine}` };
    const { stderr } = await restore(database, backup.keys, { from, more });
    expect(stderr).toContain(`restored backup ${backup.id}`);
    expect(stderr).toContain(`${backup.manifest.totals.rows} rows`);
  });

  it("leaves the database empty when an object is damaged", async () => {
    const database = await freshDatabase(target);
    const chunk = join(store, backup.manifest.tables.find((table) => table.chunks.length > 0)?.chunks[0]?.object ?? "");
    const sound = readFileSync(chunk);
    const flipped = Uint8Array.from(sound);
    flipped[flipped.length - 20] = (flipped[flipped.length - 20] ?? 0) ^ 1;
    rmSync(chunk);
    writeFileSync(chunk, flipped);
    try {
      await expect(restore(database, backup.keys)).rejects.toThrow(/unable to authenticate/);
    } finally {
      writeFileSync(chunk, sound);
    }
    const url = target.plainUrl("postgres", database);
    const left = await query(url, "select 1 from pg_class where oid >= 16384 and relkind = 'r' and relnamespace <> 99");
    expect(left).toEqual([]);
    expect(readdirSync(store)).toEqual(["v1"]);
  });
});
