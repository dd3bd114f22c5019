import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { crc32c } from "../../src/local/identity.ts";
import { type NetWorker, startNetWorker } from "../../src/local/pg_net_worker.ts";
import { freePort } from "../../src/local/ports.ts";
import { type Cluster, freshDatabase, query, useCluster, withClient, withCluster } from "../support/cluster.ts";

/** SQLSTATE of the error that the statement ends with; `none` when it does not. */
async function sqlstate(client: pg.Client, text: string): Promise<string> {
  try {
    await client.query(text);
    return "none";
  } catch (error) {
    await client.query("rollback");
    if (error instanceof pg.DatabaseError && error.code !== undefined) return error.code;
    throw error;
  }
}

/** Polls until `look` gives something, for at most 20 seconds. */
async function eventually<T>(what: string, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const deadline = performance.now() + 20_000;
  while (performance.now() < deadline) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`${what} did not happen within 20 s`);
}

const one = async (url: string, text: string) => (await query(url, text))[0] ?? {};

describe("the platform", () => {
  const cluster = useCluster();
  const url = (role = "postgres") => cluster().url(role);

  describe("role postgres", () => {
    it("has the hosted attributes and memberships, and is no superuser", async () => {
      expect(
        await one(
          url(),
          `select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls from pg_roles where rolname = 'postgres'`,
        ),
      ).toEqual({ rolsuper: false, rolcreaterole: true, rolcreatedb: true, rolreplication: true, rolbypassrls: true });
      const roles = await query(
        url(),
        "select rolname as r from pg_roles where pg_has_role('postgres', oid, 'member')",
      );
      const names = roles.map((row) => row["r"]);
      expect(names).toEqual(
        expect.arrayContaining([
          "anon",
          "authenticated",
          "service_role",
          "pg_monitor",
          "pg_read_all_data",
          "pg_signal_backend",
        ]),
      );
      for (const platform of ["supabase_admin", "supabase_auth_admin", "supabase_storage_admin", "authenticator"]) {
        expect(names).not.toContain(platform);
      }
    });

    it("is refused what a hosted project refuses", async () => {
      await withClient(url(), async (client) => {
        for (
          const statement of [
            "alter role postgres superuser",
            "alter table auth.users add column note text",
            "alter table auth.users replica identity full",
            "alter table storage.objects disable row level security",
            "create index on storage.objects (name)",
            "create table auth.notes (id int)",
            "create table storage.notes (id int)",
            "insert into auth.schema_migrations values ('9')",
            "insert into storage.migrations values (9, 'n', 'h')",
            "update cron.job set schedule = ''",
            "create policy p on supabase_functions.hooks using (true)",
            "select pg_read_file('vault.key')",
            "select vault._derived_key('seal')",
            "select extensions.set_postgres_superuser(true)",
            "copy (select 1) to program 'true'",
            "create extension file_fdw",
            "begin; create function public.f() returns event_trigger language plpgsql as 'begin end'; alter table auth.users add column n int",
          ]
        ) {
          expect([statement, await sqlstate(client, statement)]).toEqual([statement, "42501"]);
        }
      });
    });

    it("may do what a hosted project lets it do, and is no superuser afterwards", async () => {
      const database = await freshDatabase(cluster());
      await withClient(cluster().url("postgres", database), async (client) => {
        for (
          const statement of [
            "select count(*) from auth.users",
            "insert into auth.users (id) values (gen_random_uuid())",
            "create policy mine on storage.objects for select to authenticated using (owner_id = (select auth.uid())::text)",
            "alter policy mine on storage.objects using (false)",
            "drop policy mine on storage.objects",
            "create function public.noticed() returns trigger language plpgsql as 'begin return new; end'",
            "create trigger noticed after insert on auth.users for each row execute function public.noticed()",
            "drop trigger noticed on auth.users",
            "create table public.entries (id int primary key)",
            "create publication listed for table auth.users, storage.objects, public.entries",
            "create publication everything for all tables with (publish = 'insert, truncate')",
            "alter publication listed drop table auth.users",
            "begin; create function public.ddl() returns event_trigger language plpgsql as 'begin end'; " +
            "revoke execute on function public.ddl() from public; " +
            "create event trigger ddl on ddl_command_end execute function public.ddl(); commit",
            "create extension plpgsql_check with schema extensions",
            "create extension hstore with schema extensions",
            "create extension postgres_fdw with schema extensions",
            "begin; create extension dblink; rollback; create policy again on storage.objects using (true)",
            "set session_replication_role = replica",
            "select pg_create_logical_replication_slot('mine', 'pgoutput', true)",
            "create role app_reader nologin",
          ]
        ) {
          expect([statement, await sqlstate(client, statement)]).toEqual([statement, "none"]);
          const { rows } = await client.query("select rolsuper from pg_roles where rolname = 'postgres'");
          expect([statement, rows]).toEqual([statement, [{ rolsuper: false }]]);
        }
        const { rows } = await client.query(
          "select evtowner::regrole::text as owner from pg_event_trigger where evtname = 'ddl'",
        );
        expect(rows).toEqual([{ owner: "postgres" }]);
      });
    });

    it("locks the platform's tables with a policy until commit, as the hosted one does, and two wait for each other", async () => {
      await query(url(), "create table public.a (id int); create table public.b (id int)");
      await withClient(url(), async (first) => {
        await first.query("begin; create policy p on public.a using (true)");
        const { rows } = await first.query(
          `select distinct relation::regclass::text as name from pg_locks
           where pid = pg_backend_pid() and mode = 'AccessExclusiveLock' and relation in
             ('auth.users'::regclass, 'storage.objects'::regclass)`,
        );
        expect(rows).toHaveLength(2);
        await withClient(url(), async (second) => {
          await second.query("set lock_timeout = '200ms'");
          expect(await sqlstate(second, "create policy p on public.b using (true)")).toBe("55P03");
          await first.query("commit");
          expect(await sqlstate(second, "create policy p on public.b using (true)")).toBe("none");
        });
      });
    });
  });

  it("gives the API's roles the hosted time-outs and no grants on new tables", async () => {
    await query(url(), "create table public.fresh (id int)");
    for (const role of ["anon", "authenticated", "service_role"]) {
      expect(await one(url(), `select has_table_privilege('${role}', 'public.fresh', 'select') as may`)).toEqual({
        may: false,
      });
    }
    expect(await one(url(), "show statement_timeout")).toEqual({ statement_timeout: "0" });
    expect(await one(url("authenticator"), "show statement_timeout")).toEqual({ statement_timeout: "8s" });
  });

  it("knows the user of a request from its claims", async () => {
    await withClient(url("authenticator"), async (client) => {
      await client.query("begin; set local role authenticated");
      await client.query(
        `select set_config('request.jwt.claims', '{"sub": "0b2f1a4e-0000-4000-8000-000000000001", "role": "authenticated"}', true)`,
      );
      const { rows } = await client.query("select auth.uid() as uid, auth.role() as role, auth.email() as email");
      expect(rows).toEqual([{ uid: "0b2f1a4e-0000-4000-8000-000000000001", role: "authenticated", email: null }]);
      expect(await sqlstate(client, "select count(*) from auth.users")).toBe("42501");
    });
  });

  it("refuses a direct DELETE on storage, the superuser's included, unless the storage service says so", async () => {
    await withClient(url(), async (client) => {
      await client.query("insert into storage.buckets (id, name) values ('b', 'b')");
      await client.query("insert into storage.objects (bucket_id, name) values ('b', 'folder/file.webm')");
      expect(await sqlstate(client, "delete from storage.objects")).toBe("42501");
      expect(await sqlstate(client, "delete from storage.buckets")).toBe("42501");
      const { rows } = await client.query("select path_tokens, storage.foldername(name) as f from storage.objects");
      expect(rows).toEqual([{ path_tokens: ["folder", "file.webm"], f: ["folder"] }]);
    });
    expect(
      await sqlstateOf(url("supabase_storage_admin"), "delete from storage.objects"),
    ).toBe("42501");
    expect(
      await sqlstateOf(
        url("supabase_storage_admin"),
        "begin; set local storage.allow_delete_query = 'true'; delete from storage.objects; commit",
      ),
    ).toBe("none");
    expect(await one(url(), "select count(*)::int as n from storage.objects")).toEqual({ n: 0 });
  });

  describe("Vault", () => {
    it("gives a secret back, keeps it sealed at rest, and says when it was changed", async () => {
      await withClient(url(), async (client) => {
        const { rows: [made] } = await client.query("select vault.create_secret('hush ✓', 'word', 'a test') as id");
        const read = "select decrypted_secret, secret, description from vault.decrypted_secrets where name = 'word'";
        const { rows: [found] } = await client.query(read);
        expect(found).toMatchObject({ decrypted_secret: "hush ✓", description: "a test" });
        expect(Buffer.from(found.secret, "base64").includes("hush")).toBe(false);
        await client.query("select vault.update_secret($1, 'louder')", [made.id]);
        expect((await client.query(read)).rows[0].decrypted_secret).toBe("louder");
        expect(await sqlstate(client, "select vault.create_secret('other', 'word')")).toBe("23505");
      });
      await query(
        url("supabase_admin"),
        `update vault.secrets set secret = encode(set_byte(sealed, 40, get_byte(sealed, 40) # 1), 'base64')
         from (select id as sealed_id, decode(secret, 'base64') as sealed from vault.secrets) flipped
         where id = sealed_id`,
      );
      expect(await sqlstateOf(url(), "select * from vault.decrypted_secrets")).toBe("P0001");
    });

    it("is closed to the API's roles", async () => {
      for (const role of ["anon", "authenticated"]) {
        expect(
          await sqlstateOf(url("authenticator"), `set role ${role}; select * from vault.decrypted_secrets`),
        ).toBe("42501");
      }
    });
  });

  it("speaks TLS with a certificate that its own authority signed, and wants the password", async () => {
    expect(await one(url(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()")).toEqual({ ssl: true });
    const psql = (environment: Record<string, string>) =>
      execFileSync(join(cluster().bin, "psql"), ["-Atqc", "select ssl from pg_stat_ssl where pid = pg_backend_pid()"], {
        env: { ...cluster().environment(), ...environment },
        encoding: "utf8",
        stdio: "pipe",
      }).trim();
    expect(psql({})).toBe("t");
    expect(() => psql({ PGPASSWORD: "wrong" })).toThrow(/password authentication failed/);
    expect(() => psql({ PGSSLROOTCERT: "/etc/ssl/certs/ca-certificates.crt" })).toThrow(/certificate|root/);
    // Nobody reads a password where statements are kept, either.
    expect(
      await query(url(), "select query from extensions.pg_stat_statements where query ~* 'alter role .* password'"),
    )
      .toEqual([]);
    expect(readFileSync(cluster().logFile, "utf8")).not.toContain(cluster().password("supabase_admin"));
    expect(statSync(join(cluster().directory, "cluster.json")).mode & 0o077).toBe(0);
  });

  describe("pg_net", () => {
    let worker: NetWorker;
    let server: Server;
    let address: string;
    const seen: { path: string; body: string; signature: string | undefined }[] = [];

    beforeAll(async () => {
      server = createServer((request, response) => {
        let body = "";
        request.on("data", (part) => body += part).on("end", () => {
          const path = request.url ?? "";
          seen.push({ path, body, signature: request.headers["x-signature"]?.toString() });
          setTimeout(() => response.writeHead(202).end(`took ${path}`), path === "/slow" ? 900 : 0);
        });
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const bound = server.address();
      address = `http://127.0.0.1:${typeof bound === "object" ? bound?.port : 0}`;
      worker = await startNetWorker({ databaseUrl: url("supabase_admin"), caFile: cluster().caFile });
    });
    afterAll(async () => {
      await worker.stop();
      server.closeAllConnections();
      server.close();
    });

    const answerTo = (id: unknown) =>
      eventually(
        "the answer",
        async () => (await query(url(), "select * from net._http_response where id = $1", [id]))[0],
      );

    it("sends after commit, and never what was rolled back", async () => {
      await withClient(url(), async (client) => {
        await client.query("begin");
        await client.query("select net.http_post($1)", [`${address}/rolled-back`]);
        await client.query("rollback; begin");
        const { rows: [posted] } = await client.query(
          'select net.http_post($1, \'{"a": 1}\', headers => \'{"x-signature": "s"}\') as id',
          [`${address}/posted`],
        );
        // Another request goes out and is answered meanwhile, so the worker was awake.
        const { id } = await one(url(), `select net.http_get('${address}/other') as id`);
        await answerTo(id);
        expect(seen.map((request) => request.path)).toEqual(["/other"]);
        await client.query("commit");
        expect(await answerTo(posted.id)).toMatchObject({
          status_code: 202,
          content: "took /posted",
          timed_out: false,
          error_msg: null,
        });
        expect(seen.at(-1)).toEqual({ path: "/posted", body: '{"a": 1}', signature: "s" });
        expect(seen.map((request) => request.path)).not.toContain("/rolled-back");
      });
    });

    it("reports a refused connection and a time-out, and tries neither again", async () => {
      const { refused, late } = await one(
        url(),
        `select net.http_get('http://127.0.0.1:${await freePort()}/') as refused,
                net.http_get('${address}/slow', timeout_milliseconds => 100) as late`,
      );
      expect(await answerTo(refused)).toMatchObject({ status_code: null, timed_out: false });
      expect((await answerTo(refused))["error_msg"]).toMatch(/connect/i);
      expect(await answerTo(late)).toMatchObject({ status_code: null, timed_out: true });
      expect(await one(url(), "select count(*)::int as n from net.http_request_queue")).toEqual({ n: 0 });
    });

    it("holds a later request back until the slowest answer of the batch is there", async () => {
      const { slow } = await one(url(), `select net.http_get('${address}/slow') as slow`);
      await eventually("the slow request", () => seen.filter((request) => request.path === "/slow")[1]);
      const { later } = await one(url(), `select net.http_get('${address}/later') as later`);
      const order = [await answerTo(later), await answerTo(slow)].map((row) => Number(row["created"]));
      expect(order[0]).toBeGreaterThan(order[1] ?? Infinity);
    });

    it("is used by a database webhook", async () => {
      await query(
        url(),
        `create table public.hooked (id int);
         create trigger hook after insert on public.hooked for each row execute function
           supabase_functions.http_request('${address}/hook', 'POST', '{"Content-Type": "application/json"}', '{}', '1000');
         insert into public.hooked values (7)`,
      );
      const call = await eventually("the call", () => seen.find((request) => request.path === "/hook"));
      expect(JSON.parse(call.body)).toEqual({
        type: "INSERT",
        table: "hooked",
        schema: "public",
        record: { id: 7 },
        old_record: null,
      });
    });
  });
});

async function sqlstateOf(url: string, text: string): Promise<string> {
  return await withClient(url, (client) => sqlstate(client, text));
}

describe("a cluster", () => {
  it("runs cron jobs as the role that scheduled them, and keeps its data over a crash; unlogged tables are empty then", async () => {
    await withCluster({}, async (cluster) => {
      await query(
        cluster.url(),
        `create table public.runs (who text);
         select cron.schedule('at start', '@reboot', 'insert into public.runs select current_user; insert into public.runs select 1/0');
         select cron.schedule('fine', '@reboot', 'insert into public.runs select current_user');
         select net.http_get('http://127.0.0.1:1/')`,
      );
      await cluster.kill();
      expect(cluster.running).toBe(false);
      await cluster.start();
      await eventually("both jobs", async () => {
        const rows = await query(
          cluster.url(),
          "select status from cron.job_run_details where status in ('succeeded', 'failed') order by status",
        );
        return rows.map((row) => row["status"]).join() === "failed,succeeded" ? true : undefined;
      });
      // The failed one is a single transaction: its first statement is undone.
      expect(await query(cluster.url(), "select who from public.runs")).toEqual([{ who: "postgres" }]);
      expect(await one(cluster.url(), "select count(*)::int as n from net.http_request_queue")).toEqual({ n: 0 });
    });
  });

  it("is another cluster than any other one: identifier, passwords and root key", async () => {
    const identifier = async (cluster: Cluster) =>
      (await one(cluster.url(cluster.superuser), "select system_identifier::text as id from pg_control_system()"))[
        "id"
      ];
    await withCluster({}, async (first) => {
      await withCluster({}, async (second) => {
        expect(await identifier(first)).not.toBe(await identifier(second));
        expect(first.password("postgres")).not.toBe(second.password("postgres"));
        const key = (cluster: Cluster) => readFileSync(join(cluster.dataDirectory, "vault.key"));
        expect(key(first).equals(key(second))).toBe(false);
        // pg_controldata checks what was written by its own reading of the file and its checksum.
        const control = execFileSync(join(second.bin, "pg_controldata"), [second.dataDirectory], {
          encoding: "utf8",
          stdio: "pipe",
        });
        expect(control).toContain(String(await identifier(second)));
        expect(control).not.toContain("WARNING");
      });
    });
    expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
  });

  it("can be PostgreSQL 17, with the platform or without", async () => {
    await withCluster({ version: 17 }, async (cluster) => {
      expect(await one(cluster.url(), "select current_setting('server_version_num')::int / 10000 as v")).toEqual({
        v: 17,
      });
      expect(await sqlstateOf(cluster.url(), "create policy p on storage.objects using (true)")).toBe("none");
      expect(await sqlstateOf(cluster.url(), "create publication p for all tables")).toBe("none");
      expect(await sqlstateOf(cluster.url(), "alter table auth.users add column n int")).toBe("42501");
    });
    await withCluster({ version: 17, platform: false }, async (cluster) => {
      expect(
        await one(
          cluster.url(),
          "select rolsuper, (select count(*)::int from pg_namespace where nspname = 'auth') as auth from pg_roles where rolname = current_user",
        ),
      )
        .toEqual({ rolsuper: true, auth: 0 });
    });
  });
});
