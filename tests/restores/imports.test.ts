/**
 * An export is brought into a fresh project that adopted the identity, and into the one that it is from. The oracle is the export of
 * the fresh project, byte for byte, and plain SQL.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli, cliKilledAt, type CliResult } from "../integration/cli_fixture.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";

const source = useCluster({ prepared: "installed" });
const fresh = useCluster({ prepared: "installed" });
const folder = mkdtempSync(join(tmpdir(), "holdfast-imports-"));
const keys = `test:${randomBytes(32).toString("base64url")}`;
const [anna, bob, admin, second] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
let document = "";
/** What each import that went on to its end has left; the last one is held against the document. */
const left: unknown[] = [];

const there = (text: string, values: readonly unknown[] = []) => query(source().plainUrl(), text, values);
const here = (text: string, values: readonly unknown[] = []) => query(fresh().plainUrl(), text, values);
const settingsOf = (url: string) => ({ BACKUP_DB_URL: url, BACKUP_STORE: `file://${folder}/store`, BACKUP_KEYS: keys });
const ofSource = () => settingsOf(source().plainUrl());
const ofFresh = () => settingsOf(fresh().plainUrl());

async function ok(args: readonly string[], settings: Record<string, string>): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const codeOf = ({ document }: CliResult) => (document as { error?: { code: string } } | undefined)?.error?.code;

async function refused(args: readonly string[], settings = ofFresh()): Promise<string | undefined> {
  const before = await allRows();
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).not.toBe(0);
  expect(await allRows(), "what is refused changes nothing").toEqual(before);
  return codeOf(result);
}

/** A hash of every table of people's in the fresh project. */
async function allRows(): Promise<unknown> {
  const found: Record<string, unknown> = {};
  for (const table of ["auth.users", "auth.identities", "app.notes", "app.marks", "app.words", 'app."Hard ""ones"""']) {
    const [row] = await here(
      `select count(*)::int as n, md5(string_agg(t::text, ';' order by t::text)) as sum from ${table} as t`,
    );
    found[table] = row;
  }
  return found;
}

const definitions = `
  create schema app;
  create type app.pair as (a int, b text);
  create domain app.small_json as jsonb;
  create table app.notes (id int primary key, user_id uuid not null references auth.users on delete cascade, body text, before int references app.notes);
  create table app.marks (note_id int not null references app.notes on delete cascade, mark text not null, primary key (note_id, mark));
  create table app.words (user_id uuid not null references auth.users on delete cascade, word text);
  create table app."Hard ""ones""" (
    id bigint generated always as identity primary key, user_id uuid not null references auth.users on delete cascade,
    "Ünï \\ ""name""" text, long numeric, big bigint, f8 float8, f4 real, j json, jb jsonb, sj app.small_json, arr int[], odd int[],
    deep text[][], moments timestamptz[], jarr jsonb[], p app.pair, r int4range, b bytea, d date, t timestamptz, span interval,
    v varbit, x xml, empty text[], n "char", generated int generated always as (1) stored
  );
`;

