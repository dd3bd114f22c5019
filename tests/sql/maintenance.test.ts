/** The fence of the API as PostgREST meets it, what is recorded and put back, and what the watchdog says of it. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;
let version = 0;

beforeAll(async () => {
  postgres = await session(await installedCluster());
  version = Number(await scalar(postgres, "show server_version_num"));
});
afterAll(async () => {
  await postgres?.end();
});

const objects = `
  create table public.entries (id int primary key, title text not null);
  insert into public.entries values (1, 'one');
  create view public.titles as select id, title from public.entries;
  create table public.parted (id int primary key) partition by range (id);
  create table public.parted_low partition of public.parted for values from (0) to (10);
  create sequence public.counter;
  create materialized view public.counted as select count(*) from public.entries;
  create function public.add_entry(new_id int) returns void language sql security definer
    as $$ insert into public.entries values (new_id, 'by a definer') $$;
  create function public.add_stubbornly(new_id int) returns text language plpgsql security definer as $$
    begin
      begin
        perform pg_catalog.set_config('transaction_read_only', 'off', true);
      exception when others then null;
      end;
      insert into public.entries values (new_id, 'in spite of all');
      return 'done';
    end $$;
  grant all on all tables in schema public to anon, authenticated, service_role;
  grant all on all sequences in schema public to anon, authenticated, service_role;
  revoke insert, update, delete on public.backup_runs, public.backup_audit, public.backup_alerts,
    public.backup_announcements from anon, authenticated, service_role;`;

/** A transaction with the app's objects in it, closed, which goes on after what is refused. */
async function closed(work: () => Promise<void>, prepare = ""): Promise<void> {
  await rolledBack(postgres, async () => {
    await postgres.query(objects);
    if (prepare !== "") await postgres.query(prepare);
    await postgres.query("select backup.maintenance_on('Back at noon')");
    await work();
  });
}

interface Failure {
  readonly code: string;
  readonly message: string;
}

/** What PostgREST does with a request, and the SQLSTATE of the first of its statements that fails. */
async function request(
  call: { readonly method: string; readonly path: string; readonly role?: string },
  statements: readonly string[] = [],
): Promise<Failure | null> {
  await postgres.query("savepoint request");
  try {
    await postgres.query(
      `select set_config('request.method', $1, true), set_config('request.path', $2, true), set_config('role', $3, true),
         set_config('search_path', 'public, extensions', true)`,
      [call.method, call.path, call.role ?? "service_role"],
    );
    await postgres.query(`select "public"."backup_before_request"()`);
    for (const statement of statements) await postgres.query(statement);
    return null;
  } catch (error) {
    const { code, message } = error as Failure;
    return { code, message };
  } finally {
    await postgres.query("rollback to savepoint request");
  }
}

/** The outcome of statements that a function under /rpc might run. */
async function inFunction(...statements: readonly string[]): Promise<string> {
  return (await request({ method: "POST", path: "/rpc/anything" }, statements))?.code ?? "written";
}

