/** Drills by the CLI, on a project with a change stream and a second store: what they prove, and what they refuse. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import type { Budget } from "../../src/shared/backup/budget.ts";
import {
  drillDatabaseName,
  dropDrillDatabase,
  requirePlace,
  sweepDrillDatabases,
} from "../../src/shared/drills/database.ts";
import type { DrillDeps, DrillServer } from "../../src/shared/drills/deps.ts";
import type { DrillRow } from "../../src/shared/drills/drill_queries.ts";
import { runDrillLeg } from "../../src/shared/drills/leg.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { otherWords } from "../../src/shared/restore/other_words.ts";
import type { SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import type { ReadDeps } from "../../src/shared/verify/find_backup.ts";
import { beginRecovery, recoverOn, type RecoveryStep } from "../../src/shared/drills/recover.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { inDatabase } from "../../src/shared/restore/new_database.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { type Cluster, clusterMs, query, useCluster, withCluster } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-drills-"));
const drillMs = 120_000;
let server: S3Server;
let settings: Record<string, string> = {};
let second: Record<string, string> = {};
let recovery = { publicEntry: "", privateEntry: "" };
let identity = "";

const source = () => cluster().plainUrl("postgres");
const live = (text: string, values: readonly unknown[] = []) => query(source(), text, values);
const databases = async () =>
  (await live("select datname from pg_database where datname ~ '^holdfast_drill' order by 1")).map((row) =>
    row["datname"]
  );
const alerts = async () =>
  (await live(
    "select kind || ' ' || subject as what from backup.alerts where status <> 'resolved' and kind ~ 'drill' order by 1",
  ))
    .map((row) => row["what"]);
const lastLog = async () =>
  (await live("select action, result, notes from backup.maintenance_log order by id desc limit 1"))[0];

interface Drilled {
  readonly id: string;
  readonly ok: boolean;
  readonly rtoSeconds: number | null;
  readonly rpoSeconds: number | null;
  readonly evidence: {
    readonly proof: {
      readonly tables: number;
      readonly differencesTotal: number;
      readonly notCompared: readonly { identity: string; reason: string }[];
    } | null;
    readonly stream: { readonly transactions: number; readonly asOfBackup: readonly string[] } | null;
    readonly subject: string | null;
    readonly store: string;
    readonly keys: readonly string[];
    readonly failure: { readonly code: string } | null;
    readonly signature: { readonly key: string } | null;
  };
  readonly error?: { readonly code: string; readonly hint: string };
}

async function drill(
  args: readonly string[],
  given: Record<string, string> = settings,
): Promise<{ readonly exit: number | null; readonly told: Drilled }> {
  const { exit, document, stdout, stderr } = await cli([...args, "--json"], given);
  if (document === undefined) throw new Error(stdout + stderr);
  return { exit, told: document as Drilled };
}

async function good(args: readonly string[], given?: Record<string, string>): Promise<Drilled> {
  const { exit, told } = await drill(args, given);
  if (exit !== 0) throw new Error(`exit ${exit}: ${JSON.stringify(told.error ?? told.evidence.proof, null, 1)}`);
  expect(told).toMatchObject({ ok: true, evidence: { ok: true, failure: null } });
  return told;
}

beforeAll(async () => {
  server = await startS3Server();
  identity = await generateIdentity();
  recovery = await generateRecoveryKey(webCryptoRandom);
  second = {
    BACKUP_SECONDARY: `s3://${server.bucket}/copy?endpoint=${encodeURIComponent(server.endpoint)}`,
    BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
    BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
  };
  settings = {
    ...second,
    BACKUP_RECIPIENTS: await identityToRecipient(identity),
    BACKUP_DB_URL: cluster().url("postgres"),
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")},${recovery.publicEntry}`,
  };
  await live(
    `create table public.people (id int generated always as identity primary key, name text not null unique);
     create table public.notes (id int primary key, person int not null references public.people, body text);
     create table public.tags (id bigint generated by default as identity primary key, label text);
     create table public."odd Names" ("a Key" text, "b" int, v jsonb, primary key ("a Key", "b"));
     create table public.untouched (id int primary key, v numeric);
     create view public.seen with (security_invoker = true) as select u.id, u.v as value from public.untouched as u where u.v > 1;
     create materialized view public.counted as select count(u.id) as n from public.untouched as u;
     create table public.no_key (v text);
     insert into public.people (name) select 'person ' || i from generate_series(1, 50) as i;
     insert into public.notes select i, 1 + i % 50, repeat('note ' || i, 5) from generate_series(1, 3000) as i;
     insert into public.tags (label) select 'tag ' || i from generate_series(1, 20) as i;
     insert into public."odd Names" values (E'tab\\there', 1, '{"a": 1}'), (E'line\\nend', 2, 'null'), ('\\N', 3, null);
     insert into public.untouched select i, i / 7.0 from generate_series(1, 500) as i;
     insert into public.no_key values ('x'), (null)`,
  );
  for (const command of ["init", "incremental", "create"]) {
    const { exit, stdout, stderr } = await cli([command], settings);
    expect(exit, stdout + stderr).toBe(0);
  }
  // All that a stream brings: rows in every way, an emptied table, a new one, a changed one.
  await live(
    `insert into public.notes select i, 1 + i % 50, 'later' from generate_series(3001, 3100) as i;
     update public.notes set body = 'changed' where id % 10 = 0;
     delete from public.notes where id % 10 = 1;
     truncate public.tags;
     insert into public.tags (label) values ('after')`,
  );
  await live(
    "create table public.newer (id int primary key, v text); insert into public.newer values (1, 'a'), (2, 'b')",
  );
  await live("alter table public.people add column age int; update public.people set age = id where id < 5");
  for (const command of ["incremental", "replicate"]) {
    const { exit, stdout, stderr } = await cli([command], settings);
    expect(exit, stdout + stderr).toBe(0);
  }
}, clusterMs + 60_000);

afterAll(async () => {
  await server?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("a recovery test that cannot be done", () => {
  it("is refused where nobody said how large the disk is, and told", async () => {
    const { exit, told } = await drill(["test-recovery"]);
    expect(exit).toBe(2);
    expect(told).toMatchObject({ ok: false, rtoSeconds: null, error: { code: "setting_missing" } });
    expect(told.error?.hint).toContain("BACKUP_DRILL_DB_URL");
    expect(told.evidence).toMatchObject({ failure: { code: "setting_missing" }, signature: { key: "test" } });
    expect(await databases()).toEqual([]);
    expect(await alerts()).toEqual(["drill_failed drill:recovery"]);
    expect(await lastLog()).toMatchObject({ action: "Recovery test", result: "Failure" });
  }, drillMs);

  it("is refused where the disk leaves no room", async () => {
    await live("update backup.settings set value = '1' where name = 'disk_mb'");
    const { exit, told } = await drill(["test-recovery"]);
    expect({ exit, code: told.error?.code }).toEqual({ exit: 1, code: "space_missing" });
    expect(await databases()).toEqual([]);
    await withRoom();
  }, drillMs);

  it("has failed where the server makes no database for the role, and is not done in a smaller one", async () => {
    await live("create role nodb login password 'nodb'");
    const { host, port, caFile } = cluster();
    const { told } = await drill(["test-recovery"], {
      ...settings,
      BACKUP_DRILL_DB_URL: `postgresql://nodb@${host}:${port}/postgres`,
      BACKUP_DRILL_DB_CA: caFile,
      PGPASSWORD: "nodb",
      BACKUP_DB_PASSWORD_FILE: passwordFile(),
    });
    expect(told).toMatchObject({ ok: false, error: { code: "database_denied" } });
    expect(await databases()).toEqual([]);
  }, drillMs);

  it("stops at a database that has its name", async () => {
    const drillServer = serverOf();
    await live("create database holdfast_drill_taken");
    const session = await drillServer.database.connect("test");
    try {
      await expect(requirePlace(session, drillServer, "holdfast_drill_taken", 0)).rejects.toMatchObject({
        code: "drill_database_exists",
      });
    } finally {
      await session.close();
      await live("drop database holdfast_drill_taken");
    }
  });
});

function passwordFile(): string {
  const path = join(folder, "password");
  writeFileSync(path, cluster().password("postgres"), { mode: 0o600 });
  return path;
}

function serverOf(): DrillServer {
  const options = { url: cluster().plainUrl("postgres") };
  return {
    database: openDatabase(options),
    inDatabase: (name) => openDatabase(inDatabase(options, name)),
    isOwn: true,
  };
}

/** The disk of the source's server has room. */
const withRoom = () => live("update backup.settings set value = '1000000' where name = 'disk_mb'");

