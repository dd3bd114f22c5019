import { createHash, createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { functionBudget } from "../../src/shared/backup/budget.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { BackupDoorDeps } from "../../src/shared/http/door.ts";
import { handleBackup } from "../../src/shared/http/handle_backup.ts";
import { createIsolateBudget } from "../../src/shared/http/isolate_budget.ts";
import { createLegSlot } from "../../src/shared/http/leg_slot.ts";
import { createLetIn } from "../../src/shared/http/people.ts";
import { maxBodyBytes } from "../../src/shared/http/read_body.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import type { Connection, Row } from "../../src/shared/postgres/connection.ts";

const secret = "a worker secret that is long enough to be one";
const run = "0b5c1f0e-5f6d-4c4e-9c36-5f1f4a1f7a01";
const now = new Date("2026-11-21T19:00:00Z");

/** Answers by the name of the SQL function that is called; records what was asked. */
class ScriptedDatabase {
  readonly asked: string[] = [];
  readonly values: (readonly (string | null)[])[] = [];
  opened = 0;
  closed = 0;
  readonly #answers: Readonly<Record<string, Row | Error>>;

  constructor(answers: Readonly<Record<string, Row | Error>> = {}) {
    this.#answers = { accept_call: { accepted: "t" }, attach_call: { status: "queued" }, ...answers };
  }

  connect(): Promise<Connection> {
    this.opened++;
    return Promise.resolve({
      processId: 1,
      serverVersion: 150000,
      query: (text, values = []) => {
        const name = /backup\.(\w+)/.exec(text)?.[1] ?? text;
        this.asked.push(name);
        this.values.push(values);
        const answer = this.#answers[name];
        if (answer instanceof Error) return Promise.reject(answer);
        return Promise.resolve([answer ?? {}]);
      },
      execute: () => Promise.resolve(),
      copyOut: () => Promise.reject(new Error("not here")),
      copyIn: () => Promise.reject(new Error("not here")),
      close: () => {
        this.closed++;
        return Promise.resolve();
      },
    });
  }
}

interface Scene {
  readonly deps: BackupDoorDeps;
  readonly database: ScriptedDatabase;
  readonly work: Promise<void>[];
  /** Calls of nobody known. */
  readonly counted: string[];
}

function scene(answers: Readonly<Record<string, Row | Error>> = {}, changes: Partial<BackupDoorDeps> = {}): Scene {
  const database = new ScriptedDatabase(answers);
  const work: Promise<void>[] = [];
  const counted: string[] = [];
  const clock = { now: () => now, monotonicMs: () => 0, sleep: () => Promise.resolve() };
  const deps: BackupDoorDeps = {
    environment: { BACKUP_WORKER_SECRET: secret },
    clock,
    random: webCryptoRandom,
    log: silentLog,
    waitUntil: (one) => work.push(one),
    slot: createLegSlot(),
    budget: createIsolateBudget(clock),
    checkPerson: () => Promise.reject(new HoldfastError("unauthorised", "nobody is signed in")),
    letIn: createLetIn({ clock, log: silentLog }),
    countRefusal: (_open, refused) => {
      counted.push(refused.reason);
      return Promise.resolve(0);
    },
    openDatabase: () => ({ label: "scripted", connect: () => database.connect() }),
    legs: {
      full: () => Promise.resolve(),
      replicate: () => Promise.resolve(),
    },
    requestCopies: () => Promise.resolve(null),
    anchor: () => Promise.reject(new Error("no anchor was asked for")),
    drain: () => Promise.reject(new Error("no drain was asked for")),
    ...changes,
  };
  return { deps, database, work, counted };
}

function call(body: string, options: { method?: string; sign?: string; nonce?: string } = {}): Request {
  const method = options.method ?? "POST";
  const timestamp = String(now.getTime() / 1000);
  const nonce = options.nonce ?? "0123456789abcdef";
  const lines = ["backup", timestamp, nonce, createHash("sha256").update(body).digest("hex")].join("\n");
  const signature = createHmac("sha256", options.sign ?? secret).update(lines).digest("hex");
  const headers = { "x-holdfast-timestamp": timestamp, "x-holdfast-nonce": nonce, "x-holdfast-signature": signature };
  return new Request("https://project.test/functions/v1/backup", {
    method,
    headers,
    ...(method === "GET" ? {} : { body }),
  });
}

async function told(response: Response): Promise<{ status: number; code: unknown; keys: string[]; text: string }> {
  const text = await response.text();
  const document = JSON.parse(text) as Record<string, unknown>;
  return { status: response.status, code: document["code"], keys: Object.keys(document).sort(), text };
}

const leg = JSON.stringify({ action: "leg", run });

describe("a function's door", () => {
  it("answers code, message and hint with the status of the code, and counts every refusal", async () => {
    const { deps, database, counted } = scene();
    const strangers: readonly [Request, number, string][] = [
      [call(leg, { method: "GET" }), 405, "method_not_allowed"],
      [call(leg, { sign: "another secret that is long enough as well" }), 401, "unauthorised"],
      [call("x".repeat(maxBodyBytes + 1)), 413, "payload_too_large"],
    ];
    for (const [request, status, code] of strangers) {
      const answer = await told(await handleBackup(request, deps));
      expect(answer).toMatchObject({ status, code, keys: ["code", "hint", "message"] });
    }
    expect(counted).toEqual(strangers.map(([, , code]) => code));
    expect(database.opened, "nobody gets as far as the database without a good call").toBe(0);
    const wrong = [
      "not json",
      JSON.stringify({ action: "leg" }),
      JSON.stringify({ action: "leg", run, more: 1 }),
      JSON.stringify({ action: "start", tier: "hourly" }),
      JSON.stringify({ action: "erase" }),
    ];
    for (const body of wrong) {
      const answer = await told(await handleBackup(call(body), deps));
      expect(answer).toMatchObject({ status: 400, code: "payload_invalid", keys: ["code", "hint", "message"] });
      expect(database.asked.splice(0)).toEqual(["accept_call", "note_refusal", "end_call"]);
      expect(database.values.splice(0)[1]).toEqual([null, "backup", "payload_invalid"]);
    }
  });

  it("lets whoever was refused too often wait, but never a call that the worker secret signed", async () => {
    const { deps } = scene({}, { countRefusal: () => Promise.resolve(900) });
    const refused = await handleBackup(call(leg, { sign: "another secret that is long enough as well" }), deps);
    expect(refused.headers.get("retry-after")).toBe("900");
    expect(await told(refused)).toMatchObject({ status: 429, code: "too_many_refusals" });
    expect((await handleBackup(call(leg), deps)).status).toBe(202);
  });

  it("does not say what was in a request that it refuses", async () => {
    const { deps } = scene();
    const body = JSON.stringify({ action: "start", tier: "hush-hush", password: "hunter2" });
    const answer = await told(await handleBackup(call(body), deps));
    expect(answer.text).not.toContain("hush-hush");
    expect(answer.text).not.toContain("hunter2");
    expect(answer.text).toContain("tier");
  });

  it("refuses a nonce that the database has seen, like any call that is not signed", async () => {
    const { deps, database } = scene({ accept_call: { accepted: "f" } });
    const replayed = await told(await handleBackup(call(leg), deps));
    const unsigned = await told(await handleBackup(call(leg, { sign: "no" }), deps));
    expect(replayed.text).toBe(unsigned.text);
    expect(database.asked).toEqual(["accept_call", "note_refusal"]);
    expect(database.closed).toBe(1);
  });

  it("reads no body of whoever brings neither a token nor what could be a signature", async () => {
    const { deps, counted } = scene();
    const never = () => new ReadableStream({ pull: () => new Promise<void>(() => {}) });
    const url = "https://project.test/functions/v1/backup";
    const stale = call(leg).headers;
    stale.set("x-holdfast-timestamp", String(now.getTime() / 1000 - 301));
    for (const headers of [new Headers(), new Headers({ authorization: "Bearer a.b.c" }), stale]) {
      const request = new Request(url, { method: "POST", headers, body: never(), duplex: "half" } as RequestInit);
      expect(await told(await handleBackup(request, deps))).toMatchObject({ status: 401, code: "unauthorised" });
    }
    expect(counted).toEqual(["unauthorised", "unauthorised", "unauthorised"]);
  });

  it("fails closed without a worker secret", async () => {
    const { deps, database } = scene({}, { environment: {} });
    expect(await told(await handleBackup(call(leg, { sign: "" }), deps))).toMatchObject({ status: 401 });
    expect(database.opened).toBe(0);
  });

  it("answers setting_missing when the function has no database URL, and does not crash", async () => {
    const { deps } = scene({}, {
      openDatabase: () => {
        throw new HoldfastError("setting_missing", "the function has no SUPABASE_DB_URL");
      },
    });
    expect(await told(await handleBackup(call(leg), deps))).toMatchObject({ status: 500, code: "setting_missing" });
  });

  it("keeps what an unknown error says to itself", async () => {
    const { deps } = scene({ attach_call: new Error("password=hunter2") });
    const answer = await told(await handleBackup(call(leg), deps));
    expect(answer).toMatchObject({ status: 500, code: "internal" });
    expect(answer.text).not.toContain("hunter2");
  });
});

describe("a leg", () => {
  it("answers 202 before it works, then reports its end and closes its session", async () => {
    let begin = () => {};
    const begun = new Promise<void>((resolve) => begin = resolve);
    const { deps, database, work } = scene({}, {
      legs: { full: () => begun, replicate: () => begun },
    });
    const response = await handleBackup(call(leg), deps);
    expect(response.status).toBe(202);
    expect(await response.json()).toEqual({ run, status: "queued", leg: "begun" });
    expect(database.asked).toEqual(["accept_call", "attach_call"]);
    expect(database.closed).toBe(0);
    begin();
    await Promise.all(work);
    expect(database.asked).toEqual(["accept_call", "attach_call", "end_leg"]);
    expect(database.values.at(-1)).toEqual(["0123456789abcdef", run, null]);
    expect(database.closed).toBe(1);
  });

  it("begins the isolate's time for the legs that come after it, whatever it asks for", async () => {
    let ms = 1_000;
    const clock = { now: () => now, monotonicMs: () => ms, sleep: () => Promise.resolve() };
    const { deps } = scene({}, { budget: createIsolateBudget(clock) });
    await handleBackup(call("{}", { method: "GET" }), deps);
    ms += functionBudget.wallMs - 1;
    expect(deps.budget.next().spent()).toBe(false);
    ms += 1;
    expect(deps.budget.next().spent()).toBe(true);
  });

  it("is refused as busy while another one works in the same isolate, and begins once that is over", async () => {
    let end = () => {};
    const first = new Promise<void>((resolve) => end = resolve);
    const { deps, work } = scene({}, {
      legs: { full: () => first, replicate: () => first },
    });
    await handleBackup(call(leg), deps);
    const second = await handleBackup(call(leg, { nonce: "0123456789abcde2" }), deps);
    expect(second.status).toBe(202);
    expect(await second.json()).toMatchObject({ leg: "busy" });
    end();
    await Promise.all(work);
    const third = await handleBackup(call(leg, { nonce: "0123456789abcde3" }), deps);
    expect(await third.json()).toMatchObject({ leg: "begun" });
  });

  it("writes to the run what kept it from its tasks", async () => {
    const failure = new HoldfastError("key_missing", "BACKUP_KEYS is not set");
    const { deps, database, work } = scene({}, {
      legs: {
        full: () => Promise.reject(failure),
        replicate: () => Promise.reject(failure),
      },
    });
    expect((await handleBackup(call(leg), deps)).status).toBe(202);
    await Promise.all(work);
    const reported = database.values[database.asked.indexOf("end_leg")]?.[2] ?? "";
    expect(JSON.parse(reported)).toMatchObject({ code: "key_missing", retry: "after_fix" });
  });

  it("does not fail its run when another worker took its task over", async () => {
    const lost = new HoldfastError("lease_lost", "task 1 is no longer ours");
    const { deps, database, work } = scene({}, {
      legs: {
        full: () => Promise.reject(lost),
        replicate: () => Promise.reject(lost),
      },
    });
    await handleBackup(call(leg), deps);
    await Promise.all(work);
    expect(database.values[database.asked.indexOf("end_leg")]?.[2]).toBeNull();
  });

  it("never rejects what it gave to waitUntil, also when the database is gone at its end", async () => {
    const { deps, database, work } = scene({ end_leg: new Error("gone") });
    await handleBackup(call(leg), deps);
    await expect(Promise.all(work)).resolves.toHaveLength(1);
    expect(database.closed).toBe(1);
  });
});

describe("start", () => {
  const start = JSON.stringify({ action: "start", tier: "manual", requestKey: "nightly:1" });

  it("requests the run and works on it", async () => {
    const { deps, database, work } = scene({ request_run: { run, joined: "f" } });
    const response = await handleBackup(call(start), deps);
    expect(response.status).toBe(202);
    expect(await response.json()).toEqual({ run, joined: false });
    await Promise.all(work);
    expect(database.asked).toEqual(["accept_call", "request_run", "attach_call", "end_leg"]);
    expect(database.values[1]).toEqual(["full", "{manual}", "http", "nightly:1"]);
  });

  it("joins the run that is under way and leaves it to those who work on it", async () => {
    const { deps, database, work } = scene({ request_run: { run, joined: "t" } });
    expect(await (await handleBackup(call(start), deps)).json()).toEqual({ run, joined: true });
    expect(work).toHaveLength(0);
    expect(database.asked).toEqual(["accept_call", "request_run", "end_call"]);
    expect(database.closed).toBe(1);
  });
});
