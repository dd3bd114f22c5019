-- What is kept of one person, where, until when, and who saw it: for the person, their guardian, or whoever answers for the project
-- (GDPR Art. 15 and 30, CCPA §1798.110, COPPA §312.6 and §312.10). Of the live rows the CLI and the function `privacy` count themselves.
-- docs/reports.md. Nothing is changed here but the audit.

-- Whose rows a restore has shown, as far as columns with users' ids tell: `people`, ids or anything else, up to a hundred; `complete`: they
-- are all of them. The audit keeps hashes.
create function backup.note_shown(restore uuid, people text[], complete boolean) returns void
language sql
volatile
set search_path = ''
as $$
  select backup.audit('restore.showed', 'restore:' || note_shown.restore, pg_catalog.jsonb_build_object(
    'people', (select coalesce(pg_catalog.jsonb_agg(backup.person_hash(p.id) order by p.id), '[]') from pg_catalog.unnest(people) as p (id)),
    'complete', complete
  ))
$$;
revoke all on function backup.note_shown(uuid, text[], boolean) from public;

-- How a store locks what is put there, as it was told; null: it does not, or nobody has told.
create function backup.lock_of(label text) returns interval
language sql
stable
set search_path = ''
as $$
  select (t.facts ->> 'days')::numeric * interval '1 day'
  from backup.told_facts as t
  where t.subject = 'lock:' || lock_of.label and coalesce(t.facts ->> 'mode', 'none') <> 'none'
$$;
revoke all on function backup.lock_of(text) from public;

-- When the person was in the live project. `until` null: they still are; `since` null: nobody knows. `standing`: there, deleted (by Auth or
-- SQL), erasing, erased, unknown.
create function backup.person_span(
  user_id uuid, out standing text, out since timestamptz, out until timestamptz, out erasure uuid
)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  ours record;
begin
  select e.id, e.status, e.searched_at into ours from backup.erasures as e where e.person = backup.person_hash(person_span.user_id::text);
  erasure := ours.id;
  if ours.status in ('searched', 'done') then
    standing := 'erased';
    person_span.until := ours.searched_at;
    return;
  end if;
  if pg_catalog.to_regclass('auth.users') is not null then
    select u.created_at into person_span.since from auth.users as u where u.id = person_span.user_id;
    if found then
      standing := case when ours.id is null then 'there' else 'erasing' end;
      return;
    end if;
  end if;
  select d.noticed_at into person_span.until from backup.departures as d where d.user_id = person_span.user_id;
  standing := case when ours.id is not null then 'erasing' when found then 'deleted' else 'unknown' end;
end
$$;
revoke all on function backup.person_span(uuid) from public;