const rows = `
  insert into auth.users (id, email, encrypted_password, email_confirmed_at, raw_user_meta_data, created_at) values
    ('${anna}', 'anna@example.org', 'a hash of hers', now(), '{"full_name": "Anna"}', now()), ('${bob}', 'bob@example.org', 'x', now(), '{}', now());
  insert into auth.identities (id, user_id, provider_id, provider, identity_data, created_at)
    values (gen_random_uuid(), '${anna}', '${anna}', 'email', '{"sub": "${anna}"}', now());
  insert into app.notes select i, case when i % 3 = 0 then '${bob}'::uuid else '${anna}'::uuid end, 'note ' || i, case when i % 3 = 2 then i - 1 end
    from generate_series(1, 90) as i;
  insert into app.marks select i, m from generate_series(1, 90, 3) as i, unnest(array['red', 'blue']) as m;
  insert into app.words select '${anna}', w from unnest(array['twice', 'twice', 'once', null]) as w;
  insert into app."Hard ""ones""" overriding system value values
    (9007199254740993, '${anna}', e'tab\\t nl\\n quote" back\\\\ \\u2028 €😀', ('1' || repeat('234567890', 110) || '.5')::numeric, 9223372036854775807,
      'NaN', '-0', e'{"a":\\n\\t null, "a": 1.00}', 'null', 'null', '{1,NULL,3}', '[0:1]={7,8}', '{{a,"b,c"},{NULL,"NULL"}}',
      '{infinity,"2024-01-01 10:00:00.123456+00"}', array['null'::jsonb, null, '{"a": 1.10}'], '(1,"x ""y"" ,z")', '[1,5)', '\\x00ff', '0044-03-15 BC',
      '-infinity', '1 mon -3 days 04:05:06.7', b'10101', '<a>ü</a>', '{}', 'q'),
    (1, '${anna}', null, 'Infinity', null, 'Infinity', 1e-45, 'null', null, '"a word"', '{}', null, null, null, null, null, 'empty', '', 'infinity', null,
      null, null, null, null, null);
`;

/** As the function would, for somebody who is signed in. */
async function ask(
  by: string,
  doc: { document: string; export: string; install: string; user: string },
): Promise<string> {
  const [row] = await here(
    `select set_config('request.jwt.claims', json_build_object('sub', '${by}')::text, false);
     select id from backup.ask_import('${doc.document}', '${doc.export}', '${doc.install}', '${doc.user}')`,
  );
  return String(row?.["id"]);
}
const agree = async (by: string, id: string, asPerson = false) =>
  await here(
    `select set_config('request.jwt.claims', json_build_object('sub', '${by}')::text, false);
     select backup.agree_import('${id}', ${asPerson})`,
  );
const stateOf = (error: unknown) => (error as { code?: string }).code;

type Asked = Parameters<typeof ask>[1];
const planned = async () => await ok(["import-export", document], ofFresh());
/** What a plan says is to be asked for, which is the document's own and stays. */
let known: Asked | null = null;
const askedOf = async () => known ??= (await planned())["ask"] as Asked;
const agreed = async () => {
  const id = await ask(admin, await askedOf());
  await agree(second, id);
  return id;
};
const apply = (
  ...more: string[]
) => ["import-export", document, "--apply", "all", "--yes", "--skip-safety-backup", "postgres", ...more];

async function exportedBy(settings: Record<string, string>): Promise<string> {
  const { folder: made } = await ok(["export", anna, "--out", folder, "--without-files"], settings);
  return join(String(made), "export.json");
}

/** The rows of a document, with what describes them; of tables without a key their order means nothing. */
function tablesIn(path: string): string {
  const text = readFileSync(path, "utf8");
  const lines = text.slice(text.indexOf('"tables": ['), text.indexOf('"leftOut"')).split("\n");
  return lines.map((line) => line.replace(/,$/, "")).sort().join("\n");
}

beforeAll(async () => {
  mkdirSync(join(folder, "store"));
  await there(definitions + rows);
  await here(definitions);
  await ok(["create"], ofSource());
  document = await exportedBy(ofSource());
}, 2 * clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a document of another project", () => {
  it("is refused until its identity was adopted here", async () => {
    expect(await refused(["import-export", document])).toBe("import_foreign");
    const created = await ok(["create"], ofFresh());
    expect(created["status"]).toBe("succeeded");
    expect(await refused(["import-export", document]), "a copy that nobody adopted").toBe("import_foreign");
    await ok(["adopt", "--yes"], ofFresh());
    expect(await here("select install_id from backup.adopted_installs")).toEqual(
      await there("select install_id from backup.identity"),
    );
  }, 120_000);
});

