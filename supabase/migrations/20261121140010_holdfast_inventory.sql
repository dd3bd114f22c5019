-- What each store holds, as it was listed, and when each object was last opened: so that all of them are opened within 30 days, a share a
-- day, the longest unopened first. Lock order: as in 140000.

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('open_within_days', 'integer', '30', 4, 365, 'within so many days the daily verification opens every object of every store');

create table backup.inventory (
  -- address without credentials
  store text not null,
  name text not null,
  bytes bigint not null,
  -- null: it was not opened since it was first listed
  opened_at timestamptz,
  -- what comes next: when it was opened, or first listed; -infinity: at once
  looked_at timestamptz not null default backup.clock_now(),
  -- what was wrong with it when it was opened last: {code, message}
  damage jsonb,
  primary key (store, name)
);
comment on table backup.inventory is 'What each store holds, as listed, and when each object was last opened.';
create index inventory_by_age on backup.inventory (store, looked_at, name);
create index inventory_damaged on backup.inventory (name) where damage is not null;
alter table backup.inventory enable row level security;
revoke all on table backup.inventory from public;

-- Names below a prefix that were recorded as being in a store before that moment, and that something needs. A backup of the CLI may
-- lie in another store: of it nothing is expected before its manifest is listed. The comparisons let an index find the prefix; no name
-- goes on with zz behind one.
create function backup.expected_names(store text, is_second boolean, prefix text, before timestamptz) returns setof text
language plpgsql
stable
set search_path = ''
as $$
declare
  place text := (select i.store_prefix from backup.identity as i);
  past constant text := prefix || 'zz';
begin
  if is_second then
    return query
      select c.name from backup.copies as c
      where c.store = expected_names.store and c.status = 'stored' and c.copied_at < before
        and c.name >= prefix and c.name < past and pg_catalog.starts_with(c.name, prefix);
    return;
  end if;
  return query
    with backups as (
      select r.id, r.epoch from backup.runs as r
      join backup.inventory as i on i.store = expected_names.store and i.name = r.manifest_name
      where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.store_prefix = place and r.finished_at < before
    ),
    segments as (
      select g.name, g.epoch from backup.segments as g join backup.chains as c on c.id = g.chain_id and c.store_prefix = place
      -- behind a gap of its chain: that one is gone was told
      where g.recorded_at < before
        and not exists (select from backup.gaps as x where x.chain_id = g.chain_id and x.from_lsn < g.end_lsn)
    ),
    expected (name) as (
      select r.manifest_name from backup.runs as r
      where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.store_prefix = place and r.finished_at < before
        and r.origin <> 'cli'
      union
      select g.name from segments as g
      union
      select l.name from backup.file_lists as l join backup.chains as c on c.id = l.chain_id and c.store_prefix = place
      where l.recorded_at < before
        and not exists (select from backup.gaps as x where x.chain_id = l.chain_id and x.from_lsn < l.lsn)
      union
      select 'v1/keys/' || e.epoch || '.jwe.json' from (select b.epoch from backups as b union select g.epoch from segments as g) as e
      union
      select a.object_name from backup.audit_anchors as a where a.store = expected_names.store and a.anchored_at < before
      union
      select c.object from backup.chunks as c join backups as b on b.id = c.run_id
      where c.object >= prefix and c.object < past
      union
      select t.detail #>> '{schemaObject,record,name}' from backup.tasks as t join backups as b on b.id = t.run_id
      where t.kind = 'manifest'
      union
      select t.result #>> '{list,object}' from backup.tasks as t join backups as b on b.id = t.run_id
      where t.kind = 'files'
      union
      select m.name from backup.manifest_objects as m
      join backup.inventory as i on i.store = expected_names.store and i.name = m.manifest
      where m.name >= prefix and m.name < past
    )
    select e.name from expected as e where pg_catalog.starts_with(e.name, prefix);
end
$$;
revoke all on function backup.expected_names(text, boolean, text, timestamptz) from public;

