/**
 * Who gets in: every function and action, called by everybody whom the project knows; attacks_tokens.test.ts has those whom it does
 * not know. Tokens of people are issued by the stack's own Auth.
 */
import { createHash, createHmac, randomUUID } from "node:crypto";
import { decodeJwt, SignJWT } from "jose";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { query } from "../support/cluster.ts";
import { factorUsedAgo, type SignedIn, signedIn } from "../support/signed_in.ts";
import { eventually } from "../support/stack.ts";
import { hardened, refusedTimes } from "./attack_calls.ts";

let stack: Stack;
let postgres: pg.Client;
let admin: SignedIn;
let other: SignedIn;
const page = "https://admin.example.com";
/** The one exception to all that stands here: figures, by GET, for whoever has this, since a scraper can do nothing else. */
const metricsToken = randomUUID() + randomUUID();

/** Everything that can be asked for, with what a person needs for it (docs/http.md, People). */
const nobody = randomUUID();
const actions = [
  ["backup", { action: "status", run: nobody }, "second factor"],
  ["backup", { action: "start", tier: "manual", requestKey: "callers" }, "second factor"],
  ["backup", { action: "leg", run: nobody }, "machines"],
  ["backup", { action: "drain" }, "machines"],
  ["backup", { action: "anchor" }, "machines"],
  ["backup", { action: "replicate" }, "second factor"],
  ["backup", { action: "copy", run: nobody }, "machines"],
  ["verify", { action: "start", id: nobody }, "second factor"],
  ["verify", { action: "check", cadence: "weekly" }, "second factor"],
  ["verify", { action: "leg", run: nobody }, "machines"],
  ["retention", { action: "plan" }, "second factor"],
  ["retention", { action: "start" }, "fresh second factor"],
  ["retention", { action: "leg", run: nobody }, "machines"],
  ["drill", { action: "start", drill: "recovery" }, "fresh second factor"],
  ["drill", { action: "leg", run: nobody }, "machines"],
  ["drill", { action: "sweep" }, "machines"],
  ["notify", { action: "deliver" }, "machines"],
  ["notify", { action: "test" }, "second factor"],
  ["incident", { action: "publish" }, "second factor"],
  ["monitor", { action: "status" }, "second factor"],
  ["monitor", { action: "metrics" }, "second factor"],
  ["monitor", { action: "look" }, "machines"],
  ["restore", { action: "plan", scope: "table", backup: nobody, table: "public.notes" }, "fresh second factor"],
  ["restore", { action: "full", backup: nobody }, "fresh second factor"],
  ["restore", { action: "files", backup: nobody }, "fresh second factor"],
  ["restore", { action: "apply", restore: nobody, mode: "missing", confirm: "postgres" }, "fresh second factor"],
  ["restore", { action: "status", restore: nobody }, "second factor"],
  ["restore", { action: "cancel", restore: nobody }, "fresh second factor"],
  ["restore", { action: "leg", restore: nobody }, "machines"],
  ["download", { action: "start", backup: nobody, format: "csv", table: "public.notes" }, "fresh second factor"],
  ["download", { action: "start", backup: nobody, format: "files", files: "voice-notes/" }, "fresh second factor"],
  ["download", { action: "status", download: nobody }, "second factor"],
  ["download", { action: "link", download: nobody }, "fresh second factor"],
  ["download", { action: "list" }, "second factor"],
  ["download", { action: "remove", download: nobody }, "fresh second factor"],
  ["download", { action: "leg", download: nobody }, "machines"],
  ["download", { action: "sweep" }, "machines"],
  // Whoever is signed in, for their own: tests/access/exports.test.ts. What is another's is refused as elsewhere.
  ["export", { action: "request", user: nobody }, "fresh second factor"],
  ["export", { action: "status", export: nobody }, "fresh second factor"],
  ["export", { action: "link", export: nobody }, "fresh second factor"],
  ["export", { action: "cancel", export: nobody }, "fresh second factor"],
  ["export", { action: "leg", export: nobody }, "machines"],
  ["export", { action: "sweep" }, "machines"],
  ["import-export", { action: "list" }, "second factor"],
  ["import-export", { action: "approve", import: nobody }, "fresh second factor"],
  ["import-export", { action: "withdraw", import: nobody }, "fresh second factor"],
  ["privacy", { action: "list" }, "second factor"],
  ["privacy", { action: "report", user: nobody }, "fresh second factor"],
  ["privacy", { action: "withdraw", request: nobody }, "fresh second factor"],
] as const;

