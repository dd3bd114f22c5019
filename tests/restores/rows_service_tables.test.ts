/** Tables of schemas auth and storage that somebody asks for by name: what would open something or break a file stays beside. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { legRequestOf } from "../../src/shared/http/restore_request.ts";
import { layAsked, pairAsked, type RowsAsked, warningsOf } from "../../src/shared/rows/asked.ts";
import { parseCondition } from "../../src/shared/rows/beside/conditions.ts";
import { query, useCluster } from "../support/cluster.ts";
import { bringBack, type Past, pastOf, sideName } from "./rows_fixture.ts";

const cluster = useCluster();
let past: Past;
const [anna, ben] = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"];
const id = "44444444-4444-4444-8444-444444444444";

beforeAll(async () => {
  past = await pastOf(
    cluster(),
    `insert into auth.users (id, email, encrypted_password, recovery_token)
       values ('${anna}', 'anna@x.y', 'password of then', 'token of then'), ('${ben}', 'ben@x.y', 'then', 'of then');
     insert into auth.sessions (id, user_id) values ('${id}', '${anna}');
     insert into auth.mfa_factors (id, user_id, status, factor_type, secret, created_at, updated_at)
       values ('${id}', '${anna}', 'verified', 'totp', 'secret of then', now(), now());
     insert into storage.buckets (id, name) values ('photos', 'photos'), ('papers', 'papers');
     insert into storage.objects (bucket_id, name, version, owner_id) values ('photos', 'cat', 'of then', '${anna}')`,
  );
}, 120_000);
afterAll(() => past?.connection.close());

const table = (schema: string, name: string): RowsAsked => ({ scope: "table", table: { schema, name } });
const record = (schema: string, name: string, where: string): RowsAsked => ({
  scope: "record",
  table: { schema, name },
  where: [parseCondition(where)],
});

async function beside<T>(
  asked: RowsAsked,
  look: (beside: Awaited<ReturnType<typeof pairAsked>>, warnings: readonly string[]) => Promise<T>,
): Promise<T> {
  const { connection, source } = past;
  const deps = { connection, source, sameDatabase: true, schema: sideName() };
  try {
    const laid = await layAsked(deps, asked, "test");
    return await look(await pairAsked(deps, asked, laid), warningsOf(asked, laid));
  } finally {
    await connection.execute(`drop schema if exists ${deps.schema} cascade`);
  }
}

describe("a service's table", () => {
  /** Of now. */
  beforeEach(async () => {
    await query(
      past.url,
      `update auth.users set encrypted_password = 'password of now', recovery_token = 'of now', phone = '1' where id = '${anna}';
     delete from auth.users where id = '${ben}'; delete from auth.sessions; delete from auth.mfa_factors;
     update storage.objects set version = 'of now' where name = 'cat';
     insert into storage.objects (bucket_id, name, version) values ('photos', 'dog', 'of now') on conflict do nothing;
     set session_replication_role = replica; delete from storage.buckets where id = 'papers'; reset session_replication_role`,
    );
  });

  it.each([
    [
      "auth.sessions",
      table("auth", "sessions"),
      "rows of auth.sessions are laid beside only: a session that ended does not begin again",
    ],
    [
      "a row of auth.mfa_factors",
      record("auth", "mfa_factors", `id=${id}`),
      "rows of auth.mfa_factors are laid beside only: second factors come back with their user (restore-user --credentials)",
    ],
    [
      "storage.objects",
      table("storage", "objects"),
      "rows of storage.objects are laid beside only: a row without its file breaks the download",
    ],
    [
      "a row of storage.objects",
      record("storage", "objects", "name=cat"),
      "rows of storage.objects are laid beside only: a row without its file breaks the download",
    ],
  ])("is laid beside, and goes no further: %s", async (_, asked, reason) => {
    await beside(asked, (found) => {
      expect(found.sides.map((one) => one.rows)).toEqual([1]);
      expect(found.pairs).toEqual([]);
      expect(found.unfit.map((one) => one.reason)).toEqual([reason]);
      return Promise.resolve();
    });
  });

  it("gives accounts back without what opened something, and leaves passwords of those who are there", async () => {
    const accounts =
      "select id, encrypted_password as password, recovery_token as token, phone from auth.users order by id";
    const asked = record("auth", "users", `id=${anna}`);
    const warnings = await beside(asked, async (found, told) => {
      await bringBack(past, found, "merge", { wholeTables: false });
      return told;
    });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^rows of auth\.users that are there keep .*recovery_token.*, encrypted_password; /);
    const merged = { id: anna, password: "password of now", token: "of now", phone: null };
    expect(await query(past.url, accounts)).toEqual([merged]);
    await beside(table("auth", "users"), (found) => bringBack(past, found, "missing"));
    expect(await query(past.url, accounts)).toEqual([merged, { id: ben, password: "then", token: "", phone: null }]);
  });

  it("of the project's own choices comes back like every other", async () => {
    await beside(record("storage", "buckets", "id=papers"), (found, warnings) => {
      expect(warnings).toEqual([]);
      return bringBack(past, found, "missing", { wholeTables: false });
    });
    expect(await query(past.url, "select id from storage.buckets order by id")).toEqual([
      { id: "papers" },
      { id: "photos" },
    ]);
  });
});

describe("a table that is asked for over HTTP", () => {
  it.each([
    ["public.Notes", { schema: "public", name: "notes" }],
    ['public."Notes"', { schema: "public", name: "Notes" }],
    ['"My App".Notes', { schema: "My App", name: "notes" }],
  ])("is named as the CLI takes it: %s", (text, named) => {
    const request = { action: "plan", scope: "table", table: text, backup: "latest" } as const;
    expect(legRequestOf(request).asked).toEqual({ scope: "table", table: named });
  });
});
