/**
 * Whoever got hold of one key of the project, against the API, Storage and the functions: the anon key, the token of a user, the
 * service role's key, the worker secret. There is a backup, and restores with rows of then.
 */
import { Buffer } from "node:buffer";
import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { backupBucket } from "../../src/local/stack.ts";
import { query } from "../support/cluster.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import { eventually, type Project, useProject } from "../support/stack.ts";
import { bearer, call, callFunction, footprint, type Sent, signed, stopClocks, type Told } from "./attack_calls.ts";
import { lookIn, lookInFolder, needlesOf } from "./secret_forms.ts";

const diary = `dear diary ${randomBytes(8).toString("hex")}`;
const needles = needlesOf({ "a row": diary });

const project = useProject({}, async (one) => {
  await one.query(
    `create table public.notes (id int primary key, owner uuid, text text);
     alter table public.notes enable row level security;
     insert into public.notes select i, gen_random_uuid(), '${diary} ' || i from generate_series(1, 30) as i`,
  );
});

let user: SignedIn;
let lone: SignedIn;
let backup: string;
let objects: string[];
let ours: { readonly relations: string[]; readonly routines: string[] };

beforeAll(async () => {
  const { stack } = project();
  await stopClocks(stack);
  user = await signedIn(stack, { aal2: true });
  // An administrator whose password alone was stolen.
  lone = await signedIn(stack);
  await project().query("insert into backup.admins (user_id) values ($1)", [lone.userId]);
  const { run } = await project().startBackup();
  expect(await project().ended(run), await project().story(run)).toMatchObject({ status: "succeeded" });
  backup = run;
  objects = (await asOwner("select name from storage.objects where bucket_id = $1 order by name", [backupBucket]))
    .map((row) => String(row["name"]));
  expect(objects.length).toBeGreaterThan(3);
  const names = async (text: string) => (await asOwner(text)).map((row) => String(row["name"]));
  ours = {
    relations: await names(
      `select relname as name from pg_class where relkind in ('r', 'p', 'v', 'S')
         and (relnamespace = 'backup'::regnamespace or relnamespace = 'public'::regnamespace and relname ~ '^backup_') order by 1`,
    ),
    routines: await names(
      `select distinct proname as name from pg_proc where pronamespace = 'backup'::regnamespace
         or pronamespace = 'public'::regnamespace and proname ~ '^backup_' order by 1`,
    ),
  };
  expect(ours.relations.length).toBeGreaterThan(25);
  expect(ours.routines.length).toBeGreaterThan(100);
}, 240_000);

afterAll(async () => {
  await user?.client.auth.signOut();
});

const asOwner = (text: string, values: readonly unknown[] = []) =>
  query(project().stack.cluster.plainUrl("supabase_admin"), text, values);

interface Thief {
  readonly who: string;
  readonly headers: () => Record<string, string>;
}
const keyed = (key: string, token = key) => ({ apikey: key, ...bearer(token) });
const gateway = () => project().stack.gateway;
const thieves: readonly Thief[] = [
  { who: "nobody", headers: () => ({}) },
  { who: "the anon key", headers: () => keyed(gateway().anonKey) },
  { who: "the publishable key", headers: () => keyed(gateway().publishableKey) },
  { who: "a user with a second factor", headers: () => keyed(gateway().publishableKey, user.accessToken) },
  { who: "an administrator without a second factor", headers: () => keyed(gateway().publishableKey, lone.accessToken) },
];
const service: Thief = { who: "the service role's key", headers: () => keyed(gateway().serviceRoleKey) };
const secret: Thief = { who: "the secret key", headers: () => ({ apikey: gateway().secretKey }) };

const api = (thief: Thief, path: string, sent: Sent = {}): Promise<Told> =>
  call(project().stack, path, { ...sent, headers: { ...thief.headers(), ...sent.headers } });

/** Done by others beside: sessions and counts of the gateway itself. */
async function unchanged(work: () => Promise<void>): Promise<void> {
  const before = await footprint(project().stack);
  await work();
  expect(await footprint(project().stack)).toEqual(before);
}

