-- The second store: what stands there, what is missing there, and the run of kind `replicate` that puts it there. Objects go
-- first and a manifest last, segments in the order of their chain, so that what stands in the second store can be restored
-- at every moment. docs/decisions/0025-copies.md says why it is so.
-- Lock order: backup.runs → backup.tasks → backup.second_store → backup.copies → backup.copy_needs → backup.copy_intents.

alter table backup.runs add constraint replicate_has_no_tier check (kind <> 'replicate' or cardinality(tiers) = 0);
create unique index runs_one_active_replicate on backup.runs (kind)
  where kind = 'replicate' and status in ('queued', 'snapshotting', 'copying', 'finishing');

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('egress_mb_per_day', 'integer', '0', 0, 16777216,
    'MB (2^20 bytes) that may be sent to the second store in a day (UTC), a larger object alone; 0: no limit'),
  ('copies_late_hours', 'integer', '6', 1, 720,
    'how old what the second store lacks may become before an alert is raised');

-- One row: which pair of stores is configured, as the functions tell it, and how far it was looked at.
create table backup.second_store (
  singleton boolean primary key default true,
  -- addresses without credentials; no label: there is no second store
  label text,
  first_label text,
  told_at timestamptz,
  -- how often somebody wanted what is new to be copied; a count, since clocks are moved back
  asked bigint not null default 0,
  -- what the first store holds was last entered by that run, and what was asked for until then is served
  surveyed_asked bigint not null default 0,
  surveyed_run uuid,
  -- the last complete listing of the first store
  listed_at timestamptz,
  -- the last complete comparison with a listing of the second store, and where the one under way goes on
  looked_at timestamptz,
  look_from text,
  -- nothing was missing then
  caught_up_at timestamptz,
  constraint there_is_one_second_store check (singleton),
  constraint labels_differ check (label <> first_label)
);
comment on table backup.second_store is 'The pair of stores that is configured, and how far it was looked at.';
insert into backup.second_store default values;

-- One row a name and second store. `unopened`: a manifest whose objects are not entered yet. Status: unopened → missing →
-- stored; stored → missing where it is gone again, or where its original was rewritten (keys).
create table backup.copies (
  store text not null,
  name text not null,
  kind text not null,
  status text not null,
  -- of the original, where it is known
  first_bytes bigint,
  first_hash text,
  -- what stands in the second store: size and SHA-256 of the ciphertext
  second_bytes bigint,
  second_hash text,
  -- since when it should be there
  noticed_at timestamptz not null default backup.clock_now(),
  copied_at timestamptz,
  -- when it was put there, or its lock was renewed
  held_at timestamptz,
  run_id uuid references backup.runs (id) on delete set null,
  -- it could not be copied in this run: {code, message, hint}
  failed_run uuid,
  failure jsonb,
  primary key (store, name),
  constraint kind_is_known check (kind in ('repository', 'key', 'erasure', 'segment', 'anchor', 'object', 'blob', 'manifest')),
  constraint status_is_known check (status in ('unopened', 'missing', 'stored')),
  constraint only_manifests_are_opened check (status <> 'unopened' or kind = 'manifest'),
  constraint stored_copy_says_what check (
    status <> 'stored' or (second_bytes is not null and second_hash is not null and copied_at is not null)
  ),
  constraint failed_copy_says_why check ((failed_run is null) = (failure is null))
);
comment on table backup.copies is 'What the second store holds, and what it lacks.';
create index copies_to_make on backup.copies (store, kind, name) where status <> 'stored';
create index copies_by_run on backup.copies (run_id);

-- What a manifest waits for: its objects and the key file of its epoch that did not stand in the second store when it was opened,
-- and objects whose lock there is to be renewed.
create table backup.copy_needs (
  store text not null,
  manifest text not null,
  name text not null,
  -- it stands there; nothing but its lock is missing
  to_hold boolean not null default false,
  primary key (store, manifest, name),
  foreign key (store, manifest) references backup.copies (store, name) on delete cascade
);
comment on table backup.copy_needs is 'Which objects have to be copied, or held, before a manifest.';
create index copy_needs_by_name on backup.copy_needs (store, name);

-- Ciphertexts that were made and may have been put. An age file differs at each encryption: this is how one that was put by
-- a worker that died before its record is known again.
create table backup.copy_intents (
  store text not null,
  name text not null,
  hash text not null,
  bytes bigint not null,
  made_at timestamptz not null default backup.clock_now(),
  primary key (store, name, hash),
  foreign key (store, name) references backup.copies (store, name) on delete cascade
);
comment on table backup.copy_intents is 'Ciphertexts that may stand in the second store without a record.';

create table backup.copy_egress (
  store text not null,
  day date not null,
  bytes bigint not null,
  primary key (store, day)
);
comment on table backup.copy_egress is 'Bytes sent to the second store, by day (UTC).';

alter table backup.second_store enable row level security;
alter table backup.copies enable row level security;
alter table backup.copy_needs enable row level security;
alter table backup.copy_intents enable row level security;
alter table backup.copy_egress enable row level security;
revoke all on table backup.second_store, backup.copies, backup.copy_needs, backup.copy_intents, backup.copy_egress
  from public;

-- Which stores ---------------------------------------------------------------------------------------------------------

create function backup.has_second_store() returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (select from backup.second_store as s where s.label is not null)
$$;
revoke all on function backup.has_second_store() from public;

-- Is it in the second store that is configured now?
create function backup.is_copied(name text) returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select from backup.second_store as s join backup.copies as c on c.store = s.label
    where c.name = is_copied.name and c.status = 'stored'
  )
