import { describe, expect, it } from "vitest";
import { inDatabase, newDatabaseName } from "../../src/cli/new_database.ts";
import { verdictOf } from "../../src/cli/verdict.ts";

const hour = 3600;
const facts = (hours: number | null, every: number | null = 24) => ({
  lastBackupAt: hours === null ? null : "2024-01-01T00:00:00Z",
  recoveryPointSeconds: hours === null ? null : hours * hour,
  expectedEverySeconds: every === null ? null : every * hour,
  alerts: [],
});
const alert = (severity: "warning" | "critical") => ({
  kind: "run_missed",
  subject: "schedule:daily",
  severity,
  message: "it did not run",
  openedAt: "2024-01-01T00:00:00Z",
});

describe("the verdict", () => {
  it.each([
    ["ok", facts(1)],
    ["ok", facts(25.9)],
    ["warning", facts(26.1)],
    ["warning", facts(49.9)],
    ["critical", facts(50.1)],
    ["critical", facts(null)],
    ["ok", facts(100, 168)],
    ["warning", facts(27, null)],
    ["warning", { ...facts(1), alerts: [alert("warning")] }],
    ["critical", { ...facts(1), alerts: [alert("warning"), alert("critical")] }],
  ])("is %s for %j", (verdict, given) => {
    expect(verdictOf(given).verdict).toBe(verdict);
  });

  it("has a reason for each line that is not ok", () => {
    expect(verdictOf(facts(1)).reasons).toEqual([]);
    expect(verdictOf({ ...facts(null), alerts: [alert("critical")] }).reasons).toHaveLength(2);
  });
});

describe("a new database for a restore", () => {
  const named = (database: string) =>
    newDatabaseName({
      project: { ref: null, systemIdentifier: "1", database },
      consistentAt: "2026-11-21T18:45:00.123456Z",
    });

  it("is called after the source and the moment that the backup shows", () => {
    expect(named("postgres")).toBe("postgres_at_20261121t184500z");
  });

  it("has a name that PostgreSQL does not cut, whatever the source is called", () => {
    for (const name of ["x".repeat(63), "日".repeat(21), "😀".repeat(15)]) {
      const made = named(name);
      expect(new TextEncoder().encode(made).byteLength).toBeLessThanOrEqual(63);
      expect(made.endsWith("_at_20261121t184500z")).toBe(true);
      expect(made).not.toContain("\ufffd");
    }
  });

  it.each([
    ["postgresql://me@host:5432/app?sslmode=require", "postgresql://me@host:5432/new%20one?sslmode=require"],
    ["postgresql://me:secret@host", "postgresql://me:secret@host/new%20one"],
    ["postgresql://me@/app?host=/run/pg", "postgresql://me@/new%20one?host=/run/pg"],
  ])("is reached by the URL of the source with another name: %s", (url, expected) => {
    expect(inDatabase({ url }, "new one").url).toBe(expected);
  });
});
