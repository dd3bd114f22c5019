/** Turning maintenance mode on and off, what is announced, and what the watchdog says of it. */
import { describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";
import { useProject } from "./maintenance_fixture.ts";

const project = useProject();

describe("turning it on", () => {
  it.each([
    ["no message", "select backup.maintenance_on(null)"],
    ["an empty message", "select backup.maintenance_on('')"],
    ["a message of two lines", "select backup.maintenance_on(E'a\\nb')"],
    ["a message that is too long", "select backup.maintenance_on(repeat('a', 301))"],
    ["an end that has passed", "select backup.maintenance_on('x', now() - interval '1 minute')"],
  ])("is refused with %s, and changes nothing", async (_, statement) => {
    await rolledBack(project().client, async () => {
      expect(await sqlstate(project().client, statement)).toBe("HF003");
      expect(await scalar(project().client, "select closed from backup.maintenance")).toBe("f");
    });
  });

  it("says so where the setting may not be changed, and has changed nothing", async () => {
    const superuser = await session(await installedCluster(), "supabase_admin");
    try {
      await superuser.query(`revoke set on parameter "pgrst.db_pre_request" from postgres`);
      await rolledBack(project().client, async () => {
        await project().client.query("select cron.schedule('app-job', '0 0 * * *', 'select 1')");
        expect(await sqlstate(project().client, "select backup.maintenance_on('x')")).toBe("HF402");
        expect(await scalar(project().client, "select closed from backup.maintenance")).toBe("f");
        expect(await scalar(project().client, "select active from cron.job where jobname = 'app-job'")).toBe("t");
      });
    } finally {
      await superuser.query(`grant set on parameter "pgrst.db_pre_request" to postgres`);
      await superuser.end();
    }
  });

  it("again changes message and end, and keeps since when, by whom and what was there before", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query("alter role authenticator set pgrst.db_pre_request = 'public.check'");
      await project().client.query("select backup.maintenance_on('one', null, 'first')");
      const first = JSON.parse(await scalar(project().client, "select backup.maintenance_state()") ?? "null");
      const again = "select backup.maintenance_on('two', now() + interval '1 hour', 'second')";
      const second = JSON.parse(await scalar(project().client, again) ?? "null");
      expect(second).toMatchObject({
        message: "two",
        by: "first",
        since: first.since,
        preRequest: { chained: "public.check" },
      });
      expect(second.until).toMatch(/Z$/);
      expect(await scalar(project().client, "select count(*) from backup.announcements where status = 'in_force'"))
        .toBe("1");
    });
  });

  it("and off is audited, with who", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query("select backup.maintenance_on('one', null, 'a person'), backup.maintenance_off()");
      const { rows } = await project().client.query(
        "select action, actor, detail ->> 'by' as by from backup.audit_log where action ~ '^maintenance' and transaction_id = pg_current_xact_id() order by id",
      );
      expect(rows).toEqual([
        { action: "maintenance.closed", actor: "role:postgres", by: "a person" },
        { action: "maintenance.opened", actor: "role:postgres", by: null },
      ]);
    });
  });

  it("by a restore leaves it with the person who had done so; by a person takes it from a restore", async () => {
    const by = async (who: string) =>
      JSON.parse(await scalar(project().client, "select backup.maintenance_on('x', null, $1)", [who]) ?? "null").by;
    await rolledBack(project().client, async () => {
      expect(await by("an operator")).toBe("an operator");
      expect(await by("restore:1")).toBe("an operator");
    });
    await rolledBack(project().client, async () => {
      expect(await by("restore:1")).toBe("restore:1");
      expect(await by("restore:2")).toBe("restore:2");
      expect(await by("an operator")).toBe("an operator");
    });
  });

  it("again may leave an end that has passed as it is", async () => {
    await rolledBack(project().client, async () => {
      await setClock(project().client, "2031-01-01 00:00+00");
      await project().client.query("select backup.maintenance_on('x', '2031-01-01 01:00:00.25+00')");
      await setClock(project().client, "2031-01-01 02:00+00");
      await project().client.query("select backup.maintenance_on('y', '2031-01-01 01:00:00+00')");
      expect(await sqlstate(project().client, "select backup.maintenance_on('x', '2031-01-01 01:30:00+00')")).toBe(
        "HF003",
      );
    });
  });

  it("off while it is off does nothing", async () => {
    await rolledBack(project().client, async () => {
      const before = await scalar(project().client, "select count(*) from backup.audit_log");
      const outcome = JSON.parse(await scalar(project().client, "select backup.maintenance_off()") ?? "null");
      expect(outcome).toMatchObject({ opened: false, restored: [], left: [] });
      expect(await scalar(project().client, "select count(*) from backup.audit_log")).toBe(before);
    });
  });
});

