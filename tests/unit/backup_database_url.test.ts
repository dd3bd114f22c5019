import { describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { projectOfAddress, readDatabaseUrl } from "../../src/shared/postgres/database_url.ts";
import { mapServerError, sqlstateOf } from "../../src/shared/postgres/server_error.ts";

describe("a database URL", () => {
  it("is read with its escapes", () => {
    expect(readDatabaseUrl("postgresql://me%40x:p%2Fw@db.example:6543/a%20b?sslmode=verify-full")).toEqual({
      host: "db.example",
      port: 6543,
      database: "a b",
      user: "me@x",
      password: "p/w",
      tls: "verified",
    });
  });
  it("may name a socket's folder, as for libpq", () => {
    const address = readDatabaseUrl("postgresql://me@/db?host=/run/pg&port=5499");
    expect([address.host, address.port, address.user, address.tls]).toEqual(["/run/pg", 5499, "me", "plain"]);
  });
  it.each([
    ["disable", "plain"],
    ["prefer", "verified_if_ca"],
    ["require", "verified"],
    ["verify-ca", "verified"],
    ["verify-full", "verified"],
  ])("sslmode=%s is %s", (mode, tls) => {
    expect(readDatabaseUrl(`postgresql://me@db/x?sslmode=${mode}`).tls).toBe(tls);
  });
  it.each([
    "not a url",
    "mysql://me:hush@db/x",
    "postgresql://db/x",
    "postgresql://me:hush@db/x?sslmode=no-verify",
    "postgresql://me:hush@db/x?port=abc",
    "postgresql://me:%zz-hush@db/x",
  ])("that cannot be used is a usage error without the password: %s", (url) => {
    const read = () => readDatabaseUrl(url);
    expect(read).toThrow(HoldfastError);
    try {
      read();
    } catch (error) {
      expect((error as HoldfastError).code).toBe("usage");
      expect((error as HoldfastError).message).not.toContain("hush");
    }
  });
});

describe("a server's error", () => {
  const server = (code: string, message = "m") => Object.assign(new Error(message), { code, severity: "ERROR" });
  it.each([
    ["28P01", "database_denied"],
    ["28000", "database_denied"],
    ["42501", "database_denied"],
    ["55P03", "lock_timeout"],
    ["57P01", "database_unreachable"],
    ["53300", "database_unreachable"],
    ["3D000", "database_unreachable"],
    ["42P01", "database_failed"],
    ["HF413", "lease_lost"],
    ["HF411", "counts_differ"],
  ])("%s is %s", (sqlstate, code) => {
    const mapped = mapServerError(server(sqlstate), "db");
    expect(mapped.code).toBe(code);
    expect(sqlstateOf(mapped)).toBe(sqlstate);
  });
  it("never carries a row's value", () => {
    const mapped = mapServerError(server("22P02", 'invalid input syntax for type integer: "my secret"'), "db");
    expect(JSON.stringify(mapped.toDocument())).not.toContain("secret");
  });
  const told = (code: string, message: string, more: object = {}) =>
    mapServerError(Object.assign(server(code, message), more), "db").message;
  it.each([
    "08006",
    "25006",
    "28P01",
    "2BP01",
    "3D000",
    "3F000",
    "40001",
    "42P01",
    "53100",
    "54000",
    "55006",
    "57014",
    "58030",
  ])(
    "of %s says what the server says",
    (sqlstate) => expect(told(sqlstate, 'table "notes" is in the way')).toContain('table "notes" is in the way'),
  );
  it.each(["PT400", "22P02", "23505", "P0001", "XX000", "38000", "0A000", "01000", "21000", "72000", "F0000", "HV000"])(
    "of %s says its SQLSTATE, and nothing of what could be a value",
    (sqlstate) => {
      const message = told(sqlstate, "no secret", {
        detail: "secret",
        where: "secret",
        table: "notes",
        constraint: "fine",
      });
      expect(message).toMatch(
        new RegExp(`^the server refused (it|a value) \\(notes\\.fine\\) \\(SQLSTATE ${sqlstate}\\)$`),
      );
    },
  );
  it.each([
    ["that code of the database raised", { routine: "exec_stmt_raise" }],
    ["in a statement that such code put together", { internalQuery: "select secret" }],
  ])("%s never has its message, and names the code", (_what, more) => {
    const where = 'PL/pgSQL function app.check_it(text) line 3 at RAISE\nSQL statement "select secret"';
    const mapped = mapServerError(
      Object.assign(server("42703", 'column "secret" is not there'), { where, ...more }),
      "db",
    );
    expect(mapped.message).toBe("code of the database failed in app.check_it (SQLSTATE 42703)");
    expect(JSON.stringify(mapped.toDocument())).not.toContain("secret");
  });
  it("says what functions of Holdfast say", () => {
    const where = "PL/pgSQL function backup.refuse_writes() line 3 at RAISE";
    expect(told("25006", "maintenance goes on", { where, routine: "exec_stmt_raise" })).toContain(
      "maintenance goes on",
    );
  });
  it("names no code whose name could be a value", () => {
    const where = 'PL/pgSQL function "my secret"(text) line 3 at RAISE\nsecret';
    expect(told("PT400", "secret", { where })).toBe("code of the database failed in a function (SQLSTATE PT400)");
  });
  it("says why a definition is not supported, where it is one", () => {
    const message = 'extension "nowhere" is not available';
    expect(told("0A000", message, { file: "extension.c" })).toContain(message);
    expect(told("0A000", 'unit "secret" not supported', { file: "timestamp.c" })).not.toContain("secret");
  });
  it("of the network is database_unreachable and no SQLSTATE", () => {
    const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
    expect(mapServerError(refused, "db").code).toBe("database_unreachable");
    expect(sqlstateOf(refused)).toBeNull();
  });
});

describe("the project that an address names", () => {
  const ref = "abcdefghijklmnopqrst";
  it.each([
    [`postgresql://postgres@db.${ref}.supabase.co:5432/postgres`, ref],
    [`postgresql://postgres.${ref}@aws-0-eu-central-1.pooler.supabase.com:6543/postgres`, ref],
    [`postgresql://postgres.${ref}@db.example.org/postgres`, null],
    [`postgresql://postgres@db.${ref}.example.org/postgres`, null],
    [`postgresql://postgres@db.${ref}x.supabase.co/postgres`, null],
    ["postgresql://postgres@127.0.0.1/postgres", null],
  ])("of %s", (url, project) => {
    expect(projectOfAddress(readDatabaseUrl(url))).toBe(project);
  });
});
