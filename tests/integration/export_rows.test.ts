/** The document of an export, against independent queries of the database. */
import { Buffer } from "node:buffer";
import { beforeAll, describe, expect, it } from "vitest";
import { blockBytes } from "../../src/shared/export/document_format.ts";
import { documentFacts, verifySignature } from "../../src/shared/export/signature.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { readBackupMap } from "../../src/shared/rows/ownership/map_file.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp, sampleBucket } from "../support/sample_app/load.ts";
import { eventually } from "../support/stack.ts";
import { databaseOf, exported, type MadeExport, memoryTarget, ring } from "./export_fixture.ts";

const cluster = useCluster({ prepared: "installed" });
let app: SampleApp;
let database: Database;
let made: MadeExport;
let person: string;
/** Somebody else. */
let other: string;
const ask = async (text: string, values: readonly unknown[] = []) => await query(cluster().plainUrl(), text, values);

/** What the sample app's own keys do not say. */
const map = readBackupMap(JSON.stringify({
  version: 1,
  users: [{ table: "public.events", column: "user_id" }, { table: "public.mood_samples", column: "user_id" }],
}));

beforeAll(async () => {
  app = await loadSampleApp({
    owner: { connectionString: cluster().plainUrl() },
    admin: { connectionString: cluster().plainUrl("supabase_admin") },
  }, { scale: 0.02 });
  // Somebody with voice notes.
  const [note] = await ask("select owner_id from storage.objects where bucket_id = $1 order by name limit 1", [
    sampleBucket,
  ]);
  person = String(note?.["owner_id"]);
  other = app.people.find(({ id }) => id !== person)?.id ?? "";
  await ask(
    `insert into public.entry_tags select e.id, min(g.id) from public.journal_entries as e join public.tags as g on g.user_id = e.user_id
     where e.user_id = $1 group by e.id on conflict do nothing`,
    [person],
  );
  // As Auth leaves them: what happened to this person, and what a staff member did to them.
  await query(
    cluster().plainUrl("supabase_admin"),
    `insert into auth.audit_log_entries (instance_id, id, payload, created_at, ip_address) values
       (null, gen_random_uuid(), json_build_object('actor_id', '${person}', 'action', 'login'), now(), '192.0.2.7'),
       (null, gen_random_uuid(), json_build_object('actor_id', '${other}', 'traits', json_build_object('user_id', '${person}')), now(), ''),
       (null, gen_random_uuid(), json_build_object('actor_id', '${person}', 'traits', json_build_object('user_id', '${other}')), now(), '')`,
  );
  database = databaseOf(cluster());
  made = await exported(database, person, { map, readFile: ({ name }) => Promise.resolve(Buffer.from(`of ${name}`)) });
}, clusterMs);

/** Rows that are in one and not in the other: the server reads the document's, with its own types. Both ways. */
async function differences(table: string, oracle: string, text = made.text): Promise<unknown> {
  const [row] = await ask(
    `with told as (
       select r.value -> 'row' as j, r.value -> 'marks' as marks
       from json_array_elements($1::json -> 'tables') as t, json_array_elements(t.value -> 'rows') as r
       where format('%I.%I', t.value ->> 'schema', t.value ->> 'table') = $2
     ), theirs as (select to_jsonb(p) as row from told, json_populate_record(null::${table}, told.j) as p)
     select (select count(*)::int from told) as told,
       (select count(*)::int from (select to_jsonb(o) from (${oracle}) as o except all select row from theirs) as x) as lost,
       (select count(*)::int from (select row from theirs except all select to_jsonb(o) from (${oracle}) as o) as x) as strange`,
    [text, table],
  );
  return row;
}

const countOf = async (oracle: string) =>
  Number((await ask(`select count(*)::int as n from (${oracle}) as o`))[0]?.["n"]);

