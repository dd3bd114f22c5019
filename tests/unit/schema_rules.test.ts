import { describe, expect, it } from "vitest";
import { hidesOperator } from "../../src/shared/schema/dependencies.ts";
import { commentTarget } from "../../src/shared/schema/designation.ts";
import { draft } from "../../src/shared/schema/draft.ts";
import type { CatalogObject, Inventory } from "../../src/shared/schema/inventory.ts";
import { notCapturedOf, splitPossible, undefinedKeys } from "../../src/shared/schema/not_captured.ts";
import { dataOf, platformOf } from "../../src/shared/schema/platform.ts";
import { webhookRoutines } from "../../src/shared/schema/webhooks.ts";

const object = (catalog: string, oid: string, rest: Partial<CatalogObject> = {}): CatalogObject => ({
  catalog,
  oid,
  type: "type",
  identity: `s.${oid}`,
  schema: "s",
  name: oid,
  owner: "postgres",
  sub: null,
  parent: null,
  extension: null,
  madeWithExtension: false,
  acl: null,
  baseAcl: null,
  comment: null,
  ...rest,
});

describe("what belongs to the platform", () => {
  const of = (schema: string, owner: string, catalog = "pg_class") => platformOf({ catalog, schema, name: "x", owner });

  it("is what its roles own in its schemas, nothing else", () => {
    expect(of("auth", "supabase_auth_admin")).toBe("auth");
    expect(of("storage", "supabase_storage_admin")).toBe("storage");
    expect(of("auth", "postgres")).toBe(null);
    expect(of("public", "supabase_admin")).toBe(null);
    expect(of("auth", "my_app")).toBe(null);
  });

  it("keeps rows of services apart from the user's, and bookkeeping from both", () => {
    expect(dataOf("auth", "users", "supabase_auth_admin")).toEqual({
      dataOwner: "auth",
      captured: "capture",
      restoreData: true,
    });
    expect(dataOf("auth", "schema_migrations", "supabase_auth_admin").restoreData).toBe(false);
    expect(dataOf("auth", "users", "my_app")).toEqual({ dataOwner: "user", captured: "capture", restoreData: true });
    expect(dataOf("vault", "secrets", "supabase_admin").captured).toMatchObject({ leftOut: expect.any(String) });
    expect(dataOf("supabase_migrations", "schema_migrations", "postgres").dataOwner).toBe("user");
  });
});

describe("functions that call out", () => {
  const routine = (name: string, body: string, schema = "public") => ({ oid: name, schema, name, body });

  it("are found through any number of calls, and by any way to call", () => {
    const found = webhookRoutines([
      routine("direct", "perform net.http_post(url := 'x')"),
      routine("spaced", "perform \"net\" . http_get('x')".replace('"net"', "net")),
      routine("wrapper", "perform public.direct()"),
      routine("Outer", 'select "wrapper" ( )'),
      routine("hosted", "execute function supabase_functions.http_request('x')"),
      routine("classic", "select * from extensions.http_post('x', 'y')"),
      routine("http_request", "", "supabase_functions"),
      routine("quiet", "return new"),
      routine("directory", "select directory_of(1)"),
    ]);
    expect([...found].sort()).toEqual(["Outer", "classic", "direct", "hosted", "http_request", "spaced", "wrapper"]);
  });
});

describe("operators that a text does not name", () => {
  it("are recognised in every form that leaves them out", () => {
    for (
      const text of [
        "(a IS DISTINCT FROM b)",
        "(a IS NOT DISTINCT FROM b)",
        "NULLIF(a, b)",
        "CASE a WHEN b THEN 1 END",
        "CASE\n  a.x\n  WHEN 1",
        "FROM (t JOIN u USING (id))",
        "t NATURAL JOIN u",
        "((a, b) IN ( SELECT x.a, x.b FROM x))",
        "(ROW(a, b) < ROW(c, d))",
      ]
    ) expect([text, hidesOperator(text)]).toEqual([text, true]);
    for (const text of ["(a OPERATOR(extensions.=) b)", "CASE WHEN a THEN 1 END", "CASE\n    WHEN (a) THEN 1"]) {
      expect([text, hidesOperator(text)]).toEqual([text, false]);
    }
  });
});

describe("comments", () => {
  it("name constraints of domains as COMMENT wants it, whatever is in the names", () => {
    const target = (identity: string) =>
      commentTarget(object("pg_constraint", "1", { type: "domain constraint", identity }));
    expect(target("c on public.d")).toBe("constraint c on domain public.d");
    expect(target('"c on d" on public.d')).toBe('constraint "c on d" on domain public.d');
    expect(target('c on "Odd schéma"."Dom on ain"')).toBe('constraint c on domain "Odd schéma"."Dom on ain"');
  });
});

describe("what is not captured", () => {
  const inventory: Inventory = {
    objects: new Map(
      [object("pg_type", "1"), object("pg_class", "2"), object("pg_class", "3"), object("pg_proc", "4")].map((one) => [
        `${one.catalog}:${one.oid}`,
        one,
      ]),
    ),
    onExtensions: [
      object("pg_trigger", "5", { type: "trigger", extension: "x" }),
      object("pg_trigger", "6", { type: "trigger", extension: "x", madeWithExtension: true }),
    ],
  };
  const drafts = [
    draft("pg_class:2", "table", "pre-data", ["t"], { identity: "table s.2" }),
    draft("pg_class:3", "view", "pre-data", ["v"], { identity: "view s.3", after: ["pg_class:2"] }),
    draft("pg_proc:4", "function", "pre-data", ["f"], { identity: "function s.4" }),
  ];

  it("is every row without a definition, what needs it, and what hangs on an extension's objects", () => {
    const missing = undefinedKeys(drafts, inventory);
    expect([...missing]).toEqual(["pg_type:1"]);
    const edges = [{ from: "pg_class:2", part: "pg_class:2", to: "pg_type:1" }];
    const { drafts: possible, impossible } = splitPossible(drafts, edges, missing);
    expect(possible.map((one) => one.key)).toEqual(["pg_proc:4"]);
    expect(notCapturedOf(missing, impossible, inventory)).toEqual([
      { catalog: "pg_type", identity: "type s.1", reason: expect.stringContaining("base type") },
      { catalog: "pg_class", identity: "table s.2", reason: "needs type s.1, which is not captured" },
      { catalog: "pg_class", identity: "view s.3", reason: "needs type s.2, which is not captured" },
      {
        catalog: "pg_trigger",
        identity: "trigger s.5",
        reason: "hangs on an object of extension x, which did not make it",
      },
    ]);
  });

  it("names large objects one by one up to a bound, then their number", () => {
    const many = Array.from(
      { length: 25 },
      (_, n) => object("pg_largeobject_metadata", String(n), { type: "large object" }),
    );
    const missing = new Set(many.map((one) => `${one.catalog}:${one.oid}`));
    const list = notCapturedOf(missing, [], {
      objects: new Map(many.map((one) => [`${one.catalog}:${one.oid}`, one])),
      onExtensions: [],
    });
    expect(list.length).toBe(21);
    expect(list.at(-1)?.identity).toBe("5 more large objects");
  });
});
