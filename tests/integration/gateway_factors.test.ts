import { randomUUID } from "node:crypto";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { createRemoteJWKSet, decodeJwt, jwtVerify } from "jose";
import { describe, expect, it } from "vitest";
import { stepAt, totpCode } from "../../src/local/gateway/totp.ts";
import { query, withClient } from "../support/cluster.ts";
import { factorUsedAgo, type SignedIn, signedIn, useFactor } from "../support/signed_in.ts";
import { noSession, until, useGateway } from "./gateway_fixture.ts";

const there = useGateway();
const ask = (text: string, values: readonly unknown[] = []) => query(there().cluster.url("postgres"), text, values);

interface Enrolled {
  readonly id: string;
  readonly secret: string;
}

async function enrolled(client: SupabaseClient, friendlyName: string = randomUUID()): Promise<Enrolled> {
  const { data, error } = await client.auth.mfa.enroll({ factorType: "totp", friendlyName });
  if (error !== null) throw error;
  return { id: data.id, secret: data.totp.secret };
}

async function challenged(client: SupabaseClient, factorId: string): Promise<string> {
  const { data, error } = await client.auth.mfa.challenge({ factorId });
  if (error !== null) throw error;
  return data.id;
}

/** The code of the present step, or of one so many behind. */
const codeOf = (secret: string, away = 0) => totpCode(secret, stepAt(Date.now()) + away);

/** `code` of a factor in a challenge of its own; the code of the refusal, or null. */
async function tried(client: SupabaseClient, factorId: string, code: string): Promise<string | null> {
  const { error } = await client.auth.mfa.challengeAndVerify({ factorId, code });
  return error === null ? null : error.code ?? error.message;
}

async function token(client: SupabaseClient): Promise<string> {
  return (await client.auth.getSession()).data.session?.access_token ?? "";
}

/** A request as the client itself would send it; status and error code. */
async function sent(method: string, path: string, bearer: string, body?: string): Promise<[number, unknown]> {
  const { gateway } = there();
  const answer = await fetch(`${gateway.url}/auth/v1${path}`, {
    method,
    headers: { apikey: gateway.publishableKey, authorization: `Bearer ${bearer}`, "content-type": "application/json" },
    ...body === undefined ? {} : { body },
  });
  const { error_code } = await answer.json() as { error_code?: string };
  return [answer.status, error_code];
}

const methods = (accessToken: string) =>
  (decodeJwt(accessToken)["amr"] as { method: string; timestamp: number }[]).map(({ method }) => method);

/** Another session of the same person, by password alone. */
async function again(person: SignedIn): Promise<SignedIn> {
  return await signedIn(there(), { email: person.email });
}

describe("enrolling", () => {
  it("gives a secret that stays unverified, and changes nothing of the session", async () => {
    const { client, userId } = await signedIn(there());
    const { data, error } = await client.auth.mfa.enroll({
      factorType: "totp",
      friendlyName: "phone",
      issuer: "Jour nal",
    });
    expect(error).toBeNull();
    expect(data).toMatchObject({ type: "totp", friendly_name: "phone" });
    const { id, totp } = data ?? { id: "", totp: { secret: "", uri: "", qr_code: "" } };
    expect(totp.secret).toMatch(/^[A-Z2-7]{32}$/);
    expect(totp.qr_code).toMatch(/^data:image\/svg\+xml;utf-8,<svg /);
    const uri = new URL(totp.uri);
    expect(uri.href).toMatch(/^otpauth:\/\/totp\/Jour%20nal:/);
    expect(Object.fromEntries(uri.searchParams)).toEqual({
      algorithm: "SHA1",
      digits: "6",
      issuer: "Jour nal",
      period: "30",
      secret: totp.secret,
    });
    const { data: list } = await client.auth.mfa.listFactors();
    expect(list?.all).toEqual([expect.objectContaining({
      id,
      status: "unverified",
      friendly_name: "phone",
      factor_type: "totp",
    })]);
    expect(list?.totp).toEqual([]);
    expect(JSON.stringify(await client.auth.getUser())).not.toContain(totp.secret);
    const { data: level } = await client.auth.mfa.getAuthenticatorAssuranceLevel();
    expect(level).toMatchObject({ currentLevel: "aal1", nextLevel: "aal1" });
    expect(await ask("select secret, status::text from auth.mfa_factors where user_id = $1", [userId]))
      .toEqual([{ secret: totp.secret, status: "unverified" }]);
  });

  it("refuses a name twice, other kinds, and an eleventh", async () => {
    const { client } = await signedIn(there());
    await enrolled(client, "phone");
    const twice = await client.auth.mfa.enroll({ factorType: "totp", friendlyName: "phone" });
    expect(twice.error).toMatchObject({ status: 422, code: "mfa_factor_name_conflict" });
    const bearer = await token(client);
    expect(await sent("POST", "/factors", bearer, `{"factor_type":"phone"}`)).toEqual([
      422,
      "mfa_phone_enroll_not_enabled",
    ]);
    expect(await sent("POST", "/factors", bearer, `{"factor_type":"hat"}`)).toEqual([400, "validation_failed"]);
    expect(await sent("POST", "/factors", bearer, "[1")).toEqual([400, "bad_json"]);
    for (let count = 1; count < 10; count++) await enrolled(client);
    const more = await client.auth.mfa.enroll({ factorType: "totp", friendlyName: "one more" });
    expect(more.error).toMatchObject({ status: 422, code: "too_many_enrolled_mfa_factors" });
  });

  it("a further one needs aal2", async () => {
    const person = await signedIn(there(), { aal2: true });
    const { client } = await again(person);
    const low = await client.auth.mfa.enroll({ factorType: "totp", friendlyName: "second" });
    expect(low.error).toMatchObject({ status: 403, code: "insufficient_aal" });
    await enrolled(person.client, "second");
  });
});

