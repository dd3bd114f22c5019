import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { loadCorpus } from "../corpus/load.ts";
import { clusterMs, freshDatabase, query, startTestCluster, withClient } from "../support/cluster.ts";
import { seeded } from "../support/sample_app/words.ts";
import {
  ask,
  differences,
  dumpedDefinitions,
  Ground,
  inParts,
  type Place,
  remember,
  restoredAsItWas,
  restoreInPlace,
} from "./in_place_fixture.ts";
import { randomChange, subjectSql } from "./in_place_subject.ts";

/** The versions of all rows of the catalogs that hold the user's objects: what a restore touched has others. */
function catalogVersions(place: Place): Promise<Record<string, unknown>[]> {
  const catalogs = [
    "pg_class",
    "pg_attribute",
    "pg_proc",
    "pg_policy",
    "pg_trigger",
    "pg_constraint",
    "pg_type",
    "pg_rewrite",
  ];
  const oid = (catalog: string) => catalog === "pg_attribute" ? "attrelid::text || '.' || attnum" : "oid::text";
  return ask(
    place,
    catalogs.map((catalog) =>
      `select '${catalog}' as catalog, ${oid(catalog)} as oid, xmin::text as version from ${catalog}
        where ${catalog === "pg_attribute" ? "attrelid" : "oid"} >= 16384`
    ).join(" union all ") + " order by 1, 2",
  );
}

const seeds = { platform: [11, 12], plain: [21, 22] };

for (const platform of [true, false]) {
  describe(`random changes on ${platform ? "a project, as postgres without special rights" : "plain PostgreSQL 15"}`, () => {
    let ground: Ground;
    beforeAll(async () => {
      ground = await Ground.prepare(platform, subjectSql);
    }, clusterMs);
    afterAll(() => ground?.cluster.destroy(), clusterMs);

    for (const seed of platform ? seeds.platform : seeds.plain) {
      it(`are all undone, and nothing else is left to do: seed ${seed}`, async () => {
        const place = await ground.changed("");
        const dropExtra = seed % 2 === 0;
        const made = await changeAtRandom(place, seed, 25, dropExtra);
        const { first, last, extra } = await restoredAsItWas(place, ground.kept, { dropExtra }).catch((error) => {
          throw new Error(`seed ${seed} after:\n${made.join(";\n")}`, { cause: error });
        });
        expect(first.steps.length).toBeGreaterThan(0);
        expect(last.steps).toEqual([]);
        // What stays besides is what the changes made, and nothing at all where it was to go.
        expect(extra.filter((name) => dropExtra || !/new_|held_/.test(name))).toEqual([]);
      });
    }
  });
}

/** `labels`: also those that leave an enum with more labels than it had, which stay unless extra objects go. */
async function changeAtRandom(place: Place, seed: number, count: number, labels: boolean): Promise<string[]> {
  const chance = seeded(seed);
  const made: string[] = [];
  await withClient(place.cluster.plainUrl("postgres", place.database), async (client) => {
    await client.query("set statement_timeout = '10s'");
    for (let serial = 1; made.length < count && serial < count * 4; serial++) {
      const sql = await randomChange(chance, async (text) => (await client.query(text)).rows, serial);
      if (sql === null || (!labels && /add value|as enum/.test(sql))) continue;
      // Many are refused, as a person's would be.
      const done = await client.query(sql).then(() => true, () => false);
      if (done) made.push(sql);
    }
  });
  return made;
}