/** For everybody, whoever they are; with the reason. */
const open = {
  // an app shows the window of maintenance to people who are not signed in
  relations: ["backup_announcements"],
  // PostgREST calls it before each request; it tells whether maintenance is on
  routines: ["backup_before_request"],
};

describe.each([...thieves, service, secret])("$who, at the API", (thief) => {
  it("reads and writes no row of any table or view of ours, in whichever schema it is asked for", async () => {
    await unchanged(async () => {
      for (const name of ours.relations) {
        for (const schema of ["public", "backup"]) {
          const where = { "accept-profile": schema, "content-profile": schema };
          const rows = await api(thief, `/rest/v1/${name}?select=*`, { method: "GET", headers: where });
          const seen = rows.status < 300 ? rows.text : "[]";
          if (schema === "public" && open.relations.includes(name)) continue;
          expect(seen, `${name} in ${schema}: ${rows.status}`).toBe("[]");
          expect(rows.text).not.toMatch(/admin_|"user_id":/);
          for (
            const change of [
              { method: "POST", body: {} },
              { method: "PATCH", body: { id: 1, status: "x" }, query: "?id=neq.0" },
              { method: "DELETE", query: "?id=neq.0" },
            ]
          ) {
            const told = await api(thief, `/rest/v1/${name}${change.query ?? ""}`, {
              method: change.method,
              headers: where,
              body: change.body ?? "",
            });
            expect(told.status, `${change.method} ${name} in ${schema}: ${told.text}`).toBeGreaterThanOrEqual(400);
          }
        }
      }
    });
  }, 180_000);

  it("calls no function of ours", async () => {
    await unchanged(async () => {
      for (const name of ours.routines) {
        for (const schema of ["public", "backup"]) {
          // The write of maintenance mode's probe, which comes as the service role.
          if (name === "backup_probe" && (thief === service || thief === secret)) continue;
          if (open.routines.includes(name)) continue;
          const told = await api(thief, `/rest/v1/rpc/${name}`, { body: {}, headers: { "content-profile": schema } });
          expect(told.status, `${name}: ${told.text}`).toBeGreaterThanOrEqual(400);
          expect(told.text).not.toContain(diary);
        }
      }
    });
  }, 180_000);
});