describe("a right code", () => {
  it("lifts the session to aal2 in a token that says when each method was used, newest first", async () => {
    const { gateway } = there();
    const { client, userId, accessToken } = await signedIn(there());
    const { id, secret } = await enrolled(client);
    const abandoned = await enrolled(client);
    await ask(
      "update auth.mfa_amr_claims set updated_at = updated_at - interval '100 seconds' where session_id = $1",
      [decodeJwt(accessToken)["session_id"]],
    );
    const before = Math.floor(Date.now() / 1000);
    const { data, error } = await client.auth.mfa.challengeAndVerify({ factorId: id, code: await codeOf(secret) });
    expect(error).toBeNull();
    const { payload } = await jwtVerify(
      data?.access_token ?? "",
      createRemoteJWKSet(new URL(`${gateway.url}/auth/v1/.well-known/jwks.json`)),
    );
    const signed = Number(decodeJwt(accessToken).iat);
    expect(payload).toMatchObject({ sub: userId, aal: "aal2", session_id: decodeJwt(accessToken)["session_id"] });
    const amr = payload["amr"] as { method: string; timestamp: number }[];
    expect(amr.map(({ method }) => method)).toEqual(["totp", "password"]);
    expect(Math.abs((amr[1]?.timestamp ?? 0) - (signed - 100))).toBeLessThanOrEqual(2);
    expect(amr[0]?.timestamp).toBeGreaterThanOrEqual(before);
    expect(amr[0]?.timestamp).toBeLessThanOrEqual(Number(payload.iat));
    expect((await client.auth.mfa.listFactors()).data?.all.map((factor) => [factor.id, factor.status]))
      .toEqual([[id, "verified"]]);
    expect(abandoned.id).not.toBe(id);
    const { data: level } = await client.auth.mfa.getAuthenticatorAssuranceLevel();
    expect(level).toEqual({ currentLevel: "aal2", nextLevel: "aal2", currentAuthenticationMethods: amr });
    expect(await ask("select aal::text, factor_id from auth.sessions where user_id = $1", [userId]))
      .toEqual([{ aal: "aal2", factor_id: id }]);
  });

  it("stays with the session when it is refreshed, with the moments unchanged", async () => {
    const { client, accessToken } = await signedIn(there(), { aal2: true });
    await ask(
      `update auth.mfa_amr_claims set created_at = created_at - interval '1 day', updated_at = date_trunc('second', updated_at)
         + case authentication_method when 'totp' then interval '0.9 s' else interval '0.8 s' end where session_id = $1`,
      [decodeJwt(accessToken)["session_id"]],
    );
    const { data } = await client.auth.refreshSession();
    const { aal, amr } = decodeJwt(data.session?.access_token ?? "");
    expect({ aal, amr }).toEqual({ aal: "aal2", amr: decodeJwt(accessToken)["amr"] });
    expect(data.session?.access_token).not.toBe(accessToken);
  });

  it("ends the refresh token that was given at aal1", async () => {
    const { gateway } = there();
    const person = await signedIn(there());
    const { data: { session } } = await person.client.auth.getSession();
    await useFactor(there(), person);
    const other = createClient(gateway.url, gateway.publishableKey, noSession);
    const { error } = await other.auth.refreshSession({ refresh_token: session?.refresh_token ?? "" });
    expect(error).toMatchObject({ code: "refresh_token_already_used" });
  });

  it("that comes while the session is refreshed waits for it in order, and leaves one refresh token", async () => {
    const { cluster } = there();
    const person = await signedIn(there());
    const { id, secret } = await enrolled(person.client);
    const { data: { session } } = await person.client.auth.getSession();
    const bearer = person.accessToken;
    const refresh = JSON.stringify({ refresh_token: session?.refresh_token });
    const verify = JSON.stringify({ challenge_id: await challenged(person.client, id), code: await codeOf(secret) });
    const answers = await withClient(cluster.url("postgres"), async (holder) => {
      await holder.query("begin");
      await holder.query("select from auth.sessions where user_id = $1 for update", [person.userId]);
      const waiting = (count: number) =>
        until(
          () => ask("select from pg_stat_activity where application_name = 'gotrue' and wait_event_type = 'Lock'"),
          (rows) => rows.length === count,
        );
      const verified = sent("POST", `/factors/${id}/verify`, bearer, verify);
      await waiting(1);
      const refreshed = sent("POST", "/token?grant_type=refresh_token", bearer, refresh);
      await waiting(2);
      await holder.query("commit");
      return await Promise.all([verified, refreshed]);
    });
    expect(answers).toEqual([[200, undefined], [400, "refresh_token_already_used"]]);
    expect(await ask("select from auth.refresh_tokens where user_id = $1 and not revoked", [person.userId]))
      .toHaveLength(1);
  });

  it("ends the person's sessions at aal1, and nobody else's", async () => {
    const person = await signedIn(there());
    const [second, stranger] = [await again(person), await signedIn(there())];
    await useFactor(there(), person);
    expect((await second.client.auth.getUser()).error).not.toBeNull();
    expect((await stranger.client.auth.getUser()).error).toBeNull();
    const third = await signedIn(there(), { email: person.email, aal2: true });
    expect((await person.client.auth.getUser()).error).toBeNull();
    expect(decodeJwt(third.accessToken)["session_id"]).not.toBe(decodeJwt(person.accessToken)["session_id"]);
  });

  it("is asked for again by the next session, which begins at aal1", async () => {
    const { client, accessToken } = await again(await signedIn(there(), { aal2: true }));
    expect(decodeJwt(accessToken)["aal"]).toBe("aal1");
    expect(methods(accessToken)).toEqual(["password"]);
    const { data: level } = await client.auth.mfa.getAuthenticatorAssuranceLevel();
    expect(level).toMatchObject({ currentLevel: "aal1", nextLevel: "aal2" });
    const { data: asked } = await client.auth.mfa.getAuthenticatorAssuranceLevel(accessToken);
    expect(asked).toMatchObject({ currentLevel: "aal1", nextLevel: "aal2" });
  });

  it("works once, in whatever challenge and session it comes again", async () => {
    const person = await signedIn(there());
    const { id, secret } = await enrolled(person.client);
    const code = await codeOf(secret);
    expect(await tried(person.client, id, code)).toBeNull();
    expect(await tried(person.client, id, code)).toBe("mfa_verification_failed");
    const second = await again(person);
    expect(await tried(second.client, id, code)).toBe("mfa_verification_failed");
    expect(await tried(second.client, id, await codeOf(secret, 1))).toBeNull();
  });

  it("works once when it comes many times at the same moment", async () => {
    const person = await signedIn(there());
    const { id, secret } = await enrolled(person.client);
    const bearer = await token(person.client);
    const code = await codeOf(secret);
    const challenges = await Promise.all([1, 2, 3, 4, 5, 6].map(() => challenged(person.client, id)));
    const answers = await Promise.all(
      challenges.map((challenge_id) =>
        sent("POST", `/factors/${id}/verify`, bearer, JSON.stringify({ challenge_id, code }))
      ),
    );
    expect(answers.filter(([status]) => status === 200)).toHaveLength(1);
    expect(answers.filter(([, why]) => why === "mfa_verification_failed")).toHaveLength(5);
  });

  it("lifts one of two sessions that come at the same moment, and the other one is gone", async () => {
    const person = await signedIn(there());
    const second = await again(person);
    const { id, secret } = await enrolled(person.client);
    const ready = await Promise.all([person, second].map(async ({ client, accessToken }, index) => ({
      accessToken,
      body: JSON.stringify({ challenge_id: await challenged(client, id), code: await codeOf(secret, index) }),
    })));
    const answers = await Promise.all(
      ready.map(({ accessToken, body }) => sent("POST", `/factors/${id}/verify`, accessToken, body)),
    );
    expect(answers.sort()).toEqual([[200, undefined], [403, "session_not_found"]]);
  });
});

