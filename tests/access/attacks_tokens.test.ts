/**
 * Every action of every function, asked for with every token that must not do. Actions come from the functions' own schemas,
 * tokens of people from the stack's own Auth; what is forged is forged from those.
 */
import { Buffer } from "node:buffer";
import { createPublicKey, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeJwt, generateKeyPair, importJWK, type JWTHeaderParameters, type JWTPayload, SignJWT } from "jose";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { query } from "../support/cluster.ts";
import { sampled } from "../support/sampled.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import {
  type AskedFor,
  bearer,
  callFunction,
  everythingAskedFor,
  footprint,
  functionNames,
  hardened,
  inLanes,
  signed,
  stopClocks,
  tellsTooMuch,
} from "./attack_calls.ts";

const asked = everythingAskedFor();
const inBase64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
const seconds = () => Math.floor(Date.now() / 1000);

let stack: Stack;
let postgres: pg.Client;
let admin: SignedIn;
/** Ids of a run and a restore that are there: whoever is refused is told the same of them as of others. */
let there: { readonly run: string; readonly restore: string };
let before: Record<string, string>;

beforeAll(async () => {
  stack = await startStack({ durable: false, stream: false, prepared: true, ...hardened });
  await stopClocks(stack);
  postgres = new pg.Client({ connectionString: stack.cluster.plainUrl() });
  await postgres.connect();
  admin = await signedIn(stack, { aal2: true });
  await makeAdmin(admin);
  const [run] = await ask("select run as id from backup.request_run('full', '{manual}', 'dashboard', null)");
  const [restore] = await ask("select id from backup.begin_restore($1)", [
    { scope: "table", mode: "beside", source_backup: randomUUID(), target_label: "here" },
  ]);
  there = { run: String(run?.["id"]), restore: String(restore?.["id"]) };
  await pauseAfter(1000);
}, 300_000);

afterAll(async () => {
  await postgres?.end();
  await stack?.destroy();
}, 60_000);

async function ask(text: string, values: readonly unknown[] = []): Promise<Record<string, unknown>[]> {
  return (await postgres.query(text, [...values])).rows as Record<string, unknown>[];
}
const askAll = (text: string, values: readonly unknown[] = []) =>
  query(stack.cluster.plainUrl("supabase_admin"), text, values);
const makeAdmin = (person: SignedIn) => ask("insert into backup.admins (user_id) values ($1)", [person.userId]);

/** Everything is asked for at once, and each refusal is to be told by its own name. */
const pauseAfter = (refusals: number) =>
  ask("update backup.settings set value = $1 where name = 'refusals_allowed'", [String(refusals)]);

/** With ids of what is there in the place of those of nothing. */
function ofWhatIsThere({ body }: AskedFor): Record<string, unknown> {
  const ids: Record<string, string> = { run: there.run, id: there.run, backup: there.run, restore: there.restore };
  return Object.fromEntries(Object.entries(body).map(([name, value]) => [name, ids[name] ?? value]));
}

type Headers = Readonly<Record<string, string>>;

let times = 0;

/** Of each function two requests, others each time; in the long run all of them. */
function someOfEach(): { readonly one: AskedFor; readonly body: Readonly<Record<string, unknown>> }[] {
  times++;
  return functionNames().flatMap((name) => {
    const ofFunction = asked.filter(({ functionName }) => functionName === name);
    const all = ofFunction.flatMap((one) => [one.body, ofWhatIsThere(one)].map((body) => ({ one, body })));
    return sampled(`${name} ${times}`, all, 2);
  });
}

/** Asks for everything, of what is there and of what is not, and holds the answers against what they have to be. */
async function refusedEverywhere(
  headersFor: (one: AskedFor, body: unknown) => Headers | Promise<Headers>,
  expected: (one: AskedFor) => string,
  reason: string,
): Promise<void> {
  await ask("delete from backup.pauses");
  await ask("delete from backup.refusals");
  before = await footprint(stack);
  const answers = await inLanes(someOfEach(), ({ one }) => one.functionName, async ({ one, body }) => {
    const headers = await headersFor(one, body);
    return { one, told: await callFunction(stack, one.functionName, { body, headers }) };
  });
  expect(answers.map(({ one, told }) => `${nameOf(one)}: ${told.status} ${told.document["code"]}`)).toEqual(
    answers.map(({ one }) => `${nameOf(one)}: ${expected(one)}`),
  );
  for (const { told } of answers) {
    expect(Object.keys(told.document).sort()).toEqual(["code", "hint", "message"]);
    expect(told.text).not.toMatch(tellsTooMuch);
  }
  const texts = new Map(answers.map(({ one, told }) => [expected(one), told.text]));
  for (const { one, told } of answers) expect(told.text, "one answer for all of a kind").toBe(texts.get(expected(one)));
  expect(await footprint(stack), "nothing has changed").toEqual(before);
  await expectAudited(reason, answers.length);
}

