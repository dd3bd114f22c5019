import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const adminId = "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01";
const userId = "6f1c8c7e-2222-4c4e-9c36-5f1f4a1f7a01";
const removedId = "6f1c8c7e-3333-4c4e-9c36-5f1f4a1f7a01";

/** Sessions of Auth by name: of whom, at what level, and what else is so; all but `over` are there. */
const sessions = {
  user: { id: "5e551000-0001-4c4e-9c36-5f1f4a1f7a01", user: userId, aal: "aal2" },
  removed: { id: "5e551000-0002-4c4e-9c36-5f1f4a1f7a01", user: removedId, aal: "aal2" },
  admin: { id: "5e551000-0003-4c4e-9c36-5f1f4a1f7a01", user: adminId, aal: "aal2" },
  lowered: { id: "5e551000-0004-4c4e-9c36-5f1f4a1f7a01", user: adminId, aal: "aal1" },
  over: { id: "5e551000-0005-4c4e-9c36-5f1f4a1f7a01", user: adminId, aal: "aal2" },
  bounded: { id: "5e551000-0006-4c4e-9c36-5f1f4a1f7a01", user: adminId, aal: "aal2", not_after: "2026-01-01" },
  factorless: { id: "5e551000-0007-4c4e-9c36-5f1f4a1f7a01", user: adminId, aal: "aal2", factor: null },
  ofAnotherFactor: { id: "5e551000-0008-4c4e-9c36-5f1f4a1f7a01", user: adminId, aal: "aal2", factor: userId },
} as const;

type Session = keyof typeof sessions;
const signedIn = (session: Session, sub: string = sessions[session].user, aal = "aal2") => ({
  role: "authenticated",
  sub,
  aal,
  session_id: sessions[session].id,
});

const callers = [
  { name: "anon", role: "anon", claims: { role: "anon" } },
  { name: "a user", role: "authenticated", claims: signedIn("user") },
  { name: "an administrator with aal1", role: "authenticated", claims: signedIn("admin", adminId, "aal1") },
  { name: "an administrator with aal2", role: "authenticated", claims: signedIn("admin") },
  { name: "an administrator who was removed", role: "authenticated", claims: signedIn("removed") },
  { name: "service_role", role: "service_role", claims: { role: "service_role" } },
  { name: "an administrator who has signed out", role: "authenticated", claims: signedIn("over") },
  { name: "an administrator whose session was bounded", role: "authenticated", claims: signedIn("bounded") },
  { name: "an administrator whose session is at aal1 again", role: "authenticated", claims: signedIn("lowered") },
  { name: "an administrator whose factor is gone", role: "authenticated", claims: signedIn("factorless") },
  {
    name: "an administrator whose session is by a factor of somebody else",
    role: "authenticated",
    claims: signedIn("ofAnotherFactor"),
  },
  {
    name: "an administrator with the session of a user",
    role: "authenticated",
    claims: signedIn("user", adminId),
  },
] as const;

/** People with a verified factor of the same id, and their sessions. */
async function signIn(): Promise<void> {
  for (const id of [adminId, userId, removedId]) {
    await postgres.query("insert into auth.users (id) values ($1)", [id]);
    await postgres.query(
      `insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at)
       values ($1, $1, 'totp', 'verified', now(), now())`,
      [id],
    );
  }
  for (const [name, session] of Object.entries(sessions)) {
    if (name === "over") continue;
    const { id, user, aal, factor = user, not_after = null } = { factor: undefined, not_after: null, ...session };
    await postgres.query(
      "insert into auth.sessions (id, user_id, aal, factor_id, not_after) values ($1, $2, $3, $4, $5)",
      [id, user, aal, factor, not_after],
    );
  }
}

