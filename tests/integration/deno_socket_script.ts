/**
 * Run by Deno, with one act and a database on stdin: what tests on Node cannot show of the sessions' socket. Prints what
 * it saw as one line of JSON and then has nothing left that keeps the process.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { z } from "zod";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { sqlstateOf } from "../../src/shared/postgres/server_error.ts";

const database = z.object({ url: z.string(), caPem: z.string().optional(), connectMs: z.number().optional() });
const input = z.discriminatedUnion("act", [
  z.object({ act: z.literal("copy"), database, tables: z.array(z.string()) }),
  z.object({ act: z.enum(["query", "go on", "terminated", "close", "many"]), database }),
  z.object({ act: z.literal("open"), databases: z.record(z.string(), database), times: z.number() }),
]).parse(await new Response(Deno.stdin.readable).json());

const own = new Error("mine");
/** Around the largest message that we send and the largest read. */
const oddSizes = [1, 4, 777, 65_531, 65_537, 262_143, 262_145, 600_001];

function connect({ url, caPem, connectMs }: z.infer<typeof database>, name: string): Promise<Connection> {
  const bounds = connectMs === undefined ? {} : { connectMs };
  return openDatabase({ url, ...(caPem === undefined ? {} : { caPem }), ...bounds }).connect(name);
}

/** What became of it: the SQLSTATE or code of the error, or its message when it is not the product's. */
async function outcome(act: Promise<unknown>): Promise<string> {
  return await act.then(() => "done", (error) => {
    if (error === own) return "mine";
    return error instanceof HoldfastError ? sqlstateOf(error) ?? error.code : String(error);
  });
}

async function codeOf(act: Promise<unknown>): Promise<string> {
  return await act.then(() => "done", (error) => error instanceof HoldfastError ? error.code : String(error));
}