describe("a request while the project is closed", () => {
  it.each(["POST", "PUT", "PATCH", "DELETE"])(
    "is refused with the message when it is a %s, for every role",
    async (method) => {
      await closed(async () => {
        for (const path of ["/entries", "/rest/v1/entries", "/rpc", "/rpcs", "/titles"]) {
          for (const role of ["anon", "authenticated", "service_role"]) {
            expect(await request({ method, path, role }), `${role} ${path}`)
              .toMatchObject({ code: "PT503", message: "Back at noon" });
          }
        }
      });
    },
  );

  it.each(["GET", "HEAD", "OPTIONS"])("goes on when it is a %s", async (method) => {
    await closed(async () => {
      for (const role of ["anon", "authenticated", "service_role"]) {
        expect(await request({ method, path: "/entries", role }, ["select * from entries"]), role).toBeNull();
      }
    });
  });

  it("may call a function that reads, whatever its method", async () => {
    await closed(async () => {
      expect(await inFunction("select count(*) from public.entries")).toBe("written");
    });
  });

  it.each([
    ["inserts", "insert into public.entries values (2, 'two')"],
    ["inserts through a view", "insert into public.titles values (2, 'two')"],
    ["upserts", "insert into public.entries values (1, 'x') on conflict (id) do update set title = excluded.title"],
    ["updates", "update public.entries set title = 'x'"],
    ["deletes", "delete from public.entries where id = 1"],
    ["merges", "merge into public.entries e using (select 1 as id) s on s.id = e.id when matched then delete"],
    ["writes in a WITH", "with gone as (delete from public.entries returning id) select * from gone"],
    ["copies in", "copy public.entries from stdin"],
    ["truncates", "truncate public.entries"],
    ["inserts into a partitioned table", "insert into public.parted values (1)"],
    ["inserts into a partition", "insert into public.parted_low values (1)"],
    ["takes a sequence's next value", "select nextval('public.counter')"],
    ["sets a sequence", "select setval('public.counter', 7)"],
    ["calls a definer function", "select public.add_entry(2)"],
    ["calls a DO block", "do $$ begin insert into public.entries values (2, 'two'); end $$"],
    ["makes a table", "create table public.made (id int)"],
    ["makes a table of a query", "create table public.made as select 1 as id"],
    ["alters a table", "alter table public.entries add column more int"],
    ["refreshes a materialized view", "refresh materialized view public.counted"],
    ["locks rows", "select * from public.entries for update"],
    ["writes a large object's row", "select lo_create(0)"],
  ])("is refused when it %s", async (what, statement) => {
    await closed(async () => {
      const outcome = await inFunction(statement);
      // PostgreSQL 15 does not count them; the documents say so
      if (what.includes("large object") && version < 160_000) expect(outcome).toBe("written");
      else expect(outcome === "25006" || outcome === "42501", `${what}: ${outcome}`).toBe(true);
    });
  });

  it("writes all of these while the project is open, so that it is the fence that refuses them", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(objects);
      for (
        const statement of [
          "insert into public.entries values (2, 'two')",
          "select public.add_entry(2)",
          "select nextval('public.counter')",
          "insert into public.parted values (1)",
          "truncate public.entries",
          "select public.add_stubbornly(2)",
          "select public.backup_probe()",
        ]
      ) {
        expect(await inFunction(statement), statement).toBe("written");
      }
      expect(await request({ method: "PATCH", path: "/entries" }, ["update entries set title = 'x'"])).toBeNull();
    });
  });

  it("is refused for a table that was made after the project was closed", async () => {
    await closed(async () => {
      await postgres.query("create table public.later (id int); grant all on public.later to service_role");
      expect(await inFunction("insert into public.later values (1)")).toBe("25006");
      expect(await request({ method: "POST", path: "/later" })).toMatchObject({ code: "PT503" });
    });
  });

  it.each([
    ["SET", ["set transaction_read_only = off", "insert into public.entries values (2, '')"]],
    ["SET LOCAL", ["set local transaction_read_only to off", "insert into public.entries values (2, '')"]],
    ["SET TRANSACTION", ["set transaction read write", "insert into public.entries values (2, '')"]],
    ["set_config", [
      "select set_config('transaction_read_only', 'off', true)",
      "insert into public.entries values (2, '')",
    ]],
    ["RESET ALL", ["reset all", "insert into public.entries values (2, '')"]],
    ["another role", ["reset role", "set local role service_role", "insert into public.entries values (2, '')"]],
    ["the default", ["set default_transaction_read_only = off", "insert into public.entries values (2, '')"]],
    ["a savepoint", [
      "savepoint inner_one",
      "rollback to savepoint inner_one",
      "insert into public.entries values (2, '')",
    ]],
    ["a method of its own", [
      "select set_config('request.method', 'GET', true)",
      "select public.backup_before_request()",
      "insert into public.entries values (2, '')",
    ]],
    ["a definer function that swallows errors", ["select public.add_stubbornly(2)"]],
    ["the switch itself", ["update backup.maintenance set closed = false"]],
    ["the function that opens it", ["select backup.maintenance_off()"]],
    ["the gate", ["select * from backup.gate()"]],
    ["the setting", ["alter role authenticator reset pgrst.db_pre_request"]],
  ])("cannot switch it off from inside by %s", async (_, statements) => {
    await closed(async () => {
      expect(["25006", "25001", "42501"]).toContain(await inFunction(...statements));
    });
  });

  it.each(["reset transaction_read_only", "set local transaction_read_only to default"])(
    "can leave it by %s on PostgreSQL 15 alone, where functions that do so are named",
    async (reset) => {
      await closed(async () => {
        const outcome = await inFunction(reset, "insert into public.entries values (2, '')");
        // before 16 the server does not check it; the documents say so
        if (version < 160_000) expect(outcome).toBe("written");
        else expect(outcome).not.toBe("written");
        const named = JSON.parse(await scalar(postgres, "select backup.maintenance_state() -> 'resetting'") ?? "null");
        expect(named).toEqual(version < 160_000 ? ["public.add_stubbornly(integer)", "public.leave()"] : []);
      }, `create function public.leave() returns void language plpgsql as $$ begin ${reset}; end $$`);
    },
  );

  it.each([
    ["set_config with no value", "perform pg_catalog.set_config('transaction_read_only', null, true)", "plpgsql"],
    ["a statement that it puts together", "execute 'reset ' || 'transaction_read_only'", "plpgsql"],
    [
      "a body that is bound when it is made",
      "select pg_catalog.set_config('transaction_read_only', null, true)",
      "sql",
    ],
  ])("can leave it by a function with %s on PostgreSQL 15 alone, and is named", async (_, body, language) => {
    const made = language === "sql"
      ? `create function public.leave() returns text language sql security definer begin atomic ${body}; end`
      : `create function public.leave() returns text language plpgsql security definer as $$ begin ${body}; return ''; end $$`;
    await closed(async () => {
      const outcome = await inFunction("select public.leave()", "insert into public.entries values (2, '')");
      expect(outcome === "written").toBe(version < 160_000);
      const named = JSON.parse(await scalar(postgres, "select backup.maintenance_state() -> 'resetting'") ?? "null");
      expect(named.includes("public.leave()")).toBe(version < 160_000);
    }, made);
  });

  it("may take jobs of pg_cron away, by functions that are named", async () => {
    await closed(
      async () => {
        const outcome = await request({ method: "POST", path: "/rpc/forget" }, ["select public.forget()"]);
        expect(outcome).toBeNull();
        const named = JSON.parse(await scalar(postgres, "select backup.maintenance_state() -> 'scheduling'") ?? "null");
        expect(named).toEqual(["public.forget()"]);
      },
      `select cron.schedule('of the app', '0 3 * * *', 'select 1');
       create function public.forget() returns void language sql security definer
         as $$ select cron.unschedule('of the app') $$`,
    );
  });

  it("is let through where the project had taken execution of functions from everybody", async () => {
    await closed(
      async () => {
        for (const role of ["anon", "authenticated", "service_role"]) {
          expect(await request({ method: "GET", path: "/entries", role }, ["select * from entries"]), role).toBeNull();
        }
      },
      `revoke execute on all functions in schema public from public, anon, authenticated, service_role;
       revoke execute on all functions in schema backup from public`,
    );
  });

  it("would be refused to a role that may not use public, so the project is not closed", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("savepoint before_that");
      // not ours to revoke in a test: the platform's role owns the schema
      const owner = await scalar(postgres, "select nspowner::regrole::text from pg_namespace where nspname = 'public'");
      await postgres.query("revoke usage on schema public from public, anon");
      const isRevoked = await scalar(postgres, "select not has_schema_privilege('anon', 'public', 'usage')");
      expect(isRevoked, `public belongs to ${owner}`).toBe("t");
      expect(await sqlstate(postgres, "select backup.maintenance_on('x')")).toBe("HF402");
      expect(await scalar(postgres, "select closed from backup.maintenance")).toBe("f");
    });
  });

  it("is not asked again by what calls itself with the method left out", async () => {
    await closed(async () => {
      expect(await request({ method: "", path: "" }, ["insert into public.entries values (2, '')"]))
        .toMatchObject({ code: "25006" });
    });
  });
});

