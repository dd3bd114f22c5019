/**
 * Loads the sample app: a journal with 50 people, from a seed, the same rows each time.
 *
 * Times are fixed too (all of 2024), so that two loads differ only in password salts and in what a default made.
 */
import { Buffer } from "node:buffer";
import { readFile } from "node:fs/promises";
import { createClient } from "@supabase/supabase-js";
import pg from "pg";
import { endClient } from "../../../src/local/client.ts";
import { copyRows, type Value } from "./copy_rows.ts";
import { seeded } from "./words.ts";

// supabase-js wants a WebSocket class on Node 20 even where Realtime is never used, as here.
if (!("WebSocket" in globalThis)) Reflect.set(globalThis, "WebSocket", class {});

/** The password of every person of the sample app. */
export const samplePassword = "correct horse battery staple";
export const sampleBucket = "voice-notes";

export interface SampleAppTarget {
  /** As role postgres. */
  readonly owner: pg.ClientConfig;
  /** As supabase_admin, for the policies on storage.objects; left out on a plain PostgreSQL. */
  readonly admin?: pg.ClientConfig;
  /** With it the voice notes are uploaded by their owners; without it they are rows only. */
  readonly gateway?: { readonly url: string; readonly anonKey: string };
}

export interface SampleAppOptions {
  /** Default 1. */
  readonly seed?: number;
  /** Rows of the big tables against the full size of 228,000 rows; default 1. */
  readonly scale?: number;
}

export interface SamplePerson {
  readonly id: string;
  readonly email: string;
}

export interface SampleApp {
  readonly people: readonly SamplePerson[];
  /** Rows loaded by table, as counted on the way in. */
  readonly rows: Readonly<Record<string, number>>;
  /** Names of the voice notes in the bucket. */
  readonly voiceNotes: readonly string[];
  /** Whether pg_cron was there to take the job. */
  readonly cron: boolean;
}

const peopleCount = 50;
const start = Date.UTC(2024, 0, 1);
const dayMs = 86_400_000;
const moods = ["sad", "low", "calm", "happy", "elated"] as const;

export async function loadSampleApp(target: SampleAppTarget, options: SampleAppOptions = {}): Promise<SampleApp> {
  const random = seeded(options.seed ?? 1);
  const scaled = (rows: number) => Math.max(1, Math.round(rows * (options.scale ?? 1)));
  const people = Array.from({ length: peopleCount }, (_, index): SamplePerson => ({
    id: random.uuid(),
    email: `person${index + 1}@journal.example`,
  }));
  const client = new pg.Client(target.owner);
  await client.connect();
  try {
    await client.query(await sql("schema.sql"));
    await addPeople(client, people);
    const rows = await addRows(client, people, random, scaled);
    await client.query("refresh materialized view public.mood_by_month");
    await client.query(await sql("automation.sql"));
    const cron = await scheduleJob(client);
    await client.query(
      "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types) values ($1, $1, false, $2, $3)",
      [sampleBucket, 5_000_000, ["audio/webm", "audio/mpeg"]],
    );
    if (target.admin !== undefined) await asAdmin(target.admin);
    const notes = voiceNotes(people, random);
    if (target.gateway === undefined) await addNoteRows(client, notes);
    else await uploadNotes(target.gateway, notes);
    await client.query("analyze");
    return {
      people,
      rows: { "auth.users": people.length, "auth.identities": people.length, ...rows },
      voiceNotes: notes.map((note) => note.name),
      cron,
    };
  } finally {
    await endClient(client);
  }
}

