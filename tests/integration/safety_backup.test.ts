import { spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { denoPath } from "../../src/local/setup.mjs";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { cli } from "./cli_fixture.ts";

const script = fileURLToPath(new URL("./safety_backup_script.ts", import.meta.url));
const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-safety-"));
let url = "";
let name = "";
let settings: Record<string, string> = {};

beforeAll(async () => {
  name = await freshDatabase(cluster());
  url = cluster().plainUrl("postgres", name);
  settings = {
    BACKUP_DB_URL: cluster().url("postgres", name),
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
  };
  await query(
    url,
    "create table public.entries as select n as id, repeat(md5(n::text), 40) as body from generate_series(1, 5000) as n",
  );
  const made = await cli(["init"], settings);
  if (made.exit !== 0) throw new Error(made.stderr);
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Seen {
  readonly run?: string | null;
  readonly code?: string;
  readonly message?: string;
  readonly hint?: string;
  readonly notes: readonly string[];
  readonly renewals: number;
  readonly first: string | null;
}

async function safetyBackup(input: Readonly<Record<string, unknown>>): Promise<Seen> {
  const child = spawn(denoPath(), ["run", "--quiet", "--allow-all", script], { stdio: ["pipe", "pipe", "pipe"] });
  let [out, errors] = ["", ""];
  child.stdout.on("data", (text) => (out += text));
  child.stderr.on("data", (text) => (errors += text));
  child.stdin.end(JSON.stringify({ settings, ...input }));
  await new Promise((resolve) => child.once("close", resolve));
  if (out === "") throw new Error(errors);
  return JSON.parse(out) as Seen;
}

const runs = async () => Number((await query(url, "select count(*) as n from backup.runs"))[0]?.["n"]);

describe("the safety backup before a restore in place", () => {
  it("is a full one of tier safety that has succeeded when its id comes back, with the lease renewed meanwhile", async () => {
    const seen = await safetyBackup({});
    expect(seen.run).toMatch(/^[0-9a-f-]{36}$/);
    expect(seen.notes[0]).toContain(name);
    const [run] = await query(
      url,
      `select kind, tiers[1] as tier, status, rows >= 5000 as whole from backup.runs where id = '${seen.run}'`,
    );
    expect(run).toEqual({ kind: "full", tier: "safety", status: "succeeded", whole: true });
    expect(seen.renewals).toBeGreaterThan(0);
  });

  it("is never one that was under way before: that is waited for, and another one taken", async () => {
    const seen = await safetyBackup({ underWay: true });
    expect(seen.first).toMatch(/^[0-9a-f-]{36}$/);
    expect(seen.run).not.toBe(seen.first);
    expect(seen.notes.join("\n")).toContain("another one is taken now");
    const [order] = await query(
      url,
      `select (select consistent_at from backup.runs where id = '${seen.run}') > (select finished_at from backup.runs where id = '${seen.first}') as later`,
    );
    expect(order).toEqual({ later: true });
  });

  it("is skipped by the database's name alone", async () => {
    const before = await runs();
    expect(await safetyBackup({ skip: name })).toMatchObject({
      run: null,
      notes: [expect.stringMatching(/^warning: no safety/)],
    });
    const other = await safetyBackup({ skip: "postgres" });
    expect(other).toMatchObject({ code: "confirmation_wrong", hint: expect.stringContaining(name) });
    expect(await runs()).toBe(before);
  });

  it("that fails says that nothing was changed, and how to do without", async () => {
    const seen = await safetyBackup({ settings: { ...settings, BACKUP_STORE: `file://${folder}/nowhere` } });
    expect(seen).toMatchObject({ code: "store_missing", message: expect.stringContaining("nothing was changed") });
    expect(seen.hint).toContain(`--skip-safety-backup ${name}`);
  });

  it("is cancelled when the restore's lease is lost, and the reason is told", async () => {
    const seen = await safetyBackup({ lostAfter: 0 });
    expect(seen).toMatchObject({ code: "lease_lost", message: expect.stringContaining("the lease is lost") });
    const [last] = await query(url, "select status from backup.runs order by created_at desc limit 1");
    expect(last).toEqual({ status: "cancelled" });
  });

  it("by a project that backs up another database is none", async () => {
    const run = randomUUID();
    const moment = new Date().toISOString();
    const done = {
      run,
      tiers: ["safety"],
      status: "succeeded",
      createdAt: moment,
      finishedAt: moment,
      consistentAt: moment,
    };
    const sizes = { rows: 1, rawBytes: 1, storedBytes: 1, bytesTotal: 1, bytesDone: 1 };
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (text) => (body += text)).on("end", () => {
        const { action } = JSON.parse(body) as { action: string };
        response.setHeader("content-type", "application/json");
        const status = { ...done, ...sizes, warnings: [], quarantineReason: null, error: null };
        response.end(JSON.stringify(action === "start" ? { run, joined: false } : status));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const project = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      const through = { ...settings, BACKUP_PROJECT_URL: project, BACKUP_WORKER_SECRET: "w".repeat(40) };
      expect(await safetyBackup({ settings: through })).toMatchObject({
        code: "usage",
        message: expect.stringContaining("backs up another database"),
      });
    } finally {
      server.close();
    }
  });
});
