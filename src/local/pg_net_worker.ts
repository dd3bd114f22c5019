import { readFileSync } from "node:fs";
import pg from "pg";

export interface NetWorkerOptions {
  /** URL of `supabase_admin`, for the database whose schema `net` is served. */
  readonly databaseUrl: string;
  /** Certificate of the server's authority (PEM); the server's name is checked. */
  readonly caFile: string;
}

export interface NetWorker {
  /** Ends after the batch under way, at the latest after a second: then that batch's requests go back to the queue. */
  stop(): Promise<void>;
}

/** As pg_net's own defaults: `pg_net.batch_size` and `pg_net.ttl`. */
const batchRows = 200;
const answersKept = "6 hours";
/** Only for what no notification announces, such as rows put back by a crash. */
const idleMs = 1_000;
const reconnectMs = 200;
/** Of one answer; pg_net has no bound and would take the database's memory instead. */
const contentBytes = 8 * 1024 * 1024;
/** A TLS session's end is never reported on Deno 2.1.4. */
const endMs = 1_000;

interface Request {
  readonly id: string;
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string> | null;
  readonly body: Uint8Array | null;
  readonly timeout_milliseconds: number;
}

interface Answer {
  readonly status: number | null;
  readonly contentType: string | null;
  readonly headers: string | null;
  readonly content: string | null;
  readonly timedOut: boolean;
  readonly error: string | null;
}

/**
 * Does the work of pg_net's background worker: takes up to 200 requests in a transaction, sends them side by side, writes
 * the answers and commits when the slowest has answered; only then comes the next batch. Nothing is sent twice on
 * purpose; a worker that ends inside a batch leaves its requests in the queue, so they are sent again.
 */
export async function startNetWorker(options: NetWorkerOptions): Promise<NetWorker> {
  const stopping = new AbortController();
  const first = await connect(options, stopping.signal);
  const done = serve(options, first, stopping.signal);
  return {
    async stop() {
      stopping.abort();
      await Promise.race([done, pause(endMs)]);
    },
  };
}

async function serve(options: NetWorkerOptions, first: Session, stop: AbortSignal): Promise<void> {
  let session: Session | undefined = first;
  while (!stop.aborted) {
    try {
      session ??= await connect(options, stop);
      await work(session, stop);
    } catch {
      // The server is stopped, crashed or not up again yet; its tables are unlogged, there is nothing to make good.
      await pause(reconnectMs);
    }
    await session?.end();
    session = undefined;
  }
}

/** One connection that knows whether something was announced since it was last asked. */
interface Session {
  readonly client: pg.Client;
  /** Resolves when a request was announced, after `idleMs`, or when the connection or the worker ends. */
  announced(): Promise<void>;
  readonly lost: boolean;
  end(): Promise<void>;
}

async function connect(options: NetWorkerOptions, stop: AbortSignal): Promise<Session> {
  const url = new URL(options.databaseUrl);
  url.search = "";
  const client = new pg.Client({
    connectionString: url.href,
    ssl: { ca: readFileSync(options.caFile, "utf8") },
    application_name: "pg_net",
  });
  let lost = false;
  let pending = false;
  let wake = () => {};
  stop.addEventListener("abort", () => wake(), { once: true });
  client.on("error", () => {
    lost = true;
    wake();
  });
  client.on("end", () => {
    lost = true;
    wake();
  });
  client.on("notification", () => {
    pending = true;
    wake();
  });
  await client.connect();
  await client.query("listen net_worker");
  return {
    client,
    get lost() {
      return lost;
    },
    async announced() {
      if (!pending && !lost && !stop.aborted) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, idleMs);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      pending = false;
    },
    async end() {
      await Promise.race([client.end().catch(() => {}), pause(endMs)]);
    },
  };
}

async function work(session: Session, stop: AbortSignal): Promise<void> {
  while (!stop.aborted && !session.lost) {
    const sent = await sendBatch(session.client, stop);
    if (sent === 0) await session.announced();
  }
}

/** How many requests there were. */
async function sendBatch(client: pg.Client, stop: AbortSignal): Promise<number> {
  await client.query("begin");
  await client.query(
    `delete from net._http_response where ctid in (
       select ctid from net._http_response where created < now() - $1::interval order by created limit $2)`,
    [answersKept, batchRows],
  );
  const { rows } = await client.query<Request>(
    `delete from net.http_request_queue q
     using (select id from net.http_request_queue order by id limit $1 for update skip locked) batch
     where q.id = batch.id
     returning q.id::text as id, q.method, q.url, q.headers, q.body, q.timeout_milliseconds`,
    [batchRows],
  );
  const answers = await Promise.all(rows.map((request) => send(request, stop)));
  if (stop.aborted && rows.length > 0) {
    await client.query("rollback");
    return rows.length;
  }
  for (const [index, answer] of answers.entries()) {
    await client.query(
      `insert into net._http_response (id, status_code, content_type, headers, content, timed_out, error_msg)
       values ($1, $2, $3, $4, $5, $6, $7)`,
      [
        rows[index]?.id,
        answer.status,
        answer.contentType,
        answer.headers,
        answer.content,
        answer.timedOut,
        answer.error,
      ],
    );
  }
  await client.query("commit");
  return rows.length;
}

const nothing: Answer = { status: null, contentType: null, headers: null, content: null, timedOut: false, error: null };

/** Never throws: what went wrong is the answer. */
async function send(request: Request, stop: AbortSignal): Promise<Answer> {
  const deadline = AbortSignal.timeout(request.timeout_milliseconds);
  try {
    const response = await fetch(request.url, {
      method: request.method.toUpperCase(),
      headers: { "user-agent": "pg_net/0.19.5", ...request.headers },
      body: request.body === null ? null : Uint8Array.from(request.body),
      signal: AbortSignal.any([deadline, stop]),
    });
    const content = await readBounded(response);
    return {
      ...nothing,
      status: response.status,
      contentType: response.headers.get("content-type"),
      headers: JSON.stringify(Object.fromEntries(response.headers)),
      content,
    };
  } catch (error) {
    if (deadline.aborted) {
      return { ...nothing, timedOut: true, error: `Timeout of ${request.timeout_milliseconds} ms reached.` };
    }
    return { ...nothing, error: reason(error) };
  }
}

/** Text without NUL, which PostgreSQL's text cannot hold. */
async function readBounded(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.byteLength;
    if (bytes > contentBytes) throw new Error(`the answer is longer than ${contentBytes} bytes`);
    text += decoder.decode(part, { stream: true });
  }
  return (text + decoder.decode()).replaceAll("\0", "");
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return "request failed";
  const cause = error.cause instanceof Error ? error.cause.message : "";
  const text = `${error.message} ${cause}`;
  if (/refused|ECONNREFUSED/i.test(text)) return "Couldn't connect to server";
  if (/dns|ENOTFOUND|EAI_AGAIN/i.test(text)) return "Couldn't resolve host name";
  return error.message;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
