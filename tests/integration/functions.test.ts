/** The real chain on the embedded stack: SQL → pg_net's queue → gateway → function → run. */
import { spawnSync } from "node:child_process";
import { createHash, createHmac, randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { signedIn } from "../support/signed_in.ts";
import { httpPage } from "../unit/http_page.ts";

let stack: Stack;
let postgres: pg.Client;

const chainMs = 120_000;
const pollMs = 200;

beforeAll(async () => {
  stack = await startStack({ durable: false, stream: false, prepared: true });
  postgres = new pg.Client({ connectionString: stack.cluster.plainUrl() });
  await postgres.connect();
  await postgres.query(`
    create table public.notes (id bigint primary key, body text not null);
    insert into public.notes select n, repeat(md5(n::text), 8) from generate_series(1, 20000) as n;
  `);
}, 300_000);

afterAll(async () => {
  await postgres?.end();
  await stack?.destroy();
}, 60_000);

interface Run {
  readonly status: string;
  readonly error_code: string | null;
  readonly error_message: string | null;
  readonly verified_at: Date | null;
  readonly tiers: string[];
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

async function runRow(id: string): Promise<Run> {
  const { rows } = await postgres.query<Run>("select * from backup.runs where id = $1", [id]);
  const [row] = rows;
  if (row === undefined) throw new Error(`there is no run ${id}`);
  return row;
}

/** The run once it has ended. */
async function ended(id: string): Promise<Run> {
  const deadline = performance.now() + chainMs;
  for (;;) {
    const run = await runRow(id);
    if (["succeeded", "quarantined", "failed", "cancelled"].includes(run.status)) return run;
    if (performance.now() > deadline) {
      throw new Error(`run ${id} is ${run.status} after ${chainMs} ms\n${await story(id)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** What is known about a run that did not do what it should. */
async function story(id: string): Promise<string> {
  const calls = await postgres.query(
    `select c.function_name, c.status, c.answer, r.status_code, r.error_msg, r.content
     from backup.calls as c left join net._http_response as r on r.id = c.request_id where c.run_id = $1`,
    [id],
  );
  const tasks = await postgres.query("select kind, status, tries, error from backup.tasks where run_id = $1", [id]);
  const journal = existsSync(stack.journalFile) ? readFileSync(stack.journalFile, "utf8").slice(-4_000) : "no journal";
  return JSON.stringify({ calls: calls.rows, tasks: tasks.rows }, null, 1) + journal;
}

/** Every call has an end: a leg reports its own a moment after its run has ended. */
async function callsEnded(): Promise<void> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const { rows } = await postgres.query("select * from backup.calls where status in ('sent', 'begun')");
    if (rows.length === 0) return;
    if (performance.now() > deadline) return expect(rows).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** Waits until a restore has come to that. */
async function restoreIs(id: string, status: string): Promise<void> {
  const deadline = performance.now() + chainMs;
  for (;;) {
    const { rows } = await postgres.query("select status, error_message from backup.restores where id = $1", [id]);
    if (rows[0]?.status === status) return;
    if (performance.now() > deadline) throw new Error(`restore ${id} is ${JSON.stringify(rows)}, not ${status}`);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

let backup: string;

describe("a backup that is started at the dashboard", () => {
  it("goes from SQL through pg_net's queue and the function to a succeeded run", async () => {
    const { rows } = await postgres.query("select * from backup.start_backup()");
    expect(rows[0]).toMatchObject({ joined: false, status: "queued" });
    backup = rows[0].run;
    const run = await ended(backup);
    expect(run, await story(backup)).toMatchObject({ status: "succeeded", error_code: null, tiers: ["manual"] });
    // What the installation makes again is nothing that is missing.
    const ours = run.warnings.filter(({ message }) => /(backup|my_exports|holdfast)/.test(message));
    expect(ours).toEqual([]);
  });

  it("can be traced by ids, and no call stays unfinished", async () => {
    await callsEnded();
    const { rows } = await postgres.query(
      `select c.status, c.answer, r.status_code, r.content::jsonb ->> 'run' as run
       from backup.calls as c join net._http_response as r on r.id = c.request_id
       where c.run_id = $1 order by c.made_at`,
      [backup],
    );
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) expect(row).toMatchObject({ status: "ended", status_code: 202, run: backup });
    expect(rows.at(-1)).toMatchObject({ answer: "done" });
  });

  it("is verified by the function `verify`, object by object", async () => {
    const { rows } = await postgres.query("select * from backup.verify_backup($1)", [backup]);
    const run = await ended(rows[0].run);
    expect(run, await story(rows[0].run)).toMatchObject({ status: "succeeded", error_code: null });
    expect((await runRow(backup)).verified_at).not.toBeNull();
  });

  it("leaves no open alert", async () => {
    await callsEnded();
    const alerts = await postgres.query("select kind, subject, message from backup.alerts where status <> 'resolved'");
    expect(alerts.rows).toEqual([]);
  });

  it("knows its project from the function", async () => {
    const { rows } = await postgres.query("select project_ref from backup.identity");
    expect(rows).toEqual([{ project_ref: stack.gateway.projectRef }]);
  });
});

describe("docs/http.md", () => {
  const page = httpPage();

  it("shows a call of every action that works as it stands, with curl and openssl", async () => {
    const started: { functionName: string; run: string }[] = [];
    const restores: string[] = [];
    const made: Record<string, string> = { download: "", export: "", import: "", request: "" };
    const [admin, other] = await Promise.all([signedIn(stack, { aal2: true }), signedIn(stack, { aal2: true })]);
    await postgres.query("insert into backup.admins (user_id) values ($1), ($2)", [admin.userId, other.userId]);
    const { rows: [identity] } = await postgres.query("select install_id from backup.identity");
    // One for a second store that the functions of this project do not have: they cancel it.
    await postgres.query("select backup.tell_stores('first', 'second')");
    const { rows: [replicate] } = await postgres.query("select run from backup.request_copies('http', false)");
    // A drill makes its database on this server.
    await postgres.query("update backup.settings set value = '100000' where name = 'disk_mb'");
    for (const { functionName, action, call } of page.actions) {
      const runOf = (name: string) => started.find((one) => one.functionName === name)?.run ?? "";
      // A prune would ask the functions for that second store.
      if (functionName === "retention") await postgres.query("select backup.tell_stores('first', null)");
      const run = (line: string, root: string) =>
        spawnSync("bash", ["-c", `set -eu\n${page.preparation}\n${line}`], {
          encoding: "utf8",
          timeout: 30_000,
          env: {
            PATH: process.env["PATH"] ?? "",
            PROJECT_URL: stack.gateway.url,
            BACKUP_WORKER_SECRET: stack.workerSecret,
            // Whoever asked for an import does not approve it.
            ACCESS_TOKEN: (action === "approve" ? other : admin).accessToken,
            ...{ id: backup, run: backup, restore: restores[0] ?? "", planned: restores[0] ?? "" },
            verification: runOf("verify"),
            prune: runOf("retention"),
            drill: runOf("drill"),
            replication: replicate.run,
            ...{ user: admin.userId, root, install: identity.install_id },
            ...made,
          },
        });
      // One that was approved needs no consent.
      const asking = page.actions.find((one) => one.action === "ask")?.call ?? "";
      if (action === "consent") made["import"] = JSON.parse(run(asking, "cd".repeat(32)).stdout).import;
      const result = run(call, "ab".repeat(32));
      expect(result.status, `${call}\n${result.stderr}`).toBe(0);
      // Figures are for a scraper.
      if (action === "metrics") {
        expect(result.stdout).toMatch(/^# HELP holdfast_/);
        continue;
      }
      const document = JSON.parse(result.stdout);
      expect(document, call).not.toHaveProperty("code");
      if (document.joined === false && document.run !== undefined) started.push({ functionName, run: document.run });
      for (const name of Object.keys(made)) if (typeof document[name] === "string") made[name] = document[name];
      const table = new Map([["download: start", "downloads"], ["export: request", "exports"]]).get(
        `${functionName}: ${action}`,
      );
      if (table !== undefined) {
        await expect.poll(async () => {
          const { rows } = await postgres.query(`select status from backup.${table} where id = $1`, [
            made[functionName],
          ]);
          return rows[0]?.status;
        }, { timeout: chainMs }).toBe("ready");
      }
      if (functionName === "restore" && action === "plan") {
        restores.push(document.restore);
        await restoreIs(document.restore, "beside");
        // So that there is something to put into place, and to cancel while it waits for its safety backup.
        await postgres.query("delete from public.notes where id = 1");
      }
    }
    expect(await ended(replicate.run)).toMatchObject({ status: "cancelled" });
    for (const restore of restores) await restoreIs(restore, "cancelled");
    expect(started.map((one) => one.functionName).sort()).toEqual(["backup", "drill", "retention", "verify", "verify"]);
    for (const { run } of started) expect((await ended(run)).status, await story(run)).toBe("succeeded");
  }, 2 * chainMs);
});

describe("a function", () => {
  const body = () => JSON.stringify({ action: "status", run: backup });

  function send(headers: Record<string, string>): Promise<Response> {
    return fetch(`${stack.gateway.url}/functions/v1/backup`, { method: "POST", headers, body: body() });
  }

  function signed(): Record<string, string> {
    const [timestamp, nonce] = [String(Math.floor(Date.now() / 1000)), randomUUID()];
    const lines = ["backup", timestamp, nonce, createHash("sha256").update(body()).digest("hex")].join("\n");
    const signature = createHmac("sha256", stack.workerSecret).update(lines).digest("hex");
    return { "x-holdfast-timestamp": timestamp, "x-holdfast-nonce": nonce, "x-holdfast-signature": signature };
  }

  it("takes a signed call once: the same call again is refused", async () => {
    const headers = signed();
    const first = await send(headers);
    expect(await first.json()).toMatchObject({ run: backup, kind: "full" });
    const second = await send(headers);
    expect(second.status).toBe(401);
    expect(await second.json()).toMatchObject({ code: "unauthorised" });
  });

  it("refuses who has only the project's keys", async () => {
    const { anonKey, serviceRoleKey, secretKey } = stack.gateway;
    for (const key of [anonKey, serviceRoleKey, secretKey]) {
      const answer = await send({ apikey: key, authorization: `Bearer ${key}` });
      expect(answer.status).toBe(401);
      await answer.body?.cancel();
    }
  });

  it("answers run_not_found for a run that is not there", async () => {
    const request = JSON.stringify({ action: "leg", run: randomUUID() });
    const [timestamp, nonce] = [String(Math.floor(Date.now() / 1000)), randomUUID()];
    const lines = ["backup", timestamp, nonce, createHash("sha256").update(request).digest("hex")].join("\n");
    const signature = createHmac("sha256", stack.workerSecret).update(lines).digest("hex");
    const headers = { "x-holdfast-timestamp": timestamp, "x-holdfast-nonce": nonce, "x-holdfast-signature": signature };
    const answer = await fetch(`${stack.gateway.url}/functions/v1/backup`, { method: "POST", headers, body: request });
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({ code: "run_not_found" });
  });
});