describe("the project's own pre-request function", () => {
  const own = `
    create schema "App Gate";
    create table public.called (who text, path text, names text);
    grant all on public.called to anon, service_role;
    create function "App Gate".check() returns void language plpgsql as $$
      begin
        if current_setting('request.path') = '/forbidden' then raise sqlstate 'PT402' using message = 'pay first'; end if;
        insert into called values (current_user, current_setting('request.path'), current_setting('search_path'));
      end $$;
    grant usage on schema "App Gate" to public;`;

  const settings = async () =>
    (await postgres.query(
      `select setdatabase::text as database, setconfig::text as config from pg_db_role_setting
       where setrole = 'authenticator'::regrole order by setdatabase`,
    )).rows;

  it("is called first, as the caller, with the request's search_path", async () => {
    await closed(async () => {
      expect(await request({ method: "POST", path: "/forbidden" })).toMatchObject({
        code: "PT402",
        message: "pay first",
      });
      const seen = "do $$ begin if not exists (select from public.called where who = 'anon' and path = '/rpc/x' " +
        "and names = 'public, extensions') then raise 'not called'; end if; end $$";
      expect(await request({ method: "POST", path: "/rpc/x", role: "anon" }, [seen])).toBeNull();
      expect(await request({ method: "PATCH", path: "/entries" })).toMatchObject({ code: "PT503" });
    }, `${own} alter role authenticator set pgrst.db_pre_request = 'App Gate.check'`);
  });

  it("keeps what it sets for the request, its search_path too", async () => {
    await closed(
      async () => {
        const seen =
          "do $$ begin if current_setting('search_path') <> 'app, public' or current_setting('app.tenant') <> '7' " +
          "then raise 'it is %', current_setting('search_path'); end if; end $$";
        expect(await request({ method: "GET", path: "/entries", role: "anon" }, [seen])).toBeNull();
      },
      `create function public.tenant() returns void language plpgsql as $$ begin
          perform set_config('search_path', 'app, public', true), set_config('app.tenant', '7', true);
        end $$;
        alter role authenticator set pgrst.db_pre_request = 'public.tenant'`,
    );
  });

  it("goes on being called for a moment after the project is open, until PostgREST has read its settings", async () => {
    await closed(async () => {
      await postgres.query("select backup.maintenance_off()");
      expect(await request({ method: "POST", path: "/forbidden" })).toMatchObject({ code: "PT402" });
      expect(await request({ method: "PATCH", path: "/entries" }, ["insert into public.entries values (2, '')"]))
        .toBeNull();
    }, `${own} alter role authenticator set pgrst.db_pre_request = 'App Gate.check'`);
  });

  it.each([
    ["no setting", "alter role authenticator reset pgrst.db_pre_request"],
    ["a setting of the role", "alter role authenticator set pgrst.db_pre_request = 'public.check'"],
    ["an empty setting", "alter role authenticator set pgrst.db_pre_request = ''"],
    ["a setting with quotes", `alter role authenticator set pgrst.db_pre_request = 'o''clock.chec"k'`],
    [
      "a setting of the role in this database",
      `alter role authenticator set pgrst.db_pre_request = 'public.other';
      alter role authenticator in database postgres set pgrst.db_pre_request = 'public.check'`,
    ],
  ])("is put back exactly: %s", async (_, prepare) => {
    await rolledBack(postgres, async () => {
      await postgres.query(prepare);
      const before = await settings();
      await postgres.query("select backup.maintenance_on('Back at noon')");
      await postgres.query("select backup.maintenance_on('Back at one')");
      const during = await settings();
      expect(during).not.toEqual(before);
      const effective = during.find((row) => row.database !== "0" && /pre_request/.test(row.config)) ?? during[0];
      expect(effective?.config).toContain("pgrst.db_pre_request=public.backup_before_request");
      await postgres.query("select backup.maintenance_off()");
      expect(await settings()).toEqual(before);
    });
  });

  it("is put back where it was changed, whatever somebody sets for this database meanwhile", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("alter role authenticator set pgrst.db_pre_request = 'public.check'");
      const [before] = await settings();
      await postgres.query("select backup.maintenance_on('Back at noon')");
      await postgres.query("alter role authenticator in database postgres set pgrst.db_pre_request = 'public.other'");
      await postgres.query("savepoint meanwhile");
      const off = JSON.parse(await scalar(postgres, "select backup.maintenance_off()") ?? "null");
      expect(off.left).toEqual([expect.stringContaining("public.other")]);
      expect((await settings())[0]).toEqual(before);
      await postgres.query("rollback to savepoint meanwhile");
      // turned on again, it takes its place, and nothing of ours is left at the other level
      await postgres.query("select backup.maintenance_on('Back at one')");
      expect(await request({ method: "POST", path: "/entries" })).not.toBeNull();
      await postgres.query("select backup.maintenance_off()");
      const after = await settings();
      expect(after[0]).toEqual(before);
      expect(after[1]?.config).toContain("pgrst.db_pre_request=public.other");
    });
  });

  it("that somebody else sets meanwhile is left, and told", async () => {
    await closed(async () => {
      await postgres.query("alter role authenticator set pgrst.db_pre_request = 'public.newer'");
      const outcome = JSON.parse(await scalar(postgres, "select backup.maintenance_off()") ?? "null");
      expect(outcome.left).toEqual([expect.stringContaining("public.newer")]);
      expect(outcome.preRequest.present).toBe("public.newer");
    });
  });
});

