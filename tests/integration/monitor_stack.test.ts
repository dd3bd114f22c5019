/** The monitor on a whole project: the cron job's call, the function, and what it sees of stores and clocks that SQL cannot. */
import { createHash, createHmac, randomUUID } from "node:crypto";
import { createServer, request as forward, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openStore } from "../../src/shared/store/open_store.ts";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { query } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { eventually, stackMs } from "../support/stack.ts";
import { cli } from "./cli_fixture.ts";

let stack: Stack;
/** The second provider, behind what sets its clock so far ahead, or takes its writes away. */
let s3: S3Server;
let provider: Server;
let aheadSeconds = 0;
let isReadOnly = false;
let port = 0;
let secondary = "";

const ask = async (text: string, values: unknown[] = []) => await query(stack.cluster.plainUrl(), text, values);

async function listen(on: number): Promise<void> {
  provider = createServer((request, response) => {
    response.sendDate = false;
    const date = new Date(Date.now() + aheadSeconds * 1000).toUTCString();
    if (isReadOnly && request.method !== "GET" && request.method !== "HEAD") {
      request.resume();
      response.writeHead(403, { date }).end("<Error><Code>AccessDenied</Code></Error>");
      return;
    }
    const { hostname, port: inside } = new URL(s3.endpoint);
    const passed = forward(
      { hostname, port: inside, method: request.method, path: request.url, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, { ...answer.headers, date });
        answer.pipe(response);
      },
    );
    passed.on("error", () => response.destroy());
    request.pipe(passed);
  });
  await new Promise<void>((resolve) => provider.listen(on, "127.0.0.1", resolve));
  port = (provider.address() as AddressInfo).port;
}

const hangUp = () =>
  new Promise<void>((resolve) => {
    provider.close(() => resolve());
    provider.closeAllConnections();
  });

beforeAll(async () => {
  s3 = await startS3Server();
  await listen(0);
  secondary = `s3://${s3.bucket}?endpoint=http://127.0.0.1:${port}&region=${s3.region}`;
  const environment = {
    BACKUP_SECONDARY: secondary,
    BACKUP_RECIPIENTS: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    BACKUP_SECONDARY_S3_ACCESS_KEY_ID: s3.accessKeyId,
    BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: s3.secretAccessKey,
  };
  stack = await startStack({ durable: false, stream: false, prepared: true, environment });
  // It would ask the second provider for more than that one has.
  await ask("update backup.schedules set enabled = false where name = 'replicate'");
  await ask("select * from backup.apply_schedules()");
}, stackMs);
afterAll(async () => {
  await stack?.destroy();
  await hangUp();
  await s3?.close();
}, stackMs);

/** One look by the cron job's call, to the end of the function's part. */
async function looked(): Promise<string> {
  const [row] = await ask("select backup.call_monitor()::text as request");
  expect(row?.["request"]).toMatch(/^\d+$/);
  return await eventually("the function has looked", async () => {
    const [call] = await ask("select status, answer from backup.calls where request_id = $1", [row?.["request"]]);
    return call?.["status"] === "ended" ? String(call["answer"]) : null;
  }, 60_000);
}

const alerts = async () =>
  (await ask(
    "select kind, subject, status from backup.alerts where kind in ('clock_skewed', 'store_unreachable', 'look_failed') order by id",
  ))
    .map(({ kind, subject, status }) => `${kind} ${subject} ${status}`);

