/** One person of the sample app: which rows are theirs, said by hand for every table, and what befalls them. */

export interface UserTable {
  readonly schema: string;
  readonly name: string;
  readonly key: readonly string[] | null;
  /** Condition on \`whole_row\`: it is the user's alone; tables of then or of now are in schema \`from\`. */
  readonly mine: (user: string, from: string) => string;
  /** It is others' as well. */
  readonly shared?: (user: string, from: string) => string;
  /** Holds the user's id. */
  readonly id?: string;
}

const entryOf = (user: string, from: string, entry = "whole_row.entry_id") =>
  `${entry} in (select e.id from ${from}.journal_entries as e where e.user_id = '${user}')`;
const tagOf = (user: string, from: string) =>
  `whole_row.tag_id in (select g.id from ${from}.tags as g where g.user_id = '${user}')`;
const byUser = (user: string) => `whole_row.user_id = '${user}'`;

export const userTables: readonly UserTable[] = [
  { schema: "auth", name: "users", key: ["id"], mine: (user) => `whole_row.id = '${user}'` },
  { schema: "auth", name: "identities", key: ["id"], mine: byUser },
  { schema: "auth", name: "mfa_factors", key: ["id"], mine: byUser },
  { schema: "public", name: "profiles", key: ["id"], mine: (user) => `whole_row.id = '${user}'`, id: "id" },
  { schema: "public", name: "journal_entries", key: ["id"], mine: byUser, id: "user_id" },
  { schema: "public", name: "tags", key: ["id"], mine: byUser, id: "user_id" },
  {
    schema: "public",
    name: "entry_tags",
    key: ["entry_id", "tag_id"],
    mine: (user, from) => `${entryOf(user, from)} and ${tagOf(user, from)}`,
    shared: (user, from) => `(${entryOf(user, from)}) <> (${tagOf(user, from)})`,
  },
  { schema: "public", name: "attachments", key: ["id"], mine: entryOf },
  { schema: "public", name: "events", key: ["id", "occurred_at"], mine: byUser, id: "user_id" },
  { schema: "public", name: "mood_samples", key: null, mine: byUser, id: "user_id" },
];

/** Never touched by a user's restore. */
export const otherTables = [
  "auth.sessions",
  "auth.refresh_tokens",
  "auth.audit_log_entries",
  "storage.objects",
  "storage.buckets",
] as const;

/** Columns of texts that open something once. */
export const tokens = [
  "confirmation_token",
  "recovery_token",
  "email_change_token_new",
  "email_change_token_current",
  "phone_change_token",
  "reauthentication_token",
] as const;

/** More of the user than the sample app has: before the backup. */
export function addFacts(user: string, other: string): string {
  return `
    set session_replication_role = replica;
    insert into public.attachments (entry_id, name, mime, content)
      select id, 'of ' || row_number() over (order by id), 'image/png', decode(md5(id::text), 'hex')
        from public.journal_entries where user_id in ('${user}', '${other}');
    insert into public.entry_tags (entry_id, tag_id)
      select e.id, g.id from public.journal_entries as e join public.tags as g on g.user_id = e.user_id
       where e.user_id in ('${user}', '${other}') on conflict do nothing;
    insert into public.entry_tags (entry_id, tag_id)
      select e.id, g.id from public.journal_entries as e, public.tags as g
       where e.user_id in ('${user}', '${other}') and g.user_id in ('${user}', '${other}') and g.user_id <> e.user_id
       on conflict do nothing;
    insert into auth.mfa_factors (id, user_id, friendly_name, factor_type, status, created_at, updated_at, secret)
      select gen_random_uuid(), u.id, 'factor ' || n, 'totp', 'verified', now(), now(), md5(n::text)
        from auth.users as u, generate_series(1, 3) as n where u.id in ('${user}', '${other}');
    insert into auth.sessions (id, user_id, created_at) select gen_random_uuid(), id, now() from auth.users where id in ('${user}', '${other}');
    insert into auth.refresh_tokens (token, user_id, session_id) select md5(s.id::text), s.user_id, s.id from auth.sessions as s;
    insert into auth.audit_log_entries (id, payload) values (gen_random_uuid(), json_build_object('actor_id', '${user}'));
    reset session_replication_role`;
}

const third = (key: string) => `hashtext(${key}::text) % 3 = 0`;