const nameOf = ({ functionName, action }: AskedFor) => `${functionName}: ${action}`;

/** All of the calls stand in the audit, added up, and nobody by name, id, address or token. */
async function expectAudited(reason: string, times: number): Promise<void> {
  await ask("update backup.refusals set minute = minute - interval '1 hour'");
  const [last] = await ask("select coalesce(max(id), 0)::text as id from backup.audit_log");
  await ask("select backup.audit_refusals()");
  const rows = await ask(
    `select subject, detail ->> 'reason' as reason, (detail ->> 'times')::int as times, detail::text as all from backup.audit_log
     where id > $1::bigint and action = 'call.refused'`,
    [last?.["id"]],
  );
  const ofReason = rows.filter((row) => row["reason"] === reason || reason === "any");
  expect(ofReason.reduce((sum, row) => sum + Number(row["times"]), 0), JSON.stringify(rows)).toBe(times);
  expect([...new Set(ofReason.map((row) => row["subject"]))].sort()).toEqual(
    functionNames().map((name) => `function:${name}`),
  );
  // One row a minute, function and reason, however many calls.
  expect(rows.length).toBeLessThanOrEqual(functionNames().length * 4);
  for (const row of rows) {
    const most = (JSON.parse(String(row["all"])) as { most: string[] }).most;
    for (const caller of most) expect(caller).toMatch(/^(person|address):[0-9a-f]{64}$|^machine$/);
    expect(String(row["all"])).not.toContain(admin.userId);
  }
}

function signingKey(): { readonly kid: string } & Record<string, unknown> {
  return JSON.parse(readFileSync(join(stack.directory, "gateway", "keys.json"), "utf8")).signingKey;
}

/** The admin's token with other claims, as genuine as any: by the key that the project's Auth signs with. */
async function issued(
  changes: Readonly<Record<string, unknown>>,
  header: Partial<JWTHeaderParameters> = {},
): Promise<string> {
  const claims = Object.entries({ ...decodeJwt(admin.accessToken), ...changes }).filter(([, value]) =>
    value !== undefined
  );
  const key = signingKey();
  return await new SignJWT(Object.fromEntries(claims) as JWTPayload)
    .setProtectedHeader({ alg: "ES256", typ: "JWT", kid: key.kid, ...header })
    .sign(await importJWK(key, "ES256"), { crit: { elsewhere: true } });
}

async function byText(
  secret: string,
  header: Readonly<Record<string, unknown>> = {},
  changes: JWTPayload = {},
): Promise<string> {
  return await new SignJWT({ ...decodeJwt(admin.accessToken), ...changes })
    .setProtectedHeader({ alg: "HS256", typ: "JWT", ...header })
    .sign(new TextEncoder().encode(secret));
}

async function publicKey(): Promise<JsonWebKey> {
  const answer = await fetch(`${stack.gateway.url}/auth/v1/.well-known/jwks.json`, {
    headers: { apikey: stack.gateway.publishableKey },
  });
  const [key] = (await answer.json() as { keys: JsonWebKey[] }).keys;
  if (key === undefined) throw new Error("Auth publishes no key");
  return key;
}

/** A token by a key of one's own, whose header says where to find that key. */
async function byOwnKey(header: (key: unknown) => Readonly<Record<string, unknown>>): Promise<string> {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const jwk = createPublicKey({ key: await crypto.subtle.exportKey("jwk", publicKey) as never, format: "jwk" });
  return await new SignJWT(decodeJwt(admin.accessToken))
    .setProtectedHeader({ alg: "ES256", typ: "JWT", ...header(jwk.export({ format: "jwk" })) })
    .sign(privateKey);
}

const pem = async () =>
  createPublicKey({ key: await publicKey() as never, format: "jwk" }).export({ type: "spki", format: "pem" })
    .toString();

type Token = () => string | Promise<string>;
const payload = () => admin.accessToken.split(".")[1] ?? "";
const none = (alg: string, signature = "") => `${inBase64({ alg, typ: "JWT" })}.${payload()}.${signature}`;

