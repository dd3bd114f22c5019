/** The security audit: each kind of finding is made by its fault, seen, alerted, and gone once the fault is mended. */
import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

/** Of a superuser, who is postgres in what follows but where the fault is one that only the platform could make. */
let owner: pg.Client;
const [anna, ben] = [randomUUID(), randomUUID()];

beforeAll(async () => {
  const cluster = await installedCluster();
  owner = await session(cluster, cluster.superuser);
});
afterAll(async () => {
  await owner?.end();
});

interface Fault {
  readonly kind: string;
  /** Of the finding; a pattern where it holds a hash. */
  readonly subject: string | RegExp;
  readonly severity: "info" | "warning" | "critical";
  readonly fault: string;
  readonly mend: string;
  /** When the audit looks; default: now. */
  readonly at?: string;
  /** Done by a role of the platform. */
  readonly byPlatform?: boolean;
}

const body = (text: string) => `returns text language sql ${text} as $$ select 'x'::text $$`;
const person = /^person:[0-9a-f]{64}$/;
const aMonthOld = "2026-12-31 00:00:00+00";
const oneFactor = (id: string, status: string) =>
  `insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at)
   values (gen_random_uuid(), '${id}', 'totp', '${status}', now(), now())`;
const buckets = "insert into storage.buckets (id, name, public) values ('holdfast-backups', 'holdfast-backups', true)";

