-- Cron expressions of five fields, in GMT as pg_cron counts: which values a field allows, when one was due and is due next.

-- The values that one field of a cron expression allows, ascending. HF003 (payload_invalid) when it is not understood:
-- numbers, ranges, lists, steps and `*`; no names of months or days.
create function backup.cron_field(field text, lowest integer, highest integer) returns integer[]
language plpgsql
immutable
strict
set search_path = ''
as $$
declare
  part text;
  bounds text[];
  first_value integer;
  last_value integer;
  allowed integer[] := '{}'::integer[];
begin
  foreach part in array pg_catalog.string_to_array(field, ',') loop
    bounds := pg_catalog.regexp_match(part, '^(\*|([0-9]{1,2})(-([0-9]{1,2}))?)(/([1-9][0-9]?))?$');
    if bounds is null then
      raise exception 'cron field "%" is not understood', field using errcode = 'HF003';
    end if;
    first_value := coalesce(bounds[2]::integer, lowest);
    last_value := case
      when bounds[4] is not null then bounds[4]::integer
      when bounds[2] is not null and bounds[6] is null then first_value
      else highest
    end;
    if first_value < lowest or last_value > highest or last_value < first_value then
      raise exception 'cron field "%" is outside % to %', field, lowest, highest using errcode = 'HF003';
    end if;
    allowed := allowed || array(
      select generated.value
      from pg_catalog.generate_series(first_value, last_value, coalesce(bounds[6]::integer, 1)) as generated (value)
    );
  end loop;
  return array(select distinct u.value from pg_catalog.unnest(allowed) as u (value) order by u.value);
end
$$;
revoke all on function backup.cron_field(text, integer, integer) from public;

-- From a moment (GMT, as pg_cron counts) day by day to the nearest one at which a five-field expression is due: for `step` -1 back,
-- the moment itself counted; for 1 ahead, without it. Null where there is none within so many days. As in cron, a day matches by
-- either day field when both are restricted. HF003.
create function backup.nearest_due(cron text, moment timestamp, step integer, at_most_days integer) returns timestamp
language plpgsql
immutable
strict
set search_path = ''
as $$
declare
  fields text[] := pg_catalog.regexp_split_to_array(pg_catalog.btrim(cron), '\s+');
  minutes integer[];
  hours integer[];
  month_days integer[];
  months integer[];
  week_days integer[];
  day_start timestamp := pg_catalog.date_trunc('day', moment);
  due timestamp;
begin
  if pg_catalog.array_length(fields, 1) <> 5 then
    raise exception 'cron expression "%" has not five fields', cron using errcode = 'HF003';
  end if;
  minutes := backup.cron_field(fields[1], 0, 59);
  hours := backup.cron_field(fields[2], 0, 23);
  month_days := backup.cron_field(fields[3], 1, 31);
  months := backup.cron_field(fields[4], 1, 12);
  week_days := backup.cron_field(fields[5], 0, 7);
  if 7 = any (week_days) then
    week_days := week_days || 0;
  end if;
  for days_away in 0..at_most_days loop
    if pg_catalog.date_part('month', day_start)::integer = any (months) and (case
      when fields[3] like '*%' or fields[5] like '*%' then
        pg_catalog.date_part('day', day_start)::integer = any (month_days)
        and pg_catalog.date_part('dow', day_start)::integer = any (week_days)
      else
        pg_catalog.date_part('day', day_start)::integer = any (month_days)
        or pg_catalog.date_part('dow', day_start)::integer = any (week_days)
    end) then
      select case when step < 0 then max(t.due) filter (where t.due <= moment) else min(t.due) filter (where t.due > moment) end
      into due
      from (
        select day_start + pg_catalog.make_interval(hours => h.value, mins => m.value) as due
        from pg_catalog.unnest(hours) as h (value), pg_catalog.unnest(minutes) as m (value)
      ) as t;
      if due is not null then
        return due;
      end if;
    end if;
    day_start := day_start + step * interval '1 day';
  end loop;
  return null;
end
$$;
revoke all on function backup.nearest_due(text, timestamp, integer, integer) from public;

-- The last moment at or before `until` at which it was due; null when there is none within 366 days.
create function backup.last_due(cron text, until timestamptz) returns timestamptz
language sql
immutable
strict
set search_path = ''
as $$
  select backup.nearest_due(cron, until at time zone 'UTC', -1, 366) at time zone 'UTC'
$$;
revoke all on function backup.last_due(text, timestamptz) from public;

-- The first moment after `after` at which it is due; null where there is none within eight years, which is as far apart as two 29ths
-- of February may be.
create function backup.next_due(cron text, after timestamptz) returns timestamptz
language sql
immutable
strict
set search_path = ''
as $$
  select backup.nearest_due(cron, after at time zone 'UTC', 1, 2922) at time zone 'UTC'
$$;
revoke all on function backup.next_due(text, timestamptz) from public;
