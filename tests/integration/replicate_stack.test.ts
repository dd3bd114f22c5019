/** The functions of a whole project bring backups and segments to a second provider, within the hosted limits; then the project is deleted. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rowHashes } from "../../src/local/demo/disaster.ts";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openSecondary } from "../../src/shared/store/secondary.ts";
import { query, startTestCluster } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { sampled } from "../support/sampled.ts";
import { eventually, type Project, projectOf, runMs, stackMs } from "../support/stack.ts";
import { cli } from "./cli_fixture.ts";
import { differences } from "./replicate_fixture.ts";
import { differingEntries, dumpEntries } from "./restore_witness.ts";

let server: S3Server;
let stack: Stack;
let project: Project;
let identity: string;
let recovery: { readonly publicEntry: string; readonly privateEntry: string };
/** Credentials of the second provider, as the functions and the CLI have them. */
let secondary: Record<string, string> = {};
const folder = mkdtempSync(join(tmpdir(), "holdfast-loss-"));
let before: { readonly hashes: Map<string, string>; readonly dump: Map<string, string> };

beforeAll(async () => {
  server = await startS3Server();
  identity = await generateIdentity();
  recovery = await generateRecoveryKey(webCryptoRandom);
  secondary = {
    BACKUP_SECONDARY: `s3://${server.bucket}/project?endpoint=${encodeURIComponent(server.endpoint)}`,
    BACKUP_RECIPIENTS: await identityToRecipient(identity),
    BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
    BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
  };
  stack = await startStack({
    durable: false,
    stream: false,
    prepared: true,
    testing: true,
    // Holders: a key of the functions' own, and a pair whose private half is offline.
    environment: {
      ...secondary,
      BACKUP_LOG_LEVEL: "debug",
      BACKUP_KEYS: `own:${"B".repeat(42)}E,${recovery.publicEntry}`,
    },
  });
  project = projectOf(stack);
  await loadSampleApp({
    owner: { connectionString: stack.cluster.plainUrl("postgres") },
    admin: { connectionString: stack.cluster.plainUrl("supabase_admin") },
    gateway: stack.gateway,
  }, { scale: 0.05 });
  await project.query(
    `create table public.noise as
       select i, (select string_agg(md5(random()::text || i || n), '') from generate_series(1, 1000) as n) as t
       from generate_series(1, 2000) as i`,
  );
}, stackMs);

afterAll(async () => {
  await stack?.destroy();
  await server?.close();
  rmSync(folder, { recursive: true, force: true });
}, stackMs);

/** The clock is not moved under a full backup: what begins meanwhile would have begun in the future. */
const slowMs = 60_000;

interface Replication {
  readonly id: string;
  readonly status: string;
  readonly error_message: string | null;
}

const replications = async () =>
  await project.query(
    "select id, status, error_message from backup.runs where kind = 'replicate' order by created_at",
  ) as unknown as Replication[];

/** Waits until everything that the database knows of is in the second store. */
async function copied(): Promise<void> {
  await eventually("the second store lacks nothing", async () => {
    await project.query("select backup.tick()");
    const failed = (await replications()).filter((run) => run.status === "failed");
    if (failed.length > 0) throw new Error(`${JSON.stringify(failed)}\n${await project.story(failed[0]?.id ?? "")}`);
    const [lag] = await project.query(
      "select objects::int as n, caught_up_at is not null as ever from backup.copy_lag()",
    );
    const active = await project.query(
      "select from backup.runs where finished_at is null and kind in ('full', 'replicate')",
    );
    return lag?.["n"] === 0 && lag["ever"] === true && active.length === 0 ? true : null;
  }, runMs);
}

/** Both stores as maps, read through clients of their own. */
async function both(): Promise<[Map<string, Uint8Array>, Map<string, Uint8Array>]> {
  const { store } = await project.readDeps();
  const deps = { fetch, clock: systemClock, random: webCryptoRandom };
  const second = openSecondary((name) => secondary[name], deps)?.store;
  if (second === undefined) throw new Error("there is no second store");
  const [first, other] = [new Map<string, Uint8Array>(), new Map<string, Uint8Array>()];
  for await (const { name } of store.list("v1/")) first.set(name, await store.read(name));
  for await (const { name } of second.list("v1/")) other.set(name, await second.read(name));
  return [first, other];
}

