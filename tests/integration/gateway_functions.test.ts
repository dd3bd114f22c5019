import { existsSync, readFileSync } from "node:fs";
import { createServer, request as httpRequest, type Server } from "node:http";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { IsolateRecord } from "../../src/local/gateway/isolate.ts";
import { startTestGateway, type TestGateway, until } from "./gateway_fixture.ts";

const mib = 1024 * 1024;
const startMs = 60_000;
const testMs = 90_000;

let gateway: TestGateway;
/** Same functions, but one isolate only, its life short, two requests at a time. */
let hasty: TestGateway;
/** What functions sent to the test, in order. */
const told: string[] = [];
let listener: Server;
let tellUrl: string;

beforeAll(async () => {
  listener = createServer(async (request, response) => {
    let text = "";
    for await (const bytes of request) text += bytes;
    told.push(text);
    response.end();
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const address = listener.address();
  tellUrl = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}/`;
  gateway = await startTestGateway(null, { environment: { PROBE_SECRET: "hidden-in-the-environment" } });
  hasty = await startTestGateway(null, {
    limits: { wallMs: 6_000, responseMs: 3_000 },
    spare: 0,
    atMost: 1,
    concurrency: 2,
  });
}, startMs);

afterAll(async () => {
  await gateway?.stop();
  await hasty?.stop();
  listener?.close();
}, startMs);

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

async function call(path: string, init: RequestInit = {}, at = gateway): Promise<Answer> {
  const response = await fetch(`${at.url}/functions/v1/${path}`, init);
  const text = await response.text();
  const body: unknown = text.startsWith("{") ? JSON.parse(text) : { text };
  return { status: response.status, body: Object(body) };
}

async function records(at = gateway): Promise<{ ended: IsolateRecord[]; running: IsolateRecord[] }> {
  return await (await fetch(`${at.url}/__metrics`)).json();
}

/** The figures of a process once it has ended. */
async function recordOf(pid: unknown, at = gateway): Promise<IsolateRecord> {
  const ended = await until(
    async () => (await records(at)).ended.find((one) => one.pid === pid),
    (one) => one !== undefined,
  );
  if (ended === undefined) throw new Error("until answers only when there is one");
  return ended;
}

/** CPU of the process's first thread in milliseconds, from another file of the kernel than the gateway reads. */
function ticksMs(pid: unknown): number {
  const fields = readFileSync(`/proc/${pid}/task/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

describe("a function's request and answer", () => {
  it("pass through unchanged, and the function sees its own path", async () => {
    const response = await fetch(`${gateway.url}/functions/v1/probe/echo?x=1`, {
      method: "POST",
      headers: { "x-probe": "kept", authorization: "Bearer of the function's own" },
      body: "hällo",
    });
    expect(response.status).toBe(201);
    expect(response.headers.get("x-answer")).toBe("yes");
    expect(response.headers.get("x-isolate-state")).toBeNull();
    expect(await response.json()).toMatchObject({ method: "POST", path: "/probe/echo", header: "kept", body: "hällo" });
  }, testMs);

  it("come to each other also where the function answers before it has read what is still being sent", async () => {
    /** Sends 30 pieces, one each 5 ms, without a length; what is answered once all were sent. */
    const send = async () =>
      await new Promise<number | undefined>((resolve, reject) => {
        const request = httpRequest(`${gateway.url}/functions/v1/probe/html`, { method: "POST" }, (response) => {
          response.resume().on("error", reject).on("end", () => resolve(response.statusCode));
        });
        request.on("error", reject);
        let sent = 0;
        const more = setInterval(() => {
          if (sent++ < 30) return void request.write(" ".repeat(4096));
          clearInterval(more);
          request.end();
        }, 5);
      });
    for (let round = 0; round < 3; round++) {
      expect(await Promise.all(Array.from({ length: 8 }, send))).toEqual(Array.from({ length: 8 }, () => 200));
    }
  }, testMs);

  it("survive whatever a function writes on its output", async () => {
    expect((await call("probe/noise")).status).toBe(200);
    expect((await call("probe/echo")).status).toBe(201);
    const noise = readFileSync(gateway.journalFile, "utf8").split("\n").filter((line) => line.includes("noise"));
    expect(noise.map((line) => JSON.parse(line).line)).toEqual(["\u001enoise {", "noise without an end"]);
  }, testMs);

  it("reach no function that is not there", async () => {
    expect((await call("nowhere")).status).toBe(404);
    expect((await call("..%2fsample_app")).status).toBe(404);
  });

  it("give HTML as text, as the platform does", async () => {
    const response = await fetch(`${gateway.url}/functions/v1/probe/html`);
    await response.body?.cancel();
    expect(response.headers.get("content-type")).toBe("text/plain");
  }, testMs);

  it("name a function that does not start, throws or rejects without a catch", async () => {
    expect(await call("broken")).toMatchObject({ status: 503, body: { code: "BOOT_ERROR" } });
    expect(await call("probe/throw")).toMatchObject({ status: 500, body: { text: "Internal Server Error" } });
    expect(await call("probe/reject")).toMatchObject({
      status: 502,
      body: { code: "WORKER_ERROR", reason: "crashed" },
    });
  }, testMs);
});

describe("an isolate", () => {
  it("has the hosted environment and no secret in its arguments", async () => {
    const { body } = await call("probe/environment");
    expect(body["url"]).toBe(gateway.url);
    expect(body["secret"]).toBe("hidden-in-the-environment");
    expect(body["names"]).toEqual(
      expect.arrayContaining(["SUPABASE_ANON_KEY", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEYS"]),
    );
    expect(body["names"]).not.toContain("PATH");
    const commandLine = readFileSync(`/proc/${body["pid"]}/cmdline`, "utf8");
    expect(commandLine).toContain("probe");
    expect(commandLine).not.toMatch(/hidden-in-the-environment|sb_secret_|eyJ/);
  }, testMs);

  it("has neither Worker nor rename, and writes below /tmp only", async () => {
    expect((await call("probe/environment")).body["worker"]).toBe("undefined");
    expect((await call("probe/rename")).body["error"]).toBe("NotSupported");
    expect((await call("probe/write?file=/tmp/holdfast-probe")).body).toEqual({ written: true });
    expect((await call("probe/write?file=/var/tmp/holdfast-probe")).body).toEqual({
      written: false,
      error: "NotCapable",
    });
  }, testMs);

  it("serves the next request too, while requests at the same time get isolates of their own", async () => {
    const first = await call("probe/echo");
    expect((await call("probe/echo")).body["pid"]).toBe(first.body["pid"]);
    const together = await Promise.all([1, 2, 3].map(() => call("probe/wait?ms=1500")));
    expect(new Set(together.map((one) => one.body["pid"])).size).toBe(3);
  }, testMs);
});

describe("requests beyond the isolates there may be", () => {
  it("wait until one has room", async () => {
    await until(() => call("probe/echo", {}, hasty), (answer) => answer.status === 201);
    const start = performance.now();
    const all = await Promise.all([1, 2, 3, 4].map(() => call("probe/wait?ms=400", {}, hasty)));
    expect(all.map((one) => one.status)).toEqual([200, 200, 200, 200]);
    expect(new Set(all.map((one) => one.body["pid"])).size).toBe(1);
    expect(performance.now() - start).toBeGreaterThan(790);
  }, testMs);
});

describe("CPU", () => {
  it("is what the kernel counts for the isolate's own thread", async () => {
    const { body: { pid } } = await call("probe/echo");
    const before = ticksMs(pid);
    expect((await call("probe/burn?ms=400")).body["pid"]).toBe(pid);
    const witness = ticksMs(pid) - before;
    const running = (await records()).running.find((one) => one.pid === pid);
    const counted = running?.uses.at(-1)?.cpuMs ?? 0;
    expect(counted).toBeGreaterThan(50);
    expect(counted).toBeLessThan(440);
    expect(Math.abs(counted - witness)).toBeLessThan(60);
  }, testMs);

  it("of 1 s retires the isolate once it is idle, and the next request gets another", async () => {
    const { body: { pid } } = await call("probe/echo");
    for (let turn = 0; turn < 40; turn += 1) {
      const { status, body } = await call("probe/burn-in-turns?ms=300");
      expect(status).toBe(200);
      if (body["pid"] !== pid) break;
    }
    const record = await recordOf(pid);
    expect(record.endedBy).toBe("retired");
    expect(record.cpuMs).toBeGreaterThanOrEqual(1_000);
    expect(record.cpuMs).toBeLessThan(1_700);
    const unload = await until(
      () =>
        readFileSync(gateway.journalFile, "utf8").split("\n").find((line) =>
          line.includes(record.isolate) && line.includes("unload")
        ),
      (line) => line !== undefined,
    );
    expect(JSON.parse(unload ?? "{}")).toMatchObject({ line: 'unload {"reason":"cpu"}' });
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  }, testMs);

  it("of 2 s ends the isolate, and its caller gets 546", async () => {
    const { body: { pid } } = await call("probe/echo");
    const answer = await call("probe/burn?ms=60000");
    expect(answer).toMatchObject({ status: 546, body: { code: "WORKER_LIMIT", reason: "cpu" } });
    const record = await recordOf(pid);
    expect(record.endedBy).toBe("cpu");
    expect(record.cpuMs).toBeGreaterThanOrEqual(2_000);
    expect(record.cpuMs).toBeLessThan(2_300);
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  }, testMs);
});

describe("the end of the gateway", () => {
  it("is the end of its isolates, however it comes", async () => {
    const short = await startTestGateway(null, { spare: 0 });
    const { body: { pid } } = await call("probe/echo", {}, short);
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    process.kill(short.pid, "SIGKILL");
    await until(() => existsSync(`/proc/${pid}`), (alive) => !alive);
    await short.stop();
  }, testMs);
});

describe("memory", () => {
  it("below 256 MiB is fine, and its peak is recorded", async () => {
    const { status, body: { pid } } = await call("probe/fill?mib=96");
    expect(status).toBe(200);
    const running = (await records()).running.find((one) => one.pid === pid);
    expect(running?.peakBytes).toBeGreaterThan(96 * mib);
    expect(running?.peakBytes).toBeLessThan(256 * mib);
  }, testMs);

  it("over 256 MiB ends the isolate, and its caller gets 546", async () => {
    const { body: { pid } } = await call("probe/echo");
    expect(await call("probe/fill?mib=1024")).toMatchObject({ status: 546, body: { reason: "memory" } });
    const record = await recordOf(pid);
    expect(record.endedBy).toBe("memory");
    expect(record.peakBytes).toBeGreaterThan(256 * mib);
    expect(record.peakBytes).toBeLessThan(600 * mib);
  }, testMs);
});

describe("waitUntil", () => {
  it("work goes on after the answer, and the isolate counts as busy until it is done", async () => {
    told.length = 0;
    const { status, body: { pid } } = await call(`probe/later?ms=700&tell=${encodeURIComponent(tellUrl)}`);
    expect(status).toBe(202);
    expect(told).toEqual([]);
    await until(() => told.length, (count) => count === 1);
    const use = await until(
      async () => (await records()).running.find((one) => one.pid === pid)?.uses.at(-1),
      (one) => (one?.wallMs ?? 0) >= 690,
    );
    expect(use?.status).toBe(202);
  }, testMs);

  it("ignores what is not a native promise", async () => {
    const { body: { pid } } = await call("probe/thenable?ms=700");
    const use = (await records()).running.find((one) => one.pid === pid)?.uses.at(-1);
    expect(use?.status).toBe(202);
    expect(use?.wallMs).toBeLessThan(690);
  }, testMs);
});

describe("wall time", () => {
  it("without an answer gives 504, and the isolate goes on to its end", async () => {
    const { body: { pid } } = await until(() => call("probe/echo", {}, hasty), (answer) => answer.status === 201);
    expect(await call("probe/wait?ms=20000", {}, hasty)).toMatchObject({ status: 504, body: { reason: "response" } });
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    const record = await recordOf(pid, hasty);
    expect(record.endedBy).toBe("wall_clock");
    expect(record.wallMs).toBeGreaterThanOrEqual(6_000);
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  }, testMs);
});

describe("a kill in a test", () => {
  it("hits right behind the line it names, before anything else happens", async () => {
    told.length = 0;
    const ordered = await fetch(`${gateway.url}/__kill`, {
      method: "POST",
      body: JSON.stringify({ function: "probe", at: "line", text: "step:line", nth: 3 }),
    });
    const { id }: { id: string } = await ordered.json();
    const answer = await call(`probe/lines?count=10&tell=${encodeURIComponent(tellUrl)}`);
    expect(answer).toMatchObject({ status: 502, body: { reason: "killed" } });
    expect(told).toEqual(["1", "2"]);
    const order: { fired: { isolate: string } | null } = await (await fetch(`${gateway.url}/__kill/${id}`)).json();
    expect(order.fired?.isolate).toMatch(/^[0-9a-f-]{36}$/);
    expect((await call(`probe/lines?count=4&tell=${encodeURIComponent(tellUrl)}`)).status).toBe(200);
  }, testMs);

  it("hits a request as it arrives", async () => {
    await fetch(`${gateway.url}/__kill`, {
      method: "POST",
      body: JSON.stringify({ function: "probe", at: "request" }),
    });
    expect(await call("probe/wait?ms=3000")).toMatchObject({ status: 502, body: { reason: "killed" } });
    expect((await call("probe/echo")).status).toBe(201);
  }, testMs);
});