describe("a code is refused", () => {
  it("when it is wrong or too old, and the challenge may be answered again", async () => {
    const { client } = await signedIn(there());
    const { id, secret } = await enrolled(client);
    const challengeId = await challenged(client, id);
    const right = await codeOf(secret);
    const near = await Promise.all([-1, 0, 1, 2].map((away) => codeOf(secret, away)));
    const wrong = ["111111", "222222", "333333", "444444", "555555"].find((code) => !near.includes(code)) ?? "";
    for (const code of [wrong, right.slice(1), `${right}0`, await codeOf(secret, -3)]) {
      const { error } = await client.auth.mfa.verify({ factorId: id, challengeId, code });
      expect(error).toMatchObject({ status: 422, code: "mfa_verification_failed" });
    }
    expect((await client.auth.mfa.verify({ factorId: id, challengeId, code: "" })).error)
      .toMatchObject({ status: 400, code: "validation_failed" });
    expect(decodeJwt(await token(client))["aal"]).toBe("aal1");
    expect((await client.auth.mfa.verify({ factorId: id, challengeId, code: right })).error).toBeNull();
  });

  it("more than five minutes after the challenge, which goes", async () => {
    const { client } = await signedIn(there());
    const { id, secret } = await enrolled(client);
    const { data } = await client.auth.mfa.challenge({ factorId: id });
    expect(Math.abs((data?.expires_at ?? 0) - Date.now() / 1000 - 300)).toBeLessThan(5);
    const challengeId = data?.id ?? "";
    const age = (seconds: number) =>
      ask("update auth.mfa_challenges set created_at = now() - make_interval(secs => $2) where id = $1", [
        challengeId,
        seconds,
      ]);
    const verify = async () => client.auth.mfa.verify({ factorId: id, challengeId, code: await codeOf(secret) });
    await age(301);
    expect((await verify()).error).toMatchObject({ status: 422, code: "mfa_challenge_expired" });
    expect((await verify()).error).toMatchObject({ status: 422, code: "mfa_factor_not_found" });
    const later = await challenged(client, id);
    await ask("update auth.mfa_challenges set created_at = now() - interval '280 seconds' where id = $1", [later]);
    expect((await client.auth.mfa.verify({ factorId: id, challengeId: later, code: await codeOf(secret) })).error)
      .toBeNull();
  });

  it("in a challenge that was answered, is another factor's, or is none", async () => {
    const { client } = await signedIn(there());
    const [first, second] = [await enrolled(client), await enrolled(client)];
    const [used, foreign] = [await challenged(client, first.id), await challenged(client, second.id)];
    const verify = async (challengeId: string, away: number) =>
      (await client.auth.mfa.verify({ factorId: first.id, challengeId, code: await codeOf(first.secret, away) })).error;
    expect(await verify(foreign, 0)).toMatchObject({ status: 422, code: "mfa_factor_not_found" });
    expect(await verify(randomUUID(), 0)).toMatchObject({ status: 422, code: "mfa_factor_not_found" });
    expect(await verify("none", 0)).toMatchObject({ status: 400, code: "bad_json" });
    expect(await verify(used, 0)).toBeNull();
    expect(await verify(used, 1)).toMatchObject({ status: 422, code: "mfa_ip_address_mismatch" });
  });

  it("for a factor of somebody else, whatever is asked of it", async () => {
    const owner = await signedIn(there());
    const { id, secret } = await enrolled(owner.client);
    const challengeId = await challenged(owner.client, id);
    const { client } = await signedIn(there());
    const refused = { status: 404, code: "mfa_factor_not_found" };
    expect((await client.auth.mfa.challenge({ factorId: id })).error).toMatchObject(refused);
    expect((await client.auth.mfa.verify({ factorId: id, challengeId, code: await codeOf(secret) })).error)
      .toMatchObject(refused);
    expect((await client.auth.mfa.unenroll({ factorId: id })).error).toMatchObject(refused);
    expect(await sent("POST", "/factors/phone/challenge", await token(client))).toEqual([404, "validation_failed"]);
    expect(await tried(owner.client, id, await codeOf(secret))).toBeNull();
  });

  it("without a session that is still there", async () => {
    const { gateway } = there();
    const { client, accessToken } = await signedIn(there());
    const { id } = await enrolled(client);
    await client.auth.signOut();
    for (
      const [method, path] of [["POST", "/factors"], ["POST", `/factors/${id}/verify`], ["DELETE", `/factors/${id}`]]
    ) {
      const body = method === "POST" ? `{"factor_type":"totp"}` : undefined;
      expect(await sent(method ?? "", path ?? "", accessToken, body)).toEqual([403, "session_not_found"]);
      expect(await sent(method ?? "", path ?? "", gateway.publishableKey, body)).toEqual([403, "bad_jwt"]);
    }
    const bare = await fetch(`${gateway.url}/auth/v1/factors`, { method: "POST" });
    expect(bare.status).toBe(401);
  });
});

