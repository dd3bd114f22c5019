/** Whoever owns the database can rewrite its history, but not what stands in the store. */
import { spawnSync } from "node:child_process";
import { appendFileSync, cpSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Cluster, startCluster } from "../../src/local/postgres.ts";
import { query } from "../support/cluster.ts";
import { cli } from "../integration/cli_fixture.ts";

let cluster: Cluster;
let folder: string;
let settings: Record<string, string>;

beforeAll(async () => {
  cluster = await startCluster({ version: 15, platform: false, durable: false });
  folder = mkdtempSync(join(tmpdir(), "holdfast-audit-"));
  const key = await cli(["keygen", "--json"], {});
  settings = {
    BACKUP_DB_URL: cluster.plainUrl(),
    BACKUP_KEYS: (key.document as { keys: string }).keys,
    BACKUP_STORE: `file://${folder}`,
  };
  await ask("create table public.notes (id int primary key); insert into public.notes values (1)");
  expect((await cli(["init", "--json"], settings)).exit).toBe(0);
}, 120_000);

afterAll(async () => {
  await cluster?.destroy();
  rmSync(folder, { recursive: true, force: true });
});

async function ask(text: string): Promise<Record<string, unknown>[]> {
  return await query(cluster.plainUrl(), text);
}

interface Verdict {
  readonly ok: boolean;
  readonly tampered: readonly string[];
  readonly rewound: readonly { readonly from: { readonly place: number }; readonly to: { readonly place: number } }[];
  readonly anchors: number;
  readonly anchoredTo: number;
}

async function verify(given = settings): Promise<Verdict & { readonly exit: number | null }> {
  const { exit, document, stderr } = await cli(["audit", "verify", "--json"], given);
  expect(document, stderr).toBeDefined();
  return { exit, ...document as Verdict };
}

async function create(): Promise<void> {
  const { exit, stderr } = await cli(["create", "--json"], settings);
  expect(exit, stderr).toBe(0);
}

const act = (subject: string) => ask(`select backup.audit('test.act', '${subject}')`);

/** What an owner of the database can do: every hash computed anew, so that the database alone shows nothing. */
const rewritten = `
  alter table backup.audit_log disable trigger all;
  alter table backup.audit_chain disable trigger all;
  update backup.audit_log set actor = 'role:somebody_else' where subject = 'the deed';
  do $$
  declare head bytea; link record;
  begin
    for link in select c.place, l.* from backup.audit_chain as c join backup.audit_log as l on l.id = c.entry_id order by c.place loop
      head := backup.audit_hash(head, link.place, link.id, link.recorded_at, link.actor, link.action, link.subject, link.detail);
      update backup.audit_chain set hash = head where place = link.place;
    end loop;
  end $$;
  alter table backup.audit_log enable always trigger audit_log_only_grows;
  alter table backup.audit_chain enable always trigger audit_chain_only_grows`;

