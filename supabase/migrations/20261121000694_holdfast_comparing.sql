-- The second store compared with what is recorded, each day; what it lacks, and since when. Lock order: as in 0690.

-- Where the second store is to be listed next, to compare it with what is recorded; null: it was, within the last day.
create function backup.next_look(task bigint, token bigint, second text, first_prefix text) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  state backup.second_store;
begin
  perform backup.copying(task, token, second);
  select s.* into state from backup.second_store as s;
  if state.look_from is not null then
    return state.look_from;
  end if;
  return case
    when state.looked_at is null or state.looked_at not between backup.clock_now() - interval '1 day' and backup.clock_now()
      then first_prefix
  end;
end
$$;
revoke all on function backup.next_look(bigint, bigint, text, text) from public;

-- What stood in the second store is not there any more, or is another object: it is missing again, and every manifest is opened again,
-- since which of them named it is not kept. What was put there stays known by its hash, so that it is known as ours when it is
-- copied anew. Returns how many were lost.
create function backup.lose_copies(second text, names text[]) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  lost integer;
begin
  insert into backup.copy_intents (store, name, hash, bytes)
  select c.store, c.name, c.second_hash, c.second_bytes
  from backup.copies as c where c.store = lose_copies.second and c.name = any (names) and c.status = 'stored'
  on conflict do nothing;
  update backup.copies as c
  set status = 'missing', noticed_at = backup.clock_now()
  where c.store = lose_copies.second and c.name = any (names) and c.status = 'stored';
  get diagnostics lost = row_count;
  if lost > 0 then
    update backup.copies as c set status = 'unopened', noticed_at = backup.clock_now()
    where c.store = lose_copies.second and c.kind = 'manifest' and c.status in ('stored', 'missing');
    update backup.runs as r set complete_at = null
    where r.kind = 'full' and r.complete_at is not null
      and exists (
        select from backup.copies as c
        where c.store = lose_copies.second and c.name = r.manifest_name and c.status <> 'stored'
      );
    update backup.runs as r set complete_at = null
    where r.kind = 'incremental' and r.complete_at is not null
      and not backup.segments_are_copied(r.id, lose_copies.second);
    perform backup.raise_alert(
      'copies_lost', 'store:second',
      pg_catalog.format('%s objects that were copied to %s are not there any more, or are other ones', lost, second)
    );
  end if;
  return lost;
end
$$;
revoke all on function backup.lose_copies(text, text[]) from public;

-- What the second store holds under a prefix, complete: [{name, bytes, hash}], `hash` only where the content was read, and the
-- prefix that comes next, null after the last. What is recorded and not there, or of another size or content, is missing again,
-- and every manifest is opened again, since which of them named it is not kept. Returns how many are missing again.
create function backup.record_look(
  task bigint, token bigint, second text, prefix text, listed jsonb, next_prefix text
) returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  lost integer;
begin
  perform backup.copying(task, token, second);
  lost := backup.lose_copies(second, array(
    select c.name from backup.copies as c
    left join pg_catalog.jsonb_to_recordset(record_look.listed) as t (name text, bytes bigint, hash text) on t.name = c.name
    where c.store = record_look.second and c.status = 'stored' and pg_catalog.starts_with(c.name, record_look.prefix)
      and (c.second_bytes is distinct from t.bytes or c.second_hash is distinct from coalesce(t.hash, c.second_hash))
  ));
  update backup.second_store as s
  set look_from = next_prefix, looked_at = case when next_prefix is null then backup.clock_now() else s.looked_at end;
  return lost;
end
$$;
revoke all on function backup.record_look(bigint, bigint, text, text, jsonb, text) from public;

-- What the second store lacks, as far as is known: one row, or none where there is no second store.
create function backup.copy_lag(
  out store text, out first_store text, out objects bigint, out bytes bigint, out oldest_at timestamptz,
  out caught_up_at timestamptz
) returns setof record
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select s.label, s.first_label, l.objects, l.bytes, l.oldest, s.caught_up_at
    from backup.second_store as s
    cross join lateral (
      select count(*) as objects, coalesce(pg_catalog.sum(x.bytes), 0)::bigint as bytes, min(x.since) as oldest
      from (
        select c.first_bytes as bytes, c.noticed_at as since
        from backup.copies as c where c.store = s.label and c.status <> 'stored'
        union all
        select g.stored_bytes, g.recorded_at
        from backup.segments as g
        where not exists (select from backup.copies as c where c.store = s.label and c.name = g.name)
          and not exists (select from backup.gaps as x where x.chain_id = g.chain_id and x.from_lsn < g.end_lsn)
        union all
        select null, a.anchored_at
        from backup.audit_anchors as a
        where a.store = s.first_label
          and not exists (select from backup.copies as c where c.store = s.label and c.name = a.object_name)
        union all
        select null, r.finished_at
        from backup.runs as r
        where r.kind = 'full' and r.status in ('succeeded', 'quarantined') and r.complete_at is null and r.origin <> 'cli'
          and not exists (select from backup.copies as c where c.store = s.label and c.name = r.manifest_name)
      ) as x
    ) as l
    where s.label is not null;
end
$$;
revoke all on function backup.copy_lag() from public;

-- The watchdog's step: an alert where what the second store lacks became too old. Returns how many are raised.
create function backup.watch_copies() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  lag record;
begin
  select l.* into lag from backup.copy_lag() as l;
  if lag.store is null or lag.oldest_at is null
    or lag.oldest_at > backup.clock_now() - backup.setting_integer('copies_late_hours') * interval '1 hour'
  then
    perform backup.resolve_alert('copies_late', 'store:second');
    return 0;
  end if;
  perform backup.raise_alert(
    'copies_late', 'store:second',
    pg_catalog.format(
      '%s lacks %s objects (%s bytes), the oldest since %s UTC%s', lag.store, lag.objects, lag.bytes,
      pg_catalog.to_char(lag.oldest_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
      case when backup.egress_left() <= 0 then '; the egress of the day is spent' else '' end
    )
  );
  return 1;
end
$$;
revoke all on function backup.watch_copies() from public;