const operations = ["select", "insert", "update", "delete"] as const;
const views = [
  "public.backup_runs",
  "public.backup_audit",
  "public.backup_alerts",
  "public.backup_findings",
  "public.backup_restores",
  "public.backup_restore_watches",
  "public.backup_downloads",
  "public.backup_exports",
  "public.backup_imports",
  "public.backup_checks",
  "public.backup_check_results",
  "public.backup_erasures",
  "public.backup_guardians",
  "public.backup_incidents",
  "public.backup_incident_events",
  "public.backup_maintenance_log",
  "public.backup_drills",
  "public.backup_drill_calendar",
  "public.backup_channels",
  "public.backup_notices",
  "public.backup_deliveries",
  "public.backup_status",
];
/** The one view for everybody: an app shows the window of maintenance to people who are not signed in. */
const publicView = "public.backup_announcements";
/** The one view without a second factor: for whoever is signed in, what is about themselves. */
const ownView = "public.my_exports";
const denied = "42501";

interface Relation {
  readonly name: string;
  readonly column: string;
}

/**
 * Every table and view of ours, from the catalog: what is in `backup`, and all that postgres has in other schemas of this
 * cluster, where nothing is installed but Holdfast.
 */
async function relations(): Promise<Relation[]> {
  const { rows } = await postgres.query<Relation>(
    `select format('%I.%I', n.nspname, c.relname) as name,
       (select quote_ident(a.attname) from pg_attribute as a where a.attrelid = c.oid order by a.attnum desc limit 1) as column
     from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f') and (n.nspname in ('backup', 'public') or ${ofPostgres("c.relowner")})
     order by 1`,
  );
  return rows;
}

const ofPostgres = (owner: string) =>
  `(${owner} = 'postgres'::regrole and n.nspname not in ('supabase_migrations', 'pg_catalog') and n.nspname !~ '^pg_')`;

function statement(operation: typeof operations[number], { name, column }: Relation): string {
  switch (operation) {
    case "select":
      return `select ${column} from ${name} limit 1`;
    case "insert":
      return `insert into ${name} (${column}) values (default)`;
    case "update":
      return `update ${name} set ${column} = ${column}`;
    case "delete":
      return `delete from ${name}`;
  }
}

/** Within a rolled-back transaction in which each relation that a reader may see has rows. */
async function as<T>(caller: typeof callers[number], work: () => Promise<T>): Promise<T> {
  return await rolledBack(postgres, async () => {
    await signIn();
    await postgres.query("insert into backup.admins (user_id) values ($1), ($2)", [adminId, removedId]);
    await postgres.query("select backup.remove_admin($1)", [removedId]);
    await postgres.query(
      `insert into backup.findings (check_name, kind, subject, severity, message, first_seen, last_seen)
       values ('test', 'test', 'subject', 'info', 'message', now(), now())`,
    );
    await postgres.query("select backup.request_run('full', '{manual}', 'dashboard', null)");
    await postgres.query("select backup.raise_alert('test', 'subject', 'message')");
    await postgres.query("select backup.log_maintenance('test', 'a-person', 'Success')");
    await postgres.query("select backup.request_drill('recovery', 'dashboard')");
    await postgres.query("select backup.begin_restore($1)", [
      { scope: "table", mode: "beside", source_backup: adminId, target_label: "here" },
    ]);
    await postgres.query(
      `insert into backup.restore_watches (restore_id, begun_at, until, counted_at, before)
       select id, started_at, started_at + interval '24 hours', started_at, '{}' from backup.restores`,
    );
    await postgres.query("select backup.begin_download($1)", [
      { backup: adminId, format: "bundle", file_name: "bundle.tar", expires_seconds: 900, lease_seconds: 60 },
    ]);
    await postgres.query(
      "insert into backup.exports (user_id, origin, by_function, actor) values ($1, 'user', true, 'x'), ($2, 'user', true, 'x')",
      [adminId, userId],
    );
    await postgres.query(
      `insert into backup.imports (document, export_id, install_id, user_id, asked_by, expires_at)
       values (repeat('0', 64), gen_random_uuid(), gen_random_uuid(), $1, 'x', backup.clock_now() + interval '1 hour')`,
      [adminId],
    );
    await postgres.query(
      `insert into backup.check_results (run_id, check_name, outcome, message)
       select id, 'clock', 'passed', 'message' from backup.runs limit 1`,
    );
    await postgres.query(
      `select backup.tell_channels('cli', '[{"name": "email", "target": "mail.example.org", "problem": null}]')`,
    );
    await postgres.query("select backup.send_notice('test', 'subject', 'message')");
    await postgres.query("select backup.open_incident('why')");
    await postgres.query("select backup.begin_erasure(gen_random_uuid())");
    await postgres.query(
      `insert into backup.guardian_requests (id, child, guardian, relation, asks, identity_by, said_on, entry, store, recorded_by)
       values (gen_random_uuid(), backup.person_hash('a'), backup.person_hash('b'), 'parent', '{review}', 'video', current_date, 'v1/erasures/x', 's', 'x')`,
    );
    await postgres.query("select set_config('request.jwt.claims', $1, true)", [JSON.stringify(caller.claims)]);
    await postgres.query(`set local role ${caller.role}`);
    return await work();
  });
}

