-- Sweeping: objects that no manifest and no row names are condemned, and go once they were long enough. Objects are shared by content,
-- and a backup that is under way may be about to share one: docs/decisions/0030-retention.md says why none is lost.
-- Lock order: as of runs, then backup.opened_manifests → backup.manifest_objects → backup.condemned → backup.copies.

-- Manifests that lie in a store, and the lists of files that these name, each opened once: they never change. `complete`: all that it
-- names is entered.
create table backup.opened_manifests (
  name text primary key,
  is_list boolean not null default false,
  complete boolean not null default false
);
comment on table backup.opened_manifests is 'Manifests and lists of files whose objects are known.';

create table backup.manifest_objects (
  manifest text not null references backup.opened_manifests (name) on delete cascade,
  name text not null,
  primary key (manifest, name)
);
comment on table backup.manifest_objects is 'Objects that a manifest in a store names.';
create index manifest_objects_by_name on backup.manifest_objects (name);

-- Status: condemned → deleting → gone with its row. A backup that takes the object over while it is condemned takes the row away.
create table backup.condemned (
  store text not null,
  name text not null,
  status text not null default 'condemned',
  condemned_at timestamptz not null default backup.clock_now(),
  -- the run that condemned it: another one has to look again
  run_id uuid not null,
  -- why the store kept it
  refusal text,
  primary key (store, name),
  constraint status_is_known check (status in ('condemned', 'deleting'))
);
comment on table backup.condemned is 'Objects of a store that nothing needs, until they are removed.';
create index condemned_by_name on backup.condemned (name);

alter table backup.opened_manifests enable row level security;
alter table backup.manifest_objects enable row level security;
alter table backup.condemned enable row level security;
revoke all on table backup.opened_manifests, backup.manifest_objects, backup.condemned from public;

