/** A recording of somebody, fetched by a signed link as its owner would, refused to others, and held against its copy. */
import { z } from "zod";
import { epochSource } from "../crypto/epochs.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { FilePart } from "../format/file_list.ts";
import { readRepository } from "../format/repository.ts";
import { pathOf, storageHeaders } from "../files/project_files.ts";
import type { CheckOutcome } from "../jobs/check_queries.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { callHttp } from "../store/http_call.ts";
import { storageFailure } from "../store/supabase_errors.ts";
import { recordedPart } from "../verify/read_file_list.ts";
import { readObject } from "../verify/read_object.ts";
import type { CheckDeps, CheckProject } from "./deps.ts";

/** It is in memory twice. */
const mostBytes = 8 * 1024 * 1024;
const timeoutMs = 60_000;
const linkSeconds = 60;
const label = "Storage of the project";

interface Sample {
  readonly bucket: string;
  readonly name: string;
  readonly owner: string;
  readonly stranger: string;
  readonly size: number;
  readonly parts: readonly FilePart[];
}

/**
 * Whether owner and stranger may read is asked of the database, whose policies are what Storage goes by: nobody's session is made for it.
 * The link is made with the service key. Names of files are in no result. Errors: those of stores and Storage.
 */
export async function openVoiceNote(deps: CheckDeps): Promise<CheckOutcome> {
  const { connection, project } = deps;
  if (project === null || project === undefined) {
    return noVerdict(
      "whoever makes this check does not know the project's Storage (SUPABASE_URL, SUPABASE_SECRET_KEY)",
    );
  }
  const sample = await sampleOf(connection);
  if (sample === null) return noVerdict("no file of a person, in a bucket that is not public, is copied yet");
  const { bucket, size } = sample;
  const [ownerReads, strangerReads] = [
    await mayRead(connection, sample, sample.owner),
    await mayRead(connection, sample, sample.stranger),
  ];
  const url = await signedLink(project, sample);
  const [linked, bare, forged] = [
    await fetched(project, url),
    await fetched(project, `${baseOf(project)}/object/authenticated/${pathOf(sample)}`),
    await fetched(project, forgedOf(url)),
  ];
  const copy = await copyOf(deps, sample);
  const hashes = {
    live: linked === null ? null : await sha256Hex(linked),
    copy: await sha256Hex(copy),
  };
  const evidence = {
    bucket,
    bytes: size,
    ownerReads,
    strangerReads,
    openedByLink: linked !== null,
    openedWithoutLink: bare !== null,
    openedByForgedLink: forged !== null,
    sha256: hashes,
  };
  const failed = linked === null
    ? "the signed link to a recording does not open"
    : hashes.live !== hashes.copy
    ? "a recording differs from its copy in the backup"
    : bare !== null || forged !== null
    ? "a recording opens without its link, or by a forged one"
    : null;
  if (failed !== null) return { outcome: "failed", message: failed, evidence };
  if (!ownerReads || strangerReads) {
    const told = strangerReads ? "any person who is signed in may read it" : "its own owner may not read it";
    return { outcome: "warning", message: `a file in bucket ${bucket}: ${told}, by the project's policies`, evidence };
  }
  return {
    outcome: "passed",
    message: "a recording opens by its link, is refused to others, and equals its copy",
    evidence,
  };
}

function noVerdict(message: string): CheckOutcome {
  return { outcome: "no_verdict", message, evidence: {} };
}

async function sampleOf(connection: Connection): Promise<Sample | null> {
  const [row] = await connection.query("select * from backup.sample_file($1::bigint)", [String(mostBytes)]);
  if (row === undefined) return null;
  return {
    bucket: text(row, "bucket"),
    name: text(row, "name"),
    owner: text(row, "owner"),
    stranger: text(row, "stranger"),
    size: Number(row["size"]),
    parts: JSON.parse(text(row, "parts")) as FilePart[],
  };
}

/** By the policies on storage.objects, as Storage asks them for somebody who is signed in. */
async function mayRead(connection: Connection, { bucket, name }: Sample, user: string): Promise<boolean> {
  const claims = JSON.stringify({ sub: user, role: "authenticated", aud: "authenticated", aal: "aal2" });
  // Policies of the project may call its functions without their schema.
  await connection.execute("begin; set local row_security = on; set local search_path = public, extensions");
  try {
    await connection.query(
      `select pg_catalog.set_config('request.jwt.claims', $1, true), pg_catalog.set_config('request.jwt.claim.sub', $2, true),
              pg_catalog.set_config('request.jwt.claim.role', 'authenticated', true)`,
      [claims, user],
    );
    await connection.execute("set local role authenticated");
    const [row] = await connection.query(
      "select count(*) as files from storage.objects as o where o.bucket_id = $1 and o.name = $2",
      [bucket, name],
    );
    return row?.["files"] === "1";
  } catch (error) {
    // It may not read the table, or a policy asks for what this session does not have.
    const sqlstate = sqlstateOf(error);
    if (sqlstate !== null && !/^(08|57)/.test(sqlstate)) return false;
    throw error;
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}

const signed = z.looseObject({ signedURL: z.string().startsWith("/") });

async function signedLink(project: CheckProject, sample: Sample): Promise<string> {
  const headers = storageHeaders(project.serviceKey);
  headers.set("content-type", "application/json");
  const answer = await callHttp(project.fetch, {
    method: "POST",
    url: `${baseOf(project)}/object/sign/${pathOf(sample)}`,
    headers,
    body: new TextEncoder().encode(JSON.stringify({ expiresIn: linkSeconds })),
  }, { label, timeoutMs, maxBytes: 64 * 1024 });
  if (answer.status !== 200) throw storageFailure(answer, "sign a link", label);
  const parsed = signed.safeParse(JSON.parse(new TextDecoder().decode(answer.body)));
  if (!parsed.success) throw new HoldfastError("store_lied", `${label} signed no link`);
  return `${baseOf(project)}${parsed.data.signedURL}`;
}

/** As whoever has the address and nothing else; null: refused. */
async function fetched(project: CheckProject, url: string): Promise<Uint8Array | null> {
  const call = { method: "GET", url, headers: new Headers({ "accept-encoding": "identity" }), body: null } as const;
  const answer = await callHttp(project.fetch, call, { label, timeoutMs, maxBytes: mostBytes + 1 });
  if (answer.status === 200) return answer.body;
  if (answer.status < 500) return null;
  throw storageFailure(answer, "open a link", label);
}

/** The same with another letter in its signature. */
function forgedOf(url: string): string {
  const at = url.length - 8;
  return url.slice(0, at) + (url[at] === "A" ? "B" : "A") + url.slice(at + 1);
}

async function copyOf({ first, ring, compressor }: CheckDeps, { parts, size }: Sample): Promise<Uint8Array> {
  const repository = await readRepository(first);
  const reader = { store: first, compressor, epochOf: epochSource(first, ring, repository?.id ?? "") };
  const content = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    const bytes = await readObject(reader, recordedPart(part));
    if (at + bytes.byteLength > size) throw new HoldfastError("object_damaged", "a copy holds more than its file");
    content.set(bytes, at);
    at += bytes.byteLength;
  }
  return content;
}

function baseOf({ projectUrl }: CheckProject): string {
  return `${projectUrl.replace(/\/+$/, "")}/storage/v1`;
}
