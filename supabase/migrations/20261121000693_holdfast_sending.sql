-- What is sent to the second store, within the egress of a day: noted, recorded or failed, and the end. Lock order: as in 0690.

-- The lock of an object that stands in the second store was renewed; with `there` false it does not stand there any more.
create function backup.record_hold(task bigint, token bigint, second text, name text, there boolean) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
begin
  perform backup.copying(task, token, second);
  update backup.copies as c
  set held_at = case when record_hold.there then moment end, status = case when record_hold.there then c.status else 'missing' end,
    noticed_at = case when record_hold.there then c.noticed_at else moment end
  where c.store = record_hold.second and c.name = record_hold.name and c.status = 'stored';
  update backup.copy_needs as n set to_hold = false
  where n.store = record_hold.second and n.name = record_hold.name and n.to_hold;
end
$$;
revoke all on function backup.record_hold(bigint, bigint, text, text, boolean) from public;

-- Bytes that may still be sent today; where there is no limit more than anybody sends.
create function backup.egress_left() returns bigint
language sql
stable
set search_path = ''
as $$
  select case backup.setting_integer('egress_mb_per_day')
    when 0 then 9223372036854775807
    else backup.setting_integer('egress_mb_per_day') * 1048576 - coalesce((
      select e.bytes from backup.copy_egress as e join backup.second_store as s on s.label = e.store
      where e.day = (backup.clock_now() at time zone 'UTC')::date
    ), 0)
  end
$$;
revoke all on function backup.egress_left() from public;

-- Before a ciphertext is sent: it is noted, and its bytes are taken from the day's egress. False where they are more than what
-- is left: nothing may be sent. What was noted counts as sent, whatever becomes of it. An object that is larger than the egress of
-- any day goes first on its day: else all that is behind it would never be sent.
create function backup.intend_copy(task bigint, token bigint, second text, name text, hash text, bytes bigint)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  left_today bigint;
begin
  perform backup.copying(task, token, second);
  left_today := backup.egress_left();
  if intend_copy.bytes > left_today and left_today < backup.setting_integer('egress_mb_per_day') * 1048576 then
    return false;
  end if;
  insert into backup.copy_egress as e (store, day, bytes)
  values (intend_copy.second, (backup.clock_now() at time zone 'UTC')::date, intend_copy.bytes)
  on conflict (store, day) do update set bytes = e.bytes + excluded.bytes;
  insert into backup.copy_intents (store, name, hash, bytes)
  values (intend_copy.second, intend_copy.name, intend_copy.hash, intend_copy.bytes)
  on conflict do nothing;
  return true;
end
$$;
revoke all on function backup.intend_copy(bigint, bigint, text, text, text, bigint) from public;

