/** What comes in the body, the path and the method of a call of somebody who is let in: by the worker secret, or as an administrator. */
import { Buffer } from "node:buffer";
import { randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { maxBodyBytes } from "../../src/shared/http/read_body.ts";
import { query } from "../support/cluster.ts";
import { sampled } from "../support/sampled.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import {
  type AskedFor,
  bearer,
  bytesOf,
  call,
  callFunction,
  everythingAskedFor,
  footprint,
  functionNames,
  hardened,
  inLanes,
  type JsonSchema,
  signed,
  stopClocks,
  tellsTooMuch,
  type Told,
} from "./attack_calls.ts";

const asked = everythingAskedFor();
let stack: Stack;
let admin: SignedIn;
let before: Record<string, string>;

beforeAll(async () => {
  stack = await startStack({ durable: false, stream: false, prepared: true, ...hardened });
  await stopClocks(stack);
  admin = await signedIn(stack, { aal2: true });
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
  await ask("create table public.letters as select i as id, 'letter ' || i as t from generate_series(1, 20) as i");
  before = await footprint(stack);
}, 300_000);

afterAll(async () => {
  await stack?.destroy();
}, 60_000);

/** The watchdog is called all the time. */
async function until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + 120_000;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`never: ${what}`);
    await ask("select backup.tick()");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const ask = (text: string, values: readonly unknown[] = []) => query(stack.cluster.plainUrl(), text, values);

type AsWhom = "a machine" | "an administrator";
const everybody: readonly AsWhom[] = ["a machine", "an administrator"];

async function sent(who: AsWhom, name: string, body: unknown, headers: Record<string, string> = {}): Promise<Told> {
  const bytes = bytesOf(body);
  const proof = who === "a machine" ? signed(stack, name, bytes) : bearer(admin.accessToken);
  return await callFunction(stack, name, { body: bytes, headers: { ...proof, ...headers } });
}

/** Refused by code, without a word too many and without a trace. */
function expectRefused({ status, document, text }: Told, wanted: string | RegExp, what: string): void {
  expect(`${status} ${document["code"]}`, `${what}: ${text}`).toMatch(wanted);
  expect(Object.keys(document).sort(), what).toEqual(["code", "hint", "message"]);
  expect(text, what).not.toMatch(tellsTooMuch);
  expect(text.length, what).toBeLessThan(1000);
}

const invalid = "400 payload_invalid";
/** Nesting that a parser which calls itself would not survive, in as few bytes as can be. */
const deep = (open: string, close: string, times: number) => open.repeat(times) + close.repeat(times);