const forged: readonly (readonly [string, Token])[] = [
  ["that is one word", () => "token"],
  ["that is three words", () => "a.b.c"],
  ["of empty parts", () => ".."],
  ["without its signature", () => admin.accessToken.slice(0, admin.accessToken.lastIndexOf(".") + 1)],
  ["without its end", () => admin.accessToken.slice(0, -20)],
  ["without end", () => `${admin.accessToken}${"A".repeat(9000)}`],
  ["of two parts", () => admin.accessToken.split(".").slice(0, 2).join(".")],
  ["with another one's signature", async () => {
    const other = await issued({ sub: randomUUID() });
    return [...admin.accessToken.split(".").slice(0, 2), other.split(".")[2]].join(".");
  }],
  ["with its own signature, for other claims", () => {
    const [header, , signature] = admin.accessToken.split(".");
    return [header, inBase64({ ...decodeJwt(admin.accessToken), session_id: randomUUID() }), signature].join(".");
  }],
  ["of alg none", () => none("none")],
  ["of alg None", () => none("None")],
  ["of alg NONE, signed with something", () => none("NONE", "AAAA")],
  ["without alg", () => `${inBase64({ typ: "JWT" })}.${payload()}.AAAA`],
  ["whose header is no object", () => `${inBase64("ES256")}.${payload()}.AAAA`],
  ["HMAC by the public key in PEM", async () => byText(await pem())],
  ["HMAC by the public key in PEM, with its kid", async () => byText(await pem(), { kid: signingKey().kid })],
  ["HMAC by the public key as JSON", async () => byText(JSON.stringify(await publicKey()))],
  ["HMAC by an empty secret", () => none("HS256", "AAAA")],
  ["by the old secret, that is over", () => byText(stack.gateway.jwtSecret, {}, { exp: seconds() - 1 })],
  ["by the old secret, for another audience", () => byText(stack.gateway.jwtSecret, {}, { aud: "anon" })],
  ["by the old secret, of another issuer", () => byText(stack.gateway.jwtSecret, {}, { iss: "https://other.test" })],
  ["by the old secret, of a service", () => byText(stack.gateway.jwtSecret, {}, { role: "service_role" })],
  ["by the old secret, of somebody else", () => byText(stack.gateway.jwtSecret, {}, { sub: randomUUID() })],
  ["by a secret of one's own", () => byText("s".repeat(48))],
  ["by another project's key of the same kid", () => byOwnKey(() => ({ kid: signingKey().kid }))],
  ["by a key that it brings itself", () => byOwnKey((key) => ({ jwk: key }))],
  [
    "by a key that it says where to fetch",
    () => byOwnKey(() => ({ jku: `${stack.gateway.url}/x`, x5u: "http://127.0.0.1" })),
  ],
  ["by a kid that is a path", () => byOwnKey(() => ({ kid: "../../../../dev/null" }))],
  ["by a kid that is SQL", () => byOwnKey(() => ({ kid: "x' or '1'='1" }))],
  ["with a header that has to be understood, and is not", () => issued({}, { crit: ["elsewhere"], elsewhere: 1 })],
  ["that is over", () => issued({ exp: seconds() - 1 })],
  ["without an end", () => issued({ exp: undefined })],
  ["whose end is a word", () => issued({ exp: "9999999999" })],
  ["that is not in force yet", () => issued({ nbf: seconds() + 3600 })],
  ["that was never issued", () => issued({ iat: undefined })],
  ["for another audience", () => issued({ aud: "anon" })],
  ["for no audience", () => issued({ aud: undefined })],
  ["of another issuer", () => issued({ iss: "https://other.supabase.co/auth/v1" })],
  ["of no issuer", () => issued({ iss: undefined })],
  ["of another role", () => issued({ role: "service_role" })],
  ["of no role", () => issued({ role: undefined })],
  ["of somebody without a name", () => issued({ is_anonymous: true })],
  ["whose subject is SQL", () => issued({ sub: "' or true --" })],
  ["of a session that never was", () => issued({ session_id: randomUUID() })],
  ["of somebody else's session", async () => {
    const other = await signedIn(stack, { aal2: true });
    return issued({ session_id: decodeJwt(other.accessToken)["session_id"] });
  }],
  ["of no session", () => issued({ session_id: undefined })],
  ["that is the anon key", () => stack.gateway.anonKey],
  ["that is the publishable key", () => stack.gateway.publishableKey],
  ["that is the service role's key", () => stack.gateway.serviceRoleKey],
  ["that is the secret key", () => stack.gateway.secretKey],
  ["that is the worker secret", () => stack.workerSecret],
];