$$;
revoke all on function backup.is_copied(text) from public;

-- What a function finds in its environment. With `second` null there is no second store: what is in the first is complete. A run
-- that copies into another one than before is over.
create function backup.tell_stores(first text, second text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  known backup.second_store;
begin
  select s.* into known from backup.second_store as s;
  if known.label is not distinct from tell_stores.second
    and (tell_stores.second is null or known.first_label is not distinct from tell_stores.first)
  then
    return;
  end if;
  update backup.second_store as s
  set label = tell_stores.second, first_label = tell_stores.first, told_at = backup.clock_now(),
    listed_at = null, looked_at = null, look_from = null, caught_up_at = null, surveyed_run = null;
  if known.label is distinct from tell_stores.second then
    perform backup.cancel_run(r.id)
    from backup.runs as r
    where r.kind = 'replicate' and r.status in ('queued', 'snapshotting', 'copying', 'finishing');
    perform backup.resolve_alert(a.kind, a.subject)
    from backup.alerts as a
    where a.kind in ('copies_late', 'copies_lost', 'copies_failed') and a.status <> 'resolved';
    update backup.runs as r
    set complete_at = case when tell_stores.second is null then backup.clock_now() end
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined')
      and (r.complete_at is null) = (tell_stores.second is null)
      and not (tell_stores.second is not null and backup.is_copied(r.manifest_name));
    update backup.runs as r set complete_at = null
    where r.kind = 'incremental' and r.complete_at is not null and tell_stores.second is not null;
    perform backup.complete_incrementals();
    perform backup.audit(
      'setting.second_store', 'store:second',
      pg_catalog.jsonb_build_object('before', known.label, 'now', tell_stores.second)
    );
  end if;
end
$$;
revoke all on function backup.tell_stores(text, text) from public;

-- Are the segments of an incremental in that store, with the key files that open them?
create function backup.segments_are_copied(run uuid, store text) returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return not exists (
    select from backup.segments as g
    cross join lateral (values (g.name), ('v1/keys/' || g.epoch || '.jwe.json')) as needed (name)
    where g.run_id = segments_are_copied.run and not exists (
      select from backup.copies as c
      where c.store = segments_are_copied.store and c.name = needed.name and c.status = 'stored'
    )
  );
end
$$;
revoke all on function backup.segments_are_copied(uuid, text) from public;

-- Incrementals whose segments are all in every store.
create function backup.complete_incrementals() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  second text := (select s.label from backup.second_store as s);
  completed integer;
begin
  update backup.runs as r
  set complete_at = backup.clock_now()
  where r.kind = 'incremental' and r.status = 'succeeded' and r.complete_at is null
    and (second is null or backup.segments_are_copied(r.id, second));
  get diagnostics completed = row_count;
  return completed;
end
$$;
revoke all on function backup.complete_incrementals() from public;

-- Asking -------------------------------------------------------------------------------------------------------------

-- A run that copies what the second store lacks, or the one that is under way. No run where there is no second store, and
-- where this database is a copy of the one that it was installed in. With `listing` the first store is listed whatever is known.
create function backup.request_copies(origin text, listing boolean, out run uuid, out joined boolean)
language plpgsql
volatile
set search_path = ''
as $$
begin
  joined := false;
  if not backup.has_second_store() or not backup.is_original() then
    return;
  end if;
  for try in 1..10 loop
    select r.id into run from backup.runs as r
    where r.kind = 'replicate' and r.status in ('queued', 'snapshotting', 'copying', 'finishing');
    joined := run is not null;
    if not joined then
      begin
        insert into backup.runs as r (kind, origin, concurrency)
        values ('replicate', request_copies.origin, 1)
        returning r.id into run;
        insert into backup.tasks (run_id, kind) values (run, 'replicate');
        -- those that nobody asked for come each minute, and stand in backup.runs alone
        if request_copies.origin = 'cli' or coalesce(pg_catalog.current_setting('request.jwt.claims', true), '') <> '' then
          perform backup.audit(
            'run.requested', 'run:' || run,
            pg_catalog.jsonb_build_object('kind', 'replicate', 'origin', request_copies.origin)
          );
        end if;
      exception
        when unique_violation then
          run := null;
          continue;
      end;
    end if;
    update backup.second_store as s
    set asked = s.asked + 1, listed_at = case when request_copies.listing then null else s.listed_at end;
    return;
  end loop;
  raise exception 'the request could not be recorded' using errcode = 'HF999';
end
$$;
revoke all on function backup.request_copies(text, boolean) from public;

-- What the cron job calls: the function starts a run for what is missing. Without address and secret in Vault nothing is
-- called; `holdfast replicate` does it then.
create function backup.call_replication() returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return backup.invoke('backup', '{"action": "replicate"}');
exception
  when sqlstate 'HF002' then
    return null;
end
$$;
revoke all on function backup.call_replication() from public;

-- Something new stands in the first store. A run under way looks again before it ends; else the function is called, unless the
-- last run failed a short while ago or the day's egress is spent: then the cron job's next call is soon enough.
create function backup.ask_for_copies() returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
begin
  update backup.second_store as s set asked = s.asked + 1 where s.label is not null;
  if not found
    or exists (
      select from backup.runs as r
      where r.kind = 'replicate' and (
        r.status in ('queued', 'snapshotting', 'copying', 'finishing')
        or (r.status = 'failed' and r.finished_at between moment - interval '10 minutes' and moment)
      )
    )
    or backup.egress_left() <= 0
  then
    return;
  end if;
  perform backup.call_replication();
end
$$;
revoke all on function backup.ask_for_copies() from public;