describe("cron jobs", () => {
  const jobs = async () =>
    Object.fromEntries(
      (await postgres.query("select coalesce(jobname, command) as name, active from cron.job order by jobid")).rows
        .filter((row) => !row.name.startsWith("holdfast-")).map((row) => [row.name, row.active === "t"]),
    );
  const prepare = `
    select cron.schedule('app-busy', '0 0 * * *', 'select 1'), cron.schedule('app-idle', '0 0 * * *', 'select 2'),
      cron.schedule('app-dropped', '0 0 * * *', 'select 3'), cron.schedule('0 0 * * *', 'select 4'),
      cron.schedule('holdfast-lookalike', '0 0 * * *', 'select backup.tick(); delete from app');
    select cron.alter_job(jobid, active => false) from cron.job where jobname = 'app-idle'`;

  it("of the user are paused and put back as they were; one added meanwhile is left alone", async () => {
    await closed(async () => {
      expect(await jobs()).toEqual({ "app-busy": false, "app-idle": false, "app-dropped": false, "select 4": false });
      expect(await scalar(postgres, "select active from cron.job where jobname = 'holdfast-lookalike'")).toBe("f");
      await postgres.query("select cron.unschedule('app-dropped'), cron.schedule('app-new', '0 0 * * *', 'select 5')");
      await postgres.query("select cron.alter_job(jobid, active => false) from cron.job where jobname = 'app-new'");
      const outcome = JSON.parse(await scalar(postgres, "select backup.maintenance_off()") ?? "null");
      expect(await jobs()).toEqual({ "app-busy": true, "app-idle": false, "select 4": true, "app-new": false });
      expect(outcome.left).toEqual([expect.stringContaining("app-dropped")]);
      expect(outcome.restored).toHaveLength(3);
      expect(await scalar(postgres, "select count(*) from backup.maintenance_jobs")).toBe("0");
    }, prepare);
  });

  it("that are made again while it is closed are paused in the place of those before, and run again", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select cron.schedule('of the app', '0 3 * * *', 'select 1')");
      await postgres.query("select backup.maintenance_on('x')");
      await postgres.query("select cron.unschedule('of the app')");
      await postgres.query("select cron.schedule('of the app', '0 4 * * *', 'select 1')");
      expect(await scalar(postgres, "select backup.pause_jobs()")).toBe("1");
      expect(await scalar(postgres, "select active from cron.job where jobname = 'of the app'")).toBe("f");
      const off = JSON.parse(await scalar(postgres, "select backup.maintenance_off()") ?? "null");
      expect(off).toMatchObject({ restored: ["of the app"], left: [] });
      expect(await scalar(postgres, "select active from cron.job where jobname = 'of the app'")).toBe("t");
      await postgres.query("select backup.pause_jobs()");
      expect(await scalar(postgres, "select active from cron.job where jobname = 'of the app'")).toBe("t");
    });
  });

  it("of ours go on", async () => {
    await closed(async () => {
      const ours =
        "select count(*) filter (where active) = count(*) and count(*) > 2 from cron.job where jobname ~ '^holdfast-'";
      expect(await scalar(postgres, `${ours} and jobname <> 'holdfast-lookalike'`)).toBe("t");
    }, prepare);
  });
});

