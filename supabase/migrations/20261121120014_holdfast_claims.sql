-- Who works on a restore: asked to stop, taken over, and what nobody may remove meanwhile.
-- Lock order: as of restores.

-- Asks that it ends. One that nobody works on is cancelled at once; a worker sees it at its next progress. Returns the
-- status. HF414 when there is none, HF415 when it has ended.
create function backup.cancel_restore(id uuid) returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores := backup.known_restore(id);
begin
  if ours.finished_at is not null then
    raise exception 'restore % is % already', ours.id, ours.status using errcode = 'HF415';
  end if;
  if ours.lease_until < backup.clock_now() then
    perform backup.end_restore(ours, 'cancelled', null, null);
    return 'cancelled';
  end if;
  update backup.restores as r set cancel_requested_at = coalesce(r.cancel_requested_at, backup.clock_now())
  where r.id = ours.id;
  perform backup.audit('restore.cancel_asked', 'restore:' || ours.id, backup.restore_detail(ours));
  return ours.status;
end
$$;
revoke all on function backup.cancel_restore(uuid) from public;

-- Takes over one that nobody works on; its token has to come with every later call. Null while another has the lease, and
-- for one that was asked to end, which ends now. `resume`: also one that failed or was cancelled. `apply`: puts the rows of
-- one that stands beside into place, in that mode, or of one that failed at that. HF414 when there is none; HF415 for any other state, for a side schema
-- that is gone, and for tables that another one is at work on.
create function backup.claim_restore(
  id uuid, worker text, lease interval, resume boolean default false, apply text default null
) returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  ours backup.restores;
begin
  select r.* into ours from backup.restores as r where r.id = claim_restore.id for no key update skip locked;
  if ours.id is null then
    if not exists (select from backup.restores as r where r.id = claim_restore.id) then
      raise exception 'there is no restore %', claim_restore.id using errcode = 'HF414';
    end if;
    -- whoever has the row locked is at work
    return null;
  end if;
  if ours.finished_at is null and apply is null then
    -- nobody takes a lease for an hour: one that ends later is of a clock that was moved back since
    if ours.lease_until between backup.clock_now() and backup.clock_now() + greatest(lease, interval '1 hour') then
      return null;
    elsif ours.cancel_requested_at is not null then
      perform backup.end_restore(ours, 'cancelled', null, null);
      return null;
    elsif ours.next_leg_at is not null and ours.legs_begun >= 5 then
      perform backup.end_restore(
        ours, 'run_stalled', 'five legs of the function were ended by the platform before they came to their end',
        'Look at the function''s log; the CLI restores without its limits.'
      );
      return null;
    end if;
  elsif not coalesce(
    case when apply is null then resume and ours.status in ('failed', 'cancelled')
    else apply in ('missing', 'merge', 'replace') and ours.side_schema is not null and (
      ours.status = 'beside' or (ours.status in ('failed', 'cancelled') and ours.stage = 'applying')
    ) end, false)
  then
    raise exception 'restore % is %', ours.id, ours.status using errcode = 'HF415';
  end if;
  if ours.side_dropped_at is not null then
    raise exception 'the side schema of restore % is gone', ours.id
      using errcode = 'HF415', hint = 'Restore again from the backup.';
  end if;
  update backup.restores as r
  set token = r.token + 1, worker = claim_restore.worker, lease_until = backup.clock_now() + claim_restore.lease,
    heartbeat_at = backup.clock_now(), legs_begun = r.legs_begun + 1, mode = coalesce(apply, r.mode),
    stage = case when apply is null then r.stage else 'applying' end,
    status = case when apply is null then r.stage else 'applying' end,
    -- rows that waited for somebody to look at them are not time that the restore took
    started_at = case when apply is null then r.started_at else backup.clock_now() end,
    finished_at = null, measured_seconds = null, objective_seconds = null, cancel_requested_at = null,
    error_code = null, error_message = null, error_hint = null
  where r.id = ours.id
  returning r.* into ours;
  perform backup.refuse_same_tables(ours);
  -- one leg after the other is nothing that anybody did
  if apply is not null or resume or ours.next_leg_at is null then
    perform backup.audit('restore.claimed', 'restore:' || ours.id, backup.restore_detail(ours));
  end if;
  return ours.token;
end
$$;
revoke all on function backup.claim_restore(uuid, text, interval, boolean, text) from public;

-- Backups that something needs until it has ended: nobody may remove one of them. What a restore reads, the full under the
-- moment that it wants, and its safety backups, one a try; those of a restore in place that failed, or was cancelled when
-- it had begun to change rows, for a day more, in which somebody may go on with it.
create function backup.backups_in_use() returns table (backup uuid, restore uuid, until_moment timestamptz)
language sql
stable
set search_path = ''
as $$
  select used.backup, r.id, case when used.backup = r.source_backup then r.point_at end
  from backup.restores as r
  cross join lateral (
    values (r.source_backup), (r.safety_run)
    union
    select s.id from backup.runs as s
    where s.tiers = array['safety'] and r.mode <> 'beside' and r.target_is_here
      and s.created_at between r.started_at and coalesce(r.finished_at, 'infinity')
  ) as used (backup)
  where used.backup is not null
    and (
      r.finished_at is null
      or (
        r.mode <> 'beside' and (r.status = 'failed' or (r.status = 'cancelled' and r.stage = 'applying'))
        and r.finished_at > backup.clock_now() - interval '1 day'
      )
    )
$$;
comment on function backup.backups_in_use() is
  'Backups that a restore needs, and up to which moment of the change stream; none of them may be removed.';
revoke all on function backup.backups_in_use() from public;