describe("a project with a second provider", () => {
  it("has a backup there soon after it has one at all, and only then is it complete", async () => {
    const { run } = await project.startBackup();
    const full = await project.ended(run, slowMs);
    expect(full, await project.story(run)).toMatchObject({ status: "succeeded" });
    await copied();
    const [done] = await project.query("select complete_at is not null as complete from backup.runs where id = $1", [
      run,
    ]);
    expect(done).toEqual({ complete: true });
    const [first, second] = await both();
    expect([...first.keys()].filter((name) => name.startsWith("v1/objects/")).length).toBeGreaterThan(5);
    expect(await differences(first, second, identity)).toEqual([]);
  }, 2 * runMs);

  it("did it in several legs, each within the limits of the platform", async () => {
    const [run] = await replications();
    const [calls] = await project.query(
      "select count(*)::int as n, count(*) filter (where status <> 'ended')::int as open from backup.calls where run_id = $1",
      [run?.id],
    );
    expect(Number(calls?.["n"])).toBeGreaterThan(1);
    const isolates = await project.isolates();
    expect(isolates.length).toBeGreaterThan(0);
    for (const { cpuMs, peakBytes, endedBy } of isolates) {
      expect(["cpu", "memory", "wall"]).not.toContain(endedBy);
      expect(cpuMs).toBeLessThan(2_000);
      expect(peakBytes).toBeLessThan(256 * 1024 * 1024);
    }
  });

  it("brings each segment after its drain, without anybody's doing", async () => {
    for (let n = 0; n < 2; n++) {
      await project.query("insert into public.noise select -$1::int, 'new'", [n]);
      const known = (await project.query("select from backup.segments")).length;
      await project.query("select backup.call_drain()");
      await eventually(
        "a segment is stored",
        async () => (await project.query("select from backup.segments")).length > known ? true : null,
        runMs,
      );
      await copied();
    }
    const [first, second] = await both();
    expect([...second.keys()].filter((name) => name.startsWith("v1/changes/")).length).toBeGreaterThan(0);
    expect(await differences(first, second, identity)).toEqual([]);
  }, 3 * runMs);

  it("has the head of the audit's chain in both an hour later, without a backup or a drain", async () => {
    await project.query("select backup.audit('test.act', 'between two backups')");
    // What pg_cron calls.
    await project.query("select backup.call_anchor()");
    const place = await eventually("the act is chained and anchored", async () => {
      const [row] = await project.query(
        `select min(a.place)::int as place
           from backup.audit_log as l join backup.audit_chain as c on c.entry_id = l.id
           join backup.audit_anchors as a on a.place >= c.place where l.subject = 'between two backups'`,
      );
      return row?.["place"] as number | null;
    }, runMs);
    await copied();
    for (const objects of await both()) {
      const anchored = [...objects.keys()].map((name) => /^v1\/anchors\/[^/]+\/(\d+)-/.exec(name)?.[1] ?? "0").map(
        Number,
      );
      expect(Math.max(...anchored)).toBeGreaterThanOrEqual(place);
    }
  }, 2 * runMs);

  it.each(sampled("points", ["step:copy.put", "step:copies.surveyed"], 1))(
    "goes on where a function was killed at %s",
    async (line) => {
      await project.query("update public.noise set t = reverse(t) where i < 40");
      const kill = await project.killAt(line);
      const { run } = await project.startBackup();
      expect(await project.ended(run, slowMs)).toMatchObject({ status: "succeeded" });
      await kill.fired();
      const [replication] = (await replications()).toReversed();
      await project.ended(replication?.id ?? "");
      await copied();
      const [first, second] = await both();
      expect(await differences(first, second, identity)).toEqual([]);
    },
    3 * runMs,
  );

  it("says so: status tells the lag, list says complete", async () => {
    const settings = {
      ...secondary,
      BACKUP_DB_URL: stack.cluster.url("postgres"),
      BACKUP_STORE: "supabase://holdfast-backups",
    };
    const status = await cli(["status", "--json"], settings);
    expect(status.document, status.stderr).toMatchObject({ secondStore: { objects: 0, lagSeconds: null } });
    const list = await cli(["list", "--json"], settings);
    const fulls = (list.document as { kind: string; complete: boolean }[]).filter((run) => run.kind === "full");
    expect(fulls.length).toBeGreaterThan(1);
    expect(fulls.filter((run) => !run.complete)).toEqual([]);
    expect(await project.query("select kind, message from backup.alerts where status <> 'resolved' and kind ~ '^cop'"))
      .toEqual([]);
  });
});

