/** Files into a project's Storage: bytes first, read back, then the row. docs/decisions/0036-files.md. */
import { z } from "zod";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import { type FilePart, type ListedFile } from "../format/file_list.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteLiteral } from "../schema/quote.ts";
import { callHttp, type Fetch, type HttpAnswer } from "../store/http_call.ts";
import { storageFailure, storageProblem } from "../store/supabase_errors.ts";
import { type ObjectDeps, readObject } from "../verify/read_object.ts";
import { type ReadPart, recordedPart } from "../verify/read_file_list.ts";

import type { PresentFile } from "./plan_put_back.ts";
import { bytesOf } from "./plan_put_back.ts";
import { openProjectFiles, pathOf, type ProjectFilesSettings, storageHeaders } from "./project_files.ts";

export interface PutBackDeps {
  /** Where the backup lies; or what gives a part whose length and hash are as it is listed. */
  readonly reader: ObjectDeps | ReadPart;
  readonly target: ProjectFilesSettings;
  /** Into the database of that project. */
  readonly session: Connection;
  readonly fetch: Fetch;
  /** One after the other in the session, which several files share. */
  readonly inTurn: <T>(work: () => Promise<T>) => Promise<T>;
}

async function partOf(reader: PutBackDeps["reader"], part: FilePart): Promise<Uint8Array> {
  return typeof reader === "function" ? await reader(part) : await readObject(reader, recordedPart(part));
}

/** Metadata of what was put and whose row was not set yet: whoever was killed between is known by it. */
const halfMark = JSON.stringify({ holdfast: "restoring" });

/** Condition of a row `o` of storage.objects: it has that mark. Older servers have no such column. */
export const isHalfSql = `coalesce(pg_catalog.to_jsonb(o) -> 'user_metadata' = ${
  quoteLiteral(halfMark)
}::jsonb, false)`;

/** 5 GB over a slow line. */
const uploadTimeoutMs = 4 * 60 * 60 * 1000;
const answerBytes = 1024 * 1024;

/** As they stand in these buckets now. Errors: `target_differs` where the database has no Storage. */
export async function readPresentFiles(session: Connection, buckets: readonly string[]): Promise<PresentFile[]> {
  const [there] = await session.query("select pg_catalog.to_regclass('storage.objects') is not null as yes");
  if (there?.["yes"] !== "t") throw new HoldfastError("target_differs", "the target's database has no Storage");
  const rows = await session.query(
    `select o.id, o.bucket_id, o.name, o.version, o.metadata ->> 'size' as size, o.metadata ->> 'eTag' as etag,
            nullif(pg_catalog.to_jsonb(o) ->> 'owner_id', '') is not null as owned,
            ${isHalfSql} as half
       from storage.objects as o
      where o.name is not null and o.bucket_id in (select b.id from pg_catalog.jsonb_array_elements_text($1::jsonb) as b (id))`,
    [JSON.stringify(buckets)],
  );
  return rows.map((row) => ({
    id: text(row, "id"),
    bucket: text(row, "bucket_id"),
    name: text(row, "name"),
    version: row["version"] ?? null,
    size: row["size"] == null ? null : Number(row["size"]),
    etag: row["etag"] ?? null,
    isOwned: row["owned"] === "t",
    isHalf: row["half"] === "t",
  }));
}

const bucketRow = z.looseObject({
  id: z.string(),
  name: z.string(),
  public: z.boolean().nullable(),
  file_size_limit: z.number().nullable().optional(),
  allowed_mime_types: z.array(z.string()).nullable().optional(),
});

/**
 * Makes those that the target lacks, with their settings as the backup has them; one that the backup does not know is private. Returns
 * which. Errors: those of Storage.
 */
export async function makeBuckets(
  deps: Pick<PutBackDeps, "session" | "target" | "fetch">,
  rows: readonly string[],
  wanted: readonly string[],
): Promise<string[]> {
  const made: string[] = [];
  const present = await deps.session.query("select b.id from storage.buckets as b");
  const there = new Set(present.map((row) => row["id"]));
  const known = new Map(rows.map((row) => bucketRow.parse(JSON.parse(row))).map((bucket) => [bucket.id, bucket]));
  for (const id of wanted) {
    if (there.has(id)) continue;
    const { name, public: isPublic, file_size_limit, allowed_mime_types } = known.get(id) ??
      { name: id, public: false };
    const body = JSON.stringify({ id, name, public: isPublic ?? false, file_size_limit, allowed_mime_types });
    const headers = storageHeaders(deps.target.serviceKey);
    headers.set("content-type", "application/json");
    const label = "Storage of the target";
    const answer = await callHttp(deps.fetch, {
      method: "POST",
      url: `${baseOf(deps.target)}/bucket`,
      headers,
      body: new TextEncoder().encode(body),
    }, { label, timeoutMs: 60_000, maxBytes: answerBytes });
    // Somebody else may just have made it.
    if (answer.status !== 200 && storageProblem(answer).status !== 409) {
      throw storageFailure(answer, "make a bucket", label);
    }
    made.push(id);
  }
  return made;
}