describe("an export of the sample app's person", () => {
  it.each([
    ["public.profiles", "select * from public.profiles where id = $user"],
    ["public.journal_entries", "select * from public.journal_entries where user_id = $user"],
    ["public.tags", "select * from public.tags where user_id = $user"],
    [
      "public.entry_tags",
      `select et.* from public.entry_tags as et join public.journal_entries as e on e.id = et.entry_id
         join public.tags as g on g.id = et.tag_id where e.user_id = $user and g.user_id = $user`,
    ],
    ["public.events", "select * from public.events where user_id = $user"],
    ["public.mood_samples", "select * from public.mood_samples where user_id = $user"],
  ])("holds every row of %s that is theirs, and none else", async (table, text) => {
    const oracle = text.replaceAll("$user", `'${person}'`);
    expect(await countOf(oracle), "there is something to tell").toBeGreaterThan(0);
    expect(await differences(table, oracle)).toEqual({ told: await countOf(oracle), lost: 0, strange: 0 });
  });

  it("names rows that are another's as well, and holds none of them", async () => {
    const shared = await countOf(
      `select et.* from public.entry_tags as et join public.journal_entries as e on e.id = et.entry_id
         join public.tags as g on g.id = et.tag_id where (e.user_id = '${person}') <> (g.user_id = '${person}')`,
    );
    expect(shared).toBeGreaterThan(0);
    expect(made.document.leftOut.shared).toContainEqual({ schema: "public", table: "entry_tags", rowCount: shared });
  });

  it("holds their account and their ways to sign in, and nothing that lets anybody in", async () => {
    const tables = new Map(made.document.tables.map((one) => [`${one.schema}.${one.table}`, one]));
    const [account] = tables.get("auth.users")?.rows ?? [];
    expect(account?.row).toMatchObject({ id: person, email: app.people.find(({ id }) => id === person)?.email });
    expect(Object.keys(account?.row ?? {})).not.toContain("encrypted_password");
    expect(tables.get("auth.users")?.withheld.map(({ column }) => column)).toEqual(
      expect.arrayContaining(["encrypted_password", "confirmation_token", "recovery_token"]),
    );
    expect(tables.get("auth.identities")?.rows).toHaveLength(1);
    const [secret] = await ask("select encrypted_password as hash from auth.users where id = $1", [person]);
    expect(made.text).not.toContain(String(secret?.["hash"]));
    for (const { id, email } of app.people) {
      if (id === person) continue;
      expect(made.text.includes(id) || made.text.includes(email), `${email} is in another's export`).toBe(false);
    }
  });

  it("holds what Auth has noted of their own acts, where nobody else is named", () => {
    const entries = made.document.tables.find(({ table }) => table === "audit_log_entries")?.rows ?? [];
    expect(entries.map(({ row }) => row["payload"])).toEqual([{ actor_id: person, action: "login" }]);
  });

  it("has their files beside it, each with its hash, and names the bucket", async () => {
    const names = (await ask(
      "select name from storage.objects where bucket_id = $1 and owner_id = $2 order by name",
      [sampleBucket, person],
    )).map(({ name }) => String(name));
    expect(names.length).toBeGreaterThan(0);
    expect(made.document.files.map(({ name }) => name)).toEqual(names);
    // The oracle's files are of another length than the rows say: told as missing, never as whole.
    expect(made.document.files.map(({ state }) => state)).toEqual(names.map(() => "missing"));
  });

  it("says what it is for, describes its tables and columns, and names those without a way to a person", () => {
    expect(made.document.purpose).toMatch(/for your own access.*no backup/);
    const profiles = made.document.tables.find(({ table }) => table === "profiles");
    expect(profiles?.description).toBe("One row a person; made at sign-up.");
    expect(profiles?.columns.find(({ name }) => name === "balance")).toEqual({
      name: "balance",
      type: "numeric(24,8)",
      form: "scalar",
      description: null,
    });
    expect(made.document.leftOut.noPath).toEqual([]);
  });

  it("names tables and columns that a map has to decide on, where there is none", async () => {
    const { document } = await exported(database, person);
    expect(document.leftOut.noPath).toEqual([{ schema: "public", table: "events" }, {
      schema: "public",
      table: "mood_samples",
    }]);
    expect(document.leftOut.suspects.map(({ table, column }) => `${table}.${column}`)).toEqual([
      "events.user_id",
      "mood_samples.user_id",
    ]);
  });
});