/** Each operation on each relation: what came out, and what has to. */
async function matrix(caller: typeof callers[number]): Promise<{ outcomes: string[]; expected: string[] }> {
  const outcomes: string[] = [];
  const expected: string[] = [];
  const all = await relations();
  await as(caller, async () => {
    for (const relation of all) {
      for (const operation of operations) {
        const state = await sqlstate(postgres, statement(operation, relation));
        outcomes.push(`${operation} ${relation.name}: ${state}`);
        const readable = operation === "select" &&
          ([...views, ownView].includes(relation.name) && caller.role === "authenticated" ||
            relation.name === publicView && caller.role !== "service_role");
        expected.push(`${operation} ${relation.name}: ${readable ? "none" : denied}`);
      }
    }
  });
  expect(outcomes.length).toBe(all.length * operations.length);
  return { outcomes, expected };
}

/** Tables of ours, wherever they are, on which no policy is asked. */
const unprotected = `select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
  where (n.nspname = 'backup' or ${ofPostgres("c.relowner")}) and c.relkind in ('r', 'p') and not c.relrowsecurity`;

describe("every table and view", () => {
  it("is found by the matrix: all that the design names, and the views", async () => {
    const names = (await relations()).map((relation) => relation.name);
    for (
      const table of [
        ...["settings", "policies", "schedules", "runs", "tasks", "objects", "audit_log", "alerts", "admins"],
        ...["restores", "restore_watches", "restore_smokes", "drills", "objectives", "downloads"],
        ...["exports", "export_rows", "export_pieces", "export_files", "imports", "adopted_installs"],
        ...["incidents", "incident_events", "page"],
        ...["checks", "check_results"],
        ...["erasures", "erasure_holds", "departures", "rewriting", "rewritten", "remains", "guardian_requests"],
        ...["second_store", "copies", "copy_needs", "copy_intents", "copy_egress"],
        ...["channels", "notices", "deliveries", "delivery_attempts", "pulse"],
      ]
    ) {
      expect(names).toContain(`backup.${table}`);
    }
    expect(names).toEqual(expect.arrayContaining([...views, publicView, ownView]));
  });

  it.each(callers)("is closed to $name but for what an administrator with aal2 may read", async (caller) => {
    const { outcomes, expected } = await matrix(caller);
    expect(outcomes).toEqual(expected);
  });

  it("would be found open: a new table with the grants that a project gives by default, or without row level security", async () => {
    await postgres.query("create table backup.forgotten (id int)");
    await postgres.query("create table public.forgotten (id int)");
    await postgres.query("grant all on backup.forgotten, public.forgotten to anon, authenticated, service_role");
    await postgres.query("grant usage on schema backup to service_role");
    try {
      const { outcomes, expected } = await matrix(callers[0]);
      const open = outcomes.filter((outcome, at) => outcome !== expected[at]);
      expect(open.map((one) => one.replace(/: .*/, ""))).toEqual(operations.map((one) => `${one} public.forgotten`));
      const [, , , , , service] = callers;
      const byService = await matrix(service);
      expect(byService.outcomes.filter((one, at) => one !== byService.expected[at]).length).toBeGreaterThanOrEqual(8);
      const { rows } = await postgres.query({ text: unprotected, rowMode: "array" });
      expect(rows.flat().sort()).toEqual(["backup.forgotten", "forgotten"]);
    } finally {
      await postgres.query(
        "drop table backup.forgotten, public.forgotten; revoke usage on schema backup from service_role",
      );
    }
  });

  it.each(callers.filter((caller) => caller.role === "authenticated"))(
    "shows rows through the views to $name only if that is an administrator with aal2",
    async (caller) => {
      await as(caller, async () => {
        for (const view of views) {
          const rows = Number(await scalar(postgres, `select count(*) from ${view}`));
          if (caller.name === "an administrator with aal2") expect(rows, view).toBeGreaterThan(0);
          else expect(rows, view).toBe(0);
        }
      });
    },
  );

  it("shows whoever is signed in their own exports, and nobody else's", async () => {
    for (const caller of callers) {
      if (caller.role !== "authenticated") continue;
      const seen = await as(caller, async () => await postgres.query(`select id from ${ownView}`));
      const theirs = await as(
        caller,
        async () => {
          await postgres.query("reset role");
          return await postgres.query("select id from backup.exports where user_id = $1", [caller.claims.sub]);
        },
      );
      const lasts = !/signed out|bounded|with the session of a user/.test(caller.name);
      expect(seen.rows.length, caller.name).toBe(lasts ? theirs.rows.length : 0);
    }
    const seen = await as(callers[1], async () => {
      const { rows } = await postgres.query(`select id from ${ownView}`);
      await postgres.query("reset role");
      const { rows: own } = await postgres.query("select id from backup.exports where user_id = $1", [userId]);
      return { rows, own };
    });
    expect(seen.rows).toEqual(seen.own);
    expect(seen.own).toHaveLength(1);
  });

  it("has row level security, and grants only the columns of the views to nobody but authenticated", async () => {
    expect((await postgres.query(unprotected)).rows).toEqual([]);
    const { rows } = await postgres.query(
      `select c.relname, a.grantee::regrole::text as grantee, a.privilege_type
       from pg_class as c, aclexplode(c.relacl) as a
       where c.relnamespace = 'backup'::regnamespace and a.grantee <> c.relowner
       union all
       select distinct c.relname, a.grantee::regrole::text, 'column ' || a.privilege_type
       from pg_class as c join pg_attribute as t on t.attrelid = c.oid, aclexplode(t.attacl) as a
       where c.relnamespace = 'backup'::regnamespace
       order by 1, 2, 3`,
    );
    const granted = [
      ["alerts", "authenticated"],
      ["announcements", "anon"],
      ["announcements", "authenticated"],
      ["audit_log", "authenticated"],
      ["channels", "authenticated"],
      ["check_results", "authenticated"],
      ["checks", "authenticated"],
      ["deliveries", "authenticated"],
      ["downloads", "authenticated"],
      ["drill_calendar", "authenticated"],
      ["drills", "authenticated"],
      ["erasures", "authenticated"],
      ["exports", "authenticated"],
      ["findings", "authenticated"],
      ["guardian_requests", "authenticated"],
      ["imports", "authenticated"],
      ["incident_events", "authenticated"],
      ["incidents", "authenticated"],
      ["maintenance_log", "authenticated"],
      ["notices", "authenticated"],
      ["restore_watches", "authenticated"],
      ["restores", "authenticated"],
      ["runs", "authenticated"],
      ["standing", "authenticated"],
    ];
    expect(rows).toEqual(granted.map(([relname, grantee]) => ({ relname, grantee, privilege_type: "column SELECT" })));
  });

  it("lies in a schema that nobody else may use", async () => {
    for (const role of ["anon", "authenticated", "service_role", "authenticator", "supabase_auth_admin"]) {
      const usage =
        "select has_schema_privilege($1, 'backup', 'usage') or has_schema_privilege($1, 'backup', 'create')";
      expect(await scalar(postgres, usage, [role]), role).toBe("f");
    }
  });
});