async function addPeople(client: pg.Client, people: readonly SamplePerson[]): Promise<void> {
  await client.query(
    `insert into auth.users (instance_id, id, aud, role, email, encrypted_password, email_confirmed_at,
       confirmation_token, recovery_token, email_change, email_change_token_new,
       raw_app_meta_data, raw_user_meta_data, created_at, updated_at)
     select '00000000-0000-0000-0000-000000000000', id, 'authenticated', 'authenticated', email,
       extensions.crypt($3, extensions.gen_salt('bf', 4)), '2024-01-01Z', '', '', '', '',
       '{"provider": "email", "providers": ["email"]}', jsonb_build_object('language', 'en'), '2024-01-01Z', '2024-01-01Z'
     from unnest($1::uuid[], $2::text[]) as people (id, email)`,
    [people.map((each) => each.id), people.map((each) => each.email), samplePassword],
  );
  await client.query(
    `insert into auth.identities (provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at)
     select id::text, id, jsonb_build_object('sub', id, 'email', email, 'email_verified', true), 'email',
       '2024-06-01Z', '2024-01-01Z', '2024-01-01Z'
     from unnest($1::uuid[], $2::text[]) as people (id, email)`,
    [people.map((each) => each.id), people.map((each) => each.email)],
  );
}

type Seeded = ReturnType<typeof seeded>;

/** Foreign keys hold by construction, so they and the triggers are left out while rows are loaded. */
async function addRows(
  client: pg.Client,
  people: readonly SamplePerson[],
  random: Seeded,
  scaled: (rows: number) => number,
): Promise<Record<string, number>> {
  const person = () => at(people, random.integer(people.length)).id;
  const moment = (days: number) => new Date(start + Math.floor(random.number() * days * dayMs)).toISOString();
  const entries: string[] = [];
  const rows: Record<string, number> = {};
  const load = async (table: string, columns: readonly string[], values: Iterable<readonly Value[]>) => {
    rows[table] = await copyRows(client, table, columns, values);
  };

  await client.query("set session_replication_role = replica");
  await load(
    "public.profiles",
    ["id", "handle", "display_name", "home", "preferences", "balance"],
    function* () {
      for (const [index, { id }] of people.entries()) {
        const home = index % 5 === 0
          ? null
          : `("${random.prose(2).replace(/[\n"\\]/g, " ")}",${index}.123456,-${index}.5)`;
        const preferences = JSON.stringify({ theme: "dark", reminders: [7, 21], note: random.prose(4), nothing: null });
        yield [
          id,
          `person-${index + 1}`,
          `Person ${index + 1} ${random.prose(1)}`,
          home,
          preferences,
          `${index}.00000001`,
        ];
      }
    }(),
  );
  const entryColumns = ["id", "user_id", "date", "mood", "title", "body", "created_at", "updated_at"];
  await load(
    "public.journal_entries",
    entryColumns,
    function* () {
      for (let index = 0; index < scaled(60_000); index++) {
        const id = random.uuid();
        entries.push(id);
        const written = moment(330);
        const mood = random.integer(20) === 0 ? null : at(moods, random.integer(moods.length));
        const title = random.integer(10) === 0 ? null : random.prose(4).slice(0, 120);
        yield [
          id,
          person(),
          written.slice(0, 10),
          mood,
          title,
          random.prose(20 + random.integer(60)),
          written,
          written,
        ];
      }
    }(),
  );
  await load(
    "public.tags",
    ["user_id", "name", "colour"],
    function* () {
      for (const { id } of people) {
        for (let index = 0; index < 8; index++) yield [id, `${index} ${random.prose(1)}`, `#${index}${index}aaff`];
      }
    }(),
  );
  await load(
    "public.entry_tags",
    ["entry_id", "tag_id"],
    function* () {
      const tags = people.length * 8;
      for (let index = 0; index < scaled(88_000); index++) {
        // One step of 7 a lap keeps the pairs apart: 7 and the number of tags have no common factor.
        const lap = Math.floor(index / entries.length);
        yield [at(entries, index % entries.length), 1 + ((index * 7 + lap) % tags)];
      }
    }(),
  );
  await load(
    "public.attachments",
    ["entry_id", "name", "mime", "content", "transcript"],
    function* () {
      for (let index = 0; index < Math.min(120, scaled(120)); index++) {
        const size = index === 0 ? 2_000_000 : 1_000 + random.integer(120_000);
        const content = `\\x${Buffer.from(random.bytes(size)).toString("hex")}`;
        const transcript = index % 3 === 0 ? random.prose(2_000 + random.integer(4_000)) : null;
        yield [at(entries, random.integer(entries.length)), `photo ${index}.jpg`, "image/jpeg", content, transcript];
      }
    }(),
  );
  await load(
    "public.events",
    ["id", "user_id", "kind", "payload", "occurred_at"],
    function* () {
      const kinds = ["opened", "saved", "shared", "searched"];
      for (let index = 0; index < scaled(60_000); index++) {
        const payload = JSON.stringify({
          screen: at(kinds, random.integer(4)),
          ms: random.integer(90_000),
          q: random.prose(3),
        });
        yield [index + 1, person(), at(kinds, random.integer(4)), payload, moment(160)];
      }
    }(),
  );
  await load(
    "public.mood_samples",
    ["user_id", "sampled_at", "mood", "score", "note"],
    function* () {
      for (let index = 0; index < scaled(20_000); index++) {
        const score = index % 1000 === 0 ? "NaN" : random.number().toFixed(4);
        yield [
          person(),
          moment(330),
          at(moods, random.integer(moods.length)),
          score,
          index % 4 === 0 ? random.prose(6) : null,
        ];
      }
    }(),
  );
  await client.query("set session_replication_role = origin");
  await client.query("select setval('public.invoice_numbers', 5000)");
  return rows;
}