describe("a document that is not as it was signed", () => {
  const changed = (name: string, change: (text: string) => string) => {
    const path = join(folder, name);
    writeFileSync(path, change(readFileSync(document, "utf8")));
    return path;
  };

  it("is refused, whatever was changed, and so is one of a newer version and what is none", async () => {
    expect(await refused(["import-export", changed("row.json", (text) => text.replace("note 2", "note 3"))])).toBe(
      "export_unsigned",
    );
    expect(await refused(["import-export", changed("behind.json", (text) => `${text} `)])).toBe("export_unsigned");
    expect(
      await refused(["import-export", changed("new.json", (text) => text.replace('"version": 1', '"version": 2'))]),
    ).toBe("format_newer");
    expect(await refused(["import-export", changed("none.json", () => "{}")])).toBe("export_unsigned");
    expect(
      await refused(["import-export", document], {
        ...ofFresh(),
        BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
      }),
    ).toBe(
      "export_unsigned",
    );
  }, 120_000);
});

describe("the agreement", () => {
  it("shows first what would come, and changes nothing", async () => {
    const before = await allRows();
    const plan = await planned();
    expect(plan).toMatchObject({ dryRun: true, user: anna, conflicts: [] });
    expect(plan["tables"]).toContainEqual({ table: "app.notes", missing: 60, same: 0, different: 0, columns: [] });
    expect(plan["tables"]).toContainEqual({ table: "app.words", missing: 4, same: 0, different: 0, columns: [] });
    expect(await allRows()).toEqual(before);
    expect(await here("select from pg_namespace where nspname ~ '^restore_'"), "nothing lies beside any more").toEqual(
      [],
    );
  }, 60_000);

  it("is of two: nobody has asked, nobody has agreed, and who has asked does not agree", async () => {
    expect(await refused(apply())).toBe("import_not_agreed");
    const id = await ask(admin, await askedOf());
    expect(await refused(apply())).toBe("import_not_agreed");
    expect(stateOf(await agree(admin, id).catch((error: unknown) => error))).toBe("HF007");
    expect(stateOf(await agree(bob, id, true).catch((error: unknown) => error)), "another's data").toBe("HF007");
    await here(`select backup.withdraw_import('${id}')`);
    expect(await refused(apply())).toBe("import_not_agreed");
  }, 90_000);

  it("of another document is none for this one, and one whose time is over is none", async () => {
    const asked = await askedOf();
    const other = await ask(admin, { ...asked, document: "0".repeat(64) });
    await agree(second, other);
    expect(await refused(apply())).toBe("import_not_agreed");
    const id = await ask(admin, asked);
    await agree(second, id);
    await here(`update backup.imports set expires_at = backup.clock_now() - interval '1 minute' where id = '${id}'`);
    expect(await refused(apply())).toBe("import_not_agreed");
    expect(await here(`select status from backup.imports where id = '${id}'`)).toEqual([{ status: "ended" }]);
  }, 90_000);
});

