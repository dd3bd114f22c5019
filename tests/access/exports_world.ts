/** A project with people who have rows and files, for tests of exports on the embedded stack under the platform's limits. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { beforeAll, expect } from "vitest";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { type ExportDocument, exportDocument } from "../../src/shared/export/document_format.ts";
import { documentFacts, verifySignature } from "../../src/shared/export/signature.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { query } from "../support/cluster.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import { eventually, type Project, setClock, useProject } from "../support/stack.ts";

export interface Linked {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly url: string;
}

export interface Shown {
  readonly id: string;
  readonly user: string;
  readonly status: string;
  readonly rows: number;
  readonly mail: string | null;
  readonly expiresAt: string;
  readonly url?: string;
  readonly document: readonly Linked[];
  readonly files: readonly Linked[];
  readonly error: { readonly code: string } | null;
}

interface People {
  admin: SignedIn;
  anna: SignedIn;
  bob: SignedIn;
}

const bucket = "voice-notes";

export const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** `people`: there in tests and hooks. */
export function useExportWorld(environment: Readonly<Record<string, string>> = {}) {
  const people = {} as People;
  const project = useProject({
    testing: true,
    environment: {
      BACKUP_LOG_LEVEL: "debug",
      ...environment,
    },
  }, fill);

  async function fill({ query }: Project): Promise<void> {
    await query(
      `create table public.notes (id int primary key, user_id uuid not null references auth.users, body text);
     comment on table public.notes is 'What people write.';
     create table public.letters (id int primary key, sender uuid references auth.users, reader uuid references auth.users, body text);
     insert into storage.buckets (id, name, public) values ('${bucket}', '${bucket}', false);
     update backup.settings set value = 'exports@example.org' where name = 'mail_from';
     update backup.settings set value = 'https://app.example.org/me' where name = 'export_page'`,
    );
  }

  beforeAll(async () => {
    const [admin, anna, bob] = await Promise.all([signedIn(project().stack, { aal2: true }), person(), person()]);
    Object.assign(people, { admin, anna, bob });
    await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
    await ask(
      `insert into public.notes select i, case i % 2 when 0 then $1::uuid else $2::uuid end, 'note ' || i from generate_series(1, 60) as i`,
      [anna.userId, bob.userId],
    );
    await ask("insert into public.letters values (1, $1, $2, 'to Bob'), (2, $1, $1, 'to myself')", [
      anna.userId,
      bob.userId,
    ]);
    await upload(anna, "one.webm", Buffer.alloc(70_000, 1));
    // Of more than a part.
    await upload(anna, "Gespräch/две.webm", webCryptoRandom(40_000).slice(), 9 * 1024 * 1024);
    await upload(bob, "his.webm", Buffer.from("Bob's"));
  }, 180_000);

  const ask = (text: string, values: readonly unknown[] = []) => project().query(text, values);
  const person = () => signedIn(project().stack);
  const contents = new Map<string, Buffer>();

  /** Into the bucket as this person's, repeated up to `size`. Names that Storage refuses as keys are renamed in the row. */
  async function upload(who: SignedIn, name: string, bytes: Uint8Array, size = bytes.byteLength): Promise<void> {
    const { url, serviceRoleKey } = project().stack.gateway;
    const whole = Buffer.alloc(size);
    for (let at = 0; at < size; at += bytes.byteLength) {
      whole.set(bytes.subarray(0, Math.min(bytes.byteLength, size - at)), at);
    }
    const key = `${who.userId}/${name.replace(/[^A-Za-z0-9./]/g, "_")}`;
    const answer = await fetch(`${url}/storage/v1/object/${bucket}/${key}`, {
      method: "POST",
      headers: { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}`, "content-type": "audio/webm" },
      body: whole,
    });
    expect(answer.status, await answer.text()).toBe(200);
    await query(
      project().stack.cluster.plainUrl("supabase_admin"),
      "update storage.objects set owner_id = $1::uuid::text, owner = $1::uuid where bucket_id = $2 and name = $3",
      [who.userId, bucket, key],
    );
    contents.set(key, whole);
  }

  /** Errors: what the function answers, with its status. */
  async function call(who: { readonly accessToken: string }, request: Readonly<Record<string, unknown>>) {
    const answer = await fetch(`${project().stack.gateway.url}/functions/v1/export`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${who.accessToken}` },
      body: JSON.stringify(request),
    });
    const document = await answer.json() as Record<string, unknown>;
    if (answer.ok) return document;
    throw Object.assign(new Error(JSON.stringify(document)), document, { status: answer.status });
  }

  const codeOf = async (who: SignedIn, request: Readonly<Record<string, unknown>>) =>
    await call(who, request).then(() => "none", (error: { code: string }) => error.code);

  /** Asked for, and made: the watchdog is called all the time, and the clock goes past a lease where a leg was lost. */
  async function made(who: SignedIn, request: Readonly<Record<string, unknown>> = { action: "request" }, lost = false) {
    const { export: id } = await call(who, request);
    try {
      if (lost) await eventually("a leg is lost", async () => (await legsLost(String(id))) ? true : null, 60_000);
      await eventually("the export is made", async () => {
        if (lost) {
          await setClock(project(), 200);
          await ask("select backup.tick()");
        }
        const going = await ask("select from backup.exports where id = $1 and status in ('queued', 'making')", [id]);
        return going.length > 0 ? null : true;
      }, 120_000);
      return await call(who, { action: "status", export: id }) as unknown as Shown;
    } finally {
      if (lost) await setClock(project(), 0);
    }
  }

  /** Its worker holds a lease, and its isolate was killed. */
  const legsLost = async (id: string) =>
    (await ask("select from backup.exports where id = $1 and (worker is not null or status = 'ready')", [id])).length >
      0;

  const linked = async (who: SignedIn, id: string, more: Readonly<Record<string, unknown>> = {}) =>
    await call(who, { action: "link", export: id, ...more }) as unknown as Shown;

  async function fetched(parts: readonly Linked[]): Promise<Buffer> {
    const found: Buffer[] = [];
    for (const { url, bytes, sha256 } of parts) {
      const answer = await fetch(url);
      expect(answer.status).toBe(200);
      const part = Buffer.from(await answer.arrayBuffer());
      expect({ bytes: part.byteLength, sha256: hashOf(part) }).toEqual({ bytes, sha256 });
      found.push(part);
    }
    return Buffer.concat(found);
  }

  /** Held against its schema, its signature, the database and Storage. */
  async function proven(shown: Shown): Promise<ExportDocument> {
    expect(shown).toMatchObject({ status: "ready", error: null });
    const bytes = await fetched(shown.document);
    const document = exportDocument.parse(JSON.parse(bytes.toString()));
    const read = (from: number, to: number) => Promise.resolve(bytes.subarray(from, to));
    const { id, install } = await documentFacts(read, bytes.byteLength);
    await verifySignature(parseKeyRing(project().stack.keys), { id, install, bytes: bytes.byteLength, read });
    const own = (await ask("select id from public.notes where user_id = $1 order by id", [shown.user])).map(({ id }) =>
      id
    );
    const notes = document.tables.find(({ table }) => table === "notes")?.rows.map(({ row }) => row["id"]) ?? [];
    expect(notes).toEqual(own);
    const files = await ask("select name from storage.objects where bucket_id = $1 and owner_id = $2 order by name", [
      bucket,
      shown.user,
    ]);
    expect(document.files.map(({ name }) => name)).toEqual(files.map(({ name }) => name));
    for (const file of document.files) {
      const parts = shown.files.filter(({ path }) => path === file.path || path.startsWith(`${file.path}.0`));
      expect(hashOf(await fetched(parts)), file.name).toBe(hashOf(contents.get(file.name) ?? Buffer.from("none")));
      expect(file.parts).toEqual(parts.map(({ bytes, sha256 }) => ({ bytes, sha256 })));
    }
    return document;
  }

  const objectsOf = async (id: string) =>
    (await ask("select name from storage.objects where bucket_id = 'data-exports' and name like $1", [
      `holdfast/${id}/%`,
    ]))
      .map(({ name }) => String(name));
  const audited = async (id: string) =>
    (await ask("select action from backup.audit_log where subject = $1 order by id", [`export:${id}`]))
      .map(({ action }) => String(action));
  /** As if a day had gone by: orders of before count no more. */
  const forget = async (who: SignedIn) =>
    await ask("update backup.exports set created_at = created_at - interval '25 hours' where user_id = $1", [
      who.userId,
    ]);
  return {
    project,
    people,
    bucket,
    contents,
    ask,
    person,
    upload,
    call,
    codeOf,
    made,
    linked,
    fetched,
    proven,
    objectsOf,
    audited,
    forget,
  };
}
