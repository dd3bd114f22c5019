import { isDeepStrictEqual } from "node:util";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { samplePassword } from "../../../tests/support/sample_app/load.ts";

export interface Api {
  readonly url: string;
  readonly anonKey: string;
}

/** Through supabase-js and /rest/v1, under row-level security. */
export interface SeenEntry {
  /** Entry and tags, after the entry was deleted. */
  readonly gone: boolean;
  /** After the restore: every value that its owner sees is the one from before. */
  readonly back: boolean;
  readonly othersSee: number;
}

/** Signed in through /auth/v1. */
export interface People {
  readonly owner: SupabaseClient;
  readonly other: SupabaseClient;
}

/** Throws where the API refuses. */
export async function signInBoth(api: Api, emails: readonly [string, string]): Promise<People> {
  const [owner, other] = await Promise.all([signIn(api, emails[0]), signIn(api, emails[1])]);
  return { owner, other };
}

/**
 * A person deletes an entry of their own in the app, and its tags go with it; `restore` brings what belongs to that id back,
 * and the person and somebody else look for it. Throws where the API refuses.
 */
export async function loseAndFind(
  { owner, other }: People,
  restore: (id: string) => Promise<void>,
): Promise<SeenEntry> {
  const { data, error } = await owner.from("journal_entries").select("id").order("id").limit(1);
  const [{ id } = { id: "" }] = (data ?? []) as { readonly id: string }[];
  if (error !== null || id === "") throw new Error(`no entry of the person was found: ${error?.message}`);
  const before = await look(owner, id);
  const deleted = await owner.from("journal_entries").delete().eq("id", id);
  if (deleted.error !== null) throw new Error(`the entry was not deleted: ${deleted.error.message}`);
  const gone = (await look(owner, id)).length === 0;
  await restore(id);
  const after = await look(owner, id);
  return { gone, back: isDeepStrictEqual(after, before), othersSee: (await look(other, id)).length };
}

/** It was gone, and is back with every value for its owner alone. */
export function isAsBefore({ gone, back, othersSee }: SeenEntry): boolean {
  return gone && back && othersSee === 0;
}

/** What brings an entry back, and its tags, which went with it. `shown`: without its id. */
export function entryCommands(backup: string, id: string): { readonly shown: string; readonly args: string[] }[] {
  // `missing` overwrites nothing, so that the demo goes without a safety backup.
  const apply = ["--all", "--apply", "missing", "--yes", "--skip-safety-backup", "postgres"];
  return [["journal_entries", "id"], ["entry_tags", "entry_id"]].map(([table, column]) => ({
    shown: `restore-record public.${table} --where ${column}=… --apply missing`,
    args: ["restore-record", `public.${table}`, backup, "--where", `${column}=${id}`, ...apply],
  }));
}

async function signIn({ url, anonKey }: Api, email: string): Promise<SupabaseClient> {
  const client = createClient(url, anonKey, { auth: { persistSession: false, autoRefreshToken: false } });
  const { error } = await client.auth.signInWithPassword({ email, password: samplePassword });
  if (error !== null) throw new Error(`nobody was signed in: ${error.message}`);
  return client;
}

/** The entry and its tags. */
async function look(client: SupabaseClient, id: string): Promise<unknown[]> {
  const [entry, tags] = await Promise.all([
    client.from("journal_entries").select("*").eq("id", id),
    client.from("entry_tags").select("*").eq("entry_id", id).order("tag_id"),
  ]);
  const error = entry.error ?? tags.error;
  if (error !== null) throw new Error(`the entry was not looked for: ${error.message}`);
  return [...entry.data ?? [], ...tags.data ?? []];
}