describe("turning it on", () => {
  it.each([
    ["no message", "select backup.maintenance_on(null)"],
    ["an empty message", "select backup.maintenance_on('')"],
    ["a message of two lines", "select backup.maintenance_on(E'a\\nb')"],
    ["a message that is too long", "select backup.maintenance_on(repeat('a', 301))"],
    ["an end that has passed", "select backup.maintenance_on('x', now() - interval '1 minute')"],
  ])("is refused with %s, and changes nothing", async (_, statement) => {
    await rolledBack(postgres, async () => {
      expect(await sqlstate(postgres, statement)).toBe("HF003");
      expect(await scalar(postgres, "select closed from backup.maintenance")).toBe("f");
    });
  });

  it("says so where the setting may not be changed, and has changed nothing", async () => {
    const superuser = await session(await installedCluster(), "supabase_admin");
    try {
      await superuser.query(`revoke set on parameter "pgrst.db_pre_request" from postgres`);
      await rolledBack(postgres, async () => {
        await postgres.query("select cron.schedule('app-job', '0 0 * * *', 'select 1')");
        expect(await sqlstate(postgres, "select backup.maintenance_on('x')")).toBe("HF402");
        expect(await scalar(postgres, "select closed from backup.maintenance")).toBe("f");
        expect(await scalar(postgres, "select active from cron.job where jobname = 'app-job'")).toBe("t");
      });
    } finally {
      await superuser.query(`grant set on parameter "pgrst.db_pre_request" to postgres`);
      await superuser.end();
    }
  });

  it("again changes message and end, and keeps since when, by whom and what was there before", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("alter role authenticator set pgrst.db_pre_request = 'public.check'");
      await postgres.query("select backup.maintenance_on('one', null, 'first')");
      const first = JSON.parse(await scalar(postgres, "select backup.maintenance_state()") ?? "null");
      const again = "select backup.maintenance_on('two', now() + interval '1 hour', 'second')";
      const second = JSON.parse(await scalar(postgres, again) ?? "null");
      expect(second).toMatchObject({
        message: "two",
        by: "first",
        since: first.since,
        preRequest: { chained: "public.check" },
      });
      expect(second.until).toMatch(/Z$/);
      expect(await scalar(postgres, "select count(*) from backup.announcements where status = 'in_force'")).toBe("1");
    });
  });

  it("and off is audited, with who", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.maintenance_on('one', null, 'a person'), backup.maintenance_off()");
      const { rows } = await postgres.query(
        "select action, actor, detail ->> 'by' as by from backup.audit_log where action ~ '^maintenance' order by id",
      );
      expect(rows).toEqual([
        { action: "maintenance.closed", actor: "role:postgres", by: "a person" },
        { action: "maintenance.opened", actor: "role:postgres", by: null },
      ]);
    });
  });

  it("by a restore leaves it with the person who had done so; by a person takes it from a restore", async () => {
    const by = async (who: string) =>
      JSON.parse(await scalar(postgres, "select backup.maintenance_on('x', null, $1)", [who]) ?? "null").by;
    await rolledBack(postgres, async () => {
      expect(await by("an operator")).toBe("an operator");
      expect(await by("restore:1")).toBe("an operator");
    });
    await rolledBack(postgres, async () => {
      expect(await by("restore:1")).toBe("restore:1");
      expect(await by("restore:2")).toBe("restore:2");
      expect(await by("an operator")).toBe("an operator");
    });
  });

  it("again may leave an end that has passed as it is", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2031-01-01 00:00+00");
      await postgres.query("select backup.maintenance_on('x', '2031-01-01 01:00:00.25+00')");
      await setClock(postgres, "2031-01-01 02:00+00");
      await postgres.query("select backup.maintenance_on('y', '2031-01-01 01:00:00+00')");
      expect(await sqlstate(postgres, "select backup.maintenance_on('x', '2031-01-01 01:30:00+00')")).toBe("HF003");
    });
  });

  it("off while it is off does nothing", async () => {
    await rolledBack(postgres, async () => {
      const before = await scalar(postgres, "select count(*) from backup.audit_log");
      const outcome = JSON.parse(await scalar(postgres, "select backup.maintenance_off()") ?? "null");
      expect(outcome).toMatchObject({ opened: false, restored: [], left: [] });
      expect(await scalar(postgres, "select count(*) from backup.audit_log")).toBe(before);
    });
  });
});

