/** The functions of a simulated project in this process, behind a queue of pg_net that is worked off one request after the other. */
import { Buffer } from "node:buffer";
import type pg from "pg";
import type { Clock } from "../../src/shared/clock.ts";
import { backupDoorDeps } from "../../src/shared/http/backup_deps.ts";
import { restoreDoorDeps } from "../../src/shared/http/restore_deps.ts";
import { retentionDoorDeps } from "../../src/shared/http/retention_deps.ts";
import { verifyDoorDeps } from "../../src/shared/http/verify_deps.ts";
import { drillDoorDeps, handleDrill } from "../../src/shared/http/handle_drill.ts";
import { handleBackup } from "../../src/shared/http/handle_backup.ts";
import { handleIncident, incidentDeps } from "../../src/shared/http/handle_incident.ts";
import { handleMonitor, monitorDeps } from "../../src/shared/http/handle_monitor.ts";
import { handleNotify, notifyDeps } from "../../src/shared/http/handle_notify.ts";
import { handleRestore } from "../../src/shared/http/handle_restore.ts";
import { handleRetention } from "../../src/shared/http/handle_retention.ts";
import { handleVerify } from "../../src/shared/http/handle_verify.ts";
import { frontDeps, type IsolateRuntime } from "../../src/shared/http/front.ts";
import type { LogLine } from "../../src/shared/log.ts";
import type { Fetch } from "../../src/shared/store/http_call.ts";

export interface Platform {
  /** Function secrets; they may change from call to call. */
  readonly environment: Record<string, string>;
  readonly clock: Clock;
  readonly fetch: Fetch;
  readonly onLine: (line: LogLine) => void;
}

type Handler = (request: Request, runtime: IsolateRuntime, fetch: Fetch) => Promise<Response>;

/** As the files of supabase/functions put them together. */
const handlers: Readonly<Record<string, Handler>> = {
  backup: (request, runtime) => handleBackup(request, backupDoorDeps(runtime)),
  verify: (request, runtime) => handleVerify(request, verifyDoorDeps(runtime)),
  retention: (request, runtime) => handleRetention(request, retentionDoorDeps(runtime)),
  restore: (request, runtime) => handleRestore(request, restoreDoorDeps(runtime)),
  drill: (request, runtime, fetch) => handleDrill(request, drillDoorDeps(frontDeps(runtime), fetch)),
  monitor: (request, runtime, fetch) => handleMonitor(request, monitorDeps(frontDeps(runtime), fetch)),
  notify: (request, runtime, fetch) => handleNotify(request, notifyDeps(frontDeps(runtime), fetch)),
  incident: (request, runtime, fetch) => handleIncident(request, incidentDeps(frontDeps(runtime), fetch)),
};

/**
 * Sends all that waits in the queue of pg_net, and what that brings about, until nothing waits and nobody works. Each call has an
 * isolate of its own and is over before the next begins; drains go first, as they would in a minute in which both are due. Returns
 * how many were sent.
 */
export async function sendQueued(admin: pg.Client, platform: Platform): Promise<number> {
  for (let sent = 0;; sent++) {
    const { rows: [next] } = await admin.query<QueuedRequest>(
      `delete from net.http_request_queue where id = (
         select id from net.http_request_queue order by convert_from(body, 'UTF8') !~ '"drain"', id limit 1
       ) returning id::text, url, headers, body`,
    );
    if (next === undefined) return sent;
    const answer = await answered(next, platform);
    await admin.query(
      "insert into net._http_response (id, status_code, content, timed_out) values ($1, $2, $3, false)",
      [next.id, answer.status, answer.content],
    );
  }
}

interface QueuedRequest {
  readonly id: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

/** The answer, once all work that the isolate went on with behind it is over. */
async function answered(
  { url, headers, body }: QueuedRequest,
  { environment, clock, fetch, onLine }: Platform,
): Promise<{ readonly status: number; readonly content: string }> {
  const handler = handlers[new URL(url).pathname.split("/").at(-1) ?? ""];
  if (handler === undefined) return { status: 404, content: "there is no such function" };
  const work: Promise<void>[] = [];
  const runtime: IsolateRuntime = {
    environment: { ...environment },
    waitUntil: (more) => void work.push(more),
    fetch,
    write: onLine,
    clock,
  };
  const request = new Request(url, { method: "POST", headers, body: Buffer.from(body) });
  const response = await handler(request, runtime, fetch);
  const content = await response.text();
  for (const more of work) await more;
  return { status: response.status, content };
}