-- A verification begins with these stores; what is known of others is of no use any more.
create function backup.begin_listing(task bigint, token bigint, stores text[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.checking(task, token);
  delete from backup.inventory as i where i.store <> all (stores);
end
$$;
revoke all on function backup.begin_listing(bigint, bigint, text[]) from public;

-- What the store lists below a prefix, complete: [{name, bytes}]. What is new, or of another size than was recorded, is entered; what
-- is gone and nothing needs is forgotten. Returns what should be there and was not listed.
create function backup.enter_listed(task bigint, token bigint, store text, is_second boolean, prefix text, listed jsonb)
returns setof text
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.checking(task, token);
  begun timestamptz := (select r.started_at from backup.runs as r where r.id = run);
  past constant text := prefix || 'zz';
  names constant text[] := array(select l.name from pg_catalog.jsonb_to_recordset(listed) as l (name text));
  expected constant text[] := array(select e.name from backup.expected_names(store, is_second, prefix, begun) as e (name));
  missing text[];
begin
  missing := array(
    select e.name from pg_catalog.unnest(expected) as e (name) except select n.name from pg_catalog.unnest(names) as n (name)
  );
  delete from backup.inventory as i
  where i.store = enter_listed.store and i.name >= prefix and i.name < past and pg_catalog.starts_with(i.name, prefix)
    and not exists (select from pg_catalog.unnest(names) as n (name) where n.name = i.name)
    and not exists (select from pg_catalog.unnest(missing) as m (name) where m.name = i.name);
  insert into backup.inventory as i (store, name, bytes, looked_at)
  select enter_listed.store, l.name, l.bytes,
    case when l.bytes <> coalesce(
      case when is_second
        then (select c.second_bytes from backup.copies as c where c.store = enter_listed.store and c.name = l.name and c.status = 'stored')
        else coalesce(
          (select o.stored_bytes from backup.objects as o where o.name = l.name),
          (select g.stored_bytes from backup.segments as g where g.name = l.name),
          (select f.stored_bytes from backup.file_lists as f where f.name = l.name)
        )
      end, l.bytes
    ) then '-infinity' else backup.clock_now() end
  from pg_catalog.jsonb_to_recordset(listed) as l (name text, bytes bigint)
  where not exists (
    select from backup.inventory as known where known.store = enter_listed.store and known.name = l.name and known.bytes = l.bytes
  )
  on conflict on constraint inventory_pkey do update set bytes = excluded.bytes, looked_at = '-infinity';
  return query select m.name from pg_catalog.unnest(missing) as m (name) order by m.name;
end
$$;
revoke all on function backup.enter_listed(bigint, bigint, text, boolean, text, jsonb) from public;

-- Those of the names that should still be in the store: retention may have been there since. The others are forgotten.
create function backup.still_expected(task bigint, token bigint, store text, is_second boolean, names text[]) returns setof text
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  left_over text[];
begin
  perform backup.checking(task, token);
  left_over := array(
    select n.name from pg_catalog.unnest(names) as n (name)
    where exists (select from backup.expected_names(store, is_second, n.name, moment) as e (name) where e.name = n.name)
  );
  delete from backup.inventory as i
  where i.store = still_expected.store and i.name = any (names) and i.name <> all (left_over);
  return query select l.name from pg_catalog.unnest(left_over) as l (name);
end
$$;
revoke all on function backup.still_expected(bigint, bigint, text, boolean, text[]) from public;

-- Manifests that lie in a store, behind a name, with the hash of the sealed bytes where it was recorded.
create function backup.next_manifests(task bigint, token bigint, store text, is_second boolean, behind text, at_most integer)
returns table (name text, stored_hash text)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  perform backup.checking(task, token);
  return query
    select i.name, case when is_second
      then (select c.second_hash from backup.copies as c where c.store = i.store and c.name = i.name and c.status = 'stored')
      else (select r.manifest_hash from backup.runs as r where r.kind = 'full' and r.manifest_name = i.name and r.status in ('succeeded', 'quarantined'))
    end
    from backup.inventory as i
    where i.store = next_manifests.store and i.name > greatest(behind, 'v1/backups/') and i.name < 'v1/backups/zz'
      and pg_catalog.starts_with(i.name, 'v1/backups/')
    order by i.name
    limit at_most;
end
$$;
revoke all on function backup.next_manifests(bigint, bigint, text, boolean, text, integer) from public;

-- How many objects a store holds that are opened by turns, and how many of them today: an even share with two days to spare, and all
-- that would be too old tomorrow. What was damaged is looked at again at once, and what is of a clock that was moved back since.
create function backup.sample_share(task bigint, token bigint, store text) returns table (objects bigint, share bigint)
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  days bigint := backup.setting_integer('open_within_days');
begin
  perform backup.checking(task, token);
  update backup.inventory as i set looked_at = '-infinity'
  where i.store = sample_share.store and (i.damage is not null or i.looked_at > moment);
  return query
    select count(*), greatest(
      pg_catalog.ceil(count(*)::numeric / (days - 2))::bigint,
      count(*) filter (where i.looked_at < moment - (days - 1) * interval '1 day')
    )
    from backup.inventory as i
    where i.store = sample_share.store and not pg_catalog.starts_with(i.name, 'v1/backups/');
end
$$;
revoke all on function backup.sample_share(bigint, bigint, text) from public;

-- What is opened next, the longest unopened first, nothing twice in a run; with the hash of the sealed bytes where it was recorded. Left
-- out: what is too large for whoever asks, what a sweep is about to remove, what lies in the second store without a record.
create function backup.next_objects(task bigint, token bigint, store text, is_second boolean, most_bytes bigint, at_most integer)
returns table (name text, bytes bigint, stored_hash text)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  run uuid := backup.checking(task, token);
  begun timestamptz := (select r.started_at from backup.runs as r where r.id = run);
begin
  if is_second then
    return query
      select i.name, i.bytes, c.second_hash
      from backup.inventory as i
      join backup.copies as c on c.store = i.store and c.name = i.name and c.status = 'stored'
      where i.store = next_objects.store and i.looked_at < begun and i.bytes <= most_bytes and not pg_catalog.starts_with(i.name, 'v1/backups/')
        and not exists (select from backup.condemned as x where x.store = i.store and x.name = i.name)
      order by i.looked_at, i.name
      limit at_most;
    return;
  end if;
  return query
    select i.name, i.bytes, coalesce(
      (select o.stored_hash from backup.objects as o where o.name = i.name),
      (select g.stored_hash from backup.segments as g where g.name = i.name),
      (select f.stored_hash from backup.file_lists as f where f.name = i.name)
    )
    from backup.inventory as i
    where i.store = next_objects.store and i.looked_at < begun and i.bytes <= most_bytes and not pg_catalog.starts_with(i.name, 'v1/backups/')
      and not exists (select from backup.condemned as x where x.store = i.store and x.name = i.name)
    order by i.looked_at, i.name
    limit at_most;
end
$$;
revoke all on function backup.next_objects(bigint, bigint, text, boolean, bigint, integer) from public;

-- Opened, and sound.
create function backup.record_opened(task bigint, token bigint, store text, names text[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
begin
  perform backup.checking(task, token);
  update backup.inventory as i set opened_at = moment, looked_at = moment, damage = null
  where i.store = record_opened.store and i.name = any (names);
end
$$;
revoke all on function backup.record_opened(bigint, bigint, text, text[]) from public;

-- Damaged, or gone: [{object, code, message}]. In the second store it is missing from now on, so that it is copied anew. In the first
-- one every backup that needs it is no longer verified, with an alert: retention removes nothing on the strength of such a one, and
-- no later backup takes the object over.
create function backup.record_damage(task bigint, token bigint, store text, is_second boolean, problems jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  -- say of whoever verifies what it lacks, and nothing of the object
  ours constant text[] := array['key_wrong', 'format_newer'];
begin
  perform backup.checking(task, token);
  update backup.inventory as i
  set opened_at = moment, looked_at = moment, damage = pg_catalog.jsonb_build_object('code', f.code, 'message', pg_catalog.left(f.message, 500))
  from pg_catalog.jsonb_to_recordset(problems) as f (object text, code text, message text)
  where i.store = record_damage.store and i.name = f.object;
  if is_second then
    if backup.lose_copies(store, array(
      select f.object from pg_catalog.jsonb_to_recordset(problems) as f (object text, code text) where f.code <> all (ours)
    )) > 0 then
      perform backup.ask_for_copies();
    end if;
    return;
  end if;
  perform backup.record_verification(b.id, b.of_it)
  from (
    select r.id, pg_catalog.jsonb_agg(pg_catalog.to_jsonb(f) order by f.object) as of_it
    from pg_catalog.jsonb_to_recordset(problems) as f (object text, code text, message text)
    join backup.runs as r on r.kind = 'full' and r.status in ('succeeded', 'quarantined') and (
      r.manifest_name = f.object or f.object = 'v1/keys/' || r.epoch || '.jwe.json'
      or exists (select from backup.chunks as c where c.run_id = r.id and c.object = f.object)
      or exists (
        select from backup.manifest_objects as m
        left join backup.manifest_objects as p on p.manifest = m.name and p.name = f.object
        where m.manifest = r.manifest_name and (m.name = f.object or p.name is not null)
      )
      or exists (
        select from backup.tasks as t
        where t.run_id = r.id and (
          (t.kind = 'manifest' and t.detail #>> '{schemaObject,record,name}' = f.object)
          or (t.kind = 'files' and t.result #>> '{list,object}' = f.object)
        )
      )
    )
    where f.code <> all (ours)
    group by r.id
  ) as b;
end
$$;
revoke all on function backup.record_damage(bigint, bigint, text, boolean, jsonb) from public;

-- How a store stands, as evidence. `unrecorded`: in the second store, without a record of what was put. `tooLarge`: of more than
-- most_bytes, for which whoever asks has no room; `tooLargeWaiting`: of these, half of the days are over, or something is wrong with
-- them, and somebody with more room has to come.
create function backup.opened_standing(store text, is_second boolean, most_bytes bigint) returns jsonb
language sql
volatile
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'store', opened_standing.store,
    'objects', count(*),
    'neverOpened', count(*) filter (where i.opened_at is null),
    'oldestOpenedAt', pg_catalog.to_char(min(i.opened_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'overdue', count(*) filter (
      where i.looked_at < backup.clock_now() - backup.setting_integer('open_within_days') * interval '1 day'
        and not exists (select from backup.condemned as x where x.store = i.store and x.name = i.name)
        and (not is_second or exists (select from backup.copies as c where c.store = i.store and c.name = i.name and c.status = 'stored'))
    ),
    'unrecorded', count(*) filter (
      where is_second and not exists (select from backup.copies as c where c.store = i.store and c.name = i.name)
    ),
    'tooLarge', count(*) filter (where i.bytes > most_bytes),
    'tooLargeWaiting', count(*) filter (
      where i.bytes > most_bytes and i.looked_at < backup.clock_now() - backup.setting_integer('open_within_days') * interval '12 hours'
        and not exists (select from backup.condemned as x where x.store = i.store and x.name = i.name)
        and (not is_second or exists (select from backup.copies as c where c.store = i.store and c.name = i.name and c.status = 'stored'))
    ),
    'tooLargeFirst', coalesce((
      select pg_catalog.jsonb_agg(l.name order by l.looked_at, l.name)
      from (
        select x.name, x.looked_at from backup.inventory as x
        where x.store = opened_standing.store and x.bytes > most_bytes and not pg_catalog.starts_with(x.name, 'v1/backups/')
        order by x.looked_at, x.name limit 20
      ) as l
    ), '[]'),
    'damaged', count(*) filter (where i.damage is not null),
    'damagedFirst', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('object', d.name) || d.damage)
      from (
        select x.name, x.damage from backup.inventory as x
        where x.store = opened_standing.store and x.damage is not null and not pg_catalog.starts_with(x.name, 'v1/backups/')
        -- what could not be opened for want of its key stands behind the key
        order by x.damage ->> 'code' in ('key_wrong', 'format_newer'), x.name limit 20
      ) as d
    ), '[]')
  )
  from backup.inventory as i
  where i.store = opened_standing.store and not pg_catalog.starts_with(i.name, 'v1/backups/')
$$;
revoke all on function backup.opened_standing(text, boolean, bigint) from public;

-- Backups on record below another prefix than this database writes to, by prefix: written before it was noticed to be a copy, or before it
-- took the original's place. Nobody lists what lies there from here.
create function backup.backups_elsewhere() returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('prefix', e.store_prefix, 'backups', e.backups) order by e.store_prefix), '[]')
  from (
    select r.store_prefix, count(*) as backups
    from backup.runs as r
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.store_prefix <> (select i.store_prefix from backup.identity as i)
    group by r.store_prefix
  ) as e
$$;
revoke all on function backup.backups_elsewhere() from public;