describe("unenrolling", () => {
  it("needs aal2 once the factor is verified, and takes every session that used it back to aal1", async () => {
    const person = await signedIn(there(), { aal2: true });
    const other = await signedIn(there(), { email: person.email, aal2: true });
    const low = await again(person);
    const factorId = (await person.client.auth.mfa.listFactors()).data?.totp[0]?.id ?? "";
    expect((await low.client.auth.mfa.unenroll({ factorId })).error)
      .toMatchObject({ status: 422, code: "insufficient_aal" });
    expect((await person.client.auth.mfa.unenroll({ factorId })).data).toEqual({ id: factorId });
    for (const { client } of [person, other]) {
      const { data } = await client.auth.refreshSession();
      expect(decodeJwt(data.session?.access_token ?? "")["aal"]).toBe("aal1");
      expect(methods(data.session?.access_token ?? "")).toEqual(["password"]);
    }
    expect((await person.client.auth.mfa.listFactors()).data?.all).toEqual([]);
    expect(await ask("select distinct aal::text, factor_id from auth.sessions where user_id = $1", [person.userId]))
      .toEqual([{ aal: "aal1", factor_id: null }]);
  });

  it("of a factor that was never verified needs no more than a session", async () => {
    const { client } = await signedIn(there());
    const { id } = await enrolled(client);
    expect((await client.auth.mfa.unenroll({ factorId: id })).error).toBeNull();
    expect((await client.auth.mfa.listFactors()).data?.all).toEqual([]);
  });
});

