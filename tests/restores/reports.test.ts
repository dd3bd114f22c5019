/**
 * What is kept of a person, told by the CLI, before and after an erasure; and a guardian who asked for it. The oracle is SQL of the
 * tests' own, over the tables of the app, of Storage and of the audit.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { readLedger } from "../../src/shared/erase/ledger.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { admitGuardian, type GuardianRequest, recordGuardian } from "../../src/shared/privacy/guardian.ts";
import type { Report } from "../../src/shared/privacy/report_format.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openStore } from "../../src/shared/store/open_store.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { cli } from "../integration/cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-reports-"));
const map = join(folder, "backup.map.json");
let settings: Record<string, string> = {};
let app: SampleApp;
let backup = "";
/** Who is asked about, and somebody else. */
let [person, other] = ["", ""];
let request = "";

const source = () => cluster().plainUrl("postgres");
const ask = async (text: string, values: readonly unknown[] = []) => await query(source(), text, values);

async function ok(args: readonly string[]): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

async function refused(args: readonly string[]): Promise<string> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).not.toBe(0);
  return (result.document as { error: { code: string } }).error.code;
}

const reportOf = async (who: string) => await ok(["report", who]) as unknown as Report & { readonly user: string };

async function ledgerDeps() {
  const store = openStore(settings["BACKUP_STORE"] ?? "", {}, {
    fetch: (input, init) => fetch(input, init),
    clock: systemClock,
    random: webCryptoRandom,
    log: silentLog,
  });
  const { id: repositoryId } = await openOrCreateRepository({ store, clock: systemClock, random: webCryptoRandom });
  const ring = parseKeyRing(settings["BACKUP_KEYS"]);
  return { store, ring, compressor: await loadZstd(), random: webCryptoRandom, repositoryId };
}

/** As an administrator's call of the function does it. */
async function record(wanted: GuardianRequest, administrator: string | null): Promise<string> {
  const connection = await openDatabase({ url: source() }).connect("holdfast:test");
  try {
    const claims = administrator === null ? "" : JSON.stringify({ sub: administrator });
    await connection.query("select set_config('request.jwt.claims', $1, false)", [claims]);
    const id = await admitGuardian(connection, wanted);
    await recordGuardian({ ...await ledgerDeps(), connection, clock: systemClock }, id, wanted);
    return id;
  } finally {
    await connection.close();
  }
}