/** A third is gone, a third has other values, some is new; the other's rows change too. */
export function damageUser(user: string, other: string): string {
  return `
    delete from public.journal_entries where user_id = '${user}' and id in (
      select id from public.journal_entries where user_id = '${user}' order by id limit 2);
    delete from public.tags where user_id = '${user}' and id % 3 = 0;
    delete from public.attachments where id in (
      select a.id from public.attachments as a join public.journal_entries as e on e.id = a.entry_id where e.user_id = '${user}' order by 1 limit 1);
    delete from public.entry_tags where ${third("row(entry_id, tag_id)")};
    delete from auth.mfa_factors where user_id = '${user}' and friendly_name = 'factor 1';
    delete from auth.identities where user_id = '${user}';
    set session_replication_role = replica;
    delete from public.events where user_id = '${user}' and id % 3 = 0;
    delete from public.mood_samples where user_id = '${user}' and sampled_at = (select min(sampled_at) from public.mood_samples where user_id = '${user}');
    update auth.users set email = 'changed@journal.example', encrypted_password = 'new password', recovery_token = 'of now',
      raw_user_meta_data = '{"language": "de"}' where id = '${user}';
    update auth.mfa_factors set secret = 'of now' where user_id = '${user}' and friendly_name = 'factor 2';
    update public.profiles set home = null, preferences = '{}', balance = -1 where id = '${user}';
    update public.journal_entries set body = 'gone', mood = null where user_id = '${user}' and id = (
      select max(id::text)::uuid from public.journal_entries where user_id = '${user}');
    update public.tags as g set colour = '#' || id where user_id = '${user}' and id % 3 = 1;
    update public.events set payload = '[]', kind = 'none' where user_id = '${user}' and id % 3 = 1;
    update public.mood_samples set score = null where user_id = '${user}' and sampled_at = (select max(sampled_at) from public.mood_samples where user_id = '${user}');
    update public.attachments set content = 'other' where id = (
      select max(a.id) from public.attachments as a join public.journal_entries as e on e.id = a.entry_id where e.user_id = '${user}');
    ${ownRows(user)};
    update public.journal_entries set body = 'later' where user_id = '${other}';
    update public.journal_entries set user_id = '${user}' where id = (
      select min(id::text)::uuid from public.journal_entries where user_id = '${other}');
    update public.events set user_id = '${user}' where id = (select min(id) from public.events where user_id = '${other}');
    delete from public.events where user_id = '${other}' and id % 2 = 0;
    insert into public.tags (user_id, name) values ('${other}', 'new of the other');
    reset session_replication_role`;
}

/** What a user made since then. */
const ownRows = (user: string) => `
    insert into auth.identities (provider_id, user_id, identity_data, provider) values ('new', '${user}', '{}', 'google');
    insert into public.journal_entries (user_id, date, body) values ('${user}', '2025-01-01', 'new'), ('${user}', '2025-01-02', 'newer');
    insert into public.tags (user_id, name) values ('${user}', 'new');
    insert into public.entry_tags (entry_id, tag_id) select e.id, g.id from public.journal_entries as e, public.tags as g
      where e.user_id = '${user}' and g.user_id = '${user}' and e.body = 'new' and g.name = 'new';
    insert into public.attachments (entry_id, name, mime, content) select id, 'new', 'x', '' from public.journal_entries where user_id = '${user}' and body = 'new';
    insert into public.events (id, user_id, kind, payload, occurred_at) values (900001, '${user}', 'new', '{}', '2025-01-01Z'), (900002, '${user}', 'new', '{}', '2024-01-02Z');
    insert into public.mood_samples (user_id, sampled_at) values ('${user}', '2025-01-01Z'), ('${user}', '2025-01-01Z')`;

/** The account is deleted, and what no key leads to half of it. */
export function removeUser(user: string): string {
  return `
    delete from auth.users where id = '${user}';
    delete from public.events where user_id = '${user}' and id % 2 = 0;
    delete from public.mood_samples where user_id = '${user}'`;
}

/** The person signs up again, under another id, and begins anew. */
export function signUpAgain(user: string): string {
  return `
    set session_replication_role = replica;
    insert into auth.users (instance_id, id, aud, role, email, encrypted_password)
      values ('00000000-0000-0000-0000-000000000000', '${user}', 'authenticated', 'authenticated', 'again@journal.example', 'x');
    insert into public.profiles (id, handle, display_name) values ('${user}', 'again', 'Again');
    ${ownRows(user)};
    reset session_replication_role`;
}
