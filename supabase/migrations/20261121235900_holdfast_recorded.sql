-- The last migration: what people change by hand is told to the audit from here on, and what was installed is recorded. A
-- migration of a later release ends with record_install() as this one does, else the security audit takes it for tampering.

-- A row for the audit: the value of a setting that names a person as its keyed hash.
create function backup.without_people(changed jsonb) returns jsonb
language sql
stable
set search_path = ''
as $$
  select case
    when changed ->> 'personal' = 'true' and changed ->> 'value' <> '' then
      pg_catalog.jsonb_set(changed, '{value}', pg_catalog.to_jsonb(backup.person_hash(changed ->> 'value')))
    else changed
  end
$$;
revoke all on function backup.without_people(jsonb) from public;

-- A row for people: those of its columns that are otherwise in `other`, such as `value 3`. Keyed hashes are `somebody`.
create function backup.in_words(changed jsonb, other jsonb) returns text
language sql
stable
set search_path = ''
as $$
  select pg_catalog.string_agg(
    pg_catalog.concat_ws(' ', c.key, pg_catalog.regexp_replace(c.value, '^person:[0-9a-f]{64}$', 'somebody')), ', ' order by c.key
  )
  from pg_catalog.jsonb_each_text(changed) as c where c.value is distinct from other ->> c.key
$$;
revoke all on function backup.in_words(jsonb, jsonb) from public;

-- Rows that people change at the dashboard: settings, policies, schedules, objectives, the calendar of drills. Each is audited in the transaction that
-- changes it, with what it was and what it is, as the role or person that did it; and told, as an alert that asks for nothing.
create function backup.audit_row() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  -- what the row is known by, and columns that no person sets
  word constant text := tg_argv[0];
  id_column constant text := tg_argv[1];
  kept constant text[] := array['note', 'personal', 'minimum', 'maximum', 'pattern', 'changed_at', 'applied_cron', 'enabled_since',
    'since', 'last_drill', 'last_at', 'last_ok', 'last_good_at', 'due_at'];
  before constant jsonb := case when tg_op <> 'INSERT' then backup.without_people(pg_catalog.to_jsonb(old)) - kept end;
  after constant jsonb := case when tg_op <> 'DELETE' then backup.without_people(pg_catalog.to_jsonb(new)) - kept end;
begin
  if before is distinct from after then
    perform backup.audit(
      word || '.changed', word || ':' || (coalesce(after, before) ->> id_column),
      pg_catalog.jsonb_build_object('from', before, 'to', after)
    );
    perform backup.raise_alert(
      'settings_changed', word || ':' || (coalesce(after, before) ->> id_column),
      pg_catalog.left(pg_catalog.format(
        'the %s %s was changed from %s to %s by %s', word, coalesce(after, before) ->> id_column,
        coalesce(backup.in_words(before, after), 'nothing'), coalesce(backup.in_words(after, before), 'nothing'), session_user
      ), 1000),
      'information'
    );
  end if;
  return null;
end
$$;
revoke all on function backup.audit_row() from public;

create function backup.audit_truncate() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  perform backup.audit(tg_argv[0] || '.changed', tg_argv[0] || ':all', '{"to": null, "from": "all of them"}');
  perform backup.raise_alert('settings_changed', tg_argv[0] || ':all', 'all rows of one kind were removed at once: ' || tg_argv[0], 'information');
  return null;
end
$$;
revoke all on function backup.audit_truncate() from public;

do $$
declare
  watched record;
begin
  for watched in
    select w.* from (values
      ('settings', 'setting', 'name'), ('policies', 'policy', 'tier'), ('schedules', 'schedule', 'name'),
      ('objectives', 'objective', 'scope'), ('drill_calendar', 'drill', 'name')
    ) as w (table_name, word, id_column)
  loop
    execute pg_catalog.format(
      'create trigger %1$I after insert or update or delete on backup.%2$I for each row execute function backup.audit_row(%3$L, %4$L)',
      watched.table_name || '_in_the_audit', watched.table_name, watched.word, watched.id_column
    );
    execute pg_catalog.format(
      'create trigger %1$I after truncate on backup.%2$I for each statement execute function backup.audit_truncate(%3$L)',
      watched.table_name || '_emptied_in_the_audit', watched.table_name, watched.word
    );
    -- always: a session under session_replication_role = replica would pass ordinary triggers
    execute pg_catalog.format('alter table backup.%I enable always trigger %I', watched.table_name, watched.table_name || '_in_the_audit');
    execute pg_catalog.format('alter table backup.%I enable always trigger %I', watched.table_name, watched.table_name || '_emptied_in_the_audit');
  end loop;
end
$$;

-- Which keys of BACKUP_KEYS opened something, and for what: `about` is `restore:<id>` or `download:<id>`. Told by whoever
-- opened it, by their ids. Legs that opened with the same keys again are told once.
create function backup.keys_used(about text, keys text[]) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  told constant jsonb := pg_catalog.jsonb_build_object('keys', (select coalesce(pg_catalog.jsonb_agg(k.id order by k.id), '[]') from pg_catalog.unnest(keys) as k (id)));
begin
  if pg_catalog.cardinality(keys) > 0 and not exists (
    select from backup.audit_log as l where l.subject = about and l.action = 'key.used' and l.detail @> told
  ) then
    perform backup.audit('key.used', about, told);
  end if;
end
$$;
revoke all on function backup.keys_used(text, text[]) from public;

-- Now there is what each job calls. Before, a job would fail, or find half of what it looks at and call somebody.
do $$
begin
  perform backup.apply_schedules();
  perform backup.record_install();
end
$$;