const asked = (): GuardianRequest => ({
  child: person,
  guardian: { name: "Maria Muster", reach: "maria@example.org", relation: "parent" },
  asks: ["review", "erasure"],
  identityBy: "video",
  saidOn: "2026-11-20",
  statement: "I am the mother, and want all of it shown to me and then deleted.",
});

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  // Tags of others on the person's entries go with them.
  writeFileSync(
    map,
    JSON.stringify({ version: 1, keys: [], users: [], tables: [{ table: "public.entry_tags", rows: "owned" }] }),
  );
  await ok(["init"]);
  app = await loadSampleApp({
    owner: { connectionString: source() },
    admin: { connectionString: cluster().plainUrl("supabase_admin") },
  }, { scale: 0.02 });
  const [writer] = await ask(
    "select user_id as id from public.journal_entries group by 1 order by count(*) desc limit 1",
  );
  person = String(writer?.["id"]);
  other = app.people.map(({ id }) => id).find((id) => id !== person) ?? "";
  // Of before they came: it holds nothing of them.
  backup = String((await ok(["create"]))["id"]);
  await query(
    cluster().plainUrl("supabase_admin"),
    "update auth.users set created_at = (select consistent_at + interval '1 ms' from backup.runs where kind = 'full') where id = $1",
    [person],
  );
  await query(
    cluster().plainUrl("supabase_admin"),
    "update auth.users set created_at = now() - interval '1 year' where id = $1",
    [other],
  );
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the report on a person", () => {
  it("names no backup of before they came, and of after it each with the day that retention keeps it", async () => {
    expect((await reportOf(person)).backups).toEqual([]);
    expect((await reportOf(other)).backups.map((one) => one.backup)).toEqual([backup]);
    const second = String((await ok(["create"]))["id"]);
    const { backups, stores } = await reportOf(person);
    const [expected] = await ask(
      `select to_char((r.consistent_at + p.keep) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as until
         from backup.runs as r join backup.policies as p on p.tier = any (r.tiers) where r.id = $1`,
      [second],
    );
    expect(backups).toMatchObject([{
      backup: second,
      tiers: ["manual"],
      until: expected?.["until"],
      second: false,
      lockedUntil: null,
    }]);
    expect(stores?.second ?? null).toBeNull();
    backup = second;
  });

  it("counts their rows, table by table, as SQL does", async () => {
    const { live, standing, user } = await reportOf(app.people.find(({ id }) => id === person)?.email ?? "");
    expect({ standing, user }).toEqual({ standing: "there", user: person });
    for (const table of ["journal_entries", "tags", "profiles"]) {
      const column = table === "profiles" ? "id" : "user_id";
      const [row] = await ask(`select count(*)::int as n from public.${table} where ${column} = $1`, [person]);
      const told = live?.tables.find((one) => one.table === `public.${table}`)?.rows ?? 0;
      expect({ table, rows: told }).toEqual({ table, rows: row?.["n"] });
    }
    const [attachments] = await ask(
      "select count(*)::int as n from public.attachments as a join public.journal_entries as e on e.id = a.entry_id where e.user_id = $1",
      [person],
    );
    expect(live?.tables.find((one) => one.table === "public.attachments")?.rows ?? 0).toBe(attachments?.["n"]);
    expect(live?.tables.find((one) => one.table === "auth.users")?.rows).toBe(1);
    expect(live?.suspects).toContain("public.events.user_id");
  });

  it("says who looked at them: what was restored, exported, and single rows that were theirs; and what nobody can tell", async () => {
    await ok(["restore-user", person, backup]);
    await ok(["export", person, "--without-files", "--out", folder]);
    const [own] = await ask("select id from public.journal_entries where user_id = $1 limit 1", [person]);
    const [strange] = await ask("select id from public.journal_entries where user_id <> $1 limit 1", [person]);
    const look = async (id: unknown) =>
      String(
        (await ok(["restore-record", "public.journal_entries", backup, "--where", `id=${String(id)}`]))["restore"],
      );
    const [theirs, others] = [await look(own?.["id"]), await look(strange?.["id"])];
    const table = String((await ok(["restore-table", "public.tags", backup]))["restore"]);
    const { seen, mayHaveSeen, sides } = await reportOf(person);
    const acts = (list: Report["seen"]) => list.map(({ action, subject }) => `${action} ${subject}`);
    expect(acts(seen)).toEqual(expect.arrayContaining([`restore.showed restore:${theirs}`]));
    expect(acts(seen).some((act) => act.startsWith("export.downloaded"))).toBe(true);
    expect(seen.filter(({ action, detail }) => action === "restore.finished" && detail["scope"] === "user"))
      .toHaveLength(1);
    expect(acts(seen).join()).not.toContain(others);
    expect(acts(mayHaveSeen)).toEqual([`restore.finished restore:${table}`]);
    expect(sides.filter((side) => side.theirs)).toHaveLength(1);
    expect(sides.find(({ restore }) => restore === table)).toMatchObject({ theirs: false });
    expect(seen.every(({ who }) => who === "role:postgres")).toBe(true);
  });

  it("is in the audit, which names nobody, and shows in the next one", async () => {
    const [before] = (await reportOf(other)).seen;
    expect(before).toMatchObject({ action: "report.made", subject: "the person" });
    const [row] = await ask(
      "select count(*)::int as n from backup.audit_log as l where strpos(l::text, $1) > 0 or strpos(l::text, $2) > 0",
      [person, app.people.find(({ id }) => id === person)?.email],
    );
    expect(row?.["n"]).toBe(0);
  });

  it("is refused for who is nobody, and says what it is for people to read", async () => {
    expect(await refused(["report", randomUUID()])).toBe("user_not_found");
    expect(await refused(["report", "nobody@example.org"])).toBe("user_not_found");
    const { exit, stdout } = await cli(["report", person], settings);
    expect(exit).toBe(0);
    for (const part of ["public.journal_entries", backup, "Who saw it", "What cannot be told"]) {
      expect(stdout).toContain(part);
    }
  });
});