beforeAll(async () => {
  const hash = createHash("sha256").update(metricsToken).digest("hex");
  const environment = { BACKUP_ALLOWED_ORIGINS: page, BACKUP_METRICS_TOKEN_SHA256: hash };
  stack = await startStack({ durable: false, stream: false, prepared: true, environment, ...hardened });
  postgres = new pg.Client({ connectionString: stack.cluster.plainUrl() });
  await postgres.connect();
  admin = await signedIn(stack, { aal2: true });
  other = await signedIn(stack, { aal2: true });
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
}, 300_000);

afterAll(async () => {
  await postgres?.end();
  await stack?.destroy();
}, 60_000);

beforeEach(async () => {
  await ask("delete from backup.pauses");
  await ask("delete from backup.refusals");
});

async function ask(text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> {
  return (await postgres.query<Record<string, unknown>>(text, [...values])).rows;
}

interface Told {
  readonly status: number;
  readonly code: string | null;
  readonly headers: Headers;
  readonly text: string;
}

/** An address for one call, so that no count is reached by accident. */
const somewhere = () => ({ "cf-connecting-ip": randomUUID() });

async function call(
  name: string,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
  method = "POST",
): Promise<Told> {
  const answer = await fetch(`${stack.gateway.url}/functions/v1/${name}`, {
    method,
    headers: { "content-type": "application/json", ...somewhere(), ...headers },
    ...(method === "GET" || method === "OPTIONS"
      ? {}
      : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  const isJson = answer.headers.get("content-type")?.startsWith("application/json") === true;
  const document = isJson ? JSON.parse(text) as { code?: string } : {};
  return { status: answer.status, code: document.code ?? null, headers: answer.headers, text };
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

function signedHeaders(
  name: string,
  body: unknown,
  { secret = stack.workerSecret, nonce = randomUUID(), seconds = 0 } = {},
): Record<string, string> {
  const timestamp = String(Math.floor(Date.now() / 1000) + seconds);
  const lines = [name, timestamp, nonce, createHash("sha256").update(JSON.stringify(body)).digest("hex")].join("\n");
  return {
    "x-holdfast-timestamp": timestamp,
    "x-holdfast-nonce": nonce,
    "x-holdfast-signature": createHmac("sha256", secret).update(lines).digest("hex"),
  };
}

async function bySecret(token: string): Promise<string> {
  return await new SignJWT(decodeJwt(token))
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(new TextEncoder().encode(stack.gateway.jwtSecret));
}

/** What each of them is answered when it is let in or not. */
const letIn = ([, body]: typeof actions[number], { status }: Told): boolean =>
  status !== 401 && status !== 403 && status !== 429 && status < 500 &&
  (body.action === "start" || body.action === "drain" || status < 300 || status === 404 || status === 409);

describe("nobody is let in", () => {
  it("with a body that was signed for another function, too long ago, or brought before", async () => {
    const body = { action: "status", run: nobody };
    const headers = signedHeaders("backup", body);
    expect((await call("backup", body, headers)).status).toBe(404);
    for (
      const again of [
        headers,
        signedHeaders("verify", body),
        signedHeaders("backup", { action: "drain" }),
        signedHeaders("backup", body, { seconds: -330 }),
        signedHeaders("backup", body, { seconds: 330 }),
      ]
    ) expect(await call("backup", body, again)).toMatchObject({ status: 401, code: "unauthorised" });
  });

  it("whose session has ended, who is banned, or who is no administrator any more", async () => {
    const [name, body] = actions[0];
    const gone = await signedIn(stack, { aal2: true });
    await ask("insert into backup.admins (user_id) values ($1)", [gone.userId]);
    expect((await call(name, body, bearer(gone.accessToken))).status).toBe(404);
    await query(
      stack.cluster.plainUrl("supabase_admin"),
      "update auth.users set banned_until = now() + interval '1 hour' where id = $1",
      [gone.userId],
    );
    expect(await call(name, body, bearer(gone.accessToken))).toMatchObject({ status: 401 });
    await query(stack.cluster.plainUrl("supabase_admin"), "update auth.users set banned_until = null where id = $1", [
      gone.userId,
    ]);
    await ask("delete from backup.admins where user_id = $1", [gone.userId]);
    expect(await call(name, body, bearer(gone.accessToken))).toMatchObject({ status: 403, code: "forbidden" });
    await ask("insert into backup.admins (user_id) values ($1)", [gone.userId]);
    expect((await call(name, body, bearer(gone.accessToken))).status).toBe(404);
    await gone.client.auth.signOut();
    expect(await call(name, body, bearer(gone.accessToken))).toMatchObject({ status: 401 });
  }, 60_000);
});

describe("a person", () => {
  it("who is an administrator with a fresh second factor may do all that is not for machines", async () => {
    for (const one of actions) {
      const [name, body, needs] = one;
      const told = await call(name, body, bearer(admin.accessToken));
      if (needs === "machines") expect(told, body.action).toMatchObject({ status: 403, code: "forbidden" });
      else expect(letIn(one, told), `${name} ${body.action}: ${told.text}`).toBe(true);
      await ask("delete from backup.pauses");
    }
  }, 120_000);

  it("may do the same with a token by the project's old shared secret", async () => {
    const token = await bySecret(admin.accessToken);
    for (const one of actions) {
      const [name, body, needs] = one;
      const told = await call(name, body, bearer(token));
      if (needs === "machines") expect(told, body.action).toMatchObject({ status: 403, code: "forbidden" });
      else expect(letIn(one, told), `${name} ${body.action}: ${told.text}`).toBe(true);
      await ask("delete from backup.pauses");
    }
  }, 60_000);

  it("whose factor was used 16 minutes ago may look and start a backup, and restore nothing", async () => {
    const again = await signedIn(stack, { email: admin.email, aal2: true });
    const token = await factorUsedAgo(stack, again, 16 * 60);
    for (const one of actions) {
      const [name, body, needs] = one;
      const told = await call(name, body, bearer(token));
      if (needs === "fresh second factor") {
        expect(told, body.action).toMatchObject({ status: 403, code: "second_factor_old" });
      } else if (needs === "second factor") expect(letIn(one, told), `${name} ${body.action}: ${told.text}`).toBe(true);
      await ask("delete from backup.pauses");
    }
  }, 60_000);

  it("without a second factor, or who is no administrator, gets nothing", async () => {
    const alone = await signedIn(stack, { email: admin.email });
    const before = await ask("select count(*)::int as n from backup.runs");
    for (const [name, body] of actions) {
      expect(await call(name, body, bearer(alone.accessToken))).toMatchObject({
        status: 403,
        code: "second_factor_missing",
      });
      expect(await call(name, body, bearer(other.accessToken))).toMatchObject({ status: 403, code: "forbidden" });
      await ask("delete from backup.pauses");
    }
    expect(await ask("select count(*)::int as n from backup.runs")).toEqual(before);
  }, 60_000);

  it("who is nobody here learns nothing of what was wrong with the request", async () => {
    const told = await call("restore", { action: "plan", nonsense: 1 }, bearer(other.accessToken));
    expect(told).toMatchObject({ status: 403, code: "forbidden" });
    expect(told.text).not.toContain("nonsense");
    expect(await call("restore", { action: "plan", nonsense: 1 }, bearer(admin.accessToken))).toMatchObject({
      status: 400,
    });
  });

  it("stands in the audit with what they did, as a keyed hash", async () => {
    await call("backup", { action: "start", tier: "manual" }, bearer(admin.accessToken));
    const [row] = await ask(
      `select actor = backup.person_hash($1) as theirs, actor from backup.audit_log
       where action = 'run.requested' order by id desc limit 1`,
      [admin.userId],
    );
    expect(row).toMatchObject({ theirs: true });
    expect(String(row?.["actor"])).not.toContain(admin.userId);
  });
});

describe("whoever is refused ten times in five minutes", () => {
  const [name, body] = actions[0];
  const from = (address: string) => ({ "cf-connecting-ip": address });

  it("waits for fifteen, by address where nobody is known; others, and every good signature, do not", async () => {
    const address = randomUUID();
    for (let time = 0; time < 10; time++) expect((await call(name, body, from(address))).status).toBe(401);
    const paused = await call(name, body, from(address));
    expect(paused).toMatchObject({ status: 429, code: "too_many_refusals" });
    expect(Number(paused.headers.get("retry-after"))).toBeGreaterThan(890);
    expect(Number(paused.headers.get("retry-after"))).toBeLessThanOrEqual(900);
    expect((await call(name, body, { ...from(address), ...signedHeaders(name, body) })).status).toBe(404);
    expect((await call(name, body, { ...from(address), ...bearer(admin.accessToken) })).status).toBe(404);
    expect((await call(name, body, from(randomUUID()))).status).toBe(401);
  }, 60_000);

  it("waits as a person where the token was genuine, wherever they call from, and nobody else does", async () => {
    const { accessToken } = await signedIn(stack);
    for (let time = 0; time < 10; time++) {
      expect((await call(name, body, bearer(accessToken))).status).toBe(403);
    }
    expect(await call(name, body, bearer(accessToken))).toMatchObject({ status: 429, code: "too_many_refusals" });
    expect((await call(name, body, bearer(admin.accessToken))).status).toBe(404);
  }, 60_000);

  it("may call again when the pause is over", async () => {
    const { accessToken } = await signedIn(stack);
    for (let time = 0; time < 11; time++) await call(name, body, bearer(accessToken));
    await ask("update backup.pauses set paused_until = now(), counted_from = now() - interval '15 minutes'");
    // An isolate asks the database again after five seconds.
    const again = async () => (await call(name, body, bearer(accessToken))).status === 403 ? true : null;
    await eventually("they are judged again", again, 10_000);
  }, 60_000);

  it("stands in the audit, added up by minute, function and reason", async () => {
    // What others left is told first.
    await ask("update backup.refusals set minute = minute - interval '1 hour'");
    await ask("select backup.tick()");
    const [before] = await ask("select max(id)::text as id from backup.audit_log");
    await call(name, body);
    await call(name, body);
    await call(name, body, bearer(other.accessToken));
    await call(name, "{", signedHeaders(name, body));
    await call(name, "x".repeat(20_000), signedHeaders(name, body));
    await call(name, "", {}, "GET");
    await ask("update backup.refusals set minute = minute - interval '1 hour'");
    await ask("select backup.tick()");
    const rows = await ask(
      // The minute may have ended between two of the calls.
      `select detail ->> 'reason' as reason, sum((detail ->> 'times')::int)::int as times,
              sum((detail ->> 'callers')::int)::int as callers
       from backup.audit_log where action = 'call.refused' and subject = 'function:backup' and id > $1::bigint
         -- of whom an isolate remembered is told with its next session
         and detail ->> 'reason' <> 'paused'
       group by 1 order by 1`,
      [before?.["id"]],
    );
    expect(rows).toEqual([
      { reason: "method_not_allowed", times: 1, callers: 1 },
      { reason: "not_admin", times: 1, callers: 1 },
      { reason: "payload_too_large", times: 1, callers: 1 },
      { reason: "unauthorised", times: 3, callers: 3 },
    ]);
    expect(await ask("select * from backup.refusals where reason <> 'paused'")).toEqual([]);
  });
});

describe("a scraper", () => {
  const scrape = async (headers: Readonly<Record<string, string>>, method = "GET") =>
    await call("monitor", "", headers, method);

  it("gets the figures with its own token, as text, and opens nothing else with it", async () => {
    const told = await scrape(bearer(metricsToken));
    expect(told.status, told.text).toBe(200);
    expect(told.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(told.text).toContain("# TYPE holdfast_verdict gauge\nholdfast_verdict ");
    for (const [name, body] of actions) {
      expect(await call(name, body, bearer(metricsToken)), `${name} ${body.action}`).toMatchObject({ status: 401 });
      await ask("delete from backup.pauses");
    }
    for (const name of ["backup", "verify", "retention", "restore", "download"]) {
      expect(await call(name, "", bearer(metricsToken), "GET"), name).toMatchObject({ status: 405 });
    }
  }, 60_000);

  it(
    "with another token, an administrator's, or the hash itself is refused, counted, and told to wait in the end",
    async () => {
      const hash = createHash("sha256").update(metricsToken).digest("hex");
      const before = await refusedTimes(stack, ["unauthorised"]);
      for (const token of [metricsToken.slice(1), `${metricsToken}0`, hash, admin.accessToken, "short"]) {
        expect(await scrape(bearer(token))).toMatchObject({ status: 401, code: "unauthorised" });
      }
      expect(await scrape({})).toMatchObject({ status: 405, code: "method_not_allowed" });
      const address = { "cf-connecting-ip": randomUUID() };
      for (let time = 0; time < 10; time++) expect((await scrape({ ...address, ...bearer("no") })).status).toBe(401);
      expect(await scrape({ ...address, ...bearer("no") })).toMatchObject({ status: 429 });
      // Whoever has the token never waits for others at their address.
      expect((await scrape({ ...address, ...bearer(metricsToken) })).status).toBe(200);
      expect(await refusedTimes(stack, ["unauthorised"]) - before).toBeGreaterThanOrEqual(15);
    },
    60_000,
  );
});

describe("a page in a browser", () => {
  it("may call from a configured origin, and from no other", async () => {
    const asked = { origin: page, "access-control-request-method": "POST" };
    const allowed = await call("restore", "", asked, "OPTIONS");
    expect(allowed.status).toBe(204);
    expect(allowed.headers.get("access-control-allow-origin")).toBe(page);
    expect(allowed.headers.get("access-control-allow-headers")).toContain("authorization");
    const answer = await call("backup", actions[0][1], { origin: page, ...bearer(admin.accessToken) });
    expect(answer.headers.get("access-control-allow-origin")).toBe(page);
    for (const origin of ["https://evil.example", `${page}.evil.example`, "null", page.replace("https", "http"), "*"]) {
      const refused = await call("restore", "", { ...asked, origin }, "OPTIONS");
      expect(refused.headers.get("access-control-allow-origin"), origin).toBeNull();
      const told = await call("backup", actions[0][1], { origin, ...bearer(admin.accessToken) });
      expect(told.headers.get("access-control-allow-origin"), origin).toBeNull();
    }
  });
});