describe("every function of schema backup", () => {
  it("is executable by its owner alone, but for what policies and PostgREST call", async () => {
    const { rows } = await postgres.query(
      `select p.oid::regprocedure::text as function, coalesce(string_agg(case a.grantee when 0 then 'public' else a.grantee::regrole::text end, ','), '') as others
       from pg_proc as p left join lateral (
         select x.grantee from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as x where x.grantee <> p.proowner
       ) as a on true
       where p.pronamespace = 'backup'::regnamespace
       group by 1 having count(a.grantee) > 0 order by 1`,
    );
    expect(rows).toEqual([
      // reached through public.backup_before_request() alone: nobody may name what is in this schema
      { function: "backup.before_request(boolean,text)", others: "public" },
      { function: "backup.call_chained(text)", others: "public" },
      { function: "backup.call_of(text)", others: "public" },
      { function: "backup.gate()", others: "public" },
      { function: "backup.is_admin()", others: "authenticated" },
      // evaluated by policies on the tables of Storage, for whoever reads those
      { function: "backup.own_buckets()", others: "public" },
      { function: "backup.own_person()", others: "authenticated" },
      // through public.backup_probe() alone
      { function: "backup.write_probe()", others: "service_role" },
    ]);
  });

  it("pins its search_path, and runs as its caller unless the list says why not", async () => {
    const definers = [
      // evaluated by policies for callers who may not read backup.admins
      "backup.is_admin()",
      // DDL by any role is logged, and nobody else may write the log
      "backup.after_ddl()",
      "backup.after_drop()",
      "backup.after_rewrite()",
      "backup.after_move()",
      // every role of the API has to learn whether it is closed, and none may read the switch
      "backup.gate()",
      "backup.fence_files()",
      "backup.fence_accounts()",
      // Auth's role deletes users, and may not write here
      "backup.note_departure()",
      // evaluated by policies for callers who may not read the settings
      "backup.own_buckets()",
      // evaluated by a policy for callers who may not read the sessions of Auth
      "backup.own_person()",
      // the write of a probe, which comes as service_role
      "backup.write_probe()",
    ];
    const { rows } = await postgres.query(
      `select p.oid::regprocedure::text as function, p.prosecdef as definer,
              coalesce(p.proconfig, '{}') @> array['search_path=""'] as pinned
       from pg_proc as p where p.pronamespace = 'backup'::regnamespace`,
    );
    const unpinned = [
      // what the project's own pre-request function sets of it would be undone
      "backup.call_chained(text)",
      // it notes the caller's
      "backup.note_session()",
    ];
    expect(rows.filter((row) => row.pinned !== "t").map((row) => row.function).sort()).toEqual(unpinned);
    expect(rows.filter((row) => row.definer === "t").map((row) => row.function).sort()).toEqual(definers.sort());
  });

  it("belongs to postgres, who is no superuser", async () => {
    const others =
      "select count(*) from pg_proc where pronamespace = 'backup'::regnamespace and proowner <> 'postgres'::regrole";
    expect(await scalar(postgres, others)).toBe("0");
    expect(await scalar(postgres, "select rolsuper from pg_roles where rolname = 'postgres'")).toBe("f");
  });
});

