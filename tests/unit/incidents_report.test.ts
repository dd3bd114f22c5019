import { describe, expect, it } from "vitest";
import { type IncidentFacts, incidentFacts, reportOf, reportPage, spanOf } from "../../src/shared/incidents/report.ts";

const restore = {
  id: "r1",
  scope: "table",
  mode: "missing",
  status: "succeeded",
  by: "role:postgres",
  target: "127.0.0.1/postgres",
  startedAt: "2026-01-01T10:20:00Z",
  finishedAt: "2026-01-01T10:21:30Z",
  pointAt: "2026-01-01T09:59:59Z",
  measuredSeconds: 90,
  objectiveSeconds: 14_400,
  withinObjective: true,
  rows: 40,
  tables: [{ schema: "public", name: "notes", inserted: 40, updated: 0, deleted: 0 }],
  error: null,
};

const facts: IncidentFacts = incidentFacts.parse({
  incident: {
    id: 3,
    status: "closed",
    reason: "rows | are *gone*",
    opened_at: "2026-01-01T10:00:00Z",
    opened_by: "role:postgres",
    stopped_at: "2026-01-01T10:00:05Z",
    stopped: { writes: "stopped" },
    assessed_at: "2026-01-01T10:01:00Z",
    assessment: {
      since: "2025-12-31T10:00:00Z",
      suspects: [{
        xid: "42",
        lsn: "0/1",
        committedAt: "2026-01-01T09:59:59.5Z",
        before: "2026-01-01T09:59:59.4Z",
        why: "deleted 40 rows from public.notes",
        rows: 40,
      }],
      notDone: ["public.visits was not counted"],
    },
    offered_at: null,
    closed_at: "2026-01-01T11:00:00Z",
    closed_by: "role:postgres",
    summary: "All rows are back.",
  },
  until: "2026-01-01T11:00:00Z",
  contact: "Ada, ada@example.org",
  maintenanceOn: false,
  events: [{ at: "2026-01-01T10:00:00Z", kind: "opened", actor: "role:postgres", message: "rows | are *gone*" }],
  restores: [restore],
  drills: [],
  alerts: [],
  announcements: [{ message: "Back soon", startsAt: "2026-01-01T10:00:05Z", endedAt: "2026-01-01T10:50:00Z" }],
  log: [],
  acts: [],
  actsLeftOut: 0,
  objectives: [],
  followUps: [],
});

describe("the report", () => {
  it("says how long it lasted, when it was recovered, what was taken and what came back", () => {
    expect(reportOf(facts)).toMatchObject({
      lastedSeconds: 3600,
      recoveredAfterSeconds: 1290,
      rowsTaken: 40,
      rowsBack: { inserted: 40, updated: 0, deleted: 0 },
      // Rows of one table: nothing that was written since is lost.
      lostSeconds: null,
      restores: [expect.objectContaining({ objective: "1 min 30 s of 4 h: met" })],
      notDone: ["public.visits was not counted"],
    });
  });

  it("says what is lost for good where the whole database was put back", () => {
    const whole = {
      ...restore,
      scope: "full",
      mode: "replace",
      pointAt: "2026-01-01T08:00:05Z",
      withinObjective: false,
    };
    expect(reportOf({ ...facts, restores: [whole] })).toMatchObject({
      lostSeconds: 7200,
      restores: [expect.objectContaining({ objective: expect.stringContaining("missed") })],
    });
    // Beside, it is nobody's recovery.
    expect(reportOf({ ...facts, restores: [{ ...whole, mode: "beside" }] })).toMatchObject({
      lostSeconds: null,
      recoveredAfterSeconds: null,
    });
  });

  it("tells everything in the order of time, from the transaction that did it on", () => {
    const { timeline } = reportOf(facts);
    expect(timeline.map(({ at }) => at)).toEqual([...timeline.map(({ at }) => at)].sort());
    expect(timeline.map(({ what }) => what)).toEqual([
      "deleted 40 rows from public.notes",
      "opened: rows | are *gone*",
      "on: Back soon",
      "restore of table (missing) into 127.0.0.1/postgres began",
      "restore of table: succeeded",
      "off",
    ]);
  });

  it("is Markdown in which nothing that people wrote is markup, and every row of a table has its cells", () => {
    const page = reportPage(reportOf(facts));
    expect(page).toContain("# Incident 3: rows | are \\*gone\\*");
    const rows = page.split("\n").filter((line) => line.startsWith("| 2026"));
    expect(rows.length).toBeGreaterThan(5);
    for (const row of rows) expect([3, 5]).toContain(row.split(/(?<!\\)\|/).length - 2);
    expect(page).toContain("- not looked at: public.visits was not counted");
  });

  it("goes on where an assessment is of another version, or was never made", () => {
    const odd = { ...facts, incident: { ...facts.incident, assessment: { what: "else" }, summary: null } };
    const report = reportOf(incidentFacts.parse(odd));
    expect(report).toMatchObject({ suspects: [], rowsTaken: null });
    expect(reportPage(report)).toContain("Nothing was found in the change stream.");
  });

  it.each([[0, "0 s"], [59.6, "1 min"], [61, "1 min 1 s"], [7260, "2 h 1 min"], [86_400, "24 h"]])(
    "writes %s seconds as %s",
    (seconds, span) => {
      expect(spanOf(seconds)).toBe(span);
    },
  );
});
