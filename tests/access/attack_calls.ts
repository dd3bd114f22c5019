/** What every attack on the functions needs: all that can be asked for, found by itself, and what an attack must not change. */
import { createHash, createHmac, randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { z } from "zod";
import { backupBucket, type Stack } from "../../src/local/stack.ts";
import * as schemas from "../../src/shared/http/requests.ts";
import { query } from "../support/cluster.ts";
import { root } from "../unit/project_files.ts";

/** As docs/http.md tells people. */
export type Needs = "machines" | "second factor" | "fresh second factor";

export interface AskedFor {
  readonly functionName: string;
  readonly action: string;
  /** With every field that the schema wants; ids are of nothing that is there. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly schema: JsonSchema;
  readonly needs: Needs;
}

export interface JsonSchema {
  readonly type?: string;
  readonly format?: string;
  readonly pattern?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly JsonSchema[];
  readonly items?: JsonSchema;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
}

/** Names of the functions that are deployed. */
export function functionNames(): string[] {
  return readdirSync(join(root, "supabase/functions"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith("_"))
    .map((entry) => entry.name)
    .sort();
}

/**
 * Every action of every function that is deployed, from its schema: a new one is attacked without being named here. What anybody who
 * is signed in may do about themselves is attacked beside it: exports.test.ts, imports.test.ts.
 */
export function everythingAskedFor(): AskedFor[] {
  const needs = needsByAction();
  return functionNames().flatMap((functionName) => {
    const name = `${functionName.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())}Request`;
    const schema: unknown = Reflect.get(schemas, name);
    if (!(schema instanceof z.ZodDiscriminatedUnion)) {
      throw new Error(`requests.ts exports no ${name} with a list of actions`);
    }
    return schema.options.flatMap((option) => {
      const json = z.toJSONSchema(option as z.ZodType) as JsonSchema;
      const action = String(json.properties?.["action"]?.const);
      const needed = needs.get(`${functionName}: ${action}`);
      if (needed === undefined) throw new Error(`docs/http.md does not say who may do ${functionName}: ${action}`);
      if (needed === "own session" || needed === "fresh sign-in") return [];
      return [{
        functionName,
        action,
        body: exampleOf(json) as Record<string, unknown>,
        schema: json,
        needs: needed,
      }];
    });
  });
}

function needsByAction(): Map<string, Needs | "own session" | "fresh sign-in"> {
  const page = readFileSync(join(root, "docs/http.md"), "utf8");
  const rows = page.matchAll(
    /^\| ((?:`[a-z-]+: [a-z]+`(?:, )?)+) *\| (machines|own session|fresh sign-in|(?:fresh )?second factor) *\|$/gm,
  );
  return new Map(
    [...rows].flatMap(([, actions = "", needs]) =>
      [...actions.matchAll(/`([^`]+)`/g)].map(([, action = ""]) =>
        [action, needs as Needs | "own session" | "fresh sign-in"] as const
      )
    ),
  );
}

function exampleOf(schema: JsonSchema): unknown {
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  if (schema.anyOf?.[0] !== undefined) return exampleOf(schema.anyOf[0]);
  switch (schema.type) {
    case "object":
      return Object.fromEntries(
        (schema.required ?? []).map((name) => [name, exampleOf(schema.properties?.[name] ?? {})]),
      );
    case "array":
      return [];
    case "string":
      if (schema.pattern === "^[0-9a-f]{64}$") return "0".repeat(64);
      return schema.format === "uuid" || schema.format === "guid" ? randomUUID() : "x";
    case "boolean":
      return true;
    default:
      return 1;
  }
}

export interface Told {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** `{}` where the answer is no JSON. */
  readonly document: Readonly<Record<string, unknown>>;
}

export interface Sent {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Objects are sent as JSON; several parts go in chunks, without a length. */
  readonly body?: unknown;
}

/** An address for one call, so that no count is reached by accident. */
export const somewhere = () => ({ "cf-connecting-ip": randomUUID() });

/** By Node's own client, which sends whatever it is told to. */
export async function call(
  stack: Stack,
  path: string,
  { method = "POST", headers = {}, body = "" }: Sent,
): Promise<Told> {
  const parts = Array.isArray(body) && body.every((part) => part instanceof Uint8Array) ? body : [bytesOf(body)];
  return await new Promise((resolve, reject) => {
    const request = httpRequest(`${stack.gateway.url}${path}`, {
      method,
      headers: {
        "content-type": "application/json",
        ...somewhere(),
        ...(parts.length === 1 && method !== "GET" && method !== "HEAD"
          ? { "content-length": String(parts[0]?.byteLength ?? 0) }
          : {}),
        ...headers,
      },
    }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (more: string) => (text += more));
      response.on("error", reject).on("end", () => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, document: documentOf(text) });
      });
    });
    request.on("error", reject);
    if (method !== "GET" && method !== "HEAD") { for (const part of parts) request.write(part); }
    request.end();
  });
}

const lanes = 2;

/**
 * Isolates for whoever attacks without end: one of each function serves two calls at a time, as many as it counts of strangers, and
 * none is replaced for what it has used, since a new one costs more than a hundred refusals.
 */
export const hardened = {
  isolates: { concurrency: lanes, atMost: 16 },
  limits: { cpuSoftMs: 600_000, cpuHardMs: 600_000, wallMs: 3_600_000, memoryBytes: 1024 * 1024 * 1024 },
} as const;

/** All of them, two at a time of each function; what came of them in their order. */
export async function inLanes<T, R>(
  all: readonly T[],
  functionOf: (one: T) => string,
  work: (one: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const lane = async (rest: Iterator<readonly [number, T]>) => {
    for (let next = rest.next(); next.done !== true; next = rest.next()) {
      const [at, one] = next.value;
      results[at] = await work(one);
    }
  };
  const numbered = all.map((one, at) => [at, one] as const);
  await Promise.all([...new Set(all.map(functionOf))].flatMap((name) => {
    const ofFunction = numbered.filter(([, one]) => functionOf(one) === name).values();
    return Array.from({ length: lanes }, () => lane(ofFunction));
  }));
  return results;
}

export const callFunction = (stack: Stack, name: string, sent: Sent) => call(stack, `/functions/v1/${name}`, sent);

export function bytesOf(body: unknown): Uint8Array {
  if (body instanceof Uint8Array) return body;
  return new TextEncoder().encode(typeof body === "string" ? body : JSON.stringify(body));
}

function documentOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
  } catch {
    return {};
  }
}

export const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

export interface Signing {
  readonly secret?: string;
  readonly nonce?: string;
  /** How far the caller's clock is ahead. */
  readonly seconds?: number;
}

/** What proves that a call is a machine's; docs/http.md, "Signing". */
export function signed(stack: Stack, name: string, body: unknown, signing: Signing = {}): Record<string, string> {
  const { secret = stack.workerSecret, nonce = randomUUID(), seconds = 0 } = signing;
  const timestamp = String(Math.floor(Date.now() / 1000) + seconds);
  const hash = createHash("sha256").update(bytesOf(body)).digest("hex");
  return {
    "x-holdfast-timestamp": timestamp,
    "x-holdfast-nonce": nonce,
    "x-holdfast-signature": createHmac("sha256", secret).update([name, timestamp, nonce, hash].join("\n")).digest(
      "hex",
    ),
  };
}

/** What an answer to whoever is refused must never hold: where the code is, SQL, names of the database's things, addresses. */
export const tellsTooMuch =
  /\.tsx?\b|node_modules|\n\s+at |\bselect\b|\binsert\b|\bbackup\.[a-z_]|pg_[a-z]|relation|syntax|constraint|postgres(ql)?:|127\.0\.0\.1|\b[0-9A-Z]{5}\b:|BEGIN |Error:/i;

/** Nothing runs by itself any more, so that what changes is what an attack has changed. */
export async function stopClocks(stack: Stack): Promise<void> {
  await query(stack.cluster.plainUrl("supabase_admin"), "update cron.job set active = false");
}

/** Kept by the refusals themselves, by what was called before, and by the watchdog of each minute. */
const mayGrow = ["pauses", "refusals", "calls", "audit_log", "audit_chain", "audit_chainer", "pulse"];

/**
 * A hash of all rows of each of our tables, of what waits to be sent, of Vault, cron jobs and files of the backups' bucket,
 * and the names of databases and schemas.
 */
export async function footprint(stack: Stack): Promise<Record<string, string>> {
  const url = stack.cluster.plainUrl("supabase_admin");
  const tables = await query(
    url,
    `select c.oid::regclass::text as name from pg_class as c
     where c.relnamespace = 'backup'::regnamespace and c.relkind in ('r', 'p') and c.relname <> all ($1)
     union all
     select * from unnest(array['storage.objects', 'storage.buckets', 'vault.secrets', 'cron.job', 'net.http_request_queue',
       'public.restored_here'])
     where to_regclass(unnest) is not null`,
    [mayGrow],
  );
  const names = tables.map((row) => String(row["name"])).sort();
  const hashes = names.map((name) =>
    `(select '${name}' as name, md5(coalesce(string_agg(t::text, '|' order by t::text), '')) as hash from ${name} as t)`
  );
  const rows = await query(
    url,
    `${hashes.join(" union all ")}
     union all select 'schemas', string_agg(nspname, ',' order by nspname) from pg_namespace where nspname !~ '^pg_'
     union all select 'databases', string_agg(datname, ',' order by datname) from pg_database
     union all select 'objects', count(*)::text from storage.objects where bucket_id = '${backupBucket}'`,
  );
  return Object.fromEntries(rows.map((row) => [String(row["name"]), String(row["hash"])]));
}

/** How many calls were refused for these reasons by now: the watchdog moves them from their table to the audit as each minute ends. */
export async function refusedTimes(stack: Stack, reasons: readonly string[]): Promise<number> {
  const [row] = await query(
    stack.cluster.plainUrl(),
    `select coalesce(sum(r.times), 0)::int as times from (
       select r.reason, r.times from backup.refusals as r
       union all
       select l.detail ->> 'reason', (l.detail ->> 'times')::bigint from backup.audit_log as l where l.action = 'call.refused'
     ) as r
     where r.reason = any ($1)`,
    [reasons],
  );
  return Number(row?.["times"]);
}