/** Functions outside of schema backup that somebody else may call, and why. */
const callable: Readonly<Record<string, readonly string[]>> = {
  // what PostgREST calls before each request of whatever role
  "public.backup_before_request()": ["anon", "authenticated", "service_role"],
  // the write of a probe
  "public.backup_probe()": ["service_role"],
};

describe("every function of ours", () => {
  it.each(["anon", "authenticated", "service_role"])("can be called by %s only where a list says why", async (role) => {
    const { rows } = await postgres.query<{ name: string; call: string; schema: string }>(
      `select p.oid::regprocedure::text as name, n.nspname as schema,
         format('select %s(%s)', format('%I.%I', n.nspname, p.proname), (
           select string_agg(format('null::%s', format_type(t.oid, null)), ', ' order by t.ordinality)
           from unnest(p.proargtypes) with ordinality as t (oid, ordinality)
         )) as call
       from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
       where (n.nspname in ('backup', 'public') or ${ofPostgres("p.proowner")}) and p.prokind = 'f'
         and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
         and not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
       order by 1`,
    );
    expect(rows.length).toBeGreaterThan(100);
    const open: string[] = [];
    await rolledBack(postgres, async () => {
      await postgres.query("set local search_path = ''");
      await postgres.query(`set local role ${role}`);
      for (const { name, schema, call } of rows) {
        const state = await sqlstate(postgres, call);
        if (state !== denied) open.push(name.startsWith(`${schema}.`) ? name : `${schema}.${name}`);
      }
    });
    expect(open).toEqual(Object.keys(callable).filter((name) => callable[name]?.includes(role)));
  });

  it("is in a schema of ours or of the API: no other schema got anything", async () => {
    const { rows } = await postgres.query(
      `select distinct n.nspname from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace where ${
        ofPostgres("p.proowner")
      } order by 1`,
    );
    expect(rows.map(({ nspname }) => nspname)).toEqual(["backup", "public"]);
  });
});