interface VoiceNote {
  readonly owner: SamplePerson;
  readonly name: string;
  readonly mime: string;
  readonly bytes: Uint8Array;
}

/** Two recordings for each of the first six people: the right first bytes, noise after them. */
function voiceNotes(people: readonly SamplePerson[], random: Seeded): VoiceNote[] {
  return people.slice(0, 6).flatMap((owner): VoiceNote[] => {
    const note = (name: string, mime: string, magic: readonly number[]): VoiceNote => {
      const bytes = random.bytes(20_000 + random.integer(60_000));
      bytes.set(magic);
      return { owner, name: `${owner.id}/${name}`, mime, bytes };
    };
    return [
      note("morning.webm", "audio/webm", [0x1a, 0x45, 0xdf, 0xa3]),
      note("evening.mp3", "audio/mpeg", [0x49, 0x44, 0x33, 0x04]),
    ];
  });
}

async function addNoteRows(client: pg.Client, notes: readonly VoiceNote[]): Promise<void> {
  for (const { owner, name, mime, bytes } of notes) {
    await client.query(
      "insert into storage.objects (bucket_id, name, owner, owner_id, metadata) values ($1, $2, $3::uuid, $3::text, $4)",
      [sampleBucket, name, owner.id, JSON.stringify({ size: bytes.length, mimetype: mime })],
    );
  }
}

async function uploadNotes(gateway: { url: string; anonKey: string }, notes: readonly VoiceNote[]): Promise<void> {
  for (const owner of new Set(notes.map((note) => note.owner))) {
    const supabase = createClient(gateway.url, gateway.anonKey, {
      auth: { persistSession: false, autoRefreshToken: false },
    });
    const signIn = await supabase.auth.signInWithPassword({ email: owner.email, password: samplePassword });
    if (signIn.error !== null) throw new Error(`${owner.email} cannot sign in: ${signIn.error.message}`);
    for (const { name, mime, bytes } of notes.filter((note) => note.owner === owner)) {
      const { error } = await supabase.storage.from(sampleBucket).upload(name, bytes, { contentType: mime });
      if (error !== null) throw new Error(`${name} cannot be uploaded: ${error.message}`);
    }
  }
}

async function scheduleJob(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query("select 1 from pg_extension where extname = 'pg_cron'");
  if (rows.length === 0) return false;
  await client.query(await sql("cron.sql"));
  return true;
}

async function asAdmin(config: pg.ClientConfig): Promise<void> {
  const client = new pg.Client(config);
  await client.connect();
  try {
    await client.query(await sql("storage_policies.sql"));
  } finally {
    await endClient(client);
  }
}

function sql(name: string): Promise<string> {
  return readFile(new URL(name, import.meta.url), "utf8");
}

function at<T>(list: readonly T[], index: number): T {
  const value = list[index];
  if (value === undefined) throw new RangeError(`no element ${index} of ${list.length}`);
  return value;
}