describe("audit verify", () => {
  it("finds a log whole that nobody touched, and says how far anchors protect it", async () => {
    await act("the deed");
    await create();
    const first = await verify();
    expect(first).toMatchObject({ exit: 0, ok: true, tampered: [], rewound: [], anchors: 1 });
    await act("later");
    await create();
    const second = await verify();
    expect(second).toMatchObject({ exit: 0, ok: true, anchors: 2 });
    expect(second.anchoredTo).toBeGreaterThan(first.anchoredTo);
  }, 60_000);

  it("finds a history that its owner rewrote, chain and all", async () => {
    const [before] = await ask("select jsonb_agg(l order by l.id) as log from backup.audit_log as l");
    await ask(rewritten);
    expect(await ask("select * from backup.audit_breaks()"), "the database shows nothing").toEqual([]);
    const found = await verify();
    expect(found).toMatchObject({ exit: 3, ok: false, rewound: [] });
    expect(found.tampered).toEqual([
      expect.stringMatching(/^a row up to place \d+ was changed, and the chain after it, as file/),
      expect.stringMatching(/^a row up to place \d+ was changed, and the chain after it, as file/),
    ]);
    await ask(rewritten.replace("'role:somebody_else'", "'role:postgres'"));
    expect(await verify()).toMatchObject({ ok: true });
    const [after] = await ask("select jsonb_agg(l order by l.id) as log from backup.audit_log as l");
    expect((after?.["log"] as unknown[]).slice(0, (before?.["log"] as unknown[]).length)).toEqual(before?.["log"]);
  }, 60_000);

  it("finds what somebody rewrote who has the first store as well, by what the second one holds", async () => {
    const second = mkdtempSync(join(tmpdir(), "holdfast-audit-second-"));
    cpSync(folder, second, { recursive: true });
    const both = { ...settings, BACKUP_SECONDARY: `file://${second}` };
    const { anchors, anchoredTo } = await verify();
    expect(await verify(both)).toMatchObject({ ok: true, anchors: 2 * anchors, anchoredTo });
    await ask(`create table public.kept as select * from backup.audit_anchors;
      alter table backup.audit_anchors disable trigger all; delete from backup.audit_anchors`);
    await ask(rewritten);
    renameSync(join(folder, "v1/anchors"), join(folder, "taken"));
    try {
      expect(await verify(), "the first store shows nothing any more").toMatchObject({ ok: true, anchors: 0 });
      const found = await verify(both);
      expect(found).toMatchObject({ exit: 3, ok: false });
      expect(found.tampered).toHaveLength(anchors);
      for (const one of found.tampered) expect(one).toContain(`file://${second}`);
    } finally {
      renameSync(join(folder, "taken"), join(folder, "v1/anchors"));
      rmSync(second, { recursive: true });
    }
    await ask(rewritten.replace("'role:somebody_else'", "'role:postgres'"));
    await ask(`insert into backup.audit_anchors select * from public.kept; drop table public.kept;
      alter table backup.audit_anchors enable trigger all`);
    expect(await verify()).toMatchObject({ ok: true, anchors });
  }, 60_000);

  it("finds a log that was cut, and an anchor that was taken away or brought from elsewhere", async () => {
    await ask(`alter table backup.audit_log disable trigger all; alter table backup.audit_chain disable trigger all;
      create table public.kept_log as select * from backup.audit_log where id > 2;
      create table public.kept_chain as select * from backup.audit_chain where entry_id > 2;
      delete from backup.audit_chain where entry_id > 2; delete from backup.audit_log where id > 2`);
    expect((await verify()).tampered).toEqual(
      expect.arrayContaining([expect.stringMatching(/^rows up to place \d+ are gone/)]),
    );
    await ask(`delete from backup.audit_chain where entry_id > 2; delete from backup.audit_log where id > 2;
      insert into backup.audit_log overriding system value select * from public.kept_log;
      insert into backup.audit_chain select * from public.kept_chain; drop table public.kept_log, public.kept_chain;
      alter table backup.audit_log enable always trigger audit_log_only_grows;
      alter table backup.audit_chain enable always trigger audit_chain_only_grows`);
    expect(await verify()).toMatchObject({ ok: true });
    const anchors = join(folder, "v1/anchors", readdirSync(join(folder, "v1/anchors"))[0] ?? "");
    const [one = "", two = ""] = readdirSync(anchors).sort();
    renameSync(join(anchors, one), join(folder, "elsewhere"));
    expect((await verify()).tampered).toEqual([expect.stringMatching(/is gone from file/)]);
    cpSync(join(anchors, two), join(anchors, one));
    expect((await verify()).tampered).toEqual([expect.stringMatching(/does not open/)]);
    rmSync(join(anchors, one));
    renameSync(join(folder, "elsewhere"), join(anchors, one));
    expect(await verify()).toMatchObject({ ok: true });
  }, 60_000);

  it("tells a database that was put back from one that was tampered with", async () => {
    const data = join(cluster.directory, "data");
    await cluster.stop();
    // With owners and modes, which the server insists on.
    expect(spawnSync("cp", ["-a", data, `${data}.then`]).status).toBe(0);
    await cluster.start();
    settings = { ...settings, BACKUP_DB_URL: cluster.plainUrl() };
    const { anchoredTo } = await verify();
    await act("lost");
    await create();
    const lost = (await verify()).anchoredTo;
    await cluster.stop();
    rmSync(data, { recursive: true });
    renameSync(`${data}.then`, data);
    // As a managed restore does it: the server comes up on a timeline of its own.
    writeFileSync(join(data, "recovery.signal"), "");
    appendFileSync(join(data, "postgresql.auto.conf"), "restore_command = 'false'\n");
    await cluster.start();
    settings = { ...settings, BACKUP_DB_URL: cluster.plainUrl() };
    // It answers before it takes writes.
    const standby = async () => (await ask("select pg_is_in_recovery() as standby"))[0]?.["standby"];
    await expect.poll(standby, { timeout: 60_000 }).toBe(false);
    await act("after");
    await create();
    const found = await verify();
    expect(found).toMatchObject({ exit: 3, ok: false, tampered: [] });
    expect(found.rewound).toMatchObject([{ from: { place: lost }, to: { place: anchoredTo } }]);
    expect(found.anchoredTo).toBeGreaterThan(anchoredTo);
  }, 120_000);
});

describe("audit export", () => {
  it("gives all rows, oldest first, or those alone that change what is set", async () => {
    const all = (await cli(["audit", "export", "--json"], settings)).document as { id: number; action: string }[];
    const [count] = await ask("select count(*)::int as n from backup.audit_log");
    expect(all.length).toBe(count?.["n"]);
    expect(all.map(({ id }) => id)).toEqual(all.map(({ id }) => id).sort((a, b) => a - b));
    await ask("insert into backup.admins (user_id) values (gen_random_uuid())");
    const changes = (await cli(["audit", "export", "--kind", "change", "--json"], settings)).document as typeof all;
    expect(changes.at(-1)?.action).toBe("admin.added");
    expect(changes.some(({ action }) => action.startsWith("run."))).toBe(false);
    const shown = await cli(["audit", "export", "--kind", "change"], settings);
    expect(shown.stdout.trim().split("\n").map((line) => (JSON.parse(line) as { id: number }).id)).toEqual(
      changes.map(({ id }) => id),
    );
    expect((await cli(["audit", "erase", "--json"], settings)).exit).toBe(2);
  }, 60_000);
});
