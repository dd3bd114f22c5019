import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { startCluster } from "../../src/local/postgres.ts";
import { scalar } from "./cluster.ts";

const folder = fileURLToPath(new URL("../../supabase/migrations/", import.meta.url));

const claims = {
  sub: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
  aal: "aal2",
  session_id: "5e551000-0001-4c4e-9c36-5f1f4a1f7a01",
};

describe.each([15, 17] as const)(
  "a plain PostgreSQL %i, without pg_cron, pg_net, Vault and the API's roles",
  (version) => {
    it("takes every migration, skips the schedules with a notice, and fails what needs functions by name", async () => {
      const cluster = await startCluster({ version, platform: false, durable: false });
      try {
        const admin = new pg.Client({ connectionString: cluster.plainUrl() });
        await admin.connect();
        try {
          await admin.query("create role owner_of_app login password 'p'");
          await admin.query("create database app owner owner_of_app");
        } finally {
          await admin.end();
        }
        // Not as the superuser: whoever owns the database may install.
        const url = new URL(cluster.plainUrl("postgres", "app"));
        url.username = "owner_of_app";
        url.password = "p";
        const owner = new pg.Client({ connectionString: url.href });
        await owner.connect();
        const notices: string[] = [];
        owner.on("notice", (notice) => notices.push(notice.message ?? ""));
        try {
          for (const file of readdirSync(folder).filter((name) => name.endsWith(".sql")).sort()) {
            await owner.query(`begin; ${readFileSync(`${folder}${file}`, "utf8")}; commit`);
          }
          expect(notices.filter((notice) => /pg_cron is not installed/.test(notice))).toHaveLength(1);
          expect(await scalar(owner, "select count(*)::text from backup.schedules where applied_cron is not null"))
            .toBe("0");
          const { rows } = await owner.query("select status, message from backup.start_backup()");
          expect(rows[0]).toMatchObject({ status: "failed" });
          expect(rows[0].message).toContain("holdfast_project_url");
          expect((await owner.query("select backup.tick() as outcome")).rows[0].outcome).toEqual({
            reconcile_calls: 0,
            revive_runs: 0,
            end_orphaned_keepers: 0,
            end_stalled_sessions: 0,
            resume_schedules: 0,
            watch_schedules: 0,
            watch_maintenance: 0,
            revive_restores: 0,
            watch_restores: 0,
            watch_downloads: 0,
            watch_exports: 0,
            watch_drills: 0,
            watch_erasures: 0,
            watch_rewriting: 0,
            watch_guardians: 0,
            watch_page: 0,
            audit_refusals: 0,
            watch_findings: 0,
            chain_audit: expect.any(Number),
            watch_recoveries: 0,
            watch_copies: 0,
            watch_retention: 0,
            watch_checks: 0,
            purge_traces: 0,
            watch_stores: 0,
            note_tick: 0,
          });
          // without Auth nobody's session lasts, so nobody is an administrator
          await owner.query("insert into backup.admins (user_id) values ($1)", [claims.sub]);
          await owner.query("select set_config('request.jwt.claims', $1, false)", [JSON.stringify(claims)]);
          expect(await scalar(owner, "select backup.is_admin()")).toBe(false);
          // what is not there cannot be open: no Storage, no Auth, no Vault, no jobs
          expect(await scalar(owner, "select backup.audit_security()")).toBe(0);
          expect((await owner.query("select kind, subject from public.backup_findings")).rows).toEqual([]);
          expect((await owner.query("select id from public.backup_runs")).rows).toHaveLength(1);
        } finally {
          await owner.end();
        }
      } finally {
        await cluster.destroy();
      }
    });
  },
);
