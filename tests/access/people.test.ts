/**
 * People with genuine tokens who are no administrators, or are not any more: they flood the functions, let their bodies trickle in,
 * and read the views by a token that is good for its hour.
 */
import { request as httpRequest } from "node:http";
import { randomUUID } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { bodyMs } from "../../src/shared/http/read_body.ts";
import { query } from "../support/cluster.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import { bearer, callFunction, refusedTimes, signed, somewhere } from "./attack_calls.ts";

let stack: Stack;
let admin: SignedIn;
const nobody = { action: "status", run: randomUUID() };

beforeAll(async () => {
  const cpu = { cpuSoftMs: 60_000, cpuHardMs: 60_000 };
  // One isolate that serves everybody at once, as the platform's do.
  stack = await startStack({
    durable: false,
    stream: false,
    limits: cpu,
    isolates: { concurrency: 100, atMost: 1 },
  });
  admin = await signedIn(stack, { aal2: true });
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
}, 300_000);

afterAll(async () => {
  await stack?.destroy();
}, 60_000);

const ask = (text: string, values: readonly unknown[] = []) => query(stack.cluster.plainUrl(), text, values);
const askAll = (text: string, values: readonly unknown[] = []) =>
  query(stack.cluster.plainUrl("supabase_admin"), text, values);

describe("a crowd with genuine tokens", () => {
  const size = 90;

  /** The most sessions that the functions had at a time while `work` was under way. */
  async function mostSessions(work: () => Promise<unknown>): Promise<number> {
    const watcher = new pg.Client({ connectionString: stack.cluster.plainUrl("supabase_admin") });
    await watcher.connect();
    try {
      let [most, over] = [0, false];
      const done = work().finally(() => over = true);
      while (!over) {
        const { rows } = await watcher.query(
          `select count(*)::int as n from pg_stat_activity
           where application_name in ('holdfast:function', 'holdfast:person', 'holdfast:refusal')`,
        );
        most = Math.max(most, Number(rows[0]?.n));
      }
      await done;
      return most;
    } finally {
      await watcher.end();
    }
  }

  it(
    "takes a few sessions of the database, is counted call by call, and keeps no machine and no administrator out",
    async () => {
      const people = await Promise.all(Array.from({ length: 15 }, () => signedIn(stack)));
      const send = (headers: Record<string, string>) => callFunction(stack, "backup", { body: nobody, headers });
      // Nobody of them has to wait yet: each of their calls has to be judged.
      await ask("update backup.settings set value = '1000' where name = 'refusals_allowed'");
      await send(signed(stack, "backup", nobody));
      const refused = () => refusedTimes(stack, ["not_admin", "too_many_calls"]);
      const before = await refused();
      const statuses: number[] = [];
      const most = await mostSessions(async () => {
        const crowd = Array.from({ length: size }, async (_, at) => {
          const { status } = await send(bearer(people[at % people.length]?.accessToken ?? ""));
          statuses.push(status);
        });
        const answers = await Promise.all([
          send(signed(stack, "backup", nobody)),
          send(bearer(admin.accessToken)),
          send(signed(stack, "backup", nobody)),
        ]);
        expect(answers.map(({ status, document }) => `${status} ${document["code"]}`)).toEqual(
          Array.from({ length: 3 }, () => "404 run_not_found"),
        );
        await Promise.all(crowd);
      });
      expect(most, "two that judge, those who were let in, and one that is about to end").toBeLessThanOrEqual(6);
      expect(statuses).toHaveLength(size);
      expect(statuses.filter((status) => status !== 403 && status !== 429)).toEqual([]);
      await send(bearer(people[0]?.accessToken ?? ""));
      expect(await refused() - before).toBe(size + 1);
    },
    120_000,
  );
});