describe("total loss: the project is deleted, with its Storage", () => {
  /** Without what Holdfast has there, and the webhook that a restore holds back. */
  const publicOnes = (dump: ReadonlyMap<string, string>) =>
    new Map(
      [...dump].filter(([name]) =>
        name.includes("; Schema: public") &&
        !/backup_|my_exports|holdfast_changes|announce_entry; Type: TRIGGER/.test(name)
      )
        // pg_dump sets these where the next entry needs them, whichever that is.
        .map(([name, body]) => [name, body.replace(/^SET default_.*$/gm, "").trim()]),
    );

  it("comes back from the second provider with the recovery key and the identity, and nothing else", async () => {
    const { run } = await project.startBackup();
    expect(await project.ended(run, slowMs)).toMatchObject({ status: "succeeded" });
    await copied();
    const source = new pg.Client({ connectionString: stack.cluster.plainUrl("supabase_admin") });
    await source.connect();
    before = { hashes: await rowHashes(source), dump: dumpEntries(stack.cluster, "postgres") };
    await source.end();
    await stack.destroy();

    const cluster = await startTestCluster();
    try {
      const keyFile = join(folder, "recovery.key");
      const identityFile = join(folder, "age.txt");
      writeFileSync(keyFile, `BACKUP_KEYS=${recovery.privateEntry}\n`, { mode: 0o600 });
      writeFileSync(identityFile, `${identity}\n`, { mode: 0o600 });
      await query(cluster.plainUrl(), "create database again");
      const { BACKUP_RECIPIENTS: _, ...credentials } = secondary;
      const settings = { ...credentials, BACKUP_TARGET_DB_URL: cluster.url("supabase_admin", "again") };
      const away = ["--store", "second", "--keys-file", keyFile, "--identities-file", identityFile, "--json"];
      const check = await cli(["keys", "check", ...away], settings);
      expect(check.exit, check.stdout + check.stderr).toBe(0);
      const verified = await cli(["verify", "latest", ...away], settings);
      expect(verified.document, verified.stderr).toMatchObject({ id: run, ok: true, problems: [] });
      const restored = await cli(["restore-full", "latest", "--yes", ...away], settings);
      expect(restored.exit, restored.stdout + restored.stderr).toBe(0);
      const target = new pg.Client({ connectionString: cluster.plainUrl("supabase_admin", "again") });
      await target.connect();
      const after = await rowHashes(target);
      await target.end();
      const mine = (hashes: Map<string, string>) => [...hashes].filter(([name]) => name.startsWith("public."));
      expect(mine(after)).toEqual(mine(before.hashes));
      expect(mine(after).length).toBeGreaterThan(5);
      expect(after.get("auth.users")).toBe(before.hashes.get("auth.users"));
      const [was, is] = [publicOnes(before.dump), publicOnes(dumpEntries(cluster, "again"))];
      expect(differingEntries(was, is).map((name) => [name, was.get(name), is.get(name)])).toEqual([]);
      expect(was.size).toBeGreaterThan(50);
    } finally {
      await cluster.destroy();
    }
  }, 4 * runMs);
});
