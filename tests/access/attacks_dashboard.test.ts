/**
 * A member of the dashboard is the database's owner, role `postgres`, without the store: what they do to the audit is refused,
 * or found by `audit verify`; and what nothing finds is said here too.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli } from "../integration/cli_fixture.ts";
import { type Cluster, clusterMs, freshDatabase, query, startTestCluster, withClient } from "../support/cluster.ts";

let cluster: Cluster;
let folder: string;
let origin: string;
let settings: Record<string, string>;
let count = 0;

beforeAll(async () => {
  cluster = await startTestCluster();
  folder = mkdtempSync(join(tmpdir(), "holdfast-dashboard-"));
  const key = await cli(["keygen", "--json"], {});
  origin = await freshDatabase(cluster);
  settings = {
    BACKUP_DB_URL: cluster.plainUrl("postgres", origin),
    BACKUP_KEYS: (key.document as { keys: string }).keys,
    BACKUP_STORE: `file://${join(folder, "store")}`,
  };
  expect((await cli(["init", "--json"], settings)).exit).toBe(0);
  for (const subject of ["before", "the deed", "after"]) {
    await query(settings["BACKUP_DB_URL"] ?? "", "select backup.audit('test.act', $1)", [subject]);
  }
  const made = await cli(["create", "--json"], settings);
  expect(made.exit, made.stderr).toBe(0);
}, clusterMs);

afterAll(async () => {
  await cluster?.destroy();
  rmSync(folder, { recursive: true, force: true });
}, clusterMs);

interface Verdict {
  readonly ok: boolean;
  readonly tampered: readonly string[];
  readonly anchors: number;
  readonly anchoredTo: number;
}

/** A copy of the database of its own, with the store beside it; what is done there is done as `postgres`. */
async function attacked(statements: string, store: (folder: string) => void = () => {}) {
  const name = `attacked_${++count}`;
  await query(cluster.plainUrl(), `create database ${name} template ${origin}`);
  const own = join(folder, name);
  cpSync(join(folder, "store"), own, { recursive: true });
  const url = cluster.plainUrl("postgres", name);
  await query(url, statements);
  store(own);
  // The anchors say which store they stand in.
  rmSync(join(folder, "kept"), { recursive: true, force: true });
  cpSync(join(folder, "store"), join(folder, "kept"), { recursive: true });
  rmSync(join(folder, "store"), { recursive: true });
  cpSync(own, join(folder, "store"), { recursive: true });
  try {
    const told = await cli(["audit", "verify", "--json"], { ...settings, BACKUP_DB_URL: url });
    return { exit: told.exit, stderr: told.stderr, verdict: told.document as Verdict };
  } finally {
    rmSync(join(folder, "store"), { recursive: true });
    cpSync(join(folder, "kept"), join(folder, "store"), { recursive: true });
  }
}

const opened = `
  alter table backup.audit_log disable trigger all;
  alter table backup.audit_chain disable trigger all;`;
const closed = `
  alter table backup.audit_log enable always trigger audit_log_only_grows;
  alter table backup.audit_chain enable always trigger audit_chain_only_grows;`;
const otherDeed = "update backup.audit_log set actor = 'role:somebody_else' where subject = 'the deed';";
/** Every hash computed anew. */
const rechained = `
  do $$
  declare head bytea; link record;
  begin
    for link in select c.place, l.* from backup.audit_chain as c join backup.audit_log as l on l.id = c.entry_id order by c.place loop
      head := backup.audit_hash(head, link.place, link.id, link.recorded_at, link.actor, link.action, link.subject, link.detail);
      update backup.audit_chain set hash = head where place = link.place;
    end loop;
  end $$;`;
const blinded = `
  create or replace function backup.audit_breaks() returns table (break_at bigint, entry_id bigint, what text)
  language sql stable set search_path = '' as $$ select null::bigint, null::bigint, null::text where false $$;`;