describe("a guardian's request", () => {
  it("is recorded by somebody who is signed in, of a child who is there, without the child's id or address in its words", async () => {
    const code = async (wanted: GuardianRequest, administrator: string | null = other) =>
      await record(wanted, administrator).then(() => "recorded", (error: { code: string }) => error.code);
    const email = app.people.find(({ id }) => id === person)?.email ?? "";
    expect(await code({ ...asked(), child: randomUUID() })).toBe("user_not_found");
    expect(await code({ ...asked(), statement: `of ${email.toUpperCase()}` })).toBe("payload_invalid");
    expect(await code({ ...asked(), statement: `of ${person.replaceAll("-", "")}` })).toBe("payload_invalid");
    expect(await ask("select from backup.guardian_requests")).toEqual([]);
    // The entry of one that was not finished stands in the ledger, and asks for nothing.
    expect(await code(asked(), null)).toBe("forbidden");
    expect(await ask("select from backup.guardian_requests")).toEqual([]);
    request = await record(asked(), other);
    const [row] = await ask(
      "select g.*, backup.person_hash($1) as child_hash, backup.person_hash($2) as by from backup.guardian_requests as g",
      [person, other],
    );
    expect(row).toMatchObject({
      id: request,
      child: row?.["child_hash"],
      recorded_by: row?.["by"],
      asks: ["erasure", "review"],
      status: "open",
    });
  });

  it("is sealed: no name, address or word of it in a table or an object; kept, whoever wants it gone", async () => {
    for (const secret of ["Maria", "maria@example.org", "the mother"]) {
      const tables = await ask(
        "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = 'backup'",
      );
      for (const { name } of tables) {
        const hits = await query(
          cluster().plainUrl("supabase_admin"),
          `select from ${String(name)} as t where strpos(t::text, $1) > 0`,
          [secret],
        );
        expect(hits, `${String(name)} has ${secret}`).toEqual([]);
      }
    }
    const entries = join(folder, "store/v1/erasures");
    expect(readdirSync(entries)).toHaveLength(2);
    for (const file of readdirSync(entries)) expect(readFileSync(join(entries, file)).includes("Maria")).toBe(false);
    for (const statement of ["delete from backup.guardian_requests", "truncate backup.guardian_requests"]) {
      await expect(ask(`set session_replication_role = replica; ${statement}`)).rejects.toThrow(
        /kept as long as|permission denied/,
      );
      await expect(ask(statement)).rejects.toThrow(/kept as long as/);
    }
  });

  it("is listed without a name, and opened by whoever has the keys, which the audit tells", async () => {
    expect(JSON.stringify(await ok(["guardians", "list"]))).not.toContain("Maria");
    expect(await ok(["guardians", "show", request])).toEqual({ request, ...asked(), child: undefined });
    expect(
      await ask("select from backup.audit_log where action = 'guardian.read' and subject = $1", [
        `guardian:${request}`,
      ]),
    ).toHaveLength(1);
    expect(await refused(["guardians", "show", randomUUID()])).toBe("run_not_found");
  });

  it("erases nobody by itself: restores leave the child where they are", async () => {
    const ledger = await readLedger(await ledgerDeps());
    expect(ledger.entries.map(({ consent, hashes, rows }) => [consent?.asks, hashes, rows])).toEqual(
      Array(2).fill([["review", "erasure"], [], []]),
    );
    expect(JSON.stringify(ledger.entries)).not.toContain(person);
    const beside = await ok(["restore-user", person, backup]) as { tables: readonly { table: string; rows: number }[] };
    expect(beside.tables.find(({ table }) => table === "public.journal_entries")?.rows).toBeGreaterThan(0);
  });

  it("is answered by the report, and by the erasure, which says for whom it is", async () => {
    expect((await reportOf(person)).guardians).toMatchObject([{ request, status: "open", identityBy: "video" }]);
    expect((await reportOf(person)).guardians[0]?.reviewedAt).not.toBeNull();
    const plan = await ok(["erase", person, "--dry-run"]);
    expect(plan["guardians"]).toEqual([request]);
    await ask("update backup.guardian_requests set recorded_at = recorded_at - interval '11 days'");
    expect((await ask("select backup.watch_guardians() as n"))[0]?.["n"]).toBe(1);
    const open = "select from backup.alerts where kind = 'guardian_waits' and status <> 'resolved'";
    expect(await ask(open)).toHaveLength(1);
    await ok(["erase", person, "--map", map, "--yes"]);
    const [row] = await ask(
      "select status, erased_at is not null as erased, erasure::text from backup.guardian_requests",
    );
    const [erasure] = await ask("select id::text from backup.erasures");
    expect(row).toEqual({ status: "done", erased: true, erasure: erasure?.["id"] });
    expect(await ask(open)).toEqual([]);
    expect(await refused(["guardians", "show", randomUUID()])).toBe("run_not_found");
    expect((await ok(["guardians", "show", request]))["statement"]).toBe(asked().statement);
  });
});

describe("the report on somebody who was erased", () => {
  it("answers from the ledger and the audit: what went, what still holds them and until when", async () => {
    const { standing, live, erasure, backups, seen, guardians, exports, sides } = await reportOf(person);
    expect({ standing, live, exports, sides: sides.filter(({ theirs }) => theirs) }).toEqual({
      standing: "erased",
      live: null,
      exports: [],
      sides: [],
    });
    expect(erasure).toMatchObject({ status: "done", certificate: null, termsKept: true });
    expect(erasure?.rows["public.journal_entries"]).toBeGreaterThan(0);
    expect(erasure?.entries).toEqual(
      readdirSync(join(folder, "store/v1/erasures")).slice(2).map((name) => `v1/erasures/${name}`),
    );
    // Since when they were there nobody knows any more, so the oldest may hold them too.
    expect(backups.map((one) => one.backup)).toContain(backup);
    expect(guardians).toMatchObject([{ request, status: "done" }]);
    expect(seen.map(({ action }) => action)).toEqual(
      expect.arrayContaining(["erasure.begun", "erasure.searched", "export.downloaded"]),
    );
  });

  it("names no backup any more once all of them were rewritten", async () => {
    await ok(["erase", "rewrite", "--yes", "--jobs", "1"]);
    const { backups, stream, erasure } = await reportOf(person);
    expect({ backups, segments: stream.segments }).toEqual({ backups: [], segments: 0 });
    expect(erasure?.rewrittenAt).not.toBeNull();
    expect(erasure?.remains.reduce((sum, { objects }) => sum + objects, 0)).toBeGreaterThan(0);
  });

  it("a guardian's request about them is refused", async () => {
    expect(await record(asked(), other).then(() => "recorded", (error: { code: string }) => error.code)).toBe(
      "user_erased",
    );
  });
});
