/** Drills of a project on PostgreSQL 17, where neither pg_cron nor a change stream is: what is there is restored and proven. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster({ version: 17 });
const folder = mkdtempSync(join(tmpdir(), "holdfast-drills-17-"));
let settings: Record<string, string> = {};

const live = (text: string) => query(cluster().plainUrl("postgres"), text);

async function ok(args: readonly string[]): Promise<unknown> {
  const { exit, document, stdout, stderr } = await cli([...args, "--json"], settings);
  expect(exit, stdout + stderr).toBe(0);
  return document;
}

beforeAll(async () => {
  settings = {
    BACKUP_DB_URL: cluster().url("postgres"),
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
  };
  await live(
    `create table public.people (id int generated always as identity primary key, name text not null);
     insert into public.people (name) select 'person ' || i from generate_series(1, 50) as i`,
  );
  await ok(["init"]);
  await live("update backup.settings set value = '1000000' where name = 'disk_mb'");
  await ok(["create"]);
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("on PostgreSQL 17", () => {
  it("the newest backup and one of its rows come back, proven, and nothing is left", async () => {
    expect(await ok(["test-recovery"])).toMatchObject({
      ok: true,
      evidence: { stream: null, proof: { differencesTotal: 0 } },
    });
    expect(await ok(["drills", "run", "record"])).toMatchObject({
      ok: true,
      evidence: { subject: "public.people", proof: { rows: 1 } },
    });
    expect(await live("select from pg_database where datname ~ 'drill'")).toEqual([]);
    expect(await live("select kind, detail ->> 'ok' as ok from backup.notices order by id")).toEqual([
      { kind: "drill_report", ok: "true" },
      { kind: "drill_report", ok: "true" },
    ]);
  }, 180_000);
});
