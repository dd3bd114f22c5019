/** Incidents as the database keeps them: one at a time, a timeline that only grows, what is public of it, what is called for the page. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const open = async (reason = "notes are gone", message: string | null = "Notes are missing.") => {
  const { rows } = await postgres.query<{ incident: string; joined: string }>(
    "select incident, joined from backup.open_incident($1, $2)",
    [reason, message],
  );
  return { id: rows[0]?.incident ?? "", joined: rows[0]?.joined === "t" };
};
const page = async () =>
  JSON.parse(await scalar(postgres, "select backup.page_content()::text") ?? "") as Record<string, unknown>;
const events = async (id: string) =>
  (await postgres.query("select kind, message from backup.incident_events where incident_id = $1 order by id", [id]))
    .rows
    .map(({ kind, message }) => `${kind}: ${message}`);
const notices = async () =>
  (await postgres.query("select kind, severity from backup.notices order by id")).rows.map((row) =>
    `${row.kind} ${row.severity}`
  );

describe("an incident", () => {
  it("is opened once, told to the channels once, and joined by whoever opens another", async () => {
    await rolledBack(postgres, async () => {
      const first = await open();
      expect(first.joined).toBe(false);
      expect(await open()).toEqual({ id: first.id, joined: true });
      expect(await open("it is worse")).toEqual({ id: first.id, joined: true });
      expect(await open("it is worse")).toEqual({ id: first.id, joined: true });
      expect(await events(first.id)).toEqual([
        "opened: notes are gone",
        "told: Notes are missing.",
        "joined: it is worse",
      ]);
      expect(await notices()).toEqual(["incident_opened critical"]);
      expect(
        await scalar(postgres, "select count(*) from backup.audit_log where subject = $1", [`incident:${first.id}`]),
      )
        .toBe("3");
    });
  });

  it("goes step by step to its end, and takes notes after it, but no more updates", async () => {
    await rolledBack(postgres, async () => {
      const { id } = await open();
      await postgres.query(
        "select backup.record_incident($1, 'stopped', '{\"writes\": \"stopped\"}', 'writes are refused')",
        [id],
      );
      await postgres.query("select backup.record_incident($1, 'assessed', '{}', 'found')", [id]);
      await postgres.query("select backup.record_incident($1, 'offered', '[]', 'none')", [id]);
      await postgres.query("select backup.note_incident($1, 'it was the import')", [id]);
      await postgres.query("select backup.tell_incident($1, 'Nearly done.')", [id]);
      expect(await scalar(postgres, "select backup.close_incident($1, 'all is back', 'All is back.')", [id])).toBe("f");
      expect(await events(id)).toEqual([
        "opened: notes are gone",
        "told: Notes are missing.",
        "stopped: writes are refused",
        "assessed: found",
        "offered: none",
        "noted: it was the import",
        "told: Nearly done.",
        "told: All is back.",
        "closed: all is back",
      ]);
      expect(await notices()).toEqual([
        "incident_opened critical",
        "incident_update warning",
        "incident_closed information",
      ]);
      expect(
        await scalar(postgres, "select result || ': ' || notes from backup.maintenance_log where kind = 'incident'"),
      )
        .toBe("closed: all is back");
      for (
        const call of [
          "select backup.tell_incident($1, 'more')",
          "select backup.close_incident($1, 'again')",
          "select backup.record_incident($1, 'assessed', '{}', 'late')",
        ]
      ) {
        expect(await sqlstate(postgres, call, [id]), call).toBe("HF451");
      }
      await postgres.query("select backup.note_incident($1, 'a lesson')", [id]);
      expect((await open("another")).joined).toBe(false);
    });
  });

  it("is in the status as long as it is open, and at once in what the dashboard shows", async () => {
    await rolledBack(postgres, async () => {
      const told = async () => {
        const { rows: [row] } = await postgres.query<{ verdict: string; line: string; incident: string | null }>(
          "select verdict, line, document -> 'incident' ->> 'reason' as incident from public.backup_status",
        );
        return row;
      };
      const standing = async () => JSON.parse(await scalar(postgres, "select backup.status()::text") ?? "{}");
      expect(await standing()).toMatchObject({ incident: null });
      const { id } = await open();
      expect(await standing()).toMatchObject({
        verdict: "critical",
        line: expect.stringMatching(`^critical: incident ${id} is open since .*: notes are gone`),
        incident: { id: Number(id), reason: "notes are gone" },
      });
      expect(await told()).toMatchObject({
        verdict: "critical",
        line: expect.stringMatching(`^critical: incident ${id} is open`),
        incident: "notes are gone",
      });
      await postgres.query("select backup.close_incident($1, 'all is back')", [id]);
      expect((await told())?.line).not.toContain("incident");
      expect(await standing()).toMatchObject({ incident: null });
    });
  });

  it("does not end while a restore puts rows into place, and ends where that one is dead", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2030-01-02 00:00:00+00");
      const { id } = await open();
      const { rows: [restore] } = await postgres.query<{ id: string; token: string }>(
        "select id, token from backup.begin_restore($1)",
        [{
          scope: "table",
          mode: "missing",
          source_backup: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
          target_label: "here",
        }],
      );
      await postgres.query('select backup.restore_progress($1, $2, \'{"status": "applying"}\')', [
        restore?.id,
        restore?.token,
      ]);
      expect(await sqlstate(postgres, "select backup.close_incident($1, 'all is back')", [id])).toBe("HF451");
      const facts = JSON.parse(await scalar(postgres, "select backup.incident_facts($1)::text", [id]) ?? "");
      expect(facts.followUps).toContain(`restore ${restore?.id} (table) is not over`);
      await setClock(postgres, "2030-01-02 12:00:00+00");
      expect(await sqlstate(postgres, "select backup.close_incident($1, 'all is back')", [id])).toBe("none");
    });
  });

  it("refuses what does not fit, and numbers that nobody has", async () => {
    await rolledBack(postgres, async () => {
      for (const reason of ["", "two\nlines", "x".repeat(301)]) {
        expect(await sqlstate(postgres, "select backup.open_incident($1)", [reason])).toBe("HF003");
        expect(await sqlstate(postgres, "select backup.open_incident('good', $1)", [reason])).toBe("HF003");
      }
      expect(await sqlstate(postgres, "select backup.tell_incident(4711, 'm')")).toBe("HF450");
      expect(await sqlstate(postgres, "select backup.note_incident(4711, 'm')")).toBe("HF450");
      expect(await sqlstate(postgres, "select backup.incident_facts(4711)")).toBe("HF450");
      const { id } = await open();
      expect(await sqlstate(postgres, "select backup.note_incident($1, '')", [id])).toBe("HF003");
      expect(await sqlstate(postgres, "select backup.tell_incident($1, $2)", [id, "a\nb"])).toBe("HF003");
      expect(await sqlstate(postgres, "select backup.record_incident($1, 'restored', '{}', 'x')", [id])).toBe("HF003");
    });
  });

  it("has a timeline that nobody changes, by replica role neither", async () => {
    await rolledBack(postgres, async () => {
      await open();
      for (const change of ["update backup.incident_events set message = 'x'", "delete from backup.incident_events"]) {
        expect(await sqlstate(postgres, change)).toBe("HF007");
        expect(await sqlstate(postgres, `set local session_replication_role = replica; ${change}`)).not.toBe("none");
      }
      expect(await sqlstate(postgres, "truncate backup.incident_events")).toBe("HF007");
    });
  });
});

describe("the status page", () => {
  it("says what the public is told, and nothing of reasons, notes, tables or people", async () => {
    await rolledBack(postgres, async () => {
      expect(await page()).toMatchObject({ state: "operational", message: null, incidents: [] });
      const { id } = await open("the secret import of Bob", "Notes are missing.");
      await postgres.query("select backup.note_incident($1, 'bob@example.org did it')", [id]);
      await postgres.query(
        "select backup.record_incident($1, 'assessed', '{\"suspects\": [\"public.notes\"]}', 'public.notes')",
        [id],
      );
      await postgres.query("select backup.tell_incident($1, 'We found them.', timestamptz '2030-01-01 00:00+00')", [
        id,
      ]);
      const said = await page();
      expect(said).toMatchObject({
        state: "incident",
        message: "We found them.",
        nextUpdateAt: "2030-01-01T00:00:00Z",
        incidents: [{
          id: Number(id),
          closedAt: null,
          updates: [{ message: "We found them." }, { message: "Notes are missing." }],
        }],
      });
      expect(JSON.stringify(said)).not.toMatch(/bob|secret|public\.notes|role:/i);
      await postgres.query("select backup.close_incident($1, 'Bob has learned', 'All notes are back.')", [id]);
      const over = await page();
      expect(over).toMatchObject({ state: "operational", message: null, nextUpdateAt: null });
      expect(JSON.stringify(over)).not.toMatch(/learned/);
      expect(over["incidents"]).toMatchObject([{ closedAt: expect.any(String) }]);
    });
  });

  it("tells of maintenance on, off and planned, and forgets incidents after 90 days", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        "select backup.announce('A new disk.', now() + interval '1 day', now() + interval '2 days')",
      );
      await postgres.query("select backup.maintenance_on('Back soon.')");
      expect(await page()).toMatchObject({
        state: "maintenance",
        message: "Back soon.",
        maintenance: { message: "Back soon.", until: null },
        planned: [{ message: "A new disk." }],
      });
      const { id } = await open();
      expect(await page()).toMatchObject({ state: "incident", maintenance: { message: "Back soon." } });
      expect(await scalar(postgres, "select backup.close_incident($1, 'done')", [id])).toBe("t");
      expect(await page()).toMatchObject({ state: "maintenance" });
      await postgres.query("select backup.maintenance_off()");
      expect(await page()).toMatchObject({ state: "operational", maintenance: null });
      await setClock(postgres, "2999-01-01 00:00+00");
      expect(await page()).toMatchObject({ incidents: [] });
    });
  });

  it("is called for while it says something else, once a minute, and not where nothing ever happened", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const watch = () => scalar(postgres, "select backup.watch_page()");
      const put = () => postgres.query("select backup.page_put('s3://status at h.test', backup.page_hash())");
      expect(await watch()).toBe("0");
      await setClock(postgres, "2030-01-01 00:00:00+00");
      const { id } = await open();
      expect(await watch()).toBe("1");
      expect(await scalar(postgres, "select function_name from backup.calls order by made_at desc limit 1")).toBe(
        "incident",
      );
      // It has a minute to do it.
      expect(await watch()).toBe("0");
      await setClock(postgres, "2030-01-01 00:01:00+00");
      expect(await watch()).toBe("1");
      await put();
      await setClock(postgres, "2030-01-01 00:02:00+00");
      expect(await watch()).toBe("0");
      await postgres.query("select backup.note_incident($1, 'nobody else reads it')", [id]);
      expect(await watch()).toBe("0");
      await postgres.query("select backup.tell_incident($1, 'More.')", [id]);
      expect(await watch()).toBe("1");
      expect(await scalar(postgres, "select count(*) from backup.audit_log where action = 'page.moved'")).toBe("1");
    });
  });

  it("is called for by no copy of the project", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await open();
      await postgres.query("update backup.identity set present_ref = 'elsewhere'");
      expect(await scalar(postgres, "select backup.watch_page()")).toBe("0");
    });
  });

  it("raises an alert at the third failure in a row, which ends with the next page", async () => {
    await rolledBack(postgres, async () => {
      const alerts = () =>
        scalar(postgres, "select count(*) from backup.alerts where kind = 'status_page_failed' and status = 'open'");
      await postgres.query("select backup.page_failed('no answer'), backup.page_failed('no answer')");
      expect(await alerts()).toBe("0");
      await postgres.query("select backup.page_failed('no answer')");
      expect(await alerts()).toBe("1");
      await postgres.query("select backup.page_put('s3://status', backup.page_hash())");
      expect(await alerts()).toBe("0");
    });
  });

  it("is written to while the project is closed, where it lies in the project's own Storage", async () => {
    await rolledBack(postgres, async () => {
      const buckets = () => scalar(postgres, "select array_to_string(own_buckets, ',') from backup.maintenance");
      await postgres.query("select backup.page_put('supabase://status/x at p.test', 'hash')");
      await postgres.query("select backup.maintenance_on('Back soon.')");
      expect(await buckets()).toBe("holdfast-backups,holdfast-downloads,status");
      await postgres.query("select backup.maintenance_on('Back soon.', null, null, '{status}')");
      expect(await buckets()).toBe("status");
    });
  });
});

describe("the facts of a report", () => {
  it("hold what happened in its time and nothing from before, with what is left to do", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2030-01-01 00:00:00+00");
      await postgres.query(
        "select backup.raise_alert('test', 'before', 'over', 'warning'), backup.resolve_alert('test', 'before')",
      );
      await setClock(postgres, "2030-01-02 00:00:00+00");
      const { id } = await open();
      await postgres.query("select backup.raise_alert('test', 'during', 'still there', 'warning')");
      await postgres.query("select backup.maintenance_on('Back soon.')");
      const { rows: [restore] } = await postgres.query<{ id: string; token: string }>(
        "select id, token from backup.begin_restore($1)",
        [{
          scope: "table",
          mode: "missing",
          source_backup: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
          target_label: "here",
        }],
      );
      await setClock(postgres, "2030-01-02 00:10:00+00");
      await postgres.query("select backup.fail_restore($1, $2, $3)", [
        restore?.id,
        restore?.token,
        { code: "lock_timeout", message: "a table was held", hint: "again" },
      ]);
      const facts = JSON.parse(await scalar(postgres, "select backup.incident_facts($1)::text", [id]) ?? "");
      expect(facts).toMatchObject({
        maintenanceOn: true,
        contact: "",
        incident: { id: Number(id), opened_at: "2030-01-02T00:00:00Z", closed_at: null },
        restores: [{ scope: "table", status: "failed", error: "a table was held" }],
        alerts: [{ subject: "during" }, { kind: "restore_failed" }],
        announcements: [{ message: "Back soon." }],
      });
      expect(facts.acts.map((one: { action: string }) => one.action)).toEqual(
        expect.arrayContaining(["maintenance.closed", "restore.failed"]),
      );
      expect(facts.followUps).toEqual(expect.arrayContaining([
        "close the incident",
        "maintenance mode is still on: `maintenance off`",
        "alert test during: still there",
        expect.stringMatching(/^alert restore_failed .*a table was held/),
      ]));
    });
  });

  it("give for each scope the objective and the last good time, a drill's or a restore's", async () => {
    await rolledBack(postgres, async () => {
      const times = async () =>
        (await postgres.query(
          "select scope, measured_seconds from backup.recovery_times() where scope in ('table', 'full')",
        )).rows;
      expect(await times()).toEqual([{ scope: "full", measured_seconds: null }, {
        scope: "table",
        measured_seconds: null,
      }]);
      await postgres.query(
        `insert into backup.drills (drill, started_at, finished_at, ok, rto_seconds) values
           ('full', '2030-01-01', '2030-01-02', true, 100), ('full', '2030-01-03', '2030-01-04', false, 5),
           ('disaster', '2031-01-01', '2031-01-02', true, 7)`,
      );
      expect((await times())[0]).toEqual({ scope: "full", measured_seconds: "7" });
    });
  });
});