describe("definitions of a live project", () => {
  let ground: Ground;
  beforeAll(async () => {
    ground = await Ground.prepare(true, subjectSql);
  }, clusterMs);
  afterAll(() => ground?.cluster.destroy(), clusterMs);

  it("are left alone where nothing differs: no step, no catalog row written", async () => {
    const place = await ground.changed("");
    const before = await catalogVersions(place);
    const { steps, first } = await restoredAsItWas(place, ground.kept);
    expect([steps, first.kept, first.refused]).toEqual([0, [], []]);
    expect(await catalogVersions(place)).toEqual(before);
  });

  it("are touched only where they differ", async () => {
    const place = await ground.changed("");
    const before = await catalogVersions(place);
    await query(
      place.cluster.plainUrl("postgres", place.database),
      "create or replace function shop.doubled(n integer) returns integer language sql immutable as 'select n * 3'; grant delete on shop.lines to anon",
    );
    const { steps } = await restoredAsItWas(place, ground.kept);
    expect(steps).toBe(2);
    const key = (row: Record<string, unknown>) => `${row["catalog"]} ${row["oid"]}`;
    const versions = new Map(before.map((row) => [key(row), row["version"]]));
    const touched = (await catalogVersions(place)).filter((row) => versions.get(key(row)) !== row["version"]);
    const [ids] = await ask(
      place,
      "select 'shop.lines'::regclass::oid::text as t, 'shop.doubled'::regproc::oid::text as f",
    );
    expect(touched.map(key).sort()).toEqual([`pg_class ${ids?.["t"]}`, `pg_proc ${ids?.["f"]}`]);
  });

  it("come back by renaming where only a name changed: the table is not written anew", async () => {
    const place = await ground.changed(`
      alter table shop.orders rename column comment to remark; alter table shop.orders rename to purchases;
      alter table shop.purchases set schema public; alter table shop.visits rename column who to visitor`);
    const file = async (name: string) =>
      (await ask(place, `select pg_relation_filenode('${name}') as f, (select sum(id) from ${name}) as s`))[0];
    const before = await file("public.purchases");
    const { first } = await restoredAsItWas(place, ground.kept);
    expect(first.steps.map((step) => step.action)).toEqual(["alter", "alter", "alter"]);
    expect(await file("shop.orders")).toEqual(before);
  });

  it("that came after the backup stay where they stand alone, rows and all, and go only when asked", async () => {
    const changes =
      `create table shop.fresh (id integer primary key, c bigint references shop.customers); insert into shop.fresh values (1, 1);
      create view shop.fresh_view as select * from shop.fresh; alter table shop.customers add column fresh text default 'x'`;
    const stays = await ground.changed(changes);
    const { last } = await restoredAsItWas(stays, ground.kept);
    expect(last.kept.map((note) => note.identity)).toEqual(["table shop.fresh", "view shop.fresh_view"]);
    expect(await ask(stays, "select * from shop.fresh_view")).toEqual([{ id: 1, c: "1" }]);
    const goes = await ground.changed(changes);
    const { extra } = await restoredAsItWas(goes, ground.kept, { dropExtra: true });
    expect(extra).toEqual([]);
  });

  it("say what goes with a column that came after the backup, before anything is done", async () => {
    const place = await ground.changed(
      "alter table shop.customers add column fresh text; create view shop.fresh as select fresh from shop.customers",
    );
    const { first } = await restoredAsItWas(place, ground.kept);
    expect(first.steps.map(({ key, reason }) => `${key}: ${reason}`)).toEqual([
      "before drop view shop.fresh: it uses a column of table shop.customers that came after the backup; it is made again if it still can",
      "before alter table shop.customers: its definition differs; columns that came after the backup go with their values: fresh",
    ]);
  });

  it("are refused as a whole where rows could be lost: a new table has the name that is needed", async () => {
    const place = await ground.changed(`drop view shop.open_orders cascade; create table shop.open_orders (id integer);
      insert into shop.open_orders values (1); alter table shop.log add column fresh text`);
    const before = dumpedDefinitions(place);
    const refusal = await restoreInPlace(place, ground.kept).then(() => null, (error) => error);
    expect(refusal).toBeInstanceOf(HoldfastError);
    expect(refusal).toMatchObject({ code: "definitions_stuck" });
    expect(refusal.message).toBe("table shop.open_orders: it has the name that view shop.open_orders needs");
    expect(differences(before, dumpedDefinitions(place))).toEqual({ changed: [], extra: [] });
  });

  it("keep an enum's new label and say so; when extra objects go, the columns are converted", async () => {
    const changes = "alter type shop.status add value 'lost'";
    const stays = await ground.changed(changes);
    const { last, steps } = await restoreInPlace(stays, ground.kept);
    expect([steps, last.kept]).toEqual([0, [{
      identity: "type shop.status",
      kind: "enum",
      action: "keep",
      reason: "a label came after the backup and stays: PostgreSQL takes none back",
    }]]);
    const goes = await ground.changed(changes);
    await ask(goes, "update shop.orders set status = 'lost' where id = 100");
    const { emptied, extra } = await restoredAsItWas(goes, ground.kept, { dropExtra: true });
    expect([emptied, extra]).toEqual([["shop.orders"], []]);
    expect(await ask(goes, "select count(*)::int as n from shop.orders")).toEqual([{ n: 60 }]);
  });

  it("give no grants in between: neither to new objects nor past a restrictive policy", async () => {
    const place = await ground.changed(`alter default privileges in schema shop grant all on tables to anon;
      drop table shop.lines; drop policy never_sent on shop.orders; drop function shop.is_town(text) cascade;
      create policy never_sent on shop.orders as restrictive for select using (status <> 'sent'::shop.status and made is not null);
      create policy all_seen on shop.orders for select using (true); alter type shop.status add value 'lost'`);
    const parts = await inParts(place, ground.kept, { dropExtra: true });
    await parts.before();
    expect(await ask(place, "select has_table_privilege('anon', 'shop.lines', 'select') as may")).toEqual([{
      may: false,
    }]);
    const seen = () =>
      query(
        place.cluster.plainUrl("postgres", place.database),
        "set role authenticated; select count(*)::int as n from shop.orders",
      );
    expect(await seen()).toEqual([{ n: 0 }]);
    await parts.rows();
    await parts.after();
    expect(differences(ground.kept.dump, dumpedDefinitions(place))).toEqual({ changed: [], extra: [] });
    await parts.close();
  });

  it("end as they should when the restore is stopped after every single step and begun again", async () => {
    const place = await ground.changed(`alter table shop.log rename to history; drop view shop.open_names;
      drop policy own on shop.customers; drop table shop.lines; alter type shop.size rename value 's' to 'x';
      alter type shop.size rename value 'm' to 's'; alter type shop.size rename value 'x' to 'm'`);
    const parts = await inParts(place, ground.kept);
    const untilDone = async (part: "before" | "after") => {
      let stops = 0;
      while (await parts.stoppedAfterOneStep(part)) stops++;
      return stops;
    };
    const before = await untilDone("before");
    await parts.rows();
    const after = await untilDone("after");
    expect(Math.min(before, after)).toBeGreaterThan(2);
    expect(differences(ground.kept.dump, dumpedDefinitions(place))).toEqual({ changed: [], extra: [] });
    await parts.close();
  });

  it("wait for a lock no longer than they are told, name what they wanted, and go on when called again", async () => {
    const place = await ground.changed(
      "alter table shop.log add column fresh text; alter table shop.lines add column fresh text",
    );
    await withClient(place.cluster.plainUrl("postgres", place.database), async (holder) => {
      await holder.query("begin; lock table shop.log in access share mode");
      const refusal = await restoreInPlace(place, ground.kept).then(() => null, (error) => error);
      expect(refusal).toMatchObject({ code: "lock_timeout", retry: "backoff" });
      expect(refusal.message).toContain("alter table shop.log");
      await holder.query("rollback");
    });
    await restoredAsItWas(place, ground.kept);
  });

  it("refuse what belongs to a role that the restoring one may not act for", async () => {
    const place = await ground.changed("");
    await ask(place, "alter table shop.log owner to supabase_admin; alter table shop.log add column fresh text");
    const refusal = await restoreInPlace(place, ground.kept).then(() => null, (error) => error);
    expect(refusal.message).toBe(
      "table shop.log: it differs, but belongs to supabase_admin, whom postgres may not act for",
    );
  });

  it("never include what is ours or the platform's, even when extra objects go", async () => {
    const place = await ground.changed("");
    await ask(
      place,
      `create schema backup; create table backup.runs (id integer);
       create view public.backup_runs as select * from backup.runs;
       create function backup.fence() returns trigger language plpgsql as 'begin return new; end';
       create trigger fence before insert on shop.orders for each row execute function backup.fence();
       create schema restore_0a1b2c3d; create table restore_0a1b2c3d.orders (id integer);
       alter table auth.users add column fresh text; comment on table storage.objects is 'theirs'`,
    );
    const kept = { ...ground.kept, capture: ground.kept.capture };
    const { first } = await restoreInPlace(place, kept, { dropExtra: true });
    expect(first.steps).toEqual([]);
    expect(first.kept.map((note) => note.identity).sort()).toEqual(["platform auth", "platform storage"]);
    expect(
      await ask(place, "select tgname from pg_trigger where tgrelid = 'shop.orders'::regclass and tgname = 'fence'"),
    )
      .toHaveLength(1);
  });

  it("put back a user's own policies and triggers on the platform's tables, last and one by one", async () => {
    const own = `create function public.on_user() returns trigger language plpgsql as 'begin return new; end';
      create trigger welcome after insert on auth.users for each row execute function public.on_user();
      create policy "own files" on storage.objects for select using (owner_id = 'me')`;
    const database = await freshDatabase(ground.cluster);
    const place = { cluster: ground.cluster, database, role: ground.cluster.superuser };
    await ask(place, own);
    const kept = await remember(place);
    await ask(
      place,
      `drop policy "own files" on storage.objects; create policy "all files" on storage.objects for select using (true);
       drop trigger welcome on auth.users; create trigger welcome after delete on auth.users for each row execute function public.on_user()`,
    );
    const { first } = await restoredAsItWas(place, kept);
    expect(first.steps.map(({ phase, action, identity, statements }) => [phase, action, identity, statements.length]))
      .toEqual([
        ["last", "drop", 'policy "all files" on storage.objects', 1],
        ["last", "replace", "trigger welcome on auth.users", 2],
        ["last", "create", 'policy "own files" on storage.objects', 2],
      ]);
  });

  it("switch jobs of pg_cron and webhooks on again, as they were", async () => {
    const place = { cluster: ground.cluster, database: "postgres", role: "postgres" };
    await query(
      place.cluster.plainUrl("postgres"),
      `create table public.watched (id integer);
       create function public.call() returns trigger language plpgsql as $$ begin perform net.http_post(url := 'http://x.invalid'); return new; end $$;
       create trigger hook after insert on public.watched for each row execute function public.call();
       select cron.schedule('nightly', '0 3 * * *', 'select 1'); select cron.schedule('weekly', '0 3 * * 0', 'select 7')`,
    );
    const kept = await remember(place);
    await query(
      place.cluster.plainUrl("postgres"),
      `drop trigger hook on public.watched; select cron.unschedule('nightly'); select cron.schedule('weekly', '0 4 * * 0', 'select 8')`,
    );
    await restoredAsItWas(place, kept);
    expect(
      await ask(
        place,
        "select jobname, schedule, command, active from cron.job where jobname in ('nightly', 'weekly') order by 1",
      ),
    )
      .toEqual([
        { jobname: "nightly", schedule: "0 3 * * *", command: "select 1", active: true },
        { jobname: "weekly", schedule: "0 3 * * 0", command: "select 7", active: true },
      ]);
    expect(await ask(place, "select tgenabled from pg_trigger where tgname = 'hook'")).toEqual([{ tgenabled: "O" }]);
  });
});