describe("values", () => {
  beforeAll(async () => {
    const many = Array.from({ length: 150 }, (_, at) => `c${at} int default ${at}`).join(", ");
    await ask(
      `create type public.pair as (a int, b text);
       create domain public.small_json as jsonb;
       create table public."Hard ""ones""" (
         id bigint primary key, user_id uuid not null references auth.users, friend_id uuid, "Ünï \\ \"\"name\"\"" text, long numeric,
         big bigint, f8 float8, f4 real, j json, jb jsonb, sj public.small_json, arr int[], odd int[], deep text[][], moments timestamptz[],
         jarr jsonb[], p public.pair, r int4range, b bytea, d date, t timestamptz, span interval, v varbit, x xml, empty text[], n "char",
         own_words text, generated int generated always as (1) stored
       );
       create table public.wide (id int primary key, user_id uuid references auth.users, ${many})`,
    );
    await ask(
      `insert into public."Hard ""ones""" values
       (9007199254740993, '${person}', '${other}', e'tab\\t nl\\n quote" back\\\\ \\u2028 €😀', ('1' || repeat('234567890', 110) || '.5')::numeric, 9223372036854775807,
        'NaN', '-0', 'null', 'null', 'null', '{1,NULL,3}', '[0:1]={7,8}', '{{a,"b,c"},{NULL,"NULL"}}', '{infinity,"2024-01-01 10:00:00.123456+00"}',
        array['null'::jsonb, null, '{"a": 1.10}'], '(1,"x ""y"" ,z")', '[1,5)', '\\x00ff', '0044-03-15 BC', '-infinity', '1 mon -3 days 04:05:06.7', b'10101', '<a>ü</a>', '{}', 'q', 'seen with Bob'),
       (1, '${person}', '${person}', null, 'Infinity', null, 'Infinity', 1e-45, '{"a": null, "a": 1.00}', null, '[]', null, null, null, null, null, null, 'empty', '', 'infinity', null, null, null, null, null, null, null);
       insert into public.wide (id, user_id) values (1, '${person}')`,
    );
  });

  it("come back from the document as they were, read by the server, whatever their types", async () => {
    const redacting = readBackupMap(JSON.stringify({
      version: 1,
      tables: [{ table: 'public."Hard ""ones"""', redact: ["own_words"], share: 1 }],
    }));
    const { document, text } = await exported(database, person, { map: redacting });
    const hard = document.tables.find(({ table }) => table === 'Hard "ones"');
    expect(hard?.rows.map(({ marks }) => marks)).toEqual([undefined, {
      friend_id: "redacted",
      j: "json null",
      jb: "json null",
      sj: "json null",
      odd: "text",
      own_words: "redacted",
    }]);
    expect(text).toContain('"big":9223372036854775807');
    expect(text).toContain(`1${"234567890".repeat(110)}.5`);
    expect(hard?.rows[1]?.row).toMatchObject({ friend_id: null, own_words: null, odd: "[0:1]={7,8}" });
    expect(hard?.rows[0]?.row).toMatchObject({ friend_id: person });
    expect(text).not.toContain(other);
    expect(text).not.toContain("seen with Bob");
    // What the server reads of it is what stands in the table; JSON's null needs its mark.
    const columns =
      hard?.columns.map(({ name }) => name).filter((name) => !["friend_id", "own_words"].includes(name)) ?? [];
    const list = (of: string) => columns.map((name) => `${of}."${name.replaceAll('"', '""')}"::text`).join(", ");
    const [same] = await ask(
      `with told as (
         select (r.value -> 'row')::jsonb as j, coalesce((r.value -> 'marks')::jsonb, '{}') as marks
         from json_array_elements($1::json -> 'tables') as t, json_array_elements(t.value -> 'rows') as r
         where t.value ->> 'table' = 'Hard "ones"'
       ), read as (
         select array[${
        list("p")
      }] as texts from json_array_elements($1::json -> 'tables') as t, json_array_elements(t.value -> 'rows') as r,
           json_populate_record(null::public."Hard ""ones""", r.value -> 'row') as p where t.value ->> 'table' = 'Hard "ones"'
       ), there as (
         select array[${
        columns.map((name) => {
          const value = `h."${name.replaceAll('"', '""')}"`;
          return ["j", "jb", "sj"].includes(name) ? `nullif(${value}::text, 'null')` : `${value}::text`;
        }).join(", ")
      }] as texts from public."Hard ""ones""" as h
       )
       select (select count(*)::int from told) as told, (select count(*)::int from (select * from there except all select * from read) as x) as lost`,
      [text],
    );
    expect(same).toEqual({ told: 2, lost: 0 });
    expect(Object.keys(document.tables.find(({ table }) => table === "wide")?.rows[0]?.row ?? {})).toHaveLength(152);
  });
});

describe("the signature", () => {
  const readOf = (bytes: Uint8Array) => (from: number, to: number) => Promise.resolve(bytes.subarray(from, to));
  const verify = async (bytes: Uint8Array) => {
    const read = readOf(bytes);
    const { id, install } = await documentFacts(read, bytes.byteLength);
    return await verifySignature(ring, { id, install, bytes: bytes.byteLength, read });
  };

  it("holds for the document as it was made, and for no other", async () => {
    const { bytes } = await exported(database, app.people[9]?.id ?? "", { files: false });
    expect(await verify(bytes)).toMatchObject({ keyId: "k-export", algorithm: "Ed25519" });
    const outcomes = new Set<string>();
    for (let at = 0; at < bytes.byteLength; at += 97) {
      const other = Buffer.from(bytes);
      other[at] = (other[at] ?? 0) ^ 1;
      outcomes.add(await verify(other).then(() => `held at ${at}`, (error: { code: string }) => error.code));
    }
    for (const cut of [bytes.subarray(0, -1), Buffer.concat([bytes, Buffer.from(" ")]), bytes.subarray(0, 100)]) {
      outcomes.add(await verify(cut).then(() => "held", (error: { code: string }) => error.code));
    }
    expect([...outcomes].filter((code) => !["export_unsigned", "key_missing", "format_newer"].includes(code))).toEqual(
      [],
    );
    expect(outcomes).toContain("export_unsigned");
  }, 60_000);

  it("holds over parts, for rows larger than a part and a document of several", async () => {
    const user = app.people[11]?.id ?? "";
    await ask("create table public.memoirs (id int primary key, user_id uuid references auth.users, words text)");
    await ask(
      `insert into public.memoirs select i, '${user}', repeat(md5(i::text), case i when 3 then 300000 else 2000 end) from generate_series(1, 40) as i`,
    );
    const { bytes, parts, text } = await exported(database, user, { files: false });
    expect(parts.length).toBe(Math.floor(bytes.byteLength / blockBytes) + 1);
    expect(parts.slice(0, -1).map(({ byteLength }) => byteLength)).toEqual(parts.slice(0, -1).map(() => blockBytes));
    expect(await verify(bytes)).toMatchObject({ blockBytes });
    expect(await differences("public.memoirs", `select * from public.memoirs where user_id = '${user}'`, text)).toEqual(
      {
        told: 40,
        lost: 0,
        strange: 0,
      },
    );
  }, 60_000);
});

describe("what happens meanwhile", () => {
  it("a crash that empties what was laid: the rows are read again, as they are then", async () => {
    const user = app.people[12]?.id ?? "";
    const target = memoryTarget();
    let lost = false;
    target.prepare = async () => {
      if (lost) return;
      lost = true;
      await ask("truncate backup.export_pieces");
      await ask("update public.profiles set display_name = 'after the crash' where id = $1", [user]);
    };
    const { text } = await exported(database, user, { target, files: false });
    expect(text).toContain("after the crash");
    expect(await differences("public.profiles", `select * from public.profiles where id = '${user}'`, text)).toEqual({
      told: 1,
      lost: 0,
      strange: 0,
    });
  });

  it("an account that is deleted: nothing half made is called done", async () => {
    const user = app.people[13]?.id ?? "";
    const target = memoryTarget();
    target.prepare = async () => {
      await query(cluster().plainUrl("supabase_admin"), "delete from auth.users where id = $1", [user]);
    };
    await expect(exported(database, user, { target, files: false })).rejects.toMatchObject({ code: "user_not_found" });
    expect(target.parts).toEqual([]);
    expect(await ask("select count(*)::int as n from backup.export_pieces")).toEqual([{ n: 0 }]);
    await expect(exported(database, user)).rejects.toMatchObject({ code: "user_not_found" });
  });

  it("a table that is rewritten between the snapshot and the first look at it: its rows are not missed in silence", async () => {
    const user = app.people[14]?.id ?? "";
    await ask("create table public.drafts (id int primary key, user_id uuid references auth.users, words text)");
    await ask("insert into public.drafts select i, $1, 'draft' from generate_series(1, 5) as i", [user]);
    await withClient(cluster().plainUrl(), async (client) => {
      // Reading waits for this, behind its snapshot.
      await client.query("begin; lock table backup.export_rows in exclusive mode");
      const making = exported(database, user, { files: false });
      await eventually("it waits", async () => {
        const waiting = await ask(
          "select from pg_stat_activity where application_name = 'holdfast:export' and wait_event_type = 'Lock'",
        );
        return waiting.length > 0 ? true : null;
      });
      await ask("alter table public.drafts alter words type varchar(9) using words || '!'");
      await client.query("commit");
      const { document } = await making;
      const drafts = document.tables.find(({ table }) => table === "drafts");
      expect(drafts?.rows.map(({ row }) => row["words"])).toEqual(Array.from({ length: 5 }, () => "draft!"));
    });
  });

  it("a person who would have most of a table gets nothing before a map allows it", async () => {
    const user = app.people[15]?.id ?? "";
    await ask("create table public.hoard (id int primary key, user_id uuid references auth.users)");
    await ask("insert into public.hoard select i, $1 from generate_series(1, 150) as i", [user]);
    await expect(exported(database, user)).rejects.toMatchObject({ code: "ownership_unclear" });
    await ask("drop table public.hoard");
  });
});
