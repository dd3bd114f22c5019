-- The weekly check of a voice note: which file of which person is taken for it. docs/decisions/0031-verification.md.

-- One file that somebody owns, whose present version is copied: a recording where there is one, not larger than that, out of a bucket
-- that is not public. `stranger`: another person, or nobody's id. No row: there is none. `parts`: as for a list of files.
create function backup.sample_file(most_bytes bigint)
returns table (bucket text, name text, owner text, stranger text, epoch text, size bigint, parts text)
language plpgsql
volatile
set search_path = ''
as $$
begin
  if pg_catalog.to_regclass('storage.objects') is null or pg_catalog.to_regclass('auth.users') is null then
    return;
  end if;
  return query
    with sampled as (
      select c.id, c.object_id, c.version, c.epoch from backup.copied_files as c where c.complete
      order by c.object_id, c.id limit 20000
    )
    select p.bucket, p.name, s.owner,
      coalesce((select u.id::text from auth.users as u where u.id::text <> s.owner order by u.id limit 1), pg_catalog.gen_random_uuid()::text),
      s.epoch, p.size,
      coalesce((
        select pg_catalog.jsonb_agg(
          pg_catalog.jsonb_build_object(
            'object', o.name, 'rawBytes', o.raw_bytes, 'storedBytes', o.stored_bytes, 'hash', o.hash, 'storedHash', o.stored_hash
          )
          order by f.number
        )
        from backup.file_parts as f join backup.objects as o on o.name = f.object where f.copy = s.copy
      ), '[]')::text
    from (
      select d.id as copy, d.object_id, d.version, d.epoch, coalesce(o.owner_id, o.owner::text) as owner,
        o.metadata ->> 'mimetype' like 'audio/%' as is_audio
      from sampled as d
      join storage.objects as o on o.id = d.object_id
      join storage.buckets as b on b.id = o.bucket_id and not coalesce(b.public, false)
      where coalesce(o.owner_id, o.owner::text) is not null and (o.metadata ->> 'size')::bigint between 1 and sample_file.most_bytes
      order by is_audio desc nulls last, pg_catalog.random()
      limit 20
    ) as s
    cross join lateral backup.present_files(array[s.object_id]) as p
    where p.version = s.version
    order by s.is_audio desc nulls last
    limit 1;
end
$$;
revoke all on function backup.sample_file(bigint) from public;

do $$
begin
  perform backup.add_check(
    'voice_notes', 'weekly', 'a recording opens by a signed link, for its owner alone, and is what the backup holds', step => 'voice_note'
  );
end
$$;