describe("the corpus", () => {
  it("comes back after each of its schemas was dropped, in the same server", async () => {
    const cluster = await startTestCluster();
    try {
      const place = { cluster, database: await freshDatabase(cluster, { platform: false }), role: cluster.superuser };
      await query(cluster.plainUrl(cluster.superuser), `alter database ${place.database} owner to postgres`);
      await loadCorpusInto(place);
      const kept = await remember(place);
      for (const schemas of corpusCases) {
        await ask(place, schemas.map((schema) => `drop schema ${schema} cascade`).join(";"));
        const { last } = await restoredAsItWas(place, kept);
        expect(last.steps).toEqual([]);
      }
    } finally {
      await cluster.destroy();
    }
  }, clusterMs);
});

/** What one case drops takes things of the others along. */
const corpusCases = [
  ["corpus_routines", "corpus_views", "corpus_text"],
  ["corpus_partitions", "corpus_tangled", "corpus_constraints"],
];

async function loadCorpusInto(place: Place): Promise<void> {
  const { openDatabase } = await import("../../src/shared/postgres/pg_connection.ts");
  const open = (role: string) => openDatabase({ url: place.cluster.plainUrl(role, place.database) }).connect("corpus");
  const [postgres, superuser] = await Promise.all([open("postgres"), open(place.cluster.superuser)]);
  try {
    await loadCorpus({ postgres, superuser });
  } finally {
    await Promise.all([postgres.close(), superuser.close()]);
  }
}