describe("announcements", () => {
  const seenBy = async (role: string) => {
    await project().client.query(`set local role ${role}`);
    const { rows } = await project().client.query(
      "select message, status from public.backup_announcements order by id",
    );
    await project().client.query("reset role");
    return rows;
  };

  it("are there for people who are not signed in, planned and in force, until they end", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query(
        "select backup.announce('next week', now() + interval '7 days', now() + interval '8 days')",
      );
      await project().client.query("select backup.announce('now', now() - interval '1 minute')");
      await project().client.query("select backup.maintenance_on('Back at noon')");
      const shown = [{ message: "next week", status: "planned" }, { message: "Back at noon", status: "in_force" }];
      expect(await seenBy("anon")).toEqual(shown);
      expect(await seenBy("authenticated")).toEqual(shown);
      await project().client.query("select backup.maintenance_off()");
      expect(await seenBy("anon")).toEqual([{ message: "next week", status: "planned" }]);
      await project().client.query(
        "select backup.withdraw_announcement(max(id)) from backup.announcements where status = 'planned'",
      );
      expect(await seenBy("anon")).toEqual([]);
    });
  });

  it("are refused with an end before their beginning, and cannot be withdrawn twice", async () => {
    await rolledBack(project().client, async () => {
      expect(await sqlstate(project().client, "select backup.announce('x', now(), now() - interval '1 s')")).toBe(
        "HF003",
      );
      expect(await sqlstate(project().client, "select backup.withdraw_announcement(-1)")).toBe("HF008");
    });
  });
});

describe("the watchdog", () => {
  const alerts = async () =>
    (await project().client.query(
      "select kind, severity from backup.alerts where kind ~ '^maintenance' and status = 'open' order by kind",
    )).rows.map((row) => `${row.kind}: ${row.severity}`);

  it("tells of a window that is past its end, and leaves it closed", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query("select backup.maintenance_on('x', now() + interval '1 hour')");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("0");
      await setClock(project().client, "2999-01-01 00:00+00");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_overdue: critical"]);
      expect(await project().request({ method: "POST", path: "/entries" })).toMatchObject({ code: "PT503" });
      await project().client.query(
        "select backup.maintenance_on('x', timestamptz '2999-01-02 00:00+00'), backup.watch_maintenance()",
      );
      expect(await alerts()).toEqual([]);
    });
  });

  it("tells of a project that is closed for hours without an announced end", async () => {
    await rolledBack(project().client, async () => {
      await setClock(project().client, "2031-01-01 00:00+00");
      await project().client.query("select backup.maintenance_on('x')");
      await setClock(project().client, "2031-01-01 11:59+00");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("0");
      await setClock(project().client, "2031-01-01 12:01+00");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_overdue: critical"]);
      await project().client.query("select backup.maintenance_off()");
      expect(await alerts()).toEqual([]);
    });
  });

  it("tells at once of a project that is closed for a restore that has failed, or gives no sign of life", async () => {
    await rolledBack(project().client, async () => {
      await setClock(project().client, "2031-01-01 00:00+00");
      const { rows: [restore] } = await project().client.query("select * from backup.begin_restore($1)", [
        JSON.stringify({
          scope: "full",
          mode: "replace",
          source_backup: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
          target_label: "here",
          lease_seconds: 90,
        }),
      ]);
      await project().client.query("select backup.maintenance_on('x', null, $1)", [`restore:${restore.id}`]);
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("0");
      await setClock(project().client, "2031-01-01 00:07+00");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("1");
      await setClock(project().client, "2031-01-01 00:01+00");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("0");
      expect(await alerts()).toEqual([]);
      await project().client.query("select backup.fail_restore($1, $2, $3)", [restore.id, restore.token, "{}"]);
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_overdue: critical"]);
    });
  });

  it("tells of a fence that somebody took away, until it is put back", async () => {
    await project().closed(async () => {
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("0");
      await project().client.query("alter role authenticator reset pgrst.db_pre_request");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_leaks: critical"]);
      await project().client.query("select backup.maintenance_on('x')");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("0");
      expect(await alerts()).toEqual([]);
    });
  });

  it("tells of a trigger that is gone, which turning it on again makes", async () => {
    await project().closed(async () => {
      await project().client.query("drop trigger holdfast_maintenance on storage.objects");
      expect(await scalar(project().client, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_leaks: critical"]);
      expect(await scalar(project().client, "select backup.maintenance_on('x') ->> 'files'")).toBe("fenced");
    });
  });

  it("ends planned windows that passed, in its turn each minute", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query("select backup.announce('x', now() + interval '1 hour')");
      await setClock(project().client, "2999-01-01 00:00+00");
      const outcome = JSON.parse(await scalar(project().client, "select backup.tick()") ?? "null");
      expect(outcome.skipped === true || outcome.watch_maintenance === 0).toBe(true);
      await project().client.query("select backup.watch_maintenance()");
      expect(await scalar(project().client, "select count(*) from backup.announcements where status = 'planned'")).toBe(
        "0",
      );
    });
  });
});