/**
 * Its bytes, read back and compared part by part; then owner and dates in its row, and what the user's program had noted of it.
 * `replaces`: in the place of what stands there; else nothing may. Memory: two parts. Errors: `object_damaged`, `object_missing` of the
 * backup; `target_differs` where something stands there, or others come back than were put; those of Storage and the database.
 */
export async function putBack(deps: PutBackDeps, file: ListedFile, replaces: boolean): Promise<void> {
  const row = fileRow.parse(JSON.parse(file.row));
  await upload(deps, file, row, replaces);
  const [now] = await deps.inTurn(() =>
    deps.session.query(
      "select o.version, o.metadata ->> 'size' as size from storage.objects as o where o.bucket_id = $1 and o.name = $2",
      [file.bucket, file.name],
    )
  );
  const version = now?.["version"] ?? null;
  if (version === null || Number(now?.["size"]) !== bytesOf(file)) throw otherBack();
  await compare(deps, file, version);
  await deps.inTurn(() => setRow(deps.session, file, version));
}

const fileRow = z.looseObject({
  metadata: z.looseObject({ mimetype: z.string().nullish(), cacheControl: z.string().nullish() }).nullable(),
});

async function upload(
  deps: PutBackDeps,
  file: ListedFile,
  { metadata }: z.infer<typeof fileRow>,
  replaces: boolean,
): Promise<void> {
  const label = "Storage of the target";
  const headers = storageHeaders(deps.target.serviceKey);
  headers.set("content-type", metadata?.mimetype ?? "application/octet-stream");
  headers.set("cache-control", metadata?.cacheControl ?? "no-cache");
  headers.set("x-upsert", String(replaces));
  headers.set("x-metadata", btoa(halfMark));
  const url = `${baseOf(deps.target)}/object/${pathOf(file)}`;
  const [first, ...others] = file.parts;
  if (others.length === 0) {
    const body = first === undefined ? new Uint8Array(0) : await partOf(deps.reader, first);
    const bounds = { label, timeoutMs: uploadTimeoutMs, maxBytes: answerBytes };
    const answer = await callHttp(deps.fetch, { method: "POST", url, headers, body }, bounds);
    return refuse(answer, label);
  }
  headers.set("content-length", String(bytesOf(file)));
  const answer = await callHttp(
    // A stream says that it is one.
    (input, init) =>
      deps.fetch(input, { ...init, body: streamOf(deps.reader, file.parts), duplex: "half" } as RequestInit),
    { method: "POST", url, headers, body: null },
    { label, timeoutMs: uploadTimeoutMs, maxBytes: answerBytes },
  );
  refuse(answer, label);
}

function refuse(answer: HttpAnswer, label: string): void {
  if (answer.status === 200) return;
  throw storageProblem(answer).status === 409 ? otherBack() : storageFailure(answer, "take a file", label);
}

function streamOf(reader: PutBackDeps["reader"], parts: readonly FilePart[]): ReadableStream<Uint8Array> {
  let next = 0;
  return new ReadableStream({
    async pull(controller) {
      const part = parts[next++];
      if (part === undefined) controller.close();
      else controller.enqueue(await partOf(reader, part));
    },
  }, { highWaterMark: 0 });
}

async function compare(deps: PutBackDeps, file: ListedFile, version: string): Promise<void> {
  const files = openProjectFiles(deps.target, deps.fetch);
  let from = 0;
  for (const part of file.parts) {
    const to = from + part.rawBytes;
    const whole = file.parts.length === 1;
    const back = await files.read({ bucket: file.bucket, name: file.name, version, etag: null, from, to, whole });
    if (await sha256Hex(back) !== part.hash) throw otherBack();
    from = to;
  }
}

/**
 * Never `version` or `metadata`, which are Storage's (RULES: a row that names bytes which are not there answers 500). As replica, since a
 * trigger of Storage's would set `updated_at` to now. It counts for the version that was put alone.
 */
async function setRow(session: Connection, file: ListedFile, version: string): Promise<void> {
  const columns = await session.query(
    `select a.attname as name from pg_catalog.pg_attribute as a
      where a.attrelid = 'storage.objects'::regclass and a.attnum > 0 and not a.attisdropped
        and a.attname in ('owner', 'owner_id', 'created_at', 'updated_at', 'user_metadata')`,
  );
  const names = columns.map((row) => text(row, "name"));
  await session.execute("begin; set local session_replication_role = replica");
  try {
    const [row] = await session.query(
      `update storage.objects as o set (${names.join(", ")}) = row(${names.map((name) => `r.${name}`).join(", ")})
         from pg_catalog.jsonb_populate_record(null::storage.objects, $1::jsonb) as r
        where o.bucket_id = $2 and o.name = $3 and o.version = $4 returning o.id`,
      [file.row, file.bucket, file.name, version],
    );
    if (row === undefined) throw otherBack();
    await session.execute("commit");
  } finally {
    await session.execute("rollback").catch(() => {});
  }
}

function otherBack(): HoldfastError {
  return new HoldfastError("target_differs", "a file was changed by somebody else while it was put back", {
    hint: "Run it again: what is the same by now is left alone.",
  });
}

function baseOf({ projectUrl }: ProjectFilesSettings): string {
  return `${projectUrl.replace(/\/+$/, "")}/storage/v1`;
}
