/** Names and addresses of databases that restores make. */
import { describe, expect, it } from "vitest";
import { inDatabase, newDatabaseName } from "../../src/shared/restore/new_database.ts";

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