describe("announcements", () => {
  const seenBy = async (role: string) => {
    await postgres.query(`set local role ${role}`);
    const { rows } = await postgres.query("select message, status from public.backup_announcements order by id");
    await postgres.query("reset role");
    return rows;
  };

  it("are there for people who are not signed in, planned and in force, until they end", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.announce('next week', now() + interval '7 days', now() + interval '8 days')");
      await postgres.query("select backup.announce('now', now() - interval '1 minute')");
      await postgres.query("select backup.maintenance_on('Back at noon')");
      const shown = [{ message: "next week", status: "planned" }, { message: "Back at noon", status: "in_force" }];
      expect(await seenBy("anon")).toEqual(shown);
      expect(await seenBy("authenticated")).toEqual(shown);
      await postgres.query("select backup.maintenance_off()");
      expect(await seenBy("anon")).toEqual([{ message: "next week", status: "planned" }]);
      await postgres.query(
        "select backup.withdraw_announcement(max(id)) from backup.announcements where status = 'planned'",
      );
      expect(await seenBy("anon")).toEqual([]);
    });
  });

  it("are refused with an end before their beginning, and cannot be withdrawn twice", async () => {
    await rolledBack(postgres, async () => {
      expect(await sqlstate(postgres, "select backup.announce('x', now(), now() - interval '1 s')")).toBe("HF003");
      expect(await sqlstate(postgres, "select backup.withdraw_announcement(-1)")).toBe("HF008");
    });
  });
});