describe("test-recovery", () => {
  beforeAll(withRoom);

  it(
    "brings back the newest backup and the stream, proves it, measures it, signs it, and leaves nothing behind",
    async () => {
      const [mine, others] = [
        drillDatabaseName(
          await installId(),
          "00000000-dead",
          new Date(0),
        ),
        drillDatabaseName("ffffffff-0000", "00000000-dead", new Date(0)),
      ];
      for (const name of [mine, others]) await live(`create database ${name}`);
      const before = await live("select oid from pg_database where datname !~ '^holdfast_drill' order by 1");
      const told = await good(["test-recovery"]);
      expect(told.rtoSeconds).toBeGreaterThan(0);
      expect(told.rpoSeconds).toBeGreaterThanOrEqual(0);
      expect(told.evidence.stream).toMatchObject({ asOfBackup: [] });
      expect(told.evidence.stream?.transactions).toBeGreaterThanOrEqual(3);
      expect(told.evidence.proof?.tables).toBeGreaterThan(6);
      expect(told.evidence.signature?.key).toBe("test");
      // What a killed one left is gone, another installation's is not.
      expect(await databases()).toEqual([others]);
      await live(`drop database ${others}`);
      expect(await live("select oid from pg_database order by 1")).toEqual(before);
      expect(await live("select from pg_roles where rolname ~ 'drill'")).toEqual([]);
      expect(await alerts()).toEqual([]);
      expect(await lastLog()).toMatchObject({ action: "Recovery test", result: "Success" });
      const [row] = await live(
        "select rto_seconds, evidence, database_dropped_at is not null as dropped from backup.drills where id = $1",
        [told.id],
      );
      expect(Number(row?.["rto_seconds"])).toBe(told.rtoSeconds);
      expect(row?.["dropped"]).toBe(true);

      for (const which of [told.id, told.id.slice(0, 6)]) {
        expect(await drill(["drills", "verify", which])).toMatchObject({ exit: 0, told: { id: told.id, ok: true } });
      }
      const file = join(folder, "evidence.json");
      writeFileSync(file, JSON.stringify({ ...told.evidence, measured: { rtoSeconds: 1, rpoSeconds: 1 } }));
      expect(await drill(["drills", "verify", file], { BACKUP_KEYS: settings["BACKUP_KEYS"] ?? "" })).toMatchObject({
        exit: 3,
        told: { ok: false },
      });
      const report = await cli(["drills", "report", told.id.slice(0, 6)], settings);
      expect(report.stdout).toMatch(/# Recovery test: Success[^]*\| 86400 \| yes \|[^]*Signed with key test/);
      expect((await cli(["runbooks"], settings)).stdout).toMatch(
        /a-moment\.md\s+last tested on \d{4}-\d\d-\d\d – Success – .*drill/,
      );
    },
    drillMs,
  );

  it("says where its evidence was exchanged for that of another drill, or its row was changed", async () => {
    const told = await latest("recovery");
    await live(
      `insert into backup.drills (id, drill, started_at, finished_at, ok, evidence)
       select '00000000-0000-4000-8000-000000000001', 'recovery', now(), now(), true, evidence from backup.drills where id = $1`,
      [told],
    );
    const verified = async (id: string) => await drill(["drills", "verify", id]);
    expect(await verified("00000000-0000-4000-8000-000000000001")).toMatchObject({ exit: 3, told: { ok: false } });
    await live("delete from backup.drills where id = '00000000-0000-4000-8000-000000000001'");
    await live("update backup.drills set rto_seconds = rto_seconds + 1 where id = $1", [told]);
    expect(await verified(told)).toMatchObject({ exit: 3, told: { id: told, ok: false } });
    await live("update backup.drills set rto_seconds = rto_seconds - 1 where id = $1", [told]);
    expect(await verified(told)).toMatchObject({ exit: 0, told: { id: told, ok: true } });
  }, drillMs);

  it("leaves the database alone where another worker has taken over, whatever goes wrong behind it", async () => {
    const session = await openDatabase({ url: source() }).connect("test");
    const [ordered] = await live("select run from backup.request_drill('full', 'cli')");
    const run = String(ordered?.["run"]);
    const read = await readDeps();
    const leg = async (worker: string, open: () => Promise<ReadDeps>) =>
      await runDrillLeg(
        { ...recoveryDeps(session), open, ring: () => Promise.resolve(read.ring), ...unused },
        run,
        { worker, budget: budget(1) },
      );
    try {
      for (const _ of ["planned", "made"]) expect(await leg("a", () => Promise.resolve(read))).toBe(true);
      const [made] = await databases();
      expect(made).toBeDefined();
      // It stands still for longer than its lease, and comes back into what is another's by now.
      const late = async () => {
        await live("update backup.tasks set token = token + 1, worker = 'b' where run_id = $1", [run]);
        throw new HoldfastError("object_damaged", "something that no retry mends");
      };
      expect(await leg("a", late)).toBe(true);
      expect(await databases()).toEqual([made]);
      expect(await live("select finished_at from backup.drills where run_id = $1", [run])).toEqual([
        { finished_at: null },
      ]);
      await live("select backup.cancel_run($1)", [run]);
      expect(await sweepDrillDatabases(recoveryDeps(session), await installId())).toEqual([made]);
    } finally {
      await session.close();
    }
  }, drillMs);
});

/** The last one of that name. */
async function latest(name: string): Promise<string> {
  const [row] = await live("select last_drill from backup.drill_calendar where name = $1", [name]);
  return String(row?.["last_drill"]);
}

const installId = async () => String((await live("select install_id from backup.identity"))[0]?.["install_id"]);

/** What a drill of the whole database does not work with. */
const unused: Pick<DrillDeps, "database" | "beside" | "random"> = {
  get database() {
    return openDatabase({ url: source() });
  },
  beside: {
    begin: () => Promise.reject(new Error("nothing is laid beside")),
    work: () => Promise.resolve(),
  },
  random: webCryptoRandom,
};

function recoveryDeps(connection: Connection) {
  return { connection, server: serverOf(), clock: systemClock, log: silentLog };
}

async function readDeps(): Promise<ReadDeps> {
  return {
    store: createFileStore(`${folder}/store`),
    ring: parseKeyRing(settings["BACKUP_KEYS"]),
    compressor: await loadZstd(),
  };
}

/** Spent at every so many steps; null: never. */
function budget(every: number | null): Budget {
  let steps = 0;
  return { spendText: () => {}, spendCalls: () => {}, spent: () => every !== null && ++steps % every === 0 };
}

describe("a recovery in steps", () => {
  let connection: Connection;
  /** Restored, and proven right by the first test; the others spoil copies of it. */
  let restored: RecoveryStep["state"];
  beforeAll(async () => {
    await withRoom();
    connection = await openDatabase({ url: source() }).connect("test");
  });
  afterAll(async () => {
    if (restored !== undefined) await dropDrillDatabase(recoveryDeps(connection), restored.database);
    await connection?.close();
  });

  /** Until the step is over; `tight`: in many legs. */
  async function on(state: RecoveryStep["state"], tight: boolean): Promise<RecoveryStep> {
    const every = tight ? state.step === "prove" ? 4 : 12 : null;
    for (;;) {
      try {
        return await recoverOn(recoveryDeps(connection), await readDeps(), state, { budget: budget(every) });
      } catch (error) {
        if ((error as { code?: string }).code !== "cancelled") throw error;
      }
    }
  }

  async function proven(from: RecoveryStep["state"], tight = false) {
    let [step, steps] = [await on(from, tight), 1];
    for (; step.proof === null; steps++) step = await on(step.state, tight);
    if (tight) expect(steps).toBeGreaterThan(3);
    return step.proof;
  }

  it("goes on behind every step in the database that a killed one had made, and does none twice", async () => {
    const drillRow = { id: crypto.randomUUID(), startedAt: new Date().toISOString() } as DrillRow;
    const begun = await beginRecovery(recoveryDeps(connection), await readDeps(), drillRow, "0badcafe-0000", true);
    const made = await on(begun.state, true);
    expect(await databases()).toEqual([begun.state.database]);
    // Killed before it could say so: the same steps find that they are done.
    expect((await on(begun.state, true)).state.step).toBe("restore");
    const first = await on(made.state, true);
    const again = await on(made.state, true);
    expect([first.state.step, again.state.step]).toEqual(["prove", "prove"]);
    expect(await proven(again.state, true)).toMatchObject({ ok: true });
    restored = again.state;
  }, drillMs);

  it.each([
    ["a row of a table that nobody changed", "update public.untouched set v = v + 1 where id = 7", "rows"],
    ["a row too few in a table that the stream changed", "delete from public.notes where id = 30", "rows"],
    [
      "rows without their parent",
      "set session_replication_role = replica; delete from public.people where id = 3",
      "foreign key",
    ],
    ["row level security that nobody asked for", "alter table public.untouched enable row level security", "extra"],
    ["a sequence that is behind", "select setval('public.people_id_seq', 3)", "sequence"],
    ["a grant that nobody gave", "grant select on public.untouched to anon", "privileges"],
    ["a table too much", "create table public.planted (id int)", "extra"],
    ["a lost table of the stream", "drop table public.newer", "missing"],
  ])("finds what is wrong: %s", async (_, wrong, kind) => {
    const copy = `${restored.database}_wrong`;
    await query(cluster().plainUrl("supabase_admin"), `create database ${copy} template ${restored.database}`);
    try {
      await query(cluster().plainUrl("supabase_admin", copy), wrong);
      const proof = await proven({ ...restored, database: copy });
      expect(proof?.ok).toBe(false);
      expect(proof?.differences.map((one) => one.kind)).toContain(kind);
    } finally {
      await query(cluster().plainUrl("supabase_admin"), `drop database ${copy} with (force)`);
    }
  }, drillMs);
});

describe("the other drills", () => {
  beforeAll(withRoom);

  it("full: the newest backup alone, equal in every respect", async () => {
    const told = await good(["drills", "run", "full"]);
    expect(told.evidence.stream).toBeNull();
    expect(await databases()).toEqual([]);
  }, drillMs);

  it("table and record: beside the live rows, another one each time, and dropped again", async () => {
    const subjects: (string | null)[] = [];
    for (const name of ["table", "record", "table", "record"]) {
      const told = await good(["drills", "run", name]);
      expect(told.evidence.proof).toMatchObject({ tables: 1, differencesTotal: 0 });
      expect(told.rpoSeconds).toBeNull();
      subjects.push(told.evidence.subject);
    }
    const [first, , third] = subjects;
    expect(first).not.toBe(third);
    const records = subjects.filter((_, at) => ![0, 2].includes(at));
    expect(new Set(records).size).toBe(records.length);
    expect(records).not.toContain("public.no_key");
    expect(await live("select from pg_namespace where nspname ~ '^restore_'")).toEqual([]);
    // No value of a row stands in what is kept of a drill.
    expect(JSON.stringify(await live("select * from backup.drills"))).not.toMatch(/person 1\b|line\\\\nend|note 1note/);
  }, 3 * drillMs);

  it("record: refused where a row beside is not the backup's", async () => {
    const told = await drill(["drills", "run", "record"], { ...settings, BACKUP_STORE: `file://${folder}/nowhere` });
    expect(told).toMatchObject({ told: { ok: false } });
    expect(await live("select from pg_namespace where nspname ~ '^restore_'")).toEqual([]);
  }, drillMs);

  it("disaster: from the second store, which the first has no part in", async () => {
    const told = await good(["drills", "run", "disaster"], {
      ...settings,
      BACKUP_STORE: `file://${folder}/nowhere`,
      BACKUP_IDENTITIES: identity,
    });
    expect(told.evidence.store).toContain(server.bucket);
    expect(told.evidence.stream?.transactions).toBeGreaterThanOrEqual(3);
  }, drillMs);

  it("disaster: has failed where the second store is down, or opens with no identity", async () => {
    expect(await drill(["drills", "run", "disaster"])).toMatchObject({
      exit: 2,
      told: { ok: false, error: { code: "identity_missing" } },
    });
    const [ordered] = await live("select run from backup.request_drill('disaster', 'cli')");
    const down = () => Promise.reject(new HoldfastError("store_unreachable", "no answer"));
    const session = await openDatabase({ url: source() }).connect("test");
    const read = await readDeps();
    const leg = async () =>
      await runDrillLeg(
        { ...recoveryDeps(session), open: down, ring: () => Promise.resolve(read.ring), ...unused },
        String(ordered?.["run"]),
        { worker: "test", budget: budget(null) },
      );
    const ended = async () =>
      (await live("select finished_at is not null as yes from backup.drills order by started_at desc limit 1"))[0]?.[
        "yes"
      ];
    expect(await leg()).toBe(true);
    expect(await ended(), "it may be back in a while").toBe(false);
    await live("update backup.tasks set tries = 4, not_before = now() - interval '1 second' where status = 'open'");
    expect(await leg()).toBe(true);
    expect(await ended()).toBe(true);
    await session.close();
    const last = await drill(["drills", "show", await latest("disaster")]);
    expect(last.told).toMatchObject({ ok: false, evidence: { failure: { code: "store_unreachable" } } });
    expect(await alerts()).toContain("drill_failed drill:disaster");
    expect(await databases()).toEqual([]);
  }, 3 * drillMs);

  it("complete: with the recovery key alone, on another server (PostgreSQL 17), and with nothing else", async () => {
    await withCluster({ version: 17, platform: false }, async (newer) => await completeOn(newer));
  }, 2 * drillMs);

  async function completeOn(newer: Cluster): Promise<void> {
    const elsewhere = {
      ...settings,
      BACKUP_IDENTITIES: identity,
      BACKUP_DRILL_DB_URL: newer.url(newer.superuser),
    };
    const before = await live("select count(*)::int as n from backup.drills");
    expect(await drill(["drills", "run", "complete"], elsewhere)).toMatchObject({
      exit: 2,
      told: { error: { code: "drill_keys_wrong" } },
    });
    const both = `${settings["BACKUP_KEYS"]?.split(",")[0]},${recovery.privateEntry}`;
    expect(await drill(["drills", "run", "complete"], { ...elsewhere, BACKUP_KEYS: both })).toMatchObject({
      told: { error: { code: "drill_keys_wrong" } },
    });
    const alone = { ...elsewhere, BACKUP_KEYS: recovery.privateEntry };
    const { BACKUP_DRILL_DB_URL: _, ...own } = alone;
    expect(await drill(["drills", "run", "complete"], own)).toMatchObject({
      exit: 2,
      told: { error: { code: "setting_missing" } },
    });
    expect(await live("select count(*)::int as n from backup.drills"), "nothing was begun").toEqual(before);
    const told = await good(["drills", "run", "complete"], alone);
    expect(told.evidence.keys).toEqual([recovery.privateEntry.split(":")[0]]);
    expect(told.evidence.signature?.key).toBe(recovery.privateEntry.split(":")[0]);
    expect(await query(newer.plainUrl(newer.superuser), "select from pg_database where datname ~ 'drill'")).toEqual([]);
    await sameQueries(newer);
  }

  /** PostgreSQL 15 writes `n.oid` where 17 writes `oid`: one query, and nothing else is. */
  async function sameQueries(newer: Cluster): Promise<void> {
    const connection = await openDatabase({ url: newer.plainUrl(newer.superuser) }).connect("test");
    const side = (versionNum: number, ...statements: string[]) => ({
      server: { versionNum } as SchemaCapture["server"],
      definitions: [{ identity: "view public.x", kind: "view", statements }] as unknown as SchemaCapture["definitions"],
    });
    const view = (query: string, options = "") => `create or replace view public.x${options} as ${query}`;
    const was = side(150000, view("SELECT n.oid, n.nspname FROM pg_catalog.pg_namespace n"));
    const words = async (other: ReturnType<typeof side>) =>
      (await otherWords(connection, was, other, [{ kind: "definition", name: "view public.x", detail: "" }])).size;
    const now = "SELECT oid, nspname FROM pg_catalog.pg_namespace n";
    try {
      expect(await words(side(170000, view(now)))).toBe(1);
      expect(await words(side(150000, view(now))), "one version writes one way").toBe(0);
      expect(await words(side(170000, view(`${now} WHERE oid > 5`)))).toBe(0);
      expect(await words(side(170000, view("SELECT oid, nspname FROM public.nowhere n")))).toBe(0);
      expect(await words(side(170000, view(now, " with (security_invoker=true)")))).toBe(0);
      expect(await words(side(170000, view(now), "comment on view public.x is 'more'"))).toBe(0);
    } finally {
      await connection.close();
    }
  }

  it("keys: by the private half, and failed with one that opens nothing", async () => {
    expect(await drill(["drills", "run", "keys"])).toMatchObject({
      exit: 2,
      told: { error: { code: "drill_keys_wrong" } },
    });
    await good(["drills", "run", "keys", "--note", "from the safe"], {
      ...settings,
      BACKUP_KEYS: recovery.privateEntry,
    });
    expect(await lastLog()).toMatchObject({ result: "Success", notes: expect.stringContaining("from the safe") });
    const { privateEntry } = await generateRecoveryKey(webCryptoRandom);
    expect(await drill(["drills", "run", "keys"], { ...settings, BACKUP_KEYS: privateEntry })).toMatchObject({
      exit: 3,
      told: { ok: false },
    });
    expect(await alerts()).toContain("drill_failed drill:keys");
  }, drillMs);

  it("runbooks: recorded once a person has said that they were read", async () => {
    expect(await drill(["drills", "run", "runbooks"])).toMatchObject({
      exit: 2,
      told: { error: { code: "confirmation_missing" } },
    });
    await good(["drills", "run", "runbooks", "--yes", "--note", "the phone number was old"]);
    expect(await lastLog()).toMatchObject({
      action: "Review of the runbooks",
      notes: expect.stringContaining("the phone number was old"),
    });
  }, drillMs);

  it("list: what is due, and that nothing runs by itself without pg_cron", async () => {
    const { exit, stdout } = await cli(["drills", "list"], settings);
    expect(exit).toBe(0);
    expect(stdout).toMatch(/recovery\s+Recovery test\s+week\s+system\s+\d{4}-\d\d-\d\d\s+Success/);
    expect(stdout).toMatch(/keys\s.*person.*FAILURE/);
    expect(await drill(["drills", "run", "nothing"])).toMatchObject({ told: { error: { code: "not_found" } } });
    expect(await drill(["drills", "show", "ffffffff"])).toMatchObject({ told: { error: { code: "not_found" } } });
  }, drillMs);
});
