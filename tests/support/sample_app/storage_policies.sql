-- What the dashboard does for the owner of a hosted project: policies on storage.objects. Run as supabase_admin.

create policy "voice notes: owners read" on storage.objects for select to authenticated
using (bucket_id = 'voice-notes' and owner_id = (select auth.uid()::text));
create policy "voice notes: owners add" on storage.objects for insert to authenticated
with check (bucket_id = 'voice-notes' and (storage.foldername(name))[1] = (select auth.uid()::text));
create policy "voice notes: owners change" on storage.objects for update to authenticated
using (bucket_id = 'voice-notes' and owner_id = (select auth.uid()::text));
create policy "voice notes: owners remove" on storage.objects for delete to authenticated
using (bucket_id = 'voice-notes' and owner_id = (select auth.uid()::text));