describe("the watchdog", () => {
  const alerts = async () =>
    (await postgres.query(
      "select kind, severity from backup.alerts where kind ~ '^maintenance' and status = 'open' order by kind",
    )).rows.map((row) => `${row.kind}: ${row.severity}`);

  it("tells of a window that is past its end, and leaves it closed", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.maintenance_on('x', now() + interval '1 hour')");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("0");
      await setClock(postgres, "2999-01-01 00:00+00");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_overdue: critical"]);
      expect(await request({ method: "POST", path: "/entries" })).toMatchObject({ code: "PT503" });
      await postgres.query(
        "select backup.maintenance_on('x', timestamptz '2999-01-02 00:00+00'), backup.watch_maintenance()",
      );
      expect(await alerts()).toEqual([]);
    });
  });

  it("tells of a project that is closed for hours without an announced end", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2031-01-01 00:00+00");
      await postgres.query("select backup.maintenance_on('x')");
      await setClock(postgres, "2031-01-01 11:59+00");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("0");
      await setClock(postgres, "2031-01-01 12:01+00");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_overdue: critical"]);
      await postgres.query("select backup.maintenance_off()");
      expect(await alerts()).toEqual([]);
    });
  });

  it("tells at once of a project that is closed for a restore that has failed, or gives no sign of life", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2031-01-01 00:00+00");
      const { rows: [restore] } = await postgres.query("select * from backup.begin_restore($1)", [JSON.stringify({
        scope: "full",
        mode: "replace",
        source_backup: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
        target_label: "here",
        lease_seconds: 90,
      })]);
      await postgres.query("select backup.maintenance_on('x', null, $1)", [`restore:${restore.id}`]);
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("0");
      await setClock(postgres, "2031-01-01 00:07+00");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("1");
      await setClock(postgres, "2031-01-01 00:01+00");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("0");
      expect(await alerts()).toEqual([]);
      await postgres.query("select backup.fail_restore($1, $2, $3)", [restore.id, restore.token, "{}"]);
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_overdue: critical"]);
    });
  });

  it("tells of a fence that somebody took away, until it is put back", async () => {
    await closed(async () => {
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("0");
      await postgres.query("alter role authenticator reset pgrst.db_pre_request");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_leaks: critical"]);
      await postgres.query("select backup.maintenance_on('x')");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("0");
      expect(await alerts()).toEqual([]);
    });
  });

  it("tells of a trigger that is gone, which turning it on again makes", async () => {
    await closed(async () => {
      await postgres.query("drop trigger holdfast_maintenance on storage.objects");
      expect(await scalar(postgres, "select backup.watch_maintenance()")).toBe("1");
      expect(await alerts()).toEqual(["maintenance_leaks: critical"]);
      expect(await scalar(postgres, "select backup.maintenance_on('x') ->> 'files'")).toBe("fenced");
    });
  });

  it("ends planned windows that passed, in its turn each minute", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.announce('x', now() + interval '1 hour')");
      await setClock(postgres, "2999-01-01 00:00+00");
      const outcome = JSON.parse(await scalar(postgres, "select backup.tick()") ?? "null");
      expect(outcome.skipped === true || outcome.watch_maintenance === 0).toBe(true);
      await postgres.query("select backup.watch_maintenance()");
      expect(await scalar(postgres, "select count(*) from backup.announcements where status = 'planned'")).toBe("0");
    });
  });
});