describe.each(thieves)("$who, at Storage", (thief) => {
  it("sees, reads, writes and removes nothing in the bucket of the backups", async () => {
    const bucket = backupBucket;
    const [name = ""] = objects.filter((one) => one.startsWith("v1/objects/"));
    const signedUrl = await api(service, `/storage/v1/object/sign/${bucket}/${name}`, { body: { expiresIn: 60 } });
    const token = new URL(String(signedUrl.document["signedURL"]), "http://x").searchParams.get("token") ?? "";
    expect(token.split(".")).toHaveLength(3);
    const [head = "", , signature = ""] = token.split(".");
    const part = (claims: unknown) => Buffer.from(JSON.stringify(claims)).toString("base64url");
    const other = objects.find((one) => one !== name) ?? "";
    const claims = (of: string) => ({ url: `${bucket}/${of}`, iat: 1, exp: 4_000_000_000 });
    const guesses = [
      `${part({ alg: "none", typ: "JWT" })}.${part(claims(name))}.`,
      `${head}.${part(claims(name))}.${signature}`,
      token.split(".").slice(0, 2).join("."),
      "",
    ];
    await unchanged(async () => {
      const tries: readonly (readonly [string, string, Sent])[] = [
        ["list buckets", "/storage/v1/bucket", { method: "GET" }],
        ["look at the bucket", `/storage/v1/bucket/${bucket}`, { method: "GET" }],
        ["make it public", `/storage/v1/bucket/${bucket}`, { method: "PUT", body: { public: true } }],
        ["empty it", `/storage/v1/bucket/${bucket}/empty`, { body: {} }],
        ["remove it", `/storage/v1/bucket/${bucket}`, { method: "DELETE", body: {} }],
        ["list it", `/storage/v1/object/list/${bucket}`, { body: { prefix: "", limit: 100 } }],
        ["download", `/storage/v1/object/${bucket}/${name}`, { method: "GET" }],
        ["download, signed in", `/storage/v1/object/authenticated/${bucket}/${name}`, { method: "GET" }],
        ["download as public", `/storage/v1/object/public/${bucket}/${name}`, { method: "GET" }],
        ["ask about it", `/storage/v1/object/info/${bucket}/${name}`, { method: "GET" }],
        ["sign", `/storage/v1/object/sign/${bucket}/${name}`, { body: { expiresIn: 60 } }],
        ["sign many", `/storage/v1/object/sign/${bucket}`, { body: { expiresIn: 60, paths: [name] } }],
        ["upload", `/storage/v1/object/${bucket}/v1/objects/aa/${"a".repeat(64)}`, { body: "x" }],
        ["overwrite", `/storage/v1/object/${bucket}/${name}`, { method: "PUT", body: "x" }],
        ["overwrite by upsert", `/storage/v1/object/${bucket}/${name}`, { body: "x", headers: { "x-upsert": "true" } }],
        ["move", "/storage/v1/object/move", { body: { bucketId: bucket, sourceKey: name, destinationKey: "v1/x" } }],
        ["copy out", "/storage/v1/object/copy", {
          body: { bucketId: bucket, sourceKey: name, destinationBucket: "avatars", destinationKey: "x" },
        }],
        ["remove one", `/storage/v1/object/${bucket}/${name}`, { method: "DELETE" }],
        ["remove many", `/storage/v1/object/${bucket}`, { method: "DELETE", body: { prefixes: [name] } }],
        ["climb", `/storage/v1/object/public/x/../../${bucket}/${name}`, { method: "GET" }],
        ["climb, encoded", `/storage/v1/object/public/x%2f..%2f..%2f${bucket}/${name}`, { method: "GET" }],
        ...guesses.map((guess): readonly [string, string, Sent] => [
          "guess a signature",
          `/storage/v1/object/sign/${bucket}/${name}?token=${guess}`,
          { method: "GET" },
        ]),
        ["use one of another object", `/storage/v1/object/sign/${bucket}/${other}?token=${token}`, { method: "GET" }],
      ];
      for (const [what, path, sent] of tries) {
        const told = await api(thief, path, sent);
        const empty = told.status === 200 && told.text === "[]";
        // Answered alike where there is nothing that the caller may remove; nothing is gone, as the footprint says.
        const emptied = what === "empty it" && told.status === 200;
        const noneSigned = what === "sign many" && told.status === 200 && !told.text.includes("token=");
        expect(
          told.status >= 400 || empty || emptied || noneSigned,
          `${what}: ${told.status} ${told.text.slice(0, 200)}`,
        ).toBe(
          true,
        );
        expect(told.text, what).not.toContain(objects[0]);
      }
    });
  }, 60_000);
});

describe.each([service, secret])("$who", (thief) => {
  it("reads the bucket's objects, and finds nothing of any row in them", async () => {
    let bytes = 0;
    for (const name of objects) {
      const answer = await fetch(`${gateway().url}/storage/v1/object/authenticated/${backupBucket}/${name}`, {
        headers: { ...service.headers(), ...thief.headers() },
      });
      const body = new Uint8Array(await answer.arrayBuffer());
      expect(answer.status).toBe(200);
      expect([...lookIn(name, body, needles), ...lookIn("its name", name, needles)]).toEqual([]);
      bytes += body.byteLength;
    }
    expect(bytes).toBeGreaterThan(1000);
    const { found } = lookInFolder(`${project().stack.directory}/gateway/objects`, needles);
    expect(found).toEqual([]);
  }, 60_000);

  it("may overwrite an object, which verify finds", async () => {
    const name = objects.find((one) => one.startsWith("v1/objects/")) ?? "";
    const path = `/storage/v1/object/${backupBucket}/${name}`;
    const sound = new Uint8Array(
      await (await fetch(`${gateway().url}${path}`, { headers: service.headers() })).arrayBuffer(),
    );
    const damaged = sound.slice();
    damaged[damaged.length >> 1] = (damaged[damaged.length >> 1] ?? 0) ^ 1;
    const put = (body: Uint8Array) =>
      api(service, path, { method: "PUT", body, headers: { "content-type": "application/octet-stream" } });
    expect((await put(damaged)).status).toBe(200);
    try {
      expect(await project().verify(backup)).toMatchObject({ ok: false, problems: [{ code: "object_damaged" }] });
    } finally {
      expect((await put(sound)).status).toBe(200);
    }
    expect(await project().verify(backup)).toMatchObject({ ok: true });
  }, 60_000);
});