describe("everything that can be asked for is refused, tells nothing, changes nothing and is audited, with a token", () => {
  it("of which there are some, for actions of which there are some", () => {
    expect(asked.length).toBeGreaterThanOrEqual(13);
    expect(new Set(asked.map(({ functionName }) => functionName))).toEqual(new Set(functionNames()));
  });

  it.each(forged)("%s", async (_what, token) => {
    const value = await token();
    const own = decodeJwt(admin.accessToken);
    // A token of somebody else's session is genuine, so it is counted as a person's.
    const genuine = ["of a session that never was", "of somebody else's session"].includes(_what);
    expect(own.sub).toBe(admin.userId);
    await refusedEverywhere(() => bearer(value), () => "401 unauthorised", genuine ? "session_over" : "unauthorised");
  }, 120_000);

  it("that comes as a key, a cookie, a query or in another scheme", async () => {
    const forms: Headers[] = [
      { apikey: admin.accessToken },
      { cookie: `sb-access-token=${admin.accessToken}` },
      { authorization: `Basic ${admin.accessToken}` },
      { authorization: admin.accessToken },
      { "x-forwarded-authorization": `Bearer ${admin.accessToken}` },
      {},
    ];
    for (const headers of forms) await refusedEverywhere(() => headers, () => "401 unauthorised", "unauthorised");
  }, 120_000);
});

describe("everything that can be asked for is refused, tells nothing, changes nothing and is audited, to a machine", () => {
  const stale: readonly (readonly [string, (one: AskedFor, body: unknown) => Headers])[] = [
    ["whose clock is behind", ({ functionName }, body) => signed(stack, functionName, body, { seconds: -330 })],
    ["whose clock is ahead", ({ functionName }, body) => signed(stack, functionName, body, { seconds: 330 })],
    ["that signed another body", ({ functionName }) => signed(stack, functionName, { action: "another" })],
    [
      "that signed for another function",
      ({ functionName }, body) => signed(stack, functionName === "backup" ? "restore" : "backup", body),
    ],
    [
      "that has another secret",
      ({ functionName }, body) => signed(stack, functionName, body, { secret: "s".repeat(48) }),
    ],
    ["that has an empty secret", ({ functionName }, body) => signed(stack, functionName, body, { secret: "" })],
    ["whose signature is empty", ({ functionName }, body) => ({
      ...signed(stack, functionName, body),
      "x-holdfast-signature": "",
    })],
    ["whose nonce is short", ({ functionName }, body) => signed(stack, functionName, body, { nonce: "short" })],
    [
      "whose nonce is SQL",
      ({ functionName }, body) => signed(stack, functionName, body, { nonce: "'); drop table backup.calls; --" }),
    ],
    ["that writes its signature in capitals", ({ functionName }, body) => {
      const headers = signed(stack, functionName, body);
      return { ...headers, "x-holdfast-signature": (headers["x-holdfast-signature"] ?? "").toUpperCase() };
    }],
    ["that writes its time otherwise", ({ functionName }, body) => {
      const headers = signed(stack, functionName, body);
      return { ...headers, "x-holdfast-timestamp": `${headers["x-holdfast-timestamp"]}.0` };
    }],
    ["with half a signature beside a person's good token", ({ functionName }, body) => ({
      ...signed(stack, functionName, body),
      "x-holdfast-signature": "0".repeat(64),
      ...bearer(admin.accessToken),
    })],
  ];
  it.each(stale)("%s", async (_what, headersFor) => {
    await refusedEverywhere(headersFor, () => "401 unauthorised", "unauthorised");
  }, 120_000);

  it("that brings a call again, whatever it asked for, at any function", async () => {
    await ask("delete from backup.refusals");
    const status = { action: "status", run: there.run };
    const headers = signed(stack, "backup", status);
    expect((await callFunction(stack, "backup", { body: status, headers })).status).toBe(200);
    before = await footprint(stack);
    for (let time = 0; time < 3; time++) {
      const again = await callFunction(stack, "backup", { body: status, headers });
      expect([again.status, again.document["code"]]).toEqual([401, "unauthorised"]);
    }
    // The nonce alone, under a signature that holds: taken once, by whatever function.
    const nonce = headers["x-holdfast-nonce"] ?? "";
    await refusedEverywhere(
      ({ functionName }, body) => signed(stack, functionName, body, { nonce }),
      () => "401 unauthorised",
      "unauthorised",
    );
    // At once: one of them is taken.
    const raced = signed(stack, "backup", status);
    const outcomes = await Promise.all(
      Array.from({ length: 8 }, () => callFunction(stack, "backup", { body: status, headers: raced })),
    );
    expect(outcomes.filter(({ status }) => status === 200)).toHaveLength(1);
  }, 120_000);
});

