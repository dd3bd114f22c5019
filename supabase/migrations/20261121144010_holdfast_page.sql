-- The status page: what the public is told, in one place that is put into a store which serves it. What it says is made here;
-- src/shared/incidents puts it there, by the CLI or by the function `incident`, which is called whenever it says something else.

-- One row: where the page was put last, with what in it.
create table backup.page (
  singleton boolean primary key default true,
  -- the store's label; null: none is set up where the page was tried last
  place text,
  -- md5 of what was put there, or of what was tried where there is no place
  told_hash text,
  told_at timestamptz,
  called_at timestamptz,
  -- tries in a row that failed
  failures integer not null default 0,
  failure text,
  constraint there_is_one_page check (singleton),
  constraint failures_are_counted check (failures >= 0)
);
comment on table backup.page is 'Where the public status page was put last.';
alter table backup.page enable row level security;
revoke all on table backup.page from public;
insert into backup.page default values;

-- What the public is told, and nothing else: state (`operational`, `maintenance`, `incident`), since when, a message, when more is
-- told, windows of maintenance, and the incidents of the last 90 days (20 at most) with what was told of each, newest first. Times
-- are UTC, ISO 8601. No reasons, notes, names, tables or people.
create function backup.page_content() returns jsonb
language sql
stable
set search_path = ''
as $$
  with recent as (
    select i.id, i.status, i.opened_at, i.closed_at, i.next_update_at
    from backup.incidents as i
    where i.status = 'open' or i.opened_at > backup.clock_now() - interval '90 days'
    order by i.status = 'open' desc, i.opened_at desc
    limit 20
  ),
  shown as (
    select r.id, r.status, r.opened_at, r.next_update_at, pg_catalog.jsonb_build_object(
      'id', r.id,
      'openedAt', backup.moment_text(r.opened_at),
      'closedAt', backup.moment_text(r.closed_at),
      'updates', coalesce((
        select pg_catalog.jsonb_agg(
          pg_catalog.jsonb_build_object('at', backup.moment_text(e.at), 'message', e.message) order by e.id desc
        )
        from backup.incident_events as e where e.incident_id = r.id and e.kind = 'told'
      ), '[]')
    ) as said
    from recent as r
  ),
  under_way as (select s.opened_at, s.next_update_at, s.said from shown as s where s.status = 'open')
  select pg_catalog.jsonb_build_object(
    'format', 'holdfast/status',
    'version', 1,
    'state', case when u.said is not null then 'incident' when m.closed then 'maintenance' else 'operational' end,
    'since', backup.moment_text(case
      when u.said is not null then u.opened_at
      when m.closed then m.since
      else greatest((select max(i.closed_at) from backup.incidents as i), m.opened_at)
    end),
    'message', case when u.said is not null then u.said #>> '{updates,0,message}' when m.closed then m.message end,
    'nextUpdateAt', backup.moment_text(u.next_update_at),
    'maintenance', case when m.closed then pg_catalog.jsonb_build_object(
      'since', backup.moment_text(m.since), 'until', backup.moment_text(m.until), 'message', m.message
    ) end,
    'planned', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'startsAt', backup.moment_text(a.starts_at), 'until', backup.moment_text(a.until), 'message', a.message
      ) order by a.starts_at, a.id)
      from backup.announcements as a where a.status = 'planned'
    ), '[]'),
    'incidents', coalesce((select pg_catalog.jsonb_agg(s.said order by s.status = 'open' desc, s.opened_at desc) from shown as s), '[]')
  )
  from backup.maintenance as m left join under_way as u on true
$$;
revoke all on function backup.page_content() from public;

-- The page was put at `place` with the content of that hash; `place` null: no place is set up, so that this content is not asked
-- for again. A place is told to the audit once.
create function backup.page_put(place text, hash text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  before text := (select p.place from backup.page as p);
begin
  update backup.page as p
  set place = page_put.place, told_hash = hash, told_at = backup.clock_now(), failures = 0, failure = null;
  if before is distinct from page_put.place then
    perform backup.audit('page.moved', 'page', pg_catalog.jsonb_build_object('from', before, 'to', page_put.place));
  end if;
  perform backup.resolve_alert('status_page_failed', 'page');
end
$$;
revoke all on function backup.page_put(text, text) from public;

-- It could not be put there: tried again each minute, and an alert from the third time on.
create function backup.page_failed(failure text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  times integer;
begin
  update backup.page as p
  set failures = p.failures + 1, failure = pg_catalog.left(page_failed.failure, 500)
  returning p.failures into times;
  if times >= 3 then
    perform backup.raise_alert(
      'status_page_failed', 'page', 'the status page shows an older state: ' || pg_catalog.left(page_failed.failure, 300), 'warning'
    );
  end if;
end
$$;
revoke all on function backup.page_failed(text) from public;

-- The bucket of this project's Storage where the page is, unless `known` has it already: maintenance mode lets writes to it pass.
create function backup.page_bucket(known text[]) returns text[]
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.array_agg(b.name), '{}')
  from (select pg_catalog.substring(p.place, '^supabase://([^/ ]+)') as name from backup.page as p) as b
  where b.name is not null and not b.name = any (known)
$$;
revoke all on function backup.page_bucket(text[]) from public;

-- Hash of what the page has to say now.
create function backup.page_hash() returns text
language sql
stable
set search_path = ''
as $$
  select pg_catalog.md5(backup.page_content()::text)
$$;
revoke all on function backup.page_hash() from public;

-- The watchdog's step: calls the function `incident` where the page says something else than it should. A project in which
-- nobody ever opened an incident or turned maintenance mode on has no page to tell of. Returns how many calls were sent.
create function backup.watch_page() returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  moment timestamptz := backup.clock_now();
  known backup.page;
begin
  select p.* into known from backup.page as p for update;
  if not backup.is_original() or known.told_hash is not distinct from backup.page_hash()
    or known.called_at > moment - interval '50 seconds' and known.called_at <= moment
    or known.told_hash is null and not exists (select from backup.incidents)
      and not exists (select from backup.announcements)
  then
    return 0;
  end if;
  update backup.page as p set called_at = moment;
  perform backup.invoke('incident', '{"action": "publish"}');
  return 1;
exception
  when sqlstate 'HF002' then
    return 0;
end
$$;
revoke all on function backup.watch_page() from public;
