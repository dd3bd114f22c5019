import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { outlinePlan } from "../../src/shared/restore/plan.ts";
import { proveCopy } from "../../src/shared/restore/prove.ts";
import { listHeld, releaseHeld } from "../../src/shared/restore/release.ts";
import { prepareRestore, restoreBackup, type RestoreResult } from "../../src/shared/restore/run.ts";
import { validateBackup } from "../../src/shared/restore/validate.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { corpusFiles, loadCorpus } from "../corpus/load.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { type Cluster, clusterMs, query, startTestCluster, withClient } from "../support/cluster.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "./restore_fixture.ts";
import { allowedOnBare, differingEntries, dumpEntries, notAllowed } from "./restore_witness.ts";

/**
 * One source with everything the corpus and the sample app have, one backup of it, and a target of each kind, all on
 * servers of their own. The tests run in order: later ones look at what earlier ones restored.
 */
describe("a backup of a project, restored on PostgreSQL 15", () => {
  let source: Cluster;
  let bare: Cluster;
  let project: Cluster;
  let backup: WrittenBackup;
  const store = createMemoryStore();

  beforeAll(async () => {
    source = await startTestCluster();
    bare = await startTestCluster({ platform: false });
    project = await startTestCluster();
    const postgres = await databaseOf(source).connect("corpus");
    const superuser = await databaseOf(source, source.superuser).connect("corpus");
    expect(await loadCorpus({ postgres, superuser })).toEqual(await corpusFiles());
    await loadSampleApp({
      owner: { connectionString: source.plainUrl() },
      admin: { connectionString: source.plainUrl(source.superuser) },
    }, { scale: 0.01 });
    await postgres.execute(`
      create schema supabase_migrations;
      create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text);
      insert into supabase_migrations.schema_migrations values
        ('20250101000000', '{create table mine (),comment on table mine is $$not backup.runs$$}', 'mine'),
        ('20261121000100', '{create schema backup,select backup.clock_now()}', 'holdfast_schema'),
        ('20261122000000', null, 'without its text')`);
    await postgres.close();
    await superuser.close();
    backup = await writeBackup(databaseOf(source, source.superuser), store);
  }, clusterMs);

  afterAll(async () => {
    for (const cluster of [source, bare, project]) await cluster?.destroy();
  }, clusterMs);

  const deps = async (target: Cluster, role?: string) =>
    await restoreDeps(store, backup.ring, databaseOf(target, role));

  const prove = async (target: Cluster, result: RestoreResult) => {
    const from = await databaseOf(source, source.superuser).connect("prove");
    const to = await databaseOf(target, target.superuser).connect("prove");
    try {
      return await proveCopy(from, to, result);
    } finally {
      await from.close();
      await to.close();
    }
  };

  it("has something to restore: definitions, rows, files, jobs, webhooks", async () => {
    expect(backup.manifest.totals.rows).toBeGreaterThan(2000);
    expect(backup.capture.definitions.length).toBeGreaterThan(600);
    expect(backup.capture.definitions.map((one) => one.held)).toEqual(
      expect.arrayContaining(["cron", "webhook", "login", "subscription"]),
    );
    expect(await verifyBackup(await deps(bare), "latest")).toMatchObject({ id: backup.id, ok: true, problems: [] });
  });

  it("is planned without doing anything", async () => {
    const { plan, resumes } = await prepareRestore(await deps(bare), backup.id);
    expect(resumes).toBe(false);
    expect(outlinePlan(plan).map((line) => line.step)).toContain("tables loaded");
    const left = await query(
      bare.plainUrl(),
      "select nspname from pg_namespace where nspname !~ '^pg_|^information|^public'",
    );
    expect(left).toEqual([]);
  });

  it("makes a bare PostgreSQL the same as the source, by our own comparison and by pg_dump's", async () => {
    const result = await restoreBackup(await deps(bare), backup.id.slice(0, 6));
    expect(result).toMatchObject({ id: backup.id, ok: true, target: "bare", updated: 0, deleted: 0, resumed: false });
    expect(result.inserted).toBeGreaterThan(2000);
    expect(await prove(bare, result)).toEqual([]);
    // From the store and the keys alone it comes to the same.
    expect((await validateBackup(await deps(bare), backup.id, { inPlace: false })).differences).toEqual([]);

    const differing = differingEntries(dumpEntries(source, "postgres"), dumpEntries(bare, "postgres"));
    expect(notAllowed(differing)).toEqual([]);
    const unused = allowedOnBare.filter((allowed) => !differing.some((name) => allowed.matches.test(name)));
    expect(unused.map((allowed) => allowed.reason)).toEqual([]);

    expect(result.rolesCreated).toEqual(
      expect.arrayContaining(["anon", "authenticated", "supabase_admin", "corpus_login"]),
    );
    const logins = await query(bare.plainUrl(), "select rolname from pg_roles where rolcanlogin order by 1");
    expect(logins).toEqual([{ rolname: "postgres" }]);
    const passwords = await query(bare.plainUrl(), "select rolname from pg_authid where rolpassword is not null");
    expect(passwords).toEqual([{ rolname: "postgres" }]);
    expect(result.warnings.join("\n")).toMatch(/not restored: extension pg_cron: /);
    expect(result.warnings.join("\n")).toMatch(/not restored: cron job .*: needs extension pg_cron/);
  }, 300_000);

  it("brings back the list of migrations without Holdfast's own, which are not there", async () => {
    const rows = await query(
      bare.plainUrl(),
      "select name from supabase_migrations.schema_migrations order by version",
    );
    expect(rows.map((row) => row["name"])).toEqual(["mine", "without its text"]);
  });

  it("restores rows of storage.objects as rows where no Storage is", async () => {
    const [row] = await query(bare.plainUrl(), "select count(*)::int as files from storage.objects");
    expect(row?.["files"]).toBeGreaterThan(0);
  });

  it("is restored on a newer server, where every row and every sequence is the same", async () => {
    const newer = await startTestCluster({ version: 17, platform: false });
    try {
      const result = await restoreBackup(await deps(newer), "latest");
      expect(result.inserted).toBeGreaterThan(2000);
      const differences = await prove(newer, result);
      // Versions print views and memberships in other words; rows and values they do not.
      expect(differences.filter((one) => one.kind === "rows" || one.kind === "sequence")).toEqual([]);
      expect(
        differences.filter((one) => one.kind === "missing" && /^(table|function|index|policy|trigger) /.test(one.name)),
      ).toEqual([]);
    } finally {
      await newer.destroy();
    }
  });

  it("marks the platform's schemas and roles on a bare PostgreSQL", async () => {
    const [row] = await query(
      bare.plainUrl(),
      `select obj_description('auth'::regnamespace) as schema,
              shobj_description((select oid from pg_roles where rolname = 'anon'), 'pg_authid') as role`,
    );
    expect(row).toEqual({ schema: expect.stringMatching(/Holdfast/), role: expect.stringMatching(/Holdfast/) });
  });

  it("refuses a target that is not empty and says what is in the way, at most 20 names and the count", async () => {
    const failure = await restoreBackup(await deps(bare), "latest").catch((error) => error);
    expect(failure).toMatchObject({ code: "target_not_empty" });
    expect(failure.message).toMatch(/holds .*function .* and \d{3,} more$/);
    expect(failure.message.split(",")).toHaveLength(20);
  });

  it("refuses the database that the backup was taken of", async () => {
    await expect(restoreBackup(await deps(source), backup.id)).rejects.toMatchObject({ code: "target_is_source" });
  });

  it("brings webhooks back disabled, and turns them on when told, once", async () => {
    const enabled = () =>
      query(
        bare.plainUrl(),
        "select tgname, tgenabled from pg_trigger where tgname in ('hook', 'announce_entry') order by 1",
      );
    expect(await enabled()).toEqual([{ tgname: "announce_entry", tgenabled: "D" }, { tgname: "hook", tgenabled: "D" }]);
    const target = databaseOf(bare);
    await expect(releaseHeld(target, ["no such thing"])).rejects.toMatchObject({ code: "not_found" });
    const first = await releaseHeld(target, ["webhook"]);
    expect(first.released.length).toBeGreaterThanOrEqual(2);
    expect(await enabled()).toEqual([{ tgname: "announce_entry", tgenabled: "O" }, { tgname: "hook", tgenabled: "O" }]);
    await expect(releaseHeld(target, ["webhook"])).rejects.toMatchObject({ code: "not_found" });
    const rest = await releaseHeld(target, ["all"]);
    expect(rest.left.map((one) => one.kind)).toEqual(["subscription"]);
    expect((await listHeld(target)).map((one) => one.kind)).toEqual(["subscription"]);
  });

  describe("into a project", () => {
    let result: RestoreResult;

    beforeAll(async () => {
      // The target's platform is not of the same day: one column more, one less.
      await withClient(project.plainUrl(project.superuser), async (client) => {
        await client.query("alter table auth.users add column shoe_size text default 'unknown'");
        await client.query("alter table auth.audit_log_entries drop column ip_address");
      });
      await withClient(source.plainUrl(source.superuser), (client) => client.query("select 1"));
      result = await restoreBackup(await deps(project), "latest");
    }, 300_000);

    it("puts the rows into the project's own auth and storage tables, column by column by name", async () => {
      expect(result).toMatchObject({ ok: true, target: "project" });
      expect(await prove(project, result)).toEqual([]);
      const [users] = await query(
        project.plainUrl(),
        "select count(*)::int as users, count(distinct shoe_size)::int as sizes, min(shoe_size) as size from auth.users",
      );
      expect(users).toEqual({ users: 50, sizes: 1, size: "unknown" });
    });

    it("names what the project no longer has, and touches none of its bookkeeping", async () => {
      expect(result.warnings.join("\n")).toMatch(/table auth.audit_log_entries: the project has no column ip_address/);
      const migrations = (cluster: Cluster) =>
        query(cluster.plainUrl(cluster.superuser), "select xmin::text, version from auth.schema_migrations order by 2");
      const versions = (rows: Record<string, unknown>[]) => rows.map((row) => row["version"]);
      expect(versions(await migrations(project))).toEqual(versions(await migrations(source)));
    });

    it("lists files instead of restoring rows without bytes", async () => {
      const [files] = await query(source.plainUrl(), "select count(*)::int as files from storage.objects");
      expect(result.filesNotRestored).toBe(files?.["files"]);
      expect(result.filesNotRestored).toBeGreaterThan(0);
      const [objects] = await query(project.plainUrl(), "select count(*)::int as files from storage.objects");
      expect(objects).toEqual({ files: 0 });
      const buckets = await query(project.plainUrl(), "select id from storage.buckets order by 1");
      expect(buckets).toEqual(await query(source.plainUrl(), "select id from storage.buckets order by 1"));
    });

    it("brings cron jobs back inactive, and active when told", async () => {
      const jobs = (cluster: Cluster) =>
        query(cluster.plainUrl(), "select jobname, schedule, command, username, active from cron.job order by 1");
      const [there] = await jobs(source);
      expect(there).toMatchObject({ active: true });
      expect(await jobs(project)).toEqual((await jobs(source)).map((job) => ({ ...job, active: false })));
      await releaseHeld(databaseOf(project), ["cron"]);
      expect(await jobs(project)).toEqual(await jobs(source));
    });

    it("leaves no membership behind that it needed for its work", async () => {
      const memberships = (cluster: Cluster) =>
        query(
          cluster.plainUrl(),
          `select r.rolname as role, m.admin_option from pg_auth_members m join pg_roles r on r.oid = m.roleid
            where m.member = 'postgres'::regrole order by 1`,
        );
      expect(await memberships(project)).toEqual(await memberships(source));
    });
  });
});
