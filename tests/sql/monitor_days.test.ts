/** A thousand ordinary days (in `npm test` 300) without a false alarm, on a server of their own: the clock of schema `backup` is a setting there. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Cluster, startCluster } from "../../src/local/postgres.ts";
import { isLong } from "../support/sampled.ts";
import { scalar, session } from "./cluster.ts";

let cluster: Cluster;
let postgres: pg.Client;

beforeAll(async () => {
  cluster = await startCluster({ version: 15, platform: true, prepared: "installed", durable: false });
  postgres = await session(cluster);
  const admin = await session(cluster, "supabase_admin");
  // Nothing goes by the real clock here.
  await admin.query("alter system set cron.log_run = off");
  await admin.query("update cron.job set command = 'select 1'");
  await admin.end();
  await postgres.query(`
    create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
    as $$ select coalesce(nullif(current_setting('test.clock', true), '')::timestamptz, clock_timestamp()) $$;
    update backup.identity set installed_at = '2031-05-01';
    update backup.schedules set enabled_since = '2031-05-01';
    update backup.settings set value = '999999999999' where name = 'primary_quota_bytes';
    create table public.lines (day integer, line text);

    -- A day: a backup that is looked at while it runs, and once it is done. Normal noise of 15 %, growth of 0.5 ‰ a day.
    create procedure public.days(first integer, last integer, factor double precision) language plpgsql as $$
    declare
      due timestamptz;
      took interval;
      noise double precision;
      run uuid;
    begin
      for day in first..last loop
        due := timestamptz '2031-05-02 00:00+00' + day * interval '1 day';
        noise := (select sum(random()) - 6 from generate_series(1, 12));
        took := 1200 * exp(day * 0.0005 + 0.15 * noise) * factor * interval '1 second';
        perform set_config('test.clock', (due + took * 0.9)::text, false);
        update backup.pulse set ticked_at = due + took * 0.9;
        insert into backup.job_runs (schedule, started_at, succeeded_at) select name, due + took * 0.9, due + took * 0.9 from backup.schedules
        on conflict (schedule) do update set started_at = excluded.started_at, succeeded_at = excluded.succeeded_at;
        insert into backup.runs (kind, tiers, status, origin, created_at, started_at, heartbeat_at, attempt)
        values ('full', case when extract(dow from due) = 0 then '{daily,weekly}'::text[] else '{daily}' end, 'copying', 'schedule',
          due + random() * interval '5 seconds', due + interval '5 seconds', due + took, 1)
        returning id into run;
        -- the very first day has no backup yet
        if day > 0 then
          insert into public.lines values (day, backup.look() ->> 'line');
        end if;
        commit;
        perform set_config('test.clock', (due + took)::text, false);
        update backup.pulse set ticked_at = due + took;
        update backup.runs set status = 'succeeded', consistent_at = due + interval '6 seconds', finished_at = due + took, verified_at = due + took,
          manifest_name = 'm' || run, manifest_hash = 'h', rows = 1000000 * exp(day * 0.0005 + 0.02 * noise), new_stored_bytes = 5000000 * exp(0.3 * noise)
        where id = run;
        insert into backup.objects (name, kind, raw_bytes, stored_bytes, hash, stored_hash)
        values ('o' || run, 'chunk', 1, 5000000 * exp(0.3 * noise), 'h', 's');
        insert into public.lines values (day, backup.look() ->> 'line');
        commit;
      end loop;
    end $$;
  `);
}, 240_000);
afterAll(async () => {
  await postgres?.end();
  await cluster?.destroy();
}, 60_000);

const days = async (first: number, last: number, factor: number) => {
  await postgres.query(`call public.days(${first}, ${last}, ${factor})`);
  return (await postgres.query("select day, line from public.lines where day between $1 and $2", [first, last])).rows;
};
const opened = () => scalar(postgres, "select count(*) from backup.alerts where opened_at >= '2031-05-01'");

const many = isLong ? 1_000 : 300;

describe(`${many} ordinary days`, () => {
  it("open no alert, with backups that grow and take now more, now less time", async () => {
    await postgres.query("select setseed(0.42)");
    const lines = await days(0, many - 1, 1);
    expect(lines).toHaveLength(2 * many - 1);
    expect(lines.filter(({ line }) => !line.startsWith("ok: "))).toEqual([]);
    expect(await opened()).toBe("0");
  }, 180_000);

  it("and the next one does, with a backup that takes three times as long for no reason that is on record", async () => {
    const lines = await days(many, many, 3);
    expect(lines.map(({ line }) => line)).toEqual([
      expect.stringMatching(
        /^warning: the newest daily backup has been under way for .* the store or the database was slow/,
      ),
      expect.stringMatching(/^warning: the newest daily backup took .* the store or the database was slow/),
    ]);
    expect(await opened()).toBe("1");
  });
});