async function copied(connection: Connection, statement: string) {
  const parts: Buffer[] = [];
  const { rows } = await connection.copyOut(statement, (view) => parts.push(Buffer.from(view)));
  const bytes = Buffer.concat(parts);
  return { bytes, seen: { rows, length: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") } };
}

/** The bytes in odd pieces, each in the same memory as the one before. */
function* pieces(bytes: Uint8Array): Generator<Uint8Array> {
  const memory = new Uint8Array(Math.max(...oddSizes));
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const piece = bytes.subarray(at, at + (oddSizes[i % oddSizes.length] ?? 1));
    memory.set(piece);
    yield memory.subarray(0, piece.length);
    at += piece.length;
  }
}

function* sourceThatThrows(): Generator<Uint8Array> {
  yield Buffer.from("1\n".repeat(200_000));
  throw own;
}

/** Rows without end, after `first` has come to pass; `left` when nobody asks for more. */
async function* endless(first: () => Promise<unknown>, left: () => void = () => {}): AsyncGenerator<Uint8Array> {
  const rows = Buffer.from("1\n".repeat(50_000));
  try {
    yield rows;
    await first();
    for (;;) yield rows;
  } finally {
    left();
  }
}

/** Asks until it is so; the deadline is for machines that are busy. */
async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<true> {
  const deadline = performance.now() + 20_000;
  while (!await isSo()) {
    if (performance.now() > deadline) throw new Error(`${what}: it never was so`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return true;
}

/** Until the server has no such session, or one in this state. */
function untilActivity(other: Connection, { processId }: Connection, there: boolean, condition = "true") {
  return until(`${condition} of ${processId} is ${there}`, async () => {
    const rows = await other.query(`select 1 from pg_stat_activity where pid = $1::int and ${condition}`, [
      String(processId),
    ]);
    return rows.length > 0 === there;
  });
}

function terminate(other: Connection, { processId }: Connection) {
  return other.query("select pg_terminate_backend($1::int)", [String(processId)]);
}

function openFiles(): number {
  return readdirSync("/proc/self/fd").length;
}

async function copy(connection: Connection, tables: readonly string[]) {
  const seen: Record<string, unknown> = {};
  for (const table of tables) {
    const out = await copied(connection, `copy ${table} to stdout`);
    await connection.execute(`create temp table "again_${table}" (like ${table})`);
    const taken = await connection.copyIn(`copy "again_${table}" from stdin`, pieces(out.bytes));
    const again = await copied(connection, `copy "again_${table}" to stdout`);
    seen[table] = { out: out.seen, taken: taken.rows, again: again.seen };
  }
  return seen;
}

/** Values wider than a read, and rows that reads cut anywhere, each beside the server's own digest of it. */
async function ask(connection: Connection) {
  const wide = "select string_agg(i::text, ',') as v from generate_series($1::int, 300000) as i group by i % 3";
  const narrow = "select i::text as v from generate_series($1::int, 50000) as i";
  const seen: Record<string, unknown> = {};
  for (const [name, values] of Object.entries({ wide, narrow })) {
    const rows = await connection.query(`select v, md5(v) as digest from (${values}) as s`, ["1"]);
    const whole = rows.filter(({ v, digest }) => createHash("md5").update(v ?? "").digest("hex") === digest);
    seen[name] = { rows: rows.length, whole: whole.length };
  }
  return seen;
}

async function goOn(connection: Connection) {
  await connection.execute("create temp table target (i int)");
  const outcomes = {
    reader: await outcome(connection.copyOut("copy narrow to stdout", () => {
      throw own;
    })),
    serverOut: await outcome(connection.copyOut("copy (select 1 / (90000 - i) from narrow) to stdout", () => {})),
    source: await outcome(connection.copyIn("copy target from stdin", sourceThatThrows())),
    serverIn: await outcome(
      connection.copyIn("copy target from stdin", pieces(Buffer.from("no number\n".repeat(1e6)))),
    ),
  };
  const left = await connection.query("select count(*) as n from target");
  return { ...outcomes, left: left[0]?.["n"], rows: (await copied(connection, "copy narrow to stdout")).seen.rows };
}

async function terminated(open: () => Promise<Connection>, other: Connection) {
  const seen: Record<string, unknown> = {};
  type End = () => Promise<unknown>;
  const watch = async (name: string, act: (connection: Connection, end: End) => Promise<unknown>) => {
    const connection = await open();
    let said: Promise<unknown> | undefined;
    const ended = await codeOf(act(connection, () => said ??= terminate(other, connection)));
    await said;
    const after = await codeOf(connection.query("select 1"));
    const start = performance.now();
    await connection.close();
    await connection.close();
    const closedInTime = performance.now() - start < 900;
    seen[name] = { ended, after, closedInTime, gone: await untilActivity(other, connection, false) };
  };
  await watch("query", async (connection, end) => {
    const sleeping = connection.query("select pg_sleep(600)");
    const asleep = untilActivity(other, connection, true, "wait_event = 'PgSleep'");
    await Promise.all([sleeping, asleep.then(end)]);
  });
  let left = false;
  await watch("copy in", async (connection, end) => {
    await connection.execute("create temp table target (i int)");
    await connection.copyIn("copy target from stdin", endless(end, () => void (left = true)));
  });
  seen["source left"] = await until("the source is left", () => left);
  await watch("copy in from a source that waits", async (connection, end) => {
    await connection.execute("create temp table target (i int)");
    await connection.copyIn("copy target from stdin", endless(() => end().then(() => new Promise(() => {}))));
  });
  await watch("copy out", async (connection, end) => {
    await connection.copyOut("copy (select generate_series(1, 1000000000)) to stdout", () => void end());
  });
  return seen;
}

async function closeThem(open: () => Promise<Connection>, other: Connection) {
  const seen: Record<string, unknown> = {};
  // The bound of close() is a second: at less than that it has not come to it.
  const close = async (name: string, connection: Connection, after?: () => Promise<unknown>) => {
    const start = performance.now();
    await connection.close();
    const inTime = performance.now() - start < 900;
    await after?.();
    seen[name] = { inTime, gone: await untilActivity(other, connection, false) };
  };
  await close("idle", await open());

  const asleep = await open();
  const sleeping = codeOf(asleep.query("select pg_sleep(600)"));
  await untilActivity(other, asleep, true, "wait_event = 'PgSleep'");
  await close("in a query", asleep, () => terminate(other, asleep));

  // A server that waits for a lock reads nothing: what is being written cannot leave.
  await other.execute(`create table if not exists locked (i int);
    create or replace function wait_for_lock() returns trigger language plpgsql as
      'begin perform pg_advisory_xact_lock(77); return null; end';
    create or replace trigger wait_for_lock before insert on locked for each statement execute function wait_for_lock();
    select pg_advisory_lock(77);`);
  const stuck = await open();
  let left = false;
  const source = endless(() => Promise.resolve(), () => void (left = true));
  const copying = codeOf(stuck.copyIn("copy locked from stdin", source));
  await untilActivity(other, stuck, true, "wait_event_type = 'Lock'");
  await close("in a copy that waits", stuck, () => other.query("select pg_advisory_unlock(77)"));
  const sourceLeft = await until("the source is left", () => left);
  return { ...seen, query: await sleeping, copy: await copying, sourceLeft };
}

async function many(open: () => Promise<Connection>, other: Connection) {
  const files = openFiles();
  for (let i = 0; i < 40; i++) {
    const connection = await open();
    await connection.query("select 1");
    await connection.close();
  }
  const sessions = async () => {
    const rows = await other.query("select 1 from pg_stat_activity where application_name = 'holdfast:test'");
    return rows.length === 0;
  };
  return {
    sessionsGone: await until("no session is left", sessions),
    filesGone: await until("no file is left", () => openFiles() <= files),
  };
}

/** How each attempt to open a session fails, made so many times, and whether that leaves files open. */
async function openThem(databases: Record<string, z.infer<typeof database>>, times: number) {
  const seen: Record<string, unknown> = {};
  for (const [name, each] of Object.entries(databases)) {
    let files = 0;
    for (let i = 0; i <= times; i++) {
      const error = await connect(each, "holdfast:test").catch((caught: unknown) => caught);
      const isOurs = error instanceof HoldfastError;
      seen[name] = isOurs ? { code: error.code, message: error.message } : String(error);
      // The first attempt opens what the runtime keeps.
      if (i === 0) files = openFiles();
    }
    await until(`${name}: no file is left`, () => openFiles() <= files);
  }
  return seen;
}

async function act(): Promise<unknown> {
  if (input.act === "open") return await openThem(input.databases, input.times);
  const open = () => connect(input.database, "holdfast:test");
  const other = await connect(input.database, "holdfast:other");
  try {
    switch (input.act) {
      case "copy":
        return await copy(other, input.tables);
      case "query":
        return await ask(other);
      case "go on":
        return await goOn(other);
      case "terminated":
        return await terminated(open, other);
      case "close":
        return await closeThem(open, other);
      case "many":
        return await many(open, other);
    }
  } finally {
    await other.close();
  }
}

console.log(JSON.stringify(await act()));