const faults: readonly Fault[] = [
  {
    kind: "object_altered",
    subject: "function backup.is_admin()",
    severity: "critical",
    fault:
      `do $do$ begin execute replace(pg_get_functiondef('backup.is_admin()'::regprocedure), '''aal2''', '''aal1'''); end $do$`,
    mend:
      `do $do$ begin execute replace(pg_get_functiondef('backup.is_admin()'::regprocedure), '''aal1''', '''aal2'''); end $do$`,
  },
  {
    kind: "object_altered",
    subject: "trigger audit_log_only_grows on backup.audit_log",
    severity: "critical",
    fault: "alter table backup.audit_log disable trigger audit_log_only_grows",
    mend: "alter table backup.audit_log enable always trigger audit_log_only_grows",
  },
  {
    kind: "object_missing",
    subject: "trigger settings_in_the_audit on backup.settings",
    severity: "critical",
    fault: "drop trigger settings_in_the_audit on backup.settings",
    mend: `create trigger settings_in_the_audit after insert or update or delete on backup.settings
      for each row execute function backup.audit_row('setting', 'name');
      alter table backup.settings enable always trigger settings_in_the_audit`,
  },
  {
    kind: "object_missing",
    subject: "policy administrators_read_audit on backup.audit_log",
    severity: "critical",
    fault: "alter policy administrators_read_audit on backup.audit_log rename to other",
    mend: "alter policy other on backup.audit_log rename to administrators_read_audit",
  },
  {
    kind: "object_unknown",
    subject: "function backup.backdoor()",
    severity: "critical",
    fault: `create function backup.backdoor() ${body("")}; revoke all on function backup.backdoor() from public`,
    mend: "drop function backup.backdoor()",
  },
  {
    kind: "object_unknown",
    subject: "rule stays on backup.admins",
    severity: "critical",
    fault: "create rule stays as on delete to backup.admins do instead nothing",
    mend: "drop rule stays on backup.admins",
  },
  {
    kind: "object_altered",
    subject: "relation backup.claims",
    severity: "critical",
    fault: "alter table backup.claims drop constraint a_number_is_claimed_once_in_a_store",
    mend: "alter table backup.claims add constraint a_number_is_claimed_once_in_a_store unique (store, number)",
  },
  {
    kind: "object_altered",
    subject: "relation backup.admins",
    severity: "critical",
    fault: "alter table backup.admins alter column added_at set default '2000-01-01'",
    mend: "alter table backup.admins alter column added_at set default backup.clock_now()",
  },
  {
    kind: "object_altered",
    subject: "relation backup.runs",
    severity: "critical",
    fault: "drop index backup.runs_one_active_replicate",
    mend: `create unique index runs_one_active_replicate on backup.runs (kind)
      where kind = 'replicate' and status in ('queued', 'snapshotting', 'copying', 'finishing')`,
  },
  {
    kind: "grant_by_default",
    subject: "schema backup",
    severity: "critical",
    fault: "alter default privileges in schema backup grant select on tables to anon",
    mend: "alter default privileges in schema backup revoke select on tables from anon",
  },
  {
    kind: "table_shown",
    subject: "public.backup_peek",
    severity: "critical",
    fault:
      "create view public.backup_peek as select * from backup.audit_log; grant select on public.backup_peek to anon",
    mend: "alter view public.backup_peek set (security_invoker = true)",
  },
  {
    kind: "table_shown",
    subject: "public.peek",
    severity: "critical",
    fault:
      `create view public.within as select * from public.backup_runs; revoke all on public.within from anon, authenticated, service_role;
      create view public.peek as select * from public.within; grant select on public.peek to anon`,
    mend: "revoke all on public.peek from anon, authenticated, service_role",
  },
  {
    kind: "table_shown",
    subject: "public.copied",
    severity: "critical",
    fault: `create materialized view public.copied as select * from backup.runs;
      grant select (id) on public.copied to authenticated`,
    mend: "drop materialized view public.copied",
  },
  {
    kind: "definer_reaches",
    subject: "public.backup_everything()",
    severity: "critical",
    fault:
      `create function public.backup_everything() returns setof text language plpgsql security definer set search_path = ''
      as $$ begin return query execute 'select l::text from Backup . "audit_log" as l'; end $$`,
    mend: "revoke all on function public.backup_everything() from public, anon, authenticated, service_role",
  },
  {
    kind: "definer_reaches",
    subject: "public.counted()",
    severity: "critical",
    fault: `create function public.counted() returns bigint language sql security definer
      begin atomic select count(*) from backup.runs; end`,
    mend: "alter function public.counted() security invoker",
  },
  {
    kind: "definer_exposed",
    subject: "public.backup_anything()",
    severity: "info",
    fault: `create function public.backup_anything() ${body("security definer set search_path = ''")};
      grant execute on function public.backup_anything() to anon`,
    mend: "drop function public.backup_anything()",
  },
  {
    kind: "table_inherited",
    subject: "public.more",
    severity: "critical",
    fault: "create table public.more () inherits (backup.admins)",
    mend: "alter table public.more no inherit backup.admins",
  },
  {
    kind: "grant_unexpected",
    subject: "function backup.add_admin(text,text)",
    severity: "critical",
    fault: "grant execute on function backup.add_admin(text, text) to authenticated",
    mend: "revoke execute on function backup.add_admin(text, text) from authenticated",
  },
  {
    kind: "grant_unexpected",
    subject: "relation backup.restores",
    severity: "critical",
    fault: "grant select (state) on backup.restores to authenticated",
    mend: "revoke select (state) on backup.restores from authenticated",
  },
  {
    kind: "grant_unexpected",
    subject: "relation public.backup_runs",
    severity: "critical",
    fault: "grant select on public.backup_runs to anon",
    mend: "revoke select on public.backup_runs from anon",
  },
  {
    kind: "grant_unexpected",
    subject: "schema backup",
    severity: "critical",
    fault: "grant usage on schema backup to anon",
    mend: "revoke usage on schema backup from anon",
  },
  {
    kind: "install_unrecorded",
    subject: "install",
    severity: "warning",
    fault: "update backup.installed_objects set server_major = 9",
    mend: "select backup.record_install()",
  },
  {
    kind: "table_unprotected",
    subject: "backup.admins",
    severity: "critical",
    fault: "alter table backup.admins disable row level security",
    mend: "alter table backup.admins enable row level security",
  },
  {
    kind: "schema_exposed",
    subject: "schema backup",
    severity: "critical",
    fault: "alter role authenticator set pgrst.db_schemas = 'public, backup'",
    mend: "alter role authenticator reset pgrst.db_schemas",
    byPlatform: true,
  },
  {
    kind: "definer_unpinned",
    subject: "backup.gate()",
    severity: "critical",
    fault: "alter function backup.gate() reset search_path",
    mend: "alter function backup.gate() set search_path = ''",
  },
  {
    kind: "definer_exposed",
    subject: "public.everything()",
    severity: "info",
    fault: `create function public.everything() ${
      body("security definer")
    }; grant execute on function public.everything() to anon`,
    mend: "revoke all on function public.everything() from public, anon, authenticated",
  },
  {
    kind: "role_passes_policies",
    subject: "role authenticated",
    severity: "critical",
    fault: "grant service_role to authenticated",
    mend: "revoke service_role from authenticated",
    byPlatform: true,
  },
  {
    kind: "event_trigger_before_ours",
    subject: " first",
    severity: "warning",
    fault: `create function public.first() returns event_trigger language plpgsql as $$ begin end $$;
      create event trigger " first" on ddl_command_end execute function public.first()`,
    mend: 'alter event trigger " first" disable',
  },
  {
    kind: "bucket_public",
    subject: "bucket:holdfast-backups",
    severity: "critical",
    fault: buckets,
    mend: "update storage.buckets set public = false where id = 'holdfast-backups'",
  },
  {
    kind: "bucket_unguarded",
    subject: "storage.objects",
    severity: "critical",
    fault: "alter policy holdfast_buckets on storage.objects using (true)",
    mend: "select backup.guard_buckets()",
  },
  {
    kind: "bucket_unguarded",
    subject: "storage.buckets",
    severity: "critical",
    fault: "drop policy holdfast_buckets on storage.buckets",
    mend: "select backup.guard_buckets()",
  },
  {
    kind: "bucket_unguarded",
    subject: "bucket:holdfast-backups",
    severity: "critical",
    fault:
      `insert into storage.buckets (id, name) values ('holdfast-backups', 'holdfast-backups'), ('pictures', 'pictures');
      update backup.settings set value = 'holdfast-downloads' where name = 'buckets'`,
    mend: "select backup.use_bucket('holdfast-backups')",
  },
  {
    kind: "policy_reaches_bucket",
    subject: "wide on storage.objects",
    severity: "critical",
    fault: `create policy wide on storage.objects for select to anon using (true);
      create policy narrow on storage.objects for select to anon using (bucket_id = 'pictures');
      drop policy holdfast_buckets on storage.objects`,
    mend: "select backup.guard_buckets()",
  },
  {
    kind: "admin_none",
    subject: "administrators",
    severity: "warning",
    fault: "alter table backup.admins disable trigger all; delete from backup.admins",
    mend: `select backup.add_admin('${anna}')`,
  },
  {
    kind: "admin_gone",
    subject: person,
    severity: "critical",
    fault: `select backup.add_admin('${ben}'); update auth.users set banned_until = '2999-01-01' where id = '${ben}'`,
    mend: `select backup.remove_admin('${ben}')`,
  },
  {
    kind: "admin_without_factor",
    subject: person,
    severity: "warning",
    fault: `select backup.add_admin('${ben}'); ${oneFactor(ben, "unverified")}`,
    mend: `update auth.mfa_factors set status = 'verified' where user_id = '${ben}'`,
  },
  {
    kind: "admin_unseen",
    subject: person,
    severity: "warning",
    fault: `select backup.add_admin('${ben}'); ${oneFactor(ben, "verified")};
      update backup.admins set added_at = '2026-06-01' where user_id = '${ben}';
      update auth.users set last_sign_in_at = '2026-08-01' where id = '${ben}'`,
    mend: `update auth.users set last_sign_in_at = '2026-12-01' where id = '${ben}'`,
    at: aMonthOld,
  },
  {
    kind: "key_old",
    subject: "key:k-0a1b2c3d",
    severity: "warning",
    fault: `insert into backup.told_facts (subject, facts, first_told_at, told_at)
      values ('key:k-0a1b2c3d', '{}', '2025-12-01', '2026-12-31'), ('key:r-0a1b2c3d', '{}', '2025-12-01', '2026-12-31')`,
    mend: "update backup.told_facts set told_at = '2026-12-29'; select backup.tell_keys('{k-4d5e6f70,r-0a1b2c3d}')",
    at: aMonthOld,
  },
  {
    kind: "lock_too_long",
    subject: "lock:s3://other/backups",
    severity: "critical",
    fault: `select backup.tell_fact('lock:s3://other/backups', '{"mode": "compliance", "days": 30, "keys": false}')`,
    mend: `select backup.tell_fact('lock:s3://other/backups', '{"mode": "compliance", "days": 29, "keys": false}')`,
  },
  {
    kind: "lock_on_keys",
    subject: "lock:s3://other/backups",
    severity: "critical",
    fault: `select backup.tell_fact('lock:s3://other/backups', '{"mode": "governance", "days": 7, "keys": true}')`,
    mend: `select backup.tell_fact('lock:s3://other/backups', '{"mode": "governance", "days": 7, "keys": false}')`,
  },
  {
    kind: "lock_absent",
    subject: "lock:s3://other/backups",
    severity: "info",
    fault: `select backup.tell_fact('lock:s3://other/backups', '{"mode": "none"}')`,
    mend: `select backup.tell_fact('lock:s3://other/backups', '{"mode": "governance", "days": 7}')`,
  },
  {
    kind: "secret_missing",
    subject: "holdfast_worker_secret",
    severity: "critical",
    fault: "delete from vault.secrets where name = 'holdfast_worker_secret'",
    mend: "select vault.create_secret(repeat('s', 40), 'holdfast_worker_secret')",
  },
  {
    kind: "secret_short",
    subject: "holdfast_worker_secret",
    severity: "critical",
    fault: `delete from vault.secrets where name = 'holdfast_worker_secret';
      select vault.create_secret(repeat('s', 31), 'holdfast_worker_secret')`,
    mend: `delete from vault.secrets where name = 'holdfast_worker_secret';
      select vault.create_secret(repeat('s', 32), 'holdfast_worker_secret')`,
  },
  {
    kind: "job_changed",
    subject: "holdfast-watchdog",
    severity: "critical",
    fault: "select cron.alter_job(jobid, command => 'select 1') from cron.job where jobname = 'holdfast-watchdog'",
    mend:
      "select cron.alter_job(jobid, command => 'select backup.tick()') from cron.job where jobname = 'holdfast-watchdog'",
  },
  {
    kind: "job_changed",
    subject: "holdfast-daily",
    severity: "critical",
    fault: "select cron.alter_job(jobid, active => false) from cron.job where jobname = 'holdfast-daily'",
    mend: "select cron.alter_job(jobid, active => true) from cron.job where jobname = 'holdfast-daily'",
  },
  {
    kind: "job_missing",
    subject: "holdfast-anchor",
    severity: "critical",
    fault: "select cron.unschedule('holdfast-anchor')",
    mend: "select * from backup.apply_schedules()",
  },
  {
    kind: "job_unknown",
    subject: "holdfast-helper",
    severity: "warning",
    fault: "select cron.schedule('holdfast-helper', '0 0 1 1 *', 'select 1')",
    mend: "select cron.unschedule('holdfast-helper')",
  },
  {
    kind: "check_failed",
    subject: "check_keys",
    severity: "critical",
    fault: "alter function backup.check_keys() rename to check_keys_before",
    mend: "alter function backup.check_keys_before() rename to check_keys",
  },
];