describe("the monitor's look", () => {
  it("tells the database of keys, clocks and both stores, which are all well", async () => {
    expect(await looked()).toBe("done");
    const facts = await ask("select subject, facts from backup.told_facts order by subject");
    expect(facts).toEqual([
      { subject: "clock:first", facts: { aheadSeconds: expect.any(Number) } },
      { subject: "clock:function", facts: { aheadSeconds: expect.any(Number) } },
      { subject: "clock:second", facts: { aheadSeconds: expect.any(Number) } },
      { subject: "key:local", facts: {} },
      {
        subject: "store:first",
        facts: { label: expect.stringContaining("holdfast-backups"), failure: null, wrote: false },
      },
      { subject: "store:second", facts: { label: expect.stringContaining(s3.bucket), failure: null, wrote: false } },
    ]);
    for (const fact of facts) {
      const { aheadSeconds = 0 } = fact["facts"] as { aheadSeconds?: number };
      expect(Math.abs(aheadSeconds), String(fact["subject"])).toBeLessThan(30);
    }
    expect(await alerts()).toEqual([]);
  }, 90_000);

  it("is what the dashboard, the function and the CLI show alike", async () => {
    const [view] = await ask("select verdict, line, reasons from public.backup_status");
    const body = JSON.stringify({ action: "status" });
    const [timestamp, nonce] = [String(Math.floor(Date.now() / 1000)), randomUUID()];
    const lines = ["monitor", timestamp, nonce, createHash("sha256").update(body).digest("hex")].join("\n");
    const answer = await fetch(`${stack.gateway.url}/functions/v1/monitor`, {
      method: "POST",
      body,
      headers: {
        "x-holdfast-timestamp": timestamp,
        "x-holdfast-nonce": nonce,
        "x-holdfast-signature": createHmac("sha256", stack.workerSecret).update(lines).digest("hex"),
      },
    });
    expect(answer.status).toBe(200);
    const told = await answer.json() as Record<string, unknown>;
    const settings = {
      BACKUP_DB_URL: stack.cluster.plainUrl(),
      BACKUP_STORE: "supabase://holdfast-backups",
      BACKUP_SECONDARY: secondary,
      BACKUP_PROJECT_URL: stack.gateway.url,
    };
    const shown = await cli(["status", "--json"], settings);
    const { verdict, line, reasons } = shown.document as Record<string, unknown>;
    expect(view).toEqual({ verdict, line, reasons });
    expect(told).toMatchObject({ verdict, line, reasons });
    expect({ verdict, reasons }).toEqual({ verdict: "critical", reasons: ["there is no backup"] });
    // What only the caller can see: here there is no second store.
    const { BACKUP_SECONDARY: _, ...alone } = settings;
    expect((await cli(["status", "--json"], alone)).document).toMatchObject({
      reasons: ["there is no backup", expect.stringContaining("only one store is configured")],
    });
    expect(Object.keys(told).sort()).toEqual(Object.keys(shown.document as object).sort());
    expect(shown.exit).toBe(3);
    expect((await cli(["status"], settings)).stdout.split("\n")[0]).toBe("critical: there is no backup");
  }, 60_000);

  it(
    "finds a store whose clock is off, then one that is gone, once each, and ends both when it is well again",
    async () => {
      aheadSeconds = 600;
      await looked();
      expect(await alerts()).toEqual(["clock_skewed clock:second open"]);
      aheadSeconds = 0;
      await hangUp();
      await looked();
      expect(await alerts()).toEqual(["clock_skewed clock:second open", "store_unreachable store:second open"]);
      await listen(port);
      await looked();
      expect(await alerts()).toEqual(["clock_skewed clock:second resolved", "store_unreachable store:second resolved"]);
      await looked();
      expect(await alerts()).toHaveLength(2);
    },
    180_000,
  );

  it("does not call a store well that answers and takes nothing, whose failure a leg has told", async () => {
    await ask("delete from backup.alerts");
    const [label] = await ask(
      "select facts ->> 'label' as label from backup.told_facts where subject = 'store:second'",
    );
    await ask("select backup.tell_stores('first', $1)", [label?.["label"]]);
    isReadOnly = true;
    await ask("select backup.note_store_failure($1)", [
      JSON.stringify({ code: "store_denied", message: `${label?.["label"]}: no` }),
    ]);
    await looked();
    await looked();
    expect(await alerts()).toEqual(["store_unreachable store:second open"]);
    const [told] = await ask(
      "select facts ->> 'failure' as failure from backup.told_facts where subject = 'store:second'",
    );
    expect(told?.["failure"]).toContain("store_denied");
    isReadOnly = false;
    await looked();
    expect(await alerts()).toEqual(["store_unreachable store:second resolved"]);
    await looked();
    expect(await alerts()).toHaveLength(1);
    // Nothing of the probes stays, and once all is well none is written.
    const [last] = await ask("select facts from backup.told_facts where subject = 'store:second'");
    expect(last?.["facts"]).toMatchObject({ failure: null, wrote: false });
    const credentials = { s3AccessKeyId: s3.accessKeyId, s3SecretAccessKey: s3.secretAccessKey };
    const store = openStore(secondary, credentials, { fetch, clock: systemClock, random: webCryptoRandom });
    const left: string[] = [];
    for await (const { name } of store.list("v1/probe/")) left.push(name);
    expect(left).toEqual([]);
  }, 180_000);
});