-- It stands in the second store and was read back. `copied`: {name, first_bytes, first_hash, second_bytes, second_hash}. A manifest
-- makes its backup complete; HF415 (run_state) while one of its objects is missing there.
create function backup.record_copy(task bigint, token bigint, second text, copied jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
  moment timestamptz := backup.clock_now();
  ours backup.copies;
  completed uuid;
begin
  select c.* into ours from backup.copies as c
  where c.store = record_copy.second and c.name = copied ->> 'name' and c.status <> 'stored'
  for update;
  if ours.name is null then
    raise exception '% is not to be copied', copied ->> 'name' using errcode = 'HF415';
  end if;
  if ours.kind = 'manifest' and (
    ours.status = 'unopened' or exists (
      select from backup.copy_needs as n
      left join backup.copies as c on c.store = n.store and c.name = n.name
      where n.store = ours.store and n.manifest = ours.name and (c.status is distinct from 'stored' or n.to_hold)
    )
  ) then
    raise exception 'objects of % are not in the second store, or not held there', ours.name using errcode = 'HF415';
  end if;
  update backup.copies as c
  set status = 'stored', copied_at = moment, held_at = moment, run_id = run, failed_run = null, failure = null,
    first_bytes = (copied ->> 'first_bytes')::bigint, first_hash = copied ->> 'first_hash',
    second_bytes = (copied ->> 'second_bytes')::bigint, second_hash = copied ->> 'second_hash'
  where c.store = ours.store and c.name = ours.name;
  delete from backup.copy_intents as i where i.store = ours.store and i.name = ours.name;
  update backup.copy_needs as n set to_hold = false
  where n.store = ours.store and n.name = ours.name and n.to_hold;
  update backup.runs as r
  set raw_bytes = r.raw_bytes + (copied ->> 'first_bytes')::bigint,
    stored_bytes = r.stored_bytes + (copied ->> 'second_bytes')::bigint, rows = r.rows + 1
  where r.id = run;
  if ours.kind = 'anchor' then
    insert into backup.audit_anchors (object_name, store, place, hash, life)
    select a.object_name, ours.store, a.place, a.hash, a.life
    from backup.audit_anchors as a where a.object_name = ours.name
    limit 1
    on conflict do nothing;
  elsif ours.kind = 'manifest' then
    delete from backup.copy_needs as n where n.store = ours.store and n.manifest = ours.name;
    update backup.runs as r set complete_at = moment
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.manifest_name = ours.name
      and r.complete_at is null
    returning r.id into completed;
    if completed is not null then
      perform backup.audit(
        'backup.completed', 'run:' || completed, pg_catalog.jsonb_build_object('store', ours.store)
      );
    end if;
  end if;
end
$$;
revoke all on function backup.record_copy(bigint, bigint, text, jsonb) from public;

-- It cannot be copied, for a reason that is its own: {code, message, hint}. The run goes on with others and ends as failed.
create function backup.fail_copy(task bigint, token bigint, second text, name text, failure jsonb) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
begin
  update backup.copies as c set failed_run = run, failure = fail_copy.failure
  where c.store = fail_copy.second and c.name = fail_copy.name and c.status <> 'stored';
end
$$;
revoke all on function backup.fail_copy(bigint, bigint, text, text, jsonb) from public;

-- Nothing more can be copied now. `again`: something is new since this run looked; `failed`: some could not be copied;
-- else `succeeded`. `needed`: bytes of what the day's egress has no room for, null where there was room for all.
create function backup.end_copies(task bigint, token bigint, second text, needed bigint) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  run uuid := backup.copying(task, token, second);
  moment timestamptz := backup.clock_now();
  state backup.second_store;
  failed record;
begin
  select s.* into state from backup.second_store as s for update;
  if needed is null and (state.surveyed_run is distinct from run or state.asked <> state.surveyed_asked) then
    return 'again';
  end if;
  perform backup.complete_incrementals();
  select count(*) as copies, (pg_catalog.array_agg(c.failure order by c.name))[1] as first into failed
  from backup.copies as c where c.store = end_copies.second and c.failed_run = run and c.status <> 'stored';
  if failed.copies > 0 then
    perform backup.return_task(task, token, failed.first || pg_catalog.jsonb_build_object(
      'retry', 'never',
      'message', pg_catalog.format('%s objects could not be copied, the first: %s', failed.copies, failed.first ->> 'message')
    ));
    return 'failed';
  end if;
  perform backup.complete_task(task, token, '{}');
  update backup.runs as r
  set status = 'succeeded', finished_at = greatest(moment, r.started_at), complete_at = moment,
    warnings = case when needed is null then '[]'::jsonb else pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
      'code', 'egress_spent',
      'message', pg_catalog.format(
        'the egress of the day is spent (%s MB); the next object has %s bytes',
        backup.setting_integer('egress_mb_per_day'), needed
      )
    )) end
  where r.id = run;
  update backup.second_store as s set caught_up_at = moment where needed is null;
  perform backup.resolve_alert('copies_failed', 'kind:replicate');
  if needed is null then
    perform backup.resolve_alert('copies_late', 'store:second');
    perform backup.resolve_alert('copies_lost', 'store:second');
  end if;
  return 'succeeded';
end
$$;
revoke all on function backup.end_copies(bigint, bigint, text, bigint) from public;