describe("the worker secret", () => {
  const machine = (name: string, body: Readonly<Record<string, unknown>>) =>
    callFunction(project().stack, name, { body, headers: signed(project().stack, name, body) });

  async function planned(one: Project, request: Readonly<Record<string, unknown>>): Promise<Told> {
    const begun = await machine("restore", { action: "plan", backup, ...request });
    expect(begun.status, begun.text).toBe(202);
    const restore = begun.document["restore"];
    return await eventually("the plan", async () => {
      await one.query("select backup.tick()");
      const told = await machine("restore", { action: "status", restore });
      return ["beside", "failed"].includes(String(told.document["status"])) ? told : null;
    }, 60_000);
  }

  it(
    "lays rows of then beside and is told counts, and whether a row fits, never a row; each is in the audit",
    async () => {
      const table = await planned(project(), { scope: "table", table: "public.notes" });
      expect(table.document).toMatchObject({ status: "beside" });
      const right = await planned(project(), {
        scope: "record",
        table: "public.notes",
        where: [{ column: "text", value: `${diary} 7` }],
      });
      const wrong = await planned(project(), {
        scope: "record",
        table: "public.notes",
        where: [{ column: "text", value: `${diary} 70` }],
      });
      expect(right.document).toMatchObject({ status: "beside" });
      expect(wrong.document).not.toMatchObject({ status: "beside" });
      for (const { text } of [table, right, wrong]) expect(lookIn("status", text, needles)).toEqual([]);
      const audited = await project().query(
        "select actor, subject from backup.audit_log where action like 'restore.%' and subject like '%' || $1 || '%'",
        [table.document["restore"]],
      );
      expect(audited.length).toBeGreaterThan(0);
      // What lies beside is nobody's of the API.
      const side = String(table.document["sideSchema"]);
      for (const thief of [...thieves, service]) {
        const told = await api(thief, "/rest/v1/notes?select=*", {
          method: "GET",
          headers: { "accept-profile": side },
        });
        expect(told.text).not.toContain(diary);
      }
      const grants = await asOwner(
        `select has_schema_privilege(r, $1, 'usage') as may from unnest(array['anon', 'authenticated', 'service_role']) as r`,
        [side],
      );
      expect(grants.map((row) => row["may"])).toEqual([false, false, false]);
    },
    180_000,
  );

  it("stands in no header or body of a call that waits in the queue", async () => {
    const { stack } = project();
    await project().query("select backup.invoke('backup', '{\"action\": \"drain\"}')");
    const waiting = await asOwner("select * from net.http_request_queue");
    const calls = await asOwner("select * from backup.calls");
    expect(lookIn("the queue", JSON.stringify({ waiting, calls }), needlesOf({ secret: stack.workerSecret }))).toEqual(
      [],
    );
  });

  it("is no token of a person, no key of the API, and no key of the backups", async () => {
    const { workerSecret } = project().stack;
    const thief: Thief = { who: "the worker secret", headers: () => keyed(workerSecret) };
    for (const path of ["/rest/v1/backup_runs?select=*", `/storage/v1/bucket/${backupBucket}`, "/auth/v1/user"]) {
      expect((await api(thief, path, { method: "GET" })).status).toBeGreaterThanOrEqual(400);
    }
    const told = await callFunction(project().stack, "backup", {
      body: { action: "status", run: randomUUID() },
      headers: bearer(workerSecret),
    });
    expect(told.status).toBe(401);
  });

  it("puts rows of then over rows of now only by the database's name", async () => {
    const plan = await planned(project(), { scope: "table", table: "public.notes" });
    await project().query("delete from public.notes where id = 1");
    for (const confirm of ["", "wrong", "postgres; drop table public.notes", "Postgres"]) {
      const told = await machine("restore", {
        action: "apply",
        restore: plan.document["restore"],
        mode: "merge",
        confirm,
      });
      expect([400, 409]).toContain(told.status);
    }
    expect(await project().query("select count(*)::int as n from public.notes")).toEqual([{ n: 29 }]);
  }, 120_000);
});