/** In a project as it should be, which is rolled back: an administrator with a second factor, address and secret in Vault. */
async function inSoundProject<T>(work: () => Promise<T>): Promise<T> {
  return await rolledBack(owner, async () => {
    await owner.query("set local role postgres; set local search_path = ''");
    await owner.query(
      "insert into auth.users (id, email, last_sign_in_at) values ($1, 'anna@s.example', now()), ($2, 'ben@s.example', now())",
      [anna, ben],
    );
    await owner.query(oneFactor(anna, "verified"));
    await owner.query("select backup.add_admin($1)", [anna]);
    await owner.query("delete from backup.admins where user_id <> $1", [anna]);
    await fillVault(owner);
    return await work();
  });
}

interface Seen {
  readonly kind: string;
  readonly subject: string;
  readonly severity: string;
}

async function open(): Promise<Seen[]> {
  const { rows } = await owner.query<Seen>(
    "select kind, subject, severity from backup.findings where resolved_at is null order by kind, subject",
  );
  return rows;
}

async function alerted(): Promise<string[]> {
  const { rows } = await owner.query<{ subject: string }>(
    "select subject from backup.alerts where kind = 'security_finding' and status <> 'resolved' order by 1",
  );
  return rows.map(({ subject }) => subject);
}

const audit = () => scalar(owner, "select backup.audit_security()");