describe("a member of the dashboard", () => {
  it("is no superuser, and owns the audit", async () => {
    const [row] = await query(
      settings["BACKUP_DB_URL"] ?? "",
      `select (select rolsuper from pg_roles where rolname = current_user) as rolsuper,
         pg_get_userbyid(relowner) as owner from pg_class where oid = 'backup.audit_log'::regclass`,
    );
    expect(row).toEqual({ rolsuper: false, owner: "postgres" });
  });

  it("finds the log whole, as it is for everybody, while nothing was done to it", async () => {
    expect(await attacked("select 1")).toMatchObject({ exit: 0, verdict: { ok: true, tampered: [], anchors: 1 } });
  }, 60_000);

  const plain = [
    "update backup.audit_log set actor = 'x'",
    "delete from backup.audit_log",
    "truncate backup.audit_log cascade",
    "update backup.audit_chain set hash = hash",
    "delete from backup.audit_chain",
    "truncate backup.audit_chain",
    "merge into backup.audit_log as l using (select 1) as s on true when matched then delete",
    "with gone as (delete from backup.audit_log returning 1) select * from gone",
    "insert into backup.audit_chain (place, entry_id, hash) select place, entry_id, hash from backup.audit_chain on conflict (place) do update set hash = excluded.hash",
    "copy backup.audit_chain from program 'true'",
  ];
  it.each(plain)("is refused: %s, as a replica as well", async (statement) => {
    await withClient(settings["BACKUP_DB_URL"] ?? "", async (client) => {
      for (const role of ["origin", "replica", "local"]) {
        await client.query("begin");
        await client.query(`set session_replication_role = ${role}`);
        await expect(client.query(statement), role).rejects.toMatchObject({
          code: statement.startsWith("copy") ? "42501" : "HF007",
        });
        await client.query("rollback");
      }
    });
  });

  const found: readonly (readonly [string, string, RegExp])[] = [
    [
      "takes the triggers away and changes a row",
      `${opened} ${otherDeed} ${closed}`,
      /the row or the chain was changed/,
    ],
    ["chains it all anew", `${opened} ${otherDeed} ${rechained} ${closed}`, /a row up to place \d+ was changed/],
    [
      "makes the database say that nothing breaks",
      `${opened} ${otherDeed} ${closed} ${blinded}`,
      /row or the chain was changed/,
    ],
    [
      "makes every hash what stands there",
      `${opened} ${otherDeed} ${closed} ${blinded}
       create or replace function backup.audit_hash(
         before bytea, place bigint, id bigint, recorded_at timestamptz, actor text, action text, subject text, detail jsonb
       ) returns bytea language sql stable set search_path = '' as $$
         select c.hash from backup.audit_chain as c where c.place = audit_hash.place $$;`,
      /the row or the chain was changed/,
    ],
    [
      "gives the install another name and forgets the anchors",
      `${opened} ${otherDeed} ${rechained} ${closed}
       update backup.identity set install_id = gen_random_uuid(); delete from backup.audit_anchors;`,
      /a row up to place \d+ was changed/,
    ],
    [
      "says that this is another life of the server",
      `${opened} ${otherDeed} ${rechained} ${closed}
       create or replace function backup.server_life() returns text language sql stable set search_path = '' as $$ select '7/7' $$;
       update backup.audit_chainer set life = '7/7'; update backup.audit_anchors set life = '7/7';`,
      /a row up to place \d+ was changed/,
    ],
    ["drops the chain", "drop table backup.audit_chain cascade;", /the audit's tables are gone/],
    ["drops the log", "drop table backup.audit_log cascade;", /the audit's tables are gone/],
    [
      "puts a view in the place of the log",
      `alter table backup.audit_log rename to audit_log_of_then; create view backup.audit_log as
         select id, transaction_id, recorded_at, 'role:x' as actor, action, subject, detail from backup.audit_log_of_then;`,
      /the audit's tables are gone/,
    ],
    [
      "makes the log anew, with rows and a chain of their own",
      `create table public.forged as select * from backup.audit_log where subject <> 'the deed';
       create table public.numbered as select row_number() over (order by id) as place, id from public.forged;
       ${opened} truncate backup.audit_chain; truncate backup.audit_log cascade;
       insert into backup.audit_log overriding system value select * from public.forged;
       insert into backup.audit_chain select place, id, sha256('x') from public.numbered;
       ${rechained} ${closed} delete from backup.audit_anchors;`,
      /rows up to place \d+ are gone|a row up to place \d+ was changed/,
    ],
    [
      "cuts off its end",
      `${opened} delete from backup.audit_chain where place > 2;
       delete from backup.audit_log where id not in (select entry_id from backup.audit_chain); ${closed}`,
      /rows up to place \d+ are gone/,
    ],
    [
      "keeps what comes from being chained",
      `create or replace function backup.chain_audit(at_most integer) returns integer language sql as $$ select 0 $$;
       select backup.audit('test.act', 'unchained');`,
      /row \d+: the row is not in the chain/,
    ],
    ["drops the chainer", "drop function backup.chain_audit(integer) cascade;", /what chains the audit is gone/],
    [
      "puts a row of a transaction to come behind",
      "insert into backup.audit_log (transaction_id, actor, action, subject) values ('99999999999', 'role:x', 'test.act', 'forged')",
      /row \d+: the row is not in the chain/,
    ],
    [
      "puts a row in between",
      `insert into backup.audit_log (transaction_id, actor, action, subject) values ('3', 'role:x', 'test.act', 'forged');
       update backup.audit_chainer set done_before = pg_current_xact_id();`,
      /row \d+: the row is not in the chain/,
    ],
  ];
  it.each(found)("who %s is found by audit verify", async (_what, statements, said) => {
    const { exit, verdict, stderr } = await attacked(statements);
    expect(verdict, stderr).toMatchObject({ ok: false });
    expect(exit).toBe(3);
    expect(verdict.tampered.join("\n")).toMatch(said);
  }, 60_000);

  it(
    "who takes an anchor out of the database's knowledge and out of the store has got hold of the store too",
    async () => {
      const inStore = await attacked("select 1", (own) => rmSync(join(own, "v1/anchors"), { recursive: true }));
      expect(inStore).toMatchObject({
        exit: 3,
        verdict: { ok: false, tampered: [expect.stringMatching(/is gone from file/)] },
      });
      const both = await attacked(
        `${opened} ${otherDeed} ${rechained} ${closed} delete from backup.audit_anchors`,
        (own) => rmSync(join(own, "v1/anchors"), { recursive: true }),
      );
      expect(both, "not protected, and the number of anchors says so").toMatchObject({
        exit: 0,
        verdict: { ok: true, anchors: 0, anchoredTo: 0 },
      });
    },
    60_000,
  );

  it(
    "may rewrite what came after the last anchor: it is not protected yet, and verify says up to where it is",
    async () => {
      const { verdict } = await attacked("select 1");
      const later = await attacked(
        `select backup.audit('test.act', 'later'); select backup.chain_audit(); ${opened}
       update backup.audit_log set actor = 'role:x' where subject = 'later'; ${rechained} ${closed}`,
      );
      expect(later).toMatchObject({ exit: 0, verdict: { ok: true, anchoredTo: verdict.anchoredTo } });
    },
    60_000,
  );
});