describe("a body that trickles in", () => {
  /** Sends one byte, then nothing for a second, and so on; what the function says meanwhile. */
  async function trickle(headers: Record<string, string>): Promise<{ status: number; code: string; ms: number }> {
    const began = performance.now();
    return await new Promise((resolve, reject) => {
      const request = httpRequest(`${stack.gateway.url}/functions/v1/backup`, {
        method: "POST",
        headers: { ...somewhere(), ...headers },
      });
      const more = setInterval(() => request.write(" "), 1_000);
      request.on("response", (response) => {
        clearInterval(more);
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => (text += part)).on("end", () => {
          const { code } = JSON.parse(text) as { code: string };
          resolve({ status: response.statusCode ?? 0, code, ms: performance.now() - began });
          request.destroy();
        });
      });
      request.on("error", (error) => {
        clearInterval(more);
        reject(error);
      });
      request.write("{");
    });
  }

  it("is waited for ten seconds where the headers could be good, and not at all where they are not", async () => {
    const before = await refusedTimes(stack, ["payload_late"]);
    const [machine, person, stranger] = await Promise.all([
      trickle(signed(stack, "backup", nobody)),
      trickle(bearer(admin.accessToken)),
      trickle({}),
    ]);
    for (const told of [machine, person]) {
      expect(told).toMatchObject({ status: 408, code: "payload_late" });
      expect(told.ms).toBeGreaterThan(bodyMs - 1_000);
      expect(told.ms).toBeLessThan(bodyMs + 10_000);
    }
    expect(stranger).toMatchObject({ status: 401, code: "unauthorised" });
    expect(stranger.ms).toBeLessThan(bodyMs - 1_000);
    expect(await refusedTimes(stack, ["payload_late"]) - before).toBe(2);
  }, 60_000);
});

describe("the token of an administrator reads nothing through the API once", () => {
  const views = ["runs", "audit", "alerts", "findings", "restores", "restore_watches", "downloads"];

  /** How many rows of each view the token is shown. */
  async function shown(token: string): Promise<number[]> {
    return await Promise.all(views.map(async (view) => {
      const answer = await fetch(`${stack.gateway.url}/rest/v1/backup_${view}?select=*&limit=5`, {
        headers: { apikey: stack.gateway.publishableKey, ...bearer(token) },
      });
      expect(answer.status, view).toBe(200);
      return (await answer.json() as unknown[]).length;
    }));
  }

  const ends: readonly (readonly [string, (person: SignedIn) => Promise<unknown>])[] = [
    ["they have signed out", ({ client }) => client.auth.signOut()],
    ["they took their second factor away", async ({ client }) => {
      const { data } = await client.auth.mfa.listFactors();
      for (const { id } of data?.totp ?? []) await client.auth.mfa.unenroll({ factorId: id });
    }],
    [
      "their factor was deleted by hand",
      ({ userId }) => askAll("delete from auth.mfa_factors where user_id = $1", [userId]),
    ],
    [
      "their session was lowered",
      ({ userId }) => askAll("update auth.sessions set aal = 'aal1' where user_id = $1", [userId]),
    ],
    [
      "their session was bounded",
      ({ userId }) =>
        askAll("update auth.sessions set not_after = now() - interval '1 second' where user_id = $1", [userId]),
    ],
    [
      "they were banned",
      ({ userId }) => askAll("update auth.users set banned_until = now() + interval '1 hour' where id = $1", [userId]),
    ],
    ["they were deleted", ({ userId }) => askAll("delete from auth.users where id = $1", [userId])],
    ["they are no administrator any more", ({ userId }) => ask("select backup.remove_admin($1)", [userId])],
  ];
  it.each(ends)("%s", async (_what, end) => {
    const person = await signedIn(stack, { aal2: true });
    await ask("insert into backup.admins (user_id) values ($1)", [person.userId]);
    const [, audited] = await shown(person.accessToken);
    expect(audited).toBeGreaterThan(0);
    await end(person);
    expect(await shown(person.accessToken)).toEqual(views.map(() => 0));
  }, 60_000);
});