-- Backups that were taken while the person was there, and were not rewritten without them since. `until`: as long as a tier of it keeps
-- them, or a hold; `latest`: where a month's or year's backup is kept longer, and it is chosen for that.
create function backup.backups_of(user_id uuid) returns table (
  backup uuid, tiers text[], taken_at timestamptz, until timestamptz, latest timestamptz, held_until timestamptz, hold_reason text,
  locked_until timestamptz, second boolean, second_locked_until timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  span record;
  -- the erasure's first of the ledger: nothing is rewritten while it is under way, so what was rewritten so far holds nothing of them
  entry bigint;
begin
  select s.* into span from backup.person_span(backups_of.user_id) as s;
  select min(pg_catalog.split_part(n.name, '/', 3)::bigint) into entry
  from backup.erasures as e, pg_catalog.unnest(e.entries) as n (name) where e.id = span.erasure and span.standing = 'erased';
  return query
    select r.id, r.tiers, r.consistent_at, greatest(k.until, r.hold_until),
      (
        select greatest(max(r.consistent_at + p.keep), k.until) from backup.policies as p where p.tier in ('monthly', 'yearly')
      ),
      r.hold_until, r.hold_reason,
      greatest(r.finished_at, r.consistent_at) + backup.lock_of((select s.first_label from backup.second_store as s)),
      c.name is not null, coalesce(c.held_at, c.copied_at) + backup.lock_of(c.store)
    from backup.runs as r
    cross join lateral (
      select r.consistent_at + max(p.keep) as until from backup.policies as p where p.tier = any (r.tiers)
    ) as k
    left join (
      select c.* from backup.second_store as s join backup.copies as c on c.store = s.label where c.status = 'stored'
    ) as c on c.name = r.manifest_name
    where r.kind = 'full' and r.status in ('succeeded', 'quarantined')
      and (span.since is null or r.consistent_at >= span.since)
      and (span.until is null or r.consistent_at <= span.until)
      and (entry is null or r.rewritten_through < entry)
      -- of somebody whom nobody knows no backup is said to hold anything
      and span.standing <> 'unknown'
    order by r.consistent_at desc;
end
$$;
revoke all on function backup.backups_of(uuid) from public;

-- What the audit says of the person: acts that name them, newest first. `who`: `person` themself, an administrator's id, else the hash or role.
create function backup.seen_of(user_id uuid, at_most integer)
returns table (at timestamptz, action text, subject text, who text, detail jsonb)
language sql
stable
set search_path = ''
as $$
  with known as (select backup.person_hash(seen_of.user_id::text) as hash),
    admins as (select backup.person_hash(a.user_id::text) as hash, a.user_id from backup.admins as a)
  select l.recorded_at, l.action, l.subject,
    case when l.actor = k.hash then 'the person' else coalesce('administrator ' || a.user_id::text, l.actor) end,
    l.detail - 'person' - 'user' - 'people' - 'guardian'
  from known as k
  join backup.audit_log as l on l.subject = k.hash or l.detail ->> 'person' = k.hash or l.detail ->> 'user' = k.hash
    or (l.action = 'restore.showed' and l.detail -> 'people' ? k.hash)
  left join admins as a on a.hash = l.actor
  where l.action not in ('alert.raised', 'alert.resolved', 'notice.sent')
  order by l.id desc
  limit at_most
$$;
revoke all on function backup.seen_of(uuid, integer) from public;

-- Acts of which the audit does not say whose rows they showed, since the person came: newest first.
create function backup.may_have_seen(user_id uuid, at_most integer)
returns table (at timestamptz, action text, subject text, who text, detail jsonb)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  span record;
begin
  select s.* into span from backup.person_span(may_have_seen.user_id) as s;
  return query
    select l.recorded_at, l.action, l.subject, coalesce('administrator ' || a.user_id::text, l.actor), l.detail
    from backup.audit_log as l
    left join lateral (select a.user_id from backup.admins as a where backup.person_hash(a.user_id::text) = l.actor) as a on true
    where l.action in ('restore.finished', 'download.made', 'download.linked', 'download.saved', 'files.restored', 'files.saved')
      and (span.since is null or l.recorded_at >= span.since)
      and not l.detail ? 'person'
      and not exists (
        select from backup.audit_log as s
        where s.subject = l.subject and s.action = 'restore.showed' and (s.detail ->> 'complete')::boolean
      )
    order by l.id desc
    limit at_most;
end
$$;
revoke all on function backup.may_have_seen(uuid, integer) from public;

-- All of it as one document; its form is src/shared/privacy/report_format.ts. That somebody asked is audited by made_report.
create function backup.person_report(user_id uuid) returns jsonb
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
declare
  moment constant timestamptz := backup.clock_now();
  known constant text := backup.person_hash(person_report.user_id::text);
  most constant integer := 200;
  span record;
  files bigint;
  versions bigint;
begin
  select s.* into span from backup.person_span(person_report.user_id) as s;
  if pg_catalog.to_regclass('storage.objects') is not null then
    select count(distinct c.object_id), count(*) into files, versions
    from storage.objects as o join backup.copied_files as c on c.object_id = o.id and c.complete
    where o.owner_id = person_report.user_id::text;
  end if;
  return pg_catalog.jsonb_build_object(
    'at', backup.moment_text(moment), 'person', known, 'standing', span.standing, 'since', backup.moment_text(span.since),
    'until', backup.moment_text(span.until),
    'hold', (
      select pg_catalog.jsonb_build_object('reason', h.reason, 'since', backup.moment_text(h.held_at))
      from backup.erasure_holds as h where h.user_id = person_report.user_id
    ),
    'isAdministrator', exists (select from backup.admins as a where a.user_id = person_report.user_id),
    'stores', (
      select pg_catalog.jsonb_build_object(
        'first', s.first_label, 'firstLock', backup.lock_of(s.first_label)::text, 'second', s.label,
        'secondLock', backup.lock_of(s.label)::text
      )
      from backup.second_store as s
    ),
    'backups', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'backup', b.backup, 'tiers', b.tiers, 'takenAt', backup.moment_text(b.taken_at), 'until', backup.moment_text(b.until),
        'latest', backup.moment_text(b.latest), 'heldUntil', backup.moment_text(b.held_until), 'holdReason', b.hold_reason,
        'lockedUntil', backup.moment_text(b.locked_until), 'second', b.second,
        'secondLockedUntil', backup.moment_text(b.second_locked_until)
      ) order by b.taken_at desc), '[]') from backup.backups_of(person_report.user_id) as b
    ),
    'stream', (
      select pg_catalog.jsonb_build_object(
        'segments', count(*), 'from', backup.moment_text(min(g.taken_at)), 'to', backup.moment_text(max(g.taken_at)),
        'copied', count(*) filter (where backup.is_copied(g.name)), 'window', backup.setting_integer('pitr_window_seconds')
      )
      from backup.segments as g
      where (span.since is null or g.taken_at >= span.since) and span.standing <> 'unknown'
        and (span.until is null or coalesce(g.first_commit_at, g.taken_at) <= span.until)
        and (span.standing <> 'erased' or g.rewritten_through < (
          select min(pg_catalog.split_part(n.name, '/', 3)::bigint)
          from backup.erasures as e, pg_catalog.unnest(e.entries) as n (name) where e.id = span.erasure
        ))
    ),
    'fileCopies', pg_catalog.jsonb_build_object('files', coalesce(files, 0), 'versions', coalesce(versions, 0)),
    'downloads', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'download', d.id, 'backup', d.backup_id, 'table', d.table_name, 'format', d.format, 'status', d.status, 'links', d.links,
        'until', backup.moment_text(d.expires_at)
      ) order by d.created_at desc), '[]')
      from backup.downloads as d
      where d.status <> 'removed' and (span.until is null or d.created_at <= span.until) and span.standing <> 'unknown'
    ),
    'exports', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'export', x.id, 'origin', x.origin, 'status', x.status, 'madeAt', backup.moment_text(x.ready_at), 'links', x.links,
        'until', backup.moment_text(x.expires_at)
      ) order by x.created_at desc), '[]')
      from backup.exports as x where x.user_id = person_report.user_id and x.status <> 'removed'
    ),
    'imports', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'import', m.id, 'status', m.status, 'askedAt', backup.moment_text(m.asked_at),
        'endedAt', backup.moment_text(m.ended_at), 'rows', m.rows
      ) order by m.asked_at desc), '[]')
      from backup.imports as m where m.user_id = person_report.user_id
    ),
    'sides', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'restore', r.id, 'schema', r.side_schema, 'scope', r.scope, 'theirs', r.scope = 'user' and r.user_id = person_report.user_id::text,
        'until', backup.moment_text(r.side_expires_at)
      ) order by r.started_at desc), '[]')
      from backup.restores as r
      where r.side_schema is not null and r.side_dropped_at is null and (r.scope <> 'user' or r.user_id = person_report.user_id::text)
        and span.standing <> 'unknown' and (span.until is null or r.started_at <= span.until)
    ),
    'guardians', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'request', g.id, 'relation', g.relation, 'asks', g.asks, 'identityBy', g.identity_by, 'saidOn', g.said_on,
        'recordedAt', backup.moment_text(g.recorded_at), 'entry', g.entry, 'status', g.status,
        'reviewedAt', backup.moment_text(g.reviewed_at), 'erasedAt', backup.moment_text(g.erased_at)
      ) order by g.recorded_at desc), '[]')
      from backup.guardian_requests as g where g.child = known
    ),
    'erasure', (
      select pg_catalog.jsonb_build_object(
        'erasure', e.id, 'status', e.status, 'begunAt', backup.moment_text(e.begun_at),
        'emptiedAt', backup.moment_text(e.emptied_at), 'rewrittenAt', backup.moment_text(e.rewritten_at),
        'cleanAt', backup.moment_text(e.clean_at), 'rows', e.rows, 'files', e.files, 'mentions', e.mentions, 'entries', e.entries, 'certificate', e.certificate,
        'termsKept', e.certificate is null and e.status <> 'begun',
        'remains', (
          select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'store', t.store, 'objects', t.objects, 'lockedUntil', backup.moment_text(t.locked_until)
          ) order by t.store, t.locked_until), '[]')
          from (
            select m.store, count(*) as objects, m.locked_until from backup.remains as m
            where m.gone_at is null and exists (
              select from pg_catalog.unnest(e.entries) as n (name)
              where pg_catalog.split_part(n.name, '/', 3)::bigint > m.after and pg_catalog.split_part(n.name, '/', 3)::bigint <= m.through
            )
            group by m.store, m.locked_until
          ) as t
        )
      )
      from backup.erasures as e where e.person = known
    ),
    'seen', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'at', backup.moment_text(s.at), 'action', s.action, 'who', s.who, 'detail', s.detail,
        'subject', case when s.subject = known then 'the person' else s.subject end
      ) order by s.at desc), '[]') from backup.seen_of(person_report.user_id, most) as s
    ),
    'mayHaveSeen', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'at', backup.moment_text(s.at), 'action', s.action, 'subject', s.subject, 'who', s.who, 'detail', s.detail
      ) order by s.at desc), '[]') from backup.may_have_seen(person_report.user_id, most) as s
    ),
    'most', most
  );
end
$$;
revoke all on function backup.person_report(uuid) from public;

-- Somebody made the report: in the audit, where the person's next report shows it; and what a guardian has asked for is done.
create function backup.made_report(user_id uuid) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform backup.audit('report.made', backup.person_hash(made_report.user_id::text), '{}');
  perform backup.serve_guardians(backup.person_hash(made_report.user_id::text), 'review');
end
$$;
revoke all on function backup.made_report(uuid) from public;
