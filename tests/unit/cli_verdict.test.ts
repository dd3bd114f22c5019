import { describe, expect, it } from "vitest";
import { inDatabase, newDatabaseName } from "../../src/shared/restore/new_database.ts";
import { recoveryPointOf, verdictOf } from "../../src/cli/verdict.ts";

const hour = 3600;
const facts = (hours: number | null, every: number | null = 24) => ({
  lastBackupAt: hours === null ? null : "2024-01-01T00:00:00Z",
  lastBackupAgeSeconds: hours === null ? null : hours * hour,
  expectedEverySeconds: every === null ? null : every * hour,
  alerts: [],
  stream: null,
  stopped: null,
  stores: { first: "supabase://backups", second: "s3://copies", projectUrl: undefined },
});
const stream = {
  chain: "0a1b2c3d",
  hasFull: true,
  lagSeconds: 40,
  stuckSeconds: null,
  restartLsn: "0/1",
  confirmedLsn: "0/2",
  retainedBytes: 1_000,
  limitBytes: 1_000_000,
  failure: null,
  uncovered: [],
};
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

  it("is a warning with one store, and with two that fail together", () => {
    const one = verdictOf({ ...facts(1), stores: { ...facts(1).stores, second: undefined } });
    expect(one).toEqual({ verdict: "warning", reasons: [expect.stringContaining("only one store")] });
    const both = verdictOf({ ...facts(1), stores: { ...facts(1).stores, second: "supabase://other" } });
    expect(both).toEqual({ verdict: "warning", reasons: [expect.stringContaining("one project")] });
  });
});

describe("the verdict on a change stream", () => {
  const tables = (why: "identity" | "unlogged" | "unpublished" | "rewritten", ...names: string[]) =>
    names.map((name) => ({ name: `a.${name}`, why }));
  const withStream = (more: Partial<typeof stream> | object) => ({ ...facts(1), stream: { ...stream, ...more } });

  it("is ok, without a reason, while it is drained and holds every table", () => {
    expect(verdictOf(withStream({}))).toEqual({ verdict: "ok", reasons: [] });
    expect(verdictOf(withStream({ lagSeconds: 300, retainedBytes: 500_000 })).verdict).toBe("ok");
  });

  it.each([
    ["no full backup is on chain 0a1b2c3d", { hasFull: false }],
    ["failed: store_unreachable: the store", { failure: "store_unreachable: the store does not answer" }],
    ["5 min 1 s ago", { lagSeconds: 301 }],
    ["never drained", { lagSeconds: null }],
    ["the slot of the change stream is gone", { retainedBytes: null }],
    ["488.3 KiB of WAL; at 976.6 KiB it is given up", { retainedBytes: 500_001 }],
    ["changes of a.b, a.c, a.d and 2 more are not all", { uncovered: tables("identity", "b", "c", "d", "e", "f") }],
  ])("is a warning that says: %s", (text, more) => {
    const { verdict, reasons } = verdictOf(withStream(more));
    expect(verdict).toBe("warning");
    expect(reasons).toEqual([expect.stringContaining(text)]);
  });

  it("names the remedy for each kind of table that is not covered", () => {
    const uncovered = [
      ...tables("unlogged", "b"),
      ...tables("identity", "c"),
      ...tables("unpublished", "d"),
      ...tables("rewritten", "e"),
    ];
    expect(verdictOf(withStream({ uncovered })).reasons).toEqual([
      expect.stringMatching(/a\.c .*primary key.*replica identity full/),
      expect.stringMatching(/a\.b .*set logged/),
      expect.stringMatching(/a\.d .*role that drains/),
      expect.stringMatching(/a\.e .*full backup/),
    ]);
  });

  it("tells what a table was called that was renamed since", () => {
    const uncovered = [{ name: "a.b", why: "rewritten", formerly: "a.c" }, ...tables("rewritten", "d")];
    expect(verdictOf(withStream({ uncovered })).reasons)
      .toEqual([expect.stringContaining("changes of a.b (formerly a.c), a.d are not all")]);
  });

  it("is a warning when it ended and none was begun after it", () => {
    const stopped = { at: "2024-01-01T00:00:00Z", reason: "the slot is gone" };
    const { verdict, reasons } = verdictOf({ ...facts(1), stopped });
    expect(verdict).toBe("warning");
    expect(reasons).toEqual([expect.stringContaining("2024-01-01T00:00:00Z (the slot is gone)")]);
  });
});

describe("the recovery point", () => {
  it.each([
    [3600, "the full's without a stream", facts(1)],
    [40, "the stream's where a full is on its chain", { ...facts(1), stream }],
    [3600, "the full's while the chain has none", { ...facts(1), stream: { ...stream, hasFull: false } }],
    [3600, "the full's while the stream is behind it", { ...facts(1), stream: { ...stream, lagSeconds: 9_000 } }],
    [3600, "the full's before the first drain", { ...facts(1), stream: { ...stream, lagSeconds: null } }],
    [900, "that of the last moment before what cannot be replayed", {
      ...facts(1),
      stream: { ...stream, stuckSeconds: 900 },
    }],
    [null, "none without a backup", { ...facts(null), stream }],
  ])("is %s: %s", (seconds, _, given) => {
    expect(recoveryPointOf(given)).toBe(seconds);
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