it("Auth's own log names what was done with factors, and holds no secret", async () => {
  const { client, userId } = await signedIn(there());
  const { id, secret } = await enrolled(client);
  expect(await tried(client, id, await codeOf(secret))).toBeNull();
  await client.auth.mfa.unenroll({ factorId: id });
  const rows = await ask(
    `select payload ->> 'action' as action, payload ->> 'log_type' as kind, payload::text as all
     from auth.audit_log_entries where payload ->> 'actor_id' = $1 order by created_at, action`,
    [userId],
  );
  expect(rows.map((row) => [row["action"], row["kind"]])).toEqual([
    ["login", "account"],
    ["factor_in_progress", "factor"],
    ["challenge_created", "factor"],
    ["verification_attempted", "factor"],
    ["factor_unenrolled", "factor"],
  ]);
  expect(JSON.stringify(rows)).not.toContain(secret);
});

describe("for tests, a second factor", () => {
  it("was used when a test wants it, in a token that is issued, and is used again", async () => {
    const person = await signedIn(there(), { aal2: true });
    const age = (accessToken: string) => {
      const { aal, amr } = decodeJwt(accessToken);
      const moments = amr as { method: string; timestamp: number }[];
      expect([aal, moments.map(({ method }) => method)]).toEqual(["aal2", ["totp", "password"]]);
      return Math.round(Date.now() / 1000) - (moments[0]?.timestamp ?? 0);
    };
    expect(age(person.accessToken)).toBeLessThan(10);
    const old = age(await factorUsedAgo(there(), person, 901));
    expect(old).toBeGreaterThanOrEqual(901);
    expect(old).toBeLessThan(911);
    expect(age(await useFactor(there(), person))).toBeLessThan(10);
    await expect(factorUsedAgo(there(), await signedIn(there()), 901)).rejects.toThrow("no second factor");
  });
});