async function perform({ byPlatform }: Fault, text: string): Promise<void> {
  if (byPlatform === true) await owner.query("set local role none");
  await owner.query(text);
  await owner.query("set local role postgres");
}

describe("the security audit", () => {
  it("finds nothing in a project that is as it was installed", async () => {
    await inSoundProject(async () => {
      const told = await audit();
      expect(await open()).toEqual([]);
      expect(told).toBe("0");
    });
  });

  it.each(faults)("sees $kind of $subject ($severity), and that it was mended", async (fault) => {
    await inSoundProject(async () => {
      const { kind, subject, severity } = fault;
      const is = (one: Seen) =>
        one.kind === kind && (typeof subject === "string" ? one.subject === subject : subject.test(one.subject));
      const begun = fault.at ?? "2026-11-23 12:00:00+00";
      await setClock(owner, begun);
      await audit();
      expect((await open()).filter(is), "before the fault").toEqual([]);

      await perform(fault, fault.fault);
      await audit();
      const found = (await open()).filter(is);
      expect(found).toHaveLength(1);
      expect(found[0]?.severity).toBe(severity);
      const alert = `${kind}:${found[0]?.subject}`;
      if (severity === "info") expect(await alerted()).not.toContain(alert);
      else expect(await alerted()).toContain(alert);

      await perform(fault, fault.mend);
      await setClock(owner, begun.replace(" 00:", " 02:").replace(" 12:", " 14:"));
      await audit();
      expect((await open()).filter(is), "after it was mended").toEqual([]);
      expect(await alerted()).not.toContain(alert);
      const { rows } = await owner.query("select 1 from backup.findings where kind = $1 and resolved_at is not null", [
        kind,
      ]);
      expect(rows.length, "it stays as history").toBeGreaterThan(0);
    });
  });

  it("takes nothing for a way to our tables that only sounds like one, or asks as its caller", async () => {
    await inSoundProject(async () => {
      await owner.query(
        `create table public.backup (id int, audit text);
         create view public.backup_sizes as select b.id from public.backup as b;
         create view public.as_caller with (security_invoker = yes) as select * from backup.runs;
         create function public.alias() returns int language sql security definer set search_path = ''
           as $$ select backup.id from public.backup as backup limit 1 $$;
         create function public.invoker() returns bigint language sql as $$ select count(*) from backup.runs $$;
         create function public.on_alert() returns trigger language plpgsql security definer set search_path = ''
           as $$ begin perform from backup.alerts; return new; end $$;
         create table public.of_its_own () inherits (public.backup)`,
      );
      await audit();
      expect((await open()).filter(({ severity }) => severity !== "info")).toEqual([]);
    });
  });

  it("has a test for every kind that its checks can find", async () => {
    const { rows } = await owner.query<{ source: string }>(
      `select prosrc as source from pg_proc where pronamespace = 'backup'::regnamespace
         and (proname ~ '^check_' or proname = 'audit_security') and (prorettype = 'record'::regtype or proname = 'audit_security')`,
    );
    const kinds = rows.flatMap(({ source }) =>
      [...source.matchAll(
        /'((?:object|install|grant|table|schema|definer|role|event|bucket|policy|admin|key|lock|secret|job|check)_[a-z_]+)'/g,
      )]
        .map(([, kind]) => kind ?? "")
    ).filter((kind) => !/^check_(?!failed)|^(admin_idle_days|key_age_days|table_rewrite|policies)$/.test(kind));
    expect([...new Set(kinds)].sort()).toEqual([...new Set(faults.map(({ kind }) => kind))].sort());
  });

  it("names no person in the audit log, and no secret anywhere", async () => {
    await inSoundProject(async () => {
      await owner.query(`select backup.add_admin('${ben}')`);
      await owner.query("delete from vault.secrets where name = 'holdfast_worker_secret'");
      await owner.query("select vault.create_secret('a-short-secret', 'holdfast_worker_secret')");
      await audit();
      expect((await open()).map(({ kind }) => kind)).toEqual(["admin_without_factor", "secret_short"]);
      const log = JSON.stringify((await owner.query("select subject, detail from backup.audit_log")).rows);
      for (const id of [anna, ben]) expect(log).not.toContain(id);
      const everything = log + JSON.stringify((await owner.query("select * from backup.findings")).rows) +
        JSON.stringify((await owner.query("select * from backup.alerts")).rows);
      expect(everything).not.toContain("a-short-secret");
      expect(everything).not.toContain("@s.example");
    });
  });

  it("is looked at again each hour while something serious is open, and not before", async () => {
    await inSoundProject(async () => {
      const times = () => scalar(owner, "select count(*) from backup.audit_log where action = 'security.audited'");
      await setClock(owner, "2026-11-23 12:00:00+00");
      const before = Number(await times());
      await owner.query("grant select on public.backup_runs to anon");
      await audit();
      await owner.query("revoke select on public.backup_runs from anon");
      await setClock(owner, "2026-11-23 12:59:00+00");
      await owner.query("select backup.watch_findings()");
      expect(Number(await times()) - before).toBe(1);
      expect(await alerted()).toContain("grant_unexpected:relation public.backup_runs");
      await setClock(owner, "2026-11-23 13:01:00+00");
      await owner.query("select backup.watch_findings()");
      expect(Number(await times()) - before).toBe(2);
      expect(await alerted()).not.toContain("grant_unexpected:relation public.backup_runs");
    });
  });

  it("cannot be told that all is well: the record is replaced by an act that the audit log holds", async () => {
    await inSoundProject(async () => {
      await owner.query("grant execute on function backup.add_admin(text, text) to anon");
      await owner.query("select backup.record_install()");
      await audit();
      expect(await open()).toEqual([]);
      const hash = (order: string) =>
        scalar(
          owner,
          `select detail ->> 'hash' from backup.audit_log where action = 'install.recorded' order by id ${order} limit 1`,
        );
      expect(await hash("desc")).not.toBe(await hash("asc"));
      expect(await scalar(owner, "select actor from backup.audit_log order by id desc limit 1")).toMatch(/^role:/);
    });
  });
});
