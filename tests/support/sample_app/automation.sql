-- What acts by itself: a webhook on new entries. Run as role postgres after the rows are there, so that loading them
-- sends nothing.

create function public.announce_entry() returns trigger language plpgsql set search_path = '' as $$
begin
  perform net.http_post(
    url := 'https://hooks.example.invalid/entries',
    body := jsonb_build_object('id', new.id, 'date', new.date)
  );
  return new;
end
$$;
revoke execute on function public.announce_entry() from public;
create trigger announce_entry after insert on public.journal_entries
for each row execute function public.announce_entry();
