/** `checks` as people run them on a plain PostgreSQL, with two folders and no pg_cron of ours: what is found, and the exit code. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster({ platform: false });
const folder = mkdtempSync(join(tmpdir(), "holdfast-checks-"));
let settings: Record<string, string> = {};

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

beforeAll(async () => {
  const { keys } = await ok(["keygen"], {});
  mkdirSync(join(folder, "store"));
  settings = {
    BACKUP_DB_URL: cluster().plainUrl(cluster().superuser),
    BACKUP_KEYS: String(keys),
    BACKUP_STORE: `file://${join(folder, "store")}`,
  };
  await ok(["init"]);
  await query(
    cluster().plainUrl(cluster().superuser),
    "create table public.notes as select i, md5(i::text) from generate_series(1, 5000) as i",
  );
  await ok(["create"]);
}, 2 * clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("checks", () => {
  it("lists what there is before any was made", async () => {
    const listed = await ok(["checks"]) as unknown as { name: string; outcome: string | null }[];
    expect(listed.map(({ name }) => name)).toContain("objects");
    expect(listed.every(({ outcome }) => outcome === null)).toBe(true);
  });

  it("run daily verifies the newest backup, makes all daily checks, and says what they found", async () => {
    const made = await ok(["checks", "run", "daily"]);
    expect(made).toMatchObject({
      cadence: "daily",
      verdict: "passed",
      failed: [],
      noVerdict: ["backup_size", "row_counts", "chain"],
    });
    expect(made["checks"]).toHaveLength(11);
    const listed = await ok(["checks", "list"]) as unknown as { name: string; outcome: string | null }[];
    expect(listed.find(({ name }) => name === "newest_verified")?.outcome).toBe("passed");
  }, 120_000);

  it("run weekly names what has no verdict, and is no failure", async () => {
    const made = await ok(["checks", "run", "weekly"]);
    expect(made).toMatchObject({ verdict: "passed", noVerdict: ["sample_export", "voice_notes"], notYetAvailable: [] });
  }, 60_000);

  it("exits with 3 where an object rots, and shows it as evidence", async () => {
    const objects = join(folder, "store/v1/objects");
    const [prefix = ""] = readdirSync(objects);
    const [name = ""] = readdirSync(join(objects, prefix));
    const file = join(objects, prefix, name);
    const sound = readFileSync(file);
    const bytes = Uint8Array.from(sound);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    await query(
      cluster().plainUrl(cluster().superuser),
      "update backup.inventory set looked_at = now() - interval '40 days'",
    );
    const { exit, document } = await cli(["checks", "run", "daily", "--json"], settings);
    expect({ exit, document }).toMatchObject({ exit: 3, document: { verdict: "failed", failed: ["objects"] } });
    const shown = await ok(["checks", "show", "objects", "--limit", "1"]) as unknown as { evidence: unknown }[];
    expect(shown).toMatchObject([{ outcome: "failed", evidence: { stores: [{ damaged: 1 }] } }]);
    writeFileSync(file, sound);
  }, 120_000);

  it("takes another word for a mistake", async () => {
    for (
      const [args, code] of [
        [["run", "hourly"], "usage"],
        [["go"], "usage"],
        [["show", "nothing"], "not_found"],
      ] as const
    ) {
      const { document } = await cli(["checks", ...args, "--json"], settings);
      expect(document).toMatchObject({ error: { code } });
    }
  }, 60_000);
});

describe("verify by two threads", () => {
  it("finds what one finds: all rows, and each object that rots", async () => {
    const url = cluster().plainUrl(cluster().superuser);
    await query(
      url,
      "create table public.wide as select i, repeat(md5(i::text), 8) as t from generate_series(1, 300000) as i",
    );
    const { id } = await ok(["create"]);
    const [two, one] = [await ok(["verify", "latest", "--jobs", "2"]), await ok(["verify", "latest", "--jobs", "1"])];
    expect(two).toEqual(one);
    expect(two).toMatchObject({ id, ok: true });
    expect(Number(two["rawBytes"])).toBeGreaterThan(64 * 1024 * 1024);
    const rows = await query(url, "select object from backup.chunks where run_id = $1 and table_name = 'wide'", [id]);
    const rotten = rows.slice(0, 4).map((row) => String(row["object"])).sort();
    for (const name of rotten) {
      const file = join(folder, "store", name);
      const bytes = readFileSync(file);
      bytes[bytes.length - 20] = (bytes[bytes.length - 20] ?? 0) ^ 1;
      writeFileSync(file, bytes);
    }
    const { exit, document } = await cli(["verify", "latest", "--jobs", "2", "--json"], settings);
    const { problems } = document as { problems: { object: string }[] };
    expect(exit).toBe(3);
    expect(problems.map(({ object }) => object).sort()).toEqual(rotten);
  }, 180_000);
});