describe("everything that can be asked for is refused, tells nothing, changes nothing and is audited, to somebody", () => {
  it("who has no second factor", async () => {
    const { accessToken } = await signedIn(stack, { email: admin.email });
    await refusedEverywhere(() => bearer(accessToken), () => "403 second_factor_missing", "one_factor");
  }, 120_000);

  it("who took their second factor away, with the token that it had given", async () => {
    const person = await signedIn(stack, { aal2: true });
    await makeAdmin(person);
    expect((await callFunction(stack, "backup", status(person))).status).toBe(200);
    const { data } = await person.client.auth.mfa.listFactors();
    for (const { id } of data?.totp ?? []) await person.client.auth.mfa.unenroll({ factorId: id });
    expect(await askAll("select aal::text from auth.sessions where user_id = $1", [person.userId])).toEqual([
      { aal: "aal1" },
    ]);
    await refusedEverywhere(() => bearer(person.accessToken), () => "403 second_factor_missing", "one_factor");
  }, 120_000);

  it("who is no administrator", async () => {
    const { accessToken } = await signedIn(stack, { aal2: true });
    await refusedEverywhere(() => bearer(accessToken), () => "403 forbidden", "not_admin");
  }, 120_000);

  it("who was one, with the token of then", async () => {
    const person = await signedIn(stack, { aal2: true });
    await makeAdmin(person);
    expect((await callFunction(stack, "backup", status(person))).status).toBe(200);
    await ask("select backup.remove_admin($1)", [person.userId]);
    await refusedEverywhere(() => bearer(person.accessToken), () => "403 forbidden", "not_admin");
  }, 120_000);

  const over: readonly (readonly [string, (person: SignedIn) => Promise<unknown>])[] = [
    ["who has signed out", ({ client }) => client.auth.signOut()],
    [
      "who was banned",
      ({ userId }) => askAll("update auth.users set banned_until = now() + interval '1 hour' where id = $1", [userId]),
    ],
    [
      "who was deleted softly",
      ({ userId }) => askAll("update auth.users set deleted_at = now() where id = $1", [userId]),
    ],
    ["who was deleted", ({ userId }) => askAll("delete from auth.users where id = $1", [userId])],
    [
      "whose session was bounded",
      ({ userId }) =>
        askAll("update auth.sessions set not_after = now() - interval '1 second' where user_id = $1", [userId]),
    ],
  ];
  it.each(over)("%s", async (_what, end) => {
    const person = await signedIn(stack, { aal2: true });
    await makeAdmin(person);
    expect((await callFunction(stack, "backup", status(person))).status).toBe(200);
    await end(person);
    await refusedEverywhere(() => bearer(person.accessToken), () => "401 unauthorised", "session_over");
  }, 120_000);

  const status = (person: SignedIn) => ({
    body: { action: "status", run: there.run },
    headers: bearer(person.accessToken),
  });
});

describe("a wait that was ordered", () => {
  it("is answered alike, whatever is asked for and of what", async () => {
    const person = await signedIn(stack, { aal2: true });
    await pauseAfter(10);
    for (let time = 0; time < 11; time++) {
      await callFunction(stack, "backup", { body: { action: "drain" }, headers: bearer(person.accessToken) });
    }
    before = await footprint(stack);
    const calls = asked.flatMap((one) => [one.body, ofWhatIsThere(one)].map((body) => ({ one, body })));
    const answers = await inLanes(
      calls,
      ({ one }) => one.functionName,
      ({ one, body }) => callFunction(stack, one.functionName, { body, headers: bearer(person.accessToken) }),
    );
    expect(new Set(answers.map(({ status, document }) => `${status} ${document["code"]}`))).toEqual(
      new Set(["429 too_many_refusals"]),
    );
    expect(await footprint(stack)).toEqual(before);
  }, 120_000);
});