describe("is_admin", () => {
  it("is false for claims that are missing, empty, of nobody, or of no session", async () => {
    await rolledBack(postgres, async () => {
      await signIn();
      await postgres.query("insert into backup.admins (user_id) values ($1)", [adminId]);
      for (
        const claims of [
          "",
          "{}",
          `{"aal": "aal2"}`,
          `{"sub": "not-a-uuid", "aal": "aal2"}`,
          `{"sub": null, "aal": "aal2"}`,
          `{"sub": "${adminId}", "aal": "aal2"}`,
          `{"sub": "${adminId}", "aal": "aal2", "session_id": null}`,
          `{"sub": "${adminId}", "aal": "aal2", "session_id": "' or true --"}`,
          `{"sub": "${adminId}", "aal": "aal2", "session_id": {"id": "${sessions.admin.id}"}}`,
        ]
      ) {
        await postgres.query("select set_config('request.jwt.claims', $1, true)", [claims]);
        expect(await scalar(postgres, "select backup.is_admin()"), claims).toBe("f");
      }
    });
  });

  it("is false once the user was banned or deleted", async () => {
    await as(callers[3], async () => {
      await postgres.query("reset role");
      const truth = () => scalar(postgres, "select backup.is_admin()");
      expect(await truth()).toBe("t");
      for (const column of ["banned_until", "deleted_at"]) {
        await postgres.query(`update auth.users set ${column} = now() + interval '1 hour' where id = $1`, [adminId]);
        expect(await truth(), column).toBe("f");
        await postgres.query(`update auth.users set ${column} = null where id = $1`, [adminId]);
        expect(await truth(), column).toBe("t");
      }
    });
  });

  it("is asked once a query, however many rows there are", async () => {
    await as(callers[3], async () => {
      await postgres.query("reset role");
      await postgres.query("select backup.audit('test.act', 'subject', '{}') from generate_series(1, 100)");
      await postgres.query("set local role authenticated");
      for (const view of views) {
        const { rows } = await postgres.query(`explain (analyze, costs off) select * from ${view}`);
        const plan = rows.map((row) => row["QUERY PLAN"]).join("\n");
        // Anywhere else than in what is done once before the first row it would be done for each of them.
        expect(plan, view).toMatch(/InitPlan 1 \(returns \$0\)\n\s+-> {2}Result \(actual time=\S+ rows=1 loops=1\)/);
        expect(plan, view).not.toContain("is_admin");
      }
    });
  });
});