describe("an import into the fresh project", () => {
  it("brings tables, or rows, that are asked for alone", async () => {
    await agreed();
    expect(await refused(apply("--only", "app.marks")), "rows whose parents are not there").toBe("rows_conflict");
    expect(await refused(apply("--only", "app.nothing"))).toBe("table_not_found");
    expect(await refused(apply("--where", "id=1"))).toBe("usage");
    const done = await ok(apply("--only", "auth.users"), ofFresh());
    expect(done).toMatchObject({ ok: true, inserted: 1 });
    await agreed();
    expect(await ok(apply("--only", "app.notes", "--where", "id=1"), ofFresh())).toMatchObject({ inserted: 1 });
    expect(await here("select id, user_id, body from app.notes")).toEqual([{ id: 1, user_id: anna, body: "note 1" }]);
    await here("delete from auth.users");
  }, 120_000);

  it.each([
    ["import.begun", "finish_restore(uuid, bigint, jsonb)"],
    ["import.rows", "finish_restore(uuid, bigint, jsonb)"],
    ["import.restored", "finish_import(uuid, bigint, integer)"],
  ])("killed at %s it goes on when it is repeated", async (step, next) => {
    const id = await agreed();
    // However late the signal comes, it does not come to the end.
    const [name = ""] = next.split("(");
    await here(`alter function backup.${next} rename to ${name}_away`);
    try {
      expect(await cliKilledAt(step, apply(), ofFresh()), step).toBe(true);
    } finally {
      await here(`alter function backup.${next.replace(name, `${name}_away`)} rename to ${name}`);
    }
    await here(
      "update backup.restores set lease_until = backup.clock_now() - interval '1 second' where finished_at is null",
    );
    const done = await ok(apply(), ofFresh());
    expect(done).toMatchObject({ ok: true, import: id });
    left.push(await allRows());
    expect(await here(`select status, rows::int from backup.imports where id = '${id}'`)).toEqual([
      { status: "done", rows: 128 },
    ]);
    await here("delete from auth.users");
    expect(await here("select from app.notes")).toEqual([]);
  }, 120_000);

  it(
    "makes it equal to the export, byte for byte, without a password or a token, and stands in the audit",
    async () => {
      const id = await agreed();
      const done = await ok(apply(), ofFresh());
      expect(done).toMatchObject({ ok: true, inserted: 128, putFiles: 0, conflicts: [] });
      expect(tablesIn(await exportedBy(ofFresh()))).toBe(tablesIn(document));
      const whole = await allRows();
      expect(left).toEqual([whole, whole, whole]);
      expect(
        await here("select encrypted_password, confirmation_token, recovery_token, email from auth.users"),
      ).toEqual([{ encrypted_password: null, confirmation_token: "", recovery_token: "", email: "anna@example.org" }]);
      expect(
        (await here(`select action from backup.audit_log where subject = 'import:${id}' order by id`)).map((
          { action },
        ) => action),
      )
        .toEqual(["import.asked", "import.agreed", "import.begun", "import.done"]);
      const [row] = await here(
        `select asked_by = backup.person_hash('${admin}') as asked, agreed_by = backup.person_hash('${second}') as agreed, status, mail
       from backup.imports where id = '${id}'`,
      );
      expect(row).toEqual({ asked: true, agreed: true, status: "done", mail: "due" });
      expect(
        await here(
          "select convalidated from pg_constraint where connamespace = 'app'::regnamespace and not convalidated",
        ),
      ).toEqual([]);
    },
    120_000,
  );

  it("is refused where rows are there, and with `missing` brings the others and leaves those as they are", async () => {
    expect(await refused(apply()), "an agreement is for one import").toBe("import_not_agreed");
    await agreed();
    expect(await refused(apply())).toBe("rows_exist");
    await here("delete from app.notes where id in (1, 2); update app.notes set body = 'newer' where id = 4");
    const plan = await planned();
    expect(plan["tables"]).toContainEqual({
      table: "app.notes",
      missing: 2,
      same: 57,
      different: 1,
      columns: [{ column: "body", rows: 1 }],
    });
    const done = await ok([
      "import-export",
      document,
      "--apply",
      "missing",
      "--yes",
      "--skip-safety-backup",
      "postgres",
    ], ofFresh());
    expect(done).toMatchObject({ ok: true, inserted: 4 });
    expect(await here("select id, body from app.notes where id in (1, 2, 4) order by id")).toEqual([
      { id: 1, body: "note 1" },
      { id: 2, body: "note 2" },
      { id: 4, body: "newer" },
    ]);
  }, 120_000);

  it("brings nobody back who was erased: by the database's word, and by that of the store's ledger alone", async () => {
    await agreed();
    await ok(["erase", anna, "--yes"], ofFresh());
    expect(await refused(["import-export", document])).toBe("user_erased");
    await query(fresh().plainUrl(fresh().superuser), "delete from backup.erasures");
    expect(await refused(["import-export", document])).toBe("user_erased");
    expect(await here(`select count(*)::int as n from backup.imports where user_id = '${anna}'`)).toEqual([{ n: 0 }]);
  }, 120_000);
});