/** It is no text, no JSON, no object, an object of another kind, or one with more in it. */
function whatIsWrong([what, body]: readonly [string, unknown]): string[] {
  if (/nested|compressed/.test(what)) return [what];
  if (/proto|constructor/.test(what)) return ["what every object has"];
  if (typeof body !== "string") {
    return body instanceof Uint8Array ? ["no text"] : [/field/.test(what) ? "more" : "another"];
  }
  return [/^[["n1]/.test(body) ? "no object" : "no JSON"];
}

describe.each(everybody)("a body by %s", (who) => {
  const notOurs: readonly (readonly [string, unknown])[] = [
    ["empty", ""],
    ["blank", " \n"],
    ["a word", "start"],
    ["half a document", `{"action": "status"`],
    ["two documents", `{"action": "drain"}{"action": "drain"}`],
    ["with a comment", `{"action": "drain" /* now */}`],
    ["null", "null"],
    ["a list", `[{"action": "drain"}]`],
    ["a text", `"drain"`],
    ["a number", "1e999"],
    ["not of Unicode", Uint8Array.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])],
    ["of overlong bytes", Uint8Array.from([0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d])],
    ["in UTF-16", new Uint8Array(Buffer.from(`{"action": "drain"}`, "utf16le"))],
    ["a form", "action=drain"],
    [
      "XML with an entity",
      `<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><action>&x;</action>`,
    ],
    ["compressed", new Uint8Array(gzipSync(`{"action": "drain"}`))],
    ["nested lists", deep("[", "]", 8000)],
    ["nested objects", `${`{"a":`.repeat(2600)}1${"}".repeat(2600)}`],
    ["an empty object", "{}"],
    ["another action", { action: "shutdown" }],
    ["an inherited action", { action: "constructor" }],
    ["an action in capitals", { action: "DRAIN" }],
    ["an action that looks alike", { action: "drаin" }],
    ["an action with a NUL", { action: "drain\0" }],
    ["a list of actions", { action: ["drain"] }],
    ["an action below __proto__", `{"__proto__": {"action": "drain"}}`],
    ["an action below constructor", `{"constructor": {"prototype": {"action": "drain"}}}`],
    ["a field too many", { action: "drain", then: "drop" }],
    ["a __proto__ too many", `{"action": "drain", "__proto__": {"admin": true}}`],
  ];
  it.each(sampled(`bodies by ${who}`, notOurs, 12, whatIsWrong))(
    "that is %s is refused by every function",
    async (what, body) => {
      await inLanes(functionNames(), (name) => name, async (name) => {
        expectRefused(await sent(who, name, body), invalid, `${name}, ${what}`);
      });
    },
    60_000,
  );

  it("that was refused has changed nothing", async () => {
    expect(await footprint(stack)).toEqual(before);
  });

  it("that is too large is refused, with its length, in pieces, compressed", async () => {
    const large = `{"action": "status", "run": "${" ".repeat(maxBodyBytes)}"}`;
    const pieces = Array.from({ length: 9 }, () => bytesOf(" ".repeat(4096)));
    const bomb = new Uint8Array(gzipSync(" ".repeat(50_000_000)));
    await inLanes(functionNames(), (name) => name, async (name) => {
      expectRefused(await sent(who, name, large), "413 payload_too_large", name);
      const proof = who === "a machine" ? signed(stack, name, pieces[0]) : bearer(admin.accessToken);
      const inPieces = await callFunction(stack, name, { body: pieces, headers: proof });
      expectRefused(inPieces, "413 payload_too_large", `${name} in pieces`);
      const packed = await sent(who, name, bomb, { "content-encoding": "gzip" });
      expectRefused(packed, /^(413 payload_too_large|400 payload_invalid)$/, `${name} compressed`);
      const small = await sent(who, name, new Uint8Array(gzipSync(" ".repeat(5_000_000))), {
        "content-encoding": "gzip",
      });
      expectRefused(small, /^400 payload_invalid$/, `${name} compressed below the bound`);
    });
    expect(await footprint(stack)).toEqual(before);
  }, 60_000);

  it("that just fits is read", async () => {
    const body = `${" ".repeat(maxBodyBytes - 19)}{"action": "nothing"}`.slice(-maxBodyBytes);
    expectRefused(await sent(who, "backup", body), invalid, "at the bound");
    expectRefused(await sent(who, "backup", ` ${body}`), "413 payload_too_large", "past the bound");
  });
});

/** Values that no field takes, or that no answer may repeat, run or look up. */
const odd: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1e308,
  "1e400",
  [],
  {},
  [[]],
  { toString: "x" },
  "",
  " ",
  "\0",
  "a\0b",
  "\ud800",
  "\udfff\ud800",
  "\u202egnp.exe",
  "\ufeff",
  "рublic.letters",
  "../../../../etc/passwd",
  "..%2f..%2fetc%2fpasswd",
  "/etc/passwd",
  "C:\\windows",
  "file:///etc/passwd",
  "http://127.0.0.1/",
  "'; drop table public.letters; --",
  `public."letters"; drop table public.letters; --`,
  "public.letters where true; --",
  "$$; drop table public.letters; $$",
  "${jndi:ldap://127.0.0.1/a}",
  "{{7*7}}",
  "%s%n%x",
  "x".repeat(10_000),
  "00000000-0000-0000-0000-000000000000' or '1'='1",
  "00000000-0000-0000-0000-000000000000",
  "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

/** What is odd about it: that it is no text, or what a text is taken for. */
function oddness(value: unknown): string[] {
  if (typeof value !== "string") return ["no text"];
  if (/\0|[\ud800-\udfff]/.test(value)) return [value.includes("\0") ? "a NUL" : "half a character"];
  if (/drop table|where true|or '1'/.test(value)) return ["SQL"];
  return value.length > 1000 ? ["long"] : /^[0-9a-f-]{36}$/.test(value) ? ["an id"] : ["another text"];
}

/** The odd ones that are good names for a request all the same (docs/http.md, requestKey). */
const keys = odd.filter((value) => typeof value === "string" && /^[A-Za-z0-9][A-Za-z0-9:._-]{0,199}$/.test(value)).map(
  (value) => `requestKey = ${JSON.stringify(value)}`,
);

/** Where a value stands in a request: each field, and the first entry of a list of objects, field by field. */
function placesOf(schema: JsonSchema, path: readonly string[] = []): string[][] {
  const places = Object.entries(schema.properties ?? {}).filter(([name]) => name !== "action").flatMap((
    [name, field],
  ) => [
    [...path, name],
    ...(field.items?.properties === undefined ? [] : placesOf(field.items, [...path, name, "0"])),
  ]);
  return places;
}

function withValue(one: AskedFor, [name = "", , inner]: readonly string[], value: unknown): Record<string, unknown> {
  if (inner === undefined) return { ...one.body, [name]: value };
  const entry = one.schema.properties?.[name]?.items?.required ?? [];
  const rest = Object.fromEntries(entry.map((field) => [field, "id"]));
  return { ...one.body, ...tableOf(one), [name]: [{ ...rest, [inner]: value }] };
}

/** So that a request for rows is one but for the value that is tried. */
const tableOf = ({ schema }: AskedFor) =>
  schema.properties?.["where"] === undefined ? {} : { scope: "record", table: "public.letters" };

describe("every field of every action", () => {
  const withFields = asked.filter(({ schema }) => placesOf(schema).length > 0);

  it("is one of some", () => {
    expect(withFields.flatMap(({ schema }) => placesOf(schema)).length).toBeGreaterThan(20);
  });

  const whatOf = ({ place, value }: { readonly place: readonly string[]; readonly value: unknown }) =>
    `${place.join(".")} = ${JSON.stringify(value).slice(0, 80)}`;

  /** What a machine is refused whatever it sends, an administrator sends. */
  const whoAsks = ({ functionName }: AskedFor): AsWhom =>
    functionName === "import-export" || functionName === "privacy" ? "an administrator" : "a machine";

  it.each(withFields.map((one) => [`${one.functionName}: ${one.action}`, one] as const))(
    "of %s takes no odd value: it is refused by name, or nothing is found",
    async (name, one) => {
      const tries = placesOf(one.schema).flatMap((place) =>
        sampled(`${name} ${place.join(".")}`, odd, 8, oddness).map((value) => ({ place, value }))
      );
      const began = await inLanes(tries, () => one.functionName, async ({ place, value }) => {
        const told = await sent(whoAsks(one), one.functionName, withValue(one, place, value));
        const what = whatOf({ place, value });
        const echo = typeof value === "string" && /etc.passwd|drop table|jndi|7\*7|%n/.test(value);
        if (echo) expect(told.text, what).not.toContain(value);
        if (told.status < 300) return what;
        const refusals =
          /^4(00|03|04|09) (payload_invalid|[a-z]+_not_found|run_state|confirmation_wrong|usage|import_foreign)$/;
        expectRefused(told, refusals, what);
        return null;
      });
      const starts = one.functionName === "backup" && one.action === "start";
      const good = starts ? tries.map(whatOf).filter((what) => keys.includes(what)) : [];
      expect(began.filter((what) => what !== null)).toEqual(good);
      expect(await ask("select id from backup.restores")).toEqual([]);
      const [letters] = await ask("select count(*)::int as n from public.letters");
      expect(letters).toEqual({ n: 20 });
    },
    240_000,
  );
});

describe("a key that comes twice", () => {
  it("is one to whoever is let in as well as to what is done", async () => {
    const asPerson = (body: string) => sent("an administrator", "backup", body);
    for (
      const body of [
        `{"action": "status", "run": "${randomUUID()}", "action": "leg"}`,
        `{"action": "status", "\\u0061ction": "drain"}`,
      ]
    ) {
      const told = await asPerson(body);
      expect([told.status, told.document["code"]], told.text).toEqual([403, "forbidden"]);
    }
    const told = await asPerson(`{"action": "drain", "run": "${randomUUID()}", "action": "status"}`);
    expect([told.status, told.document["code"]]).toEqual([404, "run_not_found"]);
  });
});

describe("a path, a method, an origin", () => {
  const paths = [
    "/functions/v1/backup/../restore",
    "/functions/v1/backup/%2e%2e/restore",
    "/functions/v1/backup%2f..%2frestore",
    "/functions/v1/..%2f..%2fsrc%2fcli%2fmain.ts",
    "/functions/v1/_shared",
    "/functions/v1/backup%00",
    "/functions/v1/backup.ts",
  ];
  it.each(paths)("%s leads to no function that its signature is not for", async (path) => {
    const body = { action: "status", run: randomUUID() };
    const told = await call(stack, path, { body, headers: signed(stack, "verify", body) });
    expect([401, 404, 400]).toContain(told.status);
    expect(told.text).not.toMatch(tellsTooMuch);
  });

  it("other than POST is refused by every function, whoever calls", async () => {
    const tries = functionNames().flatMap((name) =>
      ["GET", "HEAD", "PUT", "PATCH", "DELETE"].flatMap((method) =>
        [{}, signed(stack, name, ""), bearer(admin.accessToken)].map((headers) => ({ name, method, headers }))
      )
    );
    await inLanes(tries, ({ name }) => name, async ({ name, method, headers }) => {
      const told = await callFunction(stack, name, { method, headers });
      // A GET of the monitor with a token is a scraper's, whose token this is not.
      const isScraper = name === "monitor" && method === "GET" && "authorization" in headers;
      expect(told.status, `${method} ${name}`).toBe(isScraper ? 401 : 405);
      expect(told.text).not.toMatch(tellsTooMuch);
    });
    const overridden = await callFunction(stack, "backup", {
      method: "GET",
      headers: { ...bearer(admin.accessToken), "x-http-method-override": "POST" },
    });
    expect(overridden.status).toBe(405);
    expect(await footprint(stack)).toMatchObject({ databases: before["databases"], schemas: before["schemas"] });
  }, 60_000);

  it("of a foreign page is told nothing by any function, asking first or not", async () => {
    for (const name of functionNames()) {
      const origin = { origin: "https://evil.example", "access-control-request-method": "POST" };
      const first = await callFunction(stack, name, { method: "OPTIONS", headers: origin });
      expect([first.status, first.text]).toEqual([204, ""]);
      const body = { action: "status", run: randomUUID() };
      const then = await callFunction(stack, name, { body, headers: { ...origin, ...bearer(admin.accessToken) } });
      for (const { headers } of [first, then]) {
        expect(Object.keys(headers).filter((header) => header.startsWith("access-control-"))).toEqual([]);
        expect(headers["vary"]).toContain("origin");
      }
    }
  });
});

describe("names that are SQL, or look like others, in a request for rows that is begun", () => {
  it("end the restore by name, and run nothing", async () => {
    const [run] = await ask("select run from backup.start_backup()");
    await until("the backup", async () => {
      const [row] = await ask("select status from backup.runs where id = $1", [run?.["run"]]);
      return row?.["status"] === "succeeded" ? row : undefined;
    });
    for (
      const request of [
        { scope: "table", table: `public."letters; drop table public.letters; --"` },
        { scope: "table", table: `"public; drop schema public cascade; --".letters` },
        { scope: "table", table: "рublic.letters" },
        { scope: "table", table: "backup.admins" },
        { scope: "table", table: "pg_catalog.pg_authid" },
        { scope: "table", table: "vault.secrets" },
        { scope: "record", table: "public.letters", where: [{ column: `id" = 1 or true; --`, value: "1" }] },
        { scope: "record", table: "public.letters", where: [{ column: "id", value: "1' or '1'='1" }] },
        { scope: "record", table: "public.letters", where: [{ column: "id", value: "99999999999999999999999999" }] },
      ]
    ) {
      const body = { action: "plan", backup: run?.["run"], ...request };
      const told = await sent("an administrator", "restore", body);
      const what = JSON.stringify(request);
      if (told.status === 202) {
        const id = told.document["restore"];
        const ended = await until(what, async () => {
          const [row] = await ask("select status, error_code from backup.restores where id = $1", [id]);
          return ["failed", "beside", "succeeded", "cancelled"].includes(String(row?.["status"])) ? row : undefined;
        });
        expect(ended, what).toMatchObject({ status: "failed", error_code: expect.stringMatching(/^[a-z_]+$/) });
        expect(ended["error_code"], what).not.toBe("internal");
      } else {
        expectRefused(told, /^4/, what);
      }
    }
    const [left] = await ask(
      "select count(*)::int as n, to_regnamespace('public') is not null as schema from public.letters",
    );
    expect(left).toEqual({ n: 20, schema: true });
  }, 240_000);
});

describe("an id of something else", () => {
  /** Of a run, a restore and a download: by which actions they may be asked for. */
  async function things(): Promise<{ readonly id: string; readonly own: RegExp }[]> {
    const made = [
      ["select run as id from backup.request_run('full', '{manual}', 'cli', null)", /^backup: (leg|status)$/],
      ["select run as id from backup.request_run('replicate', '{}', 'cli', null)", /^backup: (copy|status)$/],
      [
        `select id from backup.begin_restore(
           '{"scope": "table", "mode": "beside", "source_backup": "${randomUUID()}", "target_label": "here"}')`,
        /^restore: (apply|status|cancel|leg)$/,
      ],
      [
        `select id from backup.begin_download(
           '{"backup": "${randomUUID()}", "format": "bundle", "file_name": "bundle.tar", "expires_seconds": 900}')`,
        /^download: (status|link|remove|leg)$/,
      ],
    ] as const;
    return await Promise.all(made.map(async ([sql, own]) => ({ id: String((await ask(sql))[0]?.["id"]), own })));
  }

  it("is not found by any action, and nothing begins with it", async () => {
    const all = await things();
    const then = await footprint(stack);
    const tries = asked.flatMap((one) =>
      ["run", "id", "backup", "restore", "download"].filter((field) => field in one.body).flatMap((field) =>
        all.filter(({ own }) => !own.test(`${one.functionName}: ${one.action}`)).map(({ id }) => ({ one, field, id }))
      )
    );
    expect(tries.length).toBeGreaterThan(40);
    await inLanes(tries, ({ one }) => one.functionName, async ({ one, field, id }) => {
      const rows = one.action === "plan" ? { scope: "table", table: "public.letters" } : {};
      const format = one.action === "start" && one.functionName === "download" ? { format: "bundle" } : {};
      const body = { ...one.body, ...rows, ...format, [field]: id };
      const told = await sent("a machine", one.functionName, body);
      expectRefused(told, /^404 (run|backup)_not_found$/, `${one.functionName}: ${one.action}, ${field}`);
    });
    expect(await footprint(stack)).toEqual(then);
  }, 60_000);
});
