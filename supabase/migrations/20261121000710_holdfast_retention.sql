-- Retention: how long backups are kept, and what is on its way out of the stores. What is decided is src/shared/retention's; every
-- removal is checked here once more. docs/decisions/0030-retention.md says why it is so.
-- Lock order: backup.runs → backup.tasks → backup.restores → backup.downloads → backup.segments → backup.copies → backup.removals.

alter table backup.runs add constraint prune_has_no_tier check (kind <> 'prune' or cardinality(tiers) = 0);
alter table backup.runs add constraint only_what_is_kept_is_pruned check (
  status <> 'pruned' or kind in ('full', 'incremental')
);
create unique index runs_one_active_prune on backup.runs (kind)
  where kind = 'prune' and status in ('queued', 'snapshotting', 'copying', 'finishing');

insert into backup.settings (name, kind, value, minimum, maximum, note) values
  ('keep_at_least', 'integer', '3', 1, 100, 'so many of the newest backups stay, however old they are'),
  ('prune_newest_hours', 'integer', '48', 2, 2400, 'with a newest backup older than this nothing is removed'),
  ('sweep_grace_hours', 'integer', '48', 24, 720,
    'how long an object that nothing needs stays before it is removed: longer than the longest run');

-- What was ordered to go, and what went. A row outlives its object by 30 days: what is listed again was put there late.
create table backup.removals (
  name text primary key,
  kind text not null,
  backup uuid,
  reason text not null,
  run_id uuid references backup.runs (id) on delete set null,
  ordered_at timestamptz not null default backup.clock_now(),
  removed_at timestamptz,
  -- why a store kept it, and the run in which it was tried last
  refusal text,
  tried_run uuid,
  constraint kind_is_known check (kind in ('manifest', 'segment')),
  constraint manifest_says_of_which_backup check ((kind = 'manifest') = (backup is not null)),
  constraint removed_one_is_not_refused check (removed_at is null or refusal is null)
);
comment on table backup.removals is 'What retention takes out of the stores, with its reason.';
create index removals_to_make on backup.removals (kind, name) where removed_at is null;
create index removals_by_run on backup.removals (run_id);
alter table backup.removals enable row level security;
revoke all on table backup.removals from public;

-- Looked at when the transaction ends, so that several rows can be changed together. HF421 (policy_refused).
create function backup.check_policies() returns trigger
language plpgsql
set search_path = ''
as $$
declare
  wrong text;
begin
  with kept as (select p.tier, p.keep from backup.policies as p)
  select x.why into wrong
  from (
    select 1, pg_catalog.format('%s backups would be gone before the next ones are there: at least %s', k.tier, f.least)
    from kept as k
    join (values
      ('daily', interval '2 days'), ('weekly', interval '14 days'), ('manual', interval '1 day'), ('safety', interval '1 day'),
      ('monthly', interval '62 days'), ('yearly', interval '732 days')
    ) as f (tier, least) on f.tier = k.tier
    where k.keep < f.least
    union all
    select 2, pg_catalog.format('%s backups (%s) would outlive the rarer %s ones (%s)', a.tier, a.keep, b.tier, b.keep)
    from kept as a
    join (values ('hourly', 'daily'), ('daily', 'weekly'), ('weekly', 'monthly'), ('monthly', 'yearly')) as o (often, rare)
      on o.often = a.tier
    join kept as b on b.tier = o.rare
    where a.keep > b.keep
    union all
    select 3, pg_catalog.format('the tier %s has no policy', t.tier)
    from pg_catalog.unnest(array['hourly', 'daily', 'weekly', 'manual', 'safety']) as t (tier)
    where not exists (select from kept as k where k.tier = t.tier)
    order by 1
    limit 1
  ) as x (place, why);
  if wrong is not null then
    raise exception '%', wrong using errcode = 'HF421';
  end if;
  return null;
end
$$;
revoke all on function backup.check_policies() from public;

create constraint trigger policies_agree after insert or update or delete on backup.policies
  deferrable initially deferred for each row execute function backup.check_policies();

-- Sets all tiers at once: `standard` (hourly 24 h, daily 30 d, weekly 90 d), `short` (24 h, 7 d, 30 d), `gfs` (grandfather, father,
-- son: 24 h, 7 d, 35 d, the first of each month 366 d). HF003 for another name.
create function backup.set_retention(preset text) returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  wanted constant jsonb := (case preset
    when 'standard' then '{"hourly": "24 hours", "daily": "30 days", "weekly": "90 days", "manual": "90 days", "safety": "30 days"}'
    when 'short' then '{"hourly": "24 hours", "daily": "7 days", "weekly": "30 days", "manual": "30 days", "safety": "7 days"}'
    when 'gfs' then
      '{"hourly": "24 hours", "daily": "7 days", "weekly": "35 days", "manual": "90 days", "safety": "30 days", "monthly": "366 days"}'
  end)::jsonb;
begin
  if wanted is null then
    raise exception 'a preset is standard, short or gfs' using errcode = 'HF003';
  end if;
  delete from backup.policies as p where not wanted ? p.tier;
  insert into backup.policies as p (tier, keep, note)
  select w.key, w.value::interval, case w.key when 'monthly' then 'the first backup of each month' else '' end
  from pg_catalog.jsonb_each_text(wanted) as w
  on conflict on constraint policies_pkey do update set keep = excluded.keep, changed_at = backup.clock_now()
  where p.keep <> excluded.keep;
  perform backup.audit('retention.set', 'preset:' || preset, wanted);
end
$$;
comment on function backup.set_retention(text) is 'Sets how long backups are kept: standard, short or gfs.';
revoke all on function backup.set_retention(text) from public;

-- One tier; an empty span takes monthly and yearly away. HF003 for an unknown tier; HF421 when the transaction ends.
create function backup.set_tier(tier text, keep interval) returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if set_tier.keep <= interval '0' and set_tier.tier in ('monthly', 'yearly') then
    delete from backup.policies as p where p.tier = set_tier.tier;
  elsif set_tier.keep < interval '1 hour' or set_tier.tier not in (
    'hourly', 'daily', 'weekly', 'manual', 'safety', 'monthly', 'yearly'
  ) then
    raise exception 'a tier is kept for an hour at least' using errcode = 'HF003';
  else
    insert into backup.policies as p (tier, keep, note) values (set_tier.tier, set_tier.keep, '')
    on conflict on constraint policies_pkey do update set keep = excluded.keep, changed_at = backup.clock_now();
  end if;
  perform backup.audit('retention.set', 'tier:' || set_tier.tier, pg_catalog.jsonb_build_object('keep', set_tier.keep));
end
$$;
revoke all on function backup.set_tier(text, interval) from public;