-- What a backup is about to name, already put, adopted or taken over. Condemned ones are saved; HF422 (object_going) for one that is
-- being removed right now: the task is tried again, and finds it gone.
create function backup.rescue_objects(names text[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  going text;
begin
  select c.name into going
  from (
    select x.name, x.status from backup.condemned as x where x.name = any (names) order by x.store, x.name for update
  ) as c
  where c.status = 'deleting'
  limit 1;
  if going is not null then
    raise exception '% is being removed by a sweep', going using errcode = 'HF422';
  end if;
  delete from backup.condemned as c where c.name = any (names);
end
$$;
revoke all on function backup.rescue_objects(text[]) from public;

create index tasks_by_schema_object on backup.tasks ((detail #>> '{schemaObject,record,name}')) where kind = 'manifest';
create index tasks_by_list on backup.tasks ((result #>> '{list,object}')) where kind = 'files';

-- Does a manifest in a store, a backup, or a run that may still become one name it?
create function backup.is_needed(object text) returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  return exists (select from backup.manifest_objects as m where m.name = object)
    or exists (
      select from backup.chunks as c join backup.runs as r on r.id = c.run_id
      where c.object = is_needed.object and r.status not in ('failed', 'cancelled', 'pruned')
    )
    or exists (
      select from backup.runs as r join backup.tasks as t on t.run_id = r.id and t.kind = 'manifest'
      where r.kind = 'full' and r.status not in ('failed', 'cancelled', 'pruned')
        and t.detail #>> '{schemaObject,record,name}' = is_needed.object
    )
    or exists (
      select from backup.file_parts as p join backup.run_files as f on f.copy = p.copy
      where p.object = is_needed.object
    )
    or exists (
      select from backup.runs as r join backup.tasks as t on t.run_id = r.id and t.kind = 'files'
      where r.kind = 'full' and r.status not in ('failed', 'cancelled', 'pruned')
        and t.result #>> '{list,object}' = is_needed.object
    );
end
$$;
revoke all on function backup.is_needed(text) from public;

-- `listed`: every manifest of every store. Those that are gone name nothing any more. Returns those that have to be opened.
create function backup.enter_manifests(task bigint, token bigint, listed text[]) returns table (name text)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  perform backup.pruning(task, token);
  delete from backup.opened_manifests as o where not o.is_list and o.name <> all (listed);
  delete from backup.opened_manifests as o
  where o.is_list and not exists (select from backup.manifest_objects as m where m.name = o.name);
  insert into backup.opened_manifests (name) select l.name from pg_catalog.unnest(listed) as l (name) on conflict do nothing;
  return query select o.name from backup.opened_manifests as o where not o.is_list and not o.complete order by o.name;
end
$$;
revoke all on function backup.enter_manifests(bigint, bigint, text[]) from public;

-- Lists of files that a manifest names, before what it names is complete.
create function backup.enter_lists(task bigint, token bigint, lists text[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.pruning(task, token);
  insert into backup.opened_manifests (name, is_list)
  select l.name, true from pg_catalog.unnest(lists) as l (name) on conflict do nothing;
end
$$;
revoke all on function backup.enter_lists(bigint, bigint, text[]) from public;

-- Those whose parts are not known yet.
create function backup.unopened_lists(task bigint, token bigint) returns table (name text)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
begin
  perform backup.pruning(task, token);
  return query select o.name from backup.opened_manifests as o where o.is_list and not o.complete order by o.name;
end
$$;
revoke all on function backup.unopened_lists(bigint, bigint) from public;

-- Objects that a manifest names; with `complete` these were the last of them.
create function backup.enter_manifest(task bigint, token bigint, manifest text, objects text[], complete boolean) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.pruning(task, token);
  insert into backup.manifest_objects (manifest, name)
  select enter_manifest.manifest, o.name from pg_catalog.unnest(objects) as o (name)
  on conflict do nothing;
  if complete then
    update backup.opened_manifests as o set complete = true where o.name = enter_manifest.manifest;
  end if;
end
$$;
revoke all on function backup.enter_manifest(bigint, bigint, text, text[], boolean) from public;

-- What the store holds below a prefix, complete. What nothing needs is condemned; returns what may be removed now: condemned by an
-- earlier run, long enough ago, and still not needed, while no backup is under way that could have planned before it was condemned.
create function backup.sweep_prefix(task bigint, token bigint, store text, prefix text, listed text[])
returns table (name text)
language plpgsql
volatile
set search_path = ''
as $$
#variable_conflict use_column
declare
  run uuid := backup.pruning(task, token);
  moment timestamptz := backup.clock_now();
  grace interval := backup.setting_integer('sweep_grace_hours') * interval '1 hour';
begin
  if exists (select from backup.opened_manifests as o where not o.complete)
    or not exists (select from backup.opened_manifests as o)
  then
    raise exception 'manifests are not opened yet: what they name is not known' using errcode = 'HF415';
  end if;
  delete from backup.condemned as c
  where c.store = sweep_prefix.store and pg_catalog.starts_with(c.name, sweep_prefix.prefix)
    and (c.name <> all (listed) or (c.status = 'condemned' and backup.is_needed(c.name)));
  insert into backup.condemned (store, name, run_id)
  select sweep_prefix.store, l.name, run
  from pg_catalog.unnest(listed) as l (name)
  where pg_catalog.starts_with(l.name, sweep_prefix.prefix) and not backup.is_needed(l.name)
  on conflict do nothing;
  -- of a clock that was moved back since
  update backup.condemned as c set condemned_at = moment
  where c.store = sweep_prefix.store and pg_catalog.starts_with(c.name, sweep_prefix.prefix) and c.condemned_at > moment;
  if not exists (
    select from backup.runs as r where r.kind = 'full' and r.status in ('queued', 'snapshotting', 'copying', 'finishing')
  ) then
    update backup.condemned as c set status = 'deleting'
    where c.store = sweep_prefix.store and pg_catalog.starts_with(c.name, sweep_prefix.prefix) and c.status = 'condemned'
      and c.run_id <> run and c.condemned_at <= moment - grace and not backup.is_needed(c.name);
  end if;
  -- a replication that needs it once more copies it again
  delete from backup.copies as o
  using backup.condemned as c
  where o.store = sweep_prefix.store and o.name = c.name and c.store = o.store and c.status = 'deleting'
    and pg_catalog.starts_with(c.name, sweep_prefix.prefix);
  return query
    select c.name from backup.condemned as c
    where c.store = sweep_prefix.store and pg_catalog.starts_with(c.name, sweep_prefix.prefix) and c.status = 'deleting'
    order by c.name;
end
$$;
revoke all on function backup.sweep_prefix(bigint, bigint, text, text, text[]) from public;

-- `gone`: it was looked that the store has them no more. `kept`: [{name, why}]: they can be taken over again, and are tried again.
create function backup.record_swept(task bigint, token bigint, store text, gone text[], kept jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.pruning(task, token);
begin
  delete from backup.condemned as c where c.store = record_swept.store and c.name = any (gone);
  if record_swept.store is distinct from (select s.label from backup.second_store as s) then
    perform backup.forget_copied_files(gone);
  end if;
  update backup.condemned as c set status = 'condemned', refusal = pg_catalog.left(k.why, 500), run_id = run
  from pg_catalog.jsonb_to_recordset(kept) as k (name text, why text)
  where c.store = record_swept.store and c.name = k.name;
  delete from backup.objects as o
  where o.name = any (gone) and record_swept.store is distinct from (select s.label from backup.second_store as s);
  update backup.runs as r set rows = r.rows + pg_catalog.cardinality(gone) where r.id = run;
end
$$;
revoke all on function backup.record_swept(bigint, bigint, text, text[], jsonb) from public;
