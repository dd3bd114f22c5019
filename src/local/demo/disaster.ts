/** What people do after the last full backup, and what then must not have happened. */
import type pg from "pg";

/** New entries, changed ones, a table that was not there before, a sequence that moves. */
export async function liveOn(client: pg.Client): Promise<number> {
  const statements = [
    `insert into public.journal_entries (user_id, date, mood, title, body)
       select u.id, date '2026-11-01' + i, 'happy', 'Day ' || i, repeat('It was good. ', i + 1)
       from auth.users as u, generate_series(1, 20) as i`,
    `update public.journal_entries set mood = 'elated', updated_at = now()
       where id in (select e.id from public.journal_entries as e order by e.id limit 500)`,
    "delete from public.tags where id in (select t.id from public.tags as t order by t.id limit 10)",
    "create table public.goals (id bigint generated always as identity primary key, user_id uuid not null, goal text)",
    "alter table public.profiles add column motto text default 'carpe diem'",
    "insert into public.goals (user_id, goal) select p.id, 'write more' from public.profiles as p",
    "update public.profiles set motto = upper(handle), balance = balance + 0.00000001 where invoice_number % 2 = 0",
    "select nextval('public.invoice_numbers') from generate_series(1, 7)",
  ];
  let changed = 0;
  for (const statement of statements) changed += (await client.query(statement)).rowCount ?? 0;
  return changed;
}

/** A hash of all rows of each table of the user's and of auth, by name. */
export async function rowHashes(client: pg.Client): Promise<Map<string, string>> {
  const { rows: tables } = await client.query<{ name: string }>(
    `select format('%I.%I', n.nspname, c.relname) as name
     from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where n.nspname in ('public', 'auth') and c.relkind = 'r' order by 1`,
  );
  const hashes = new Map<string, string>();
  for (const { name } of tables) {
    const { rows } = await client.query<{ hash: string }>(
      `select md5(coalesce(string_agg(r.hash, '' order by r.hash), '')) as hash
       from (select md5(whole_row::text) as hash from only ${name} as whole_row) as r`,
    );
    hashes.set(name, rows[0]?.hash ?? "");
  }
  return hashes;
}

/**
 * Deletes every journal entry and drops two tables. Returns the moment one second before, which lies after everything
 * that was committed until now.
 */
export async function disaster(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ moment: string }>(
    `select to_char((clock_timestamp() - interval '1 second') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as moment
     from pg_sleep(1.2)`,
  );
  await client.query("delete from public.journal_entries");
  await client.query("drop table public.goals, public.mood_samples");
  return rows[0]?.moment ?? "";
}
