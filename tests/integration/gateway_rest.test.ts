import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { createRemoteJWKSet, jwtVerify, SignJWT } from "jose";
import { beforeAll, describe, expect, it } from "vitest";
import { query } from "../support/cluster.ts";
import { noSession, until, useGateway } from "./gateway_fixture.ts";

const there = useGateway();
const password = "a good password";
let service: SupabaseClient;
let anna: SupabaseClient;
let ben: SupabaseClient;
let annaId: string;

beforeAll(async () => {
  const { gateway, cluster } = there();
  service = createClient(gateway.url, gateway.secretKey, noSession);
  const ids: string[] = [];
  for (const email of ["anna@journal.example", "ben@journal.example"]) {
    const { data, error } = await service.auth.admin.createUser({ email, password, email_confirm: true });
    if (error !== null) throw error;
    ids.push(data.user.id);
  }
  annaId = ids[0] ?? "";
  anna = createClient(gateway.url, gateway.publishableKey, noSession);
  ben = createClient(gateway.url, gateway.anonKey, noSession); // the legacy key does as well
  for (const [client, email] of [[anna, "anna@journal.example"], [ben, "ben@journal.example"]] as const) {
    const { error } = await client.auth.signInWithPassword({ email, password });
    if (error !== null) throw error;
  }
  await query(
    cluster.url("postgres"),
    `create table public.entries (
       id int primary key, user_id uuid not null default auth.uid(), title text not null, mood text, body jsonb,
       created_at timestamptz not null default now(), unique (user_id, title));
     alter table public.entries enable row level security;
     create policy own on public.entries to authenticated using (user_id = auth.uid()) with check (user_id = auth.uid());
     grant select, insert, update, delete on public.entries to authenticated, service_role;
     create table public.closed (id int);
     create function public.add(a int, b int default 10) returns int language sql immutable as 'select a + b';
     create function public.titles() returns setof text language sql stable as 'select title from public.entries order by 1';
     create function public.own() returns setof public.entries language sql stable as 'select * from public.entries order by id';
     create function public.claims() returns jsonb language sql stable as
       $$ select current_setting('request.jwt.claims')::jsonb || jsonb_build_object('user', current_user) $$;
     create function public.same(n numeric) returns numeric language sql immutable as 'select n';
     create function public.looks() returns text language sql stable as $$ select current_setting('transaction_read_only') $$;
     create function public.acts() returns text language sql volatile as $$ select current_setting('transaction_read_only') $$;
     create function public.nothing() returns void language sql as 'select null';`,
  );
});

describe("signing in", () => {
  it("gives a session whose token anybody can check with the published keys", async () => {
    const { gateway } = there();
    const { data: { session } } = await anna.auth.getSession();
    const keys = createRemoteJWKSet(new URL(`${gateway.url}/auth/v1/.well-known/jwks.json`));
    const { payload, protectedHeader } = await jwtVerify(session?.access_token ?? "", keys);
    expect(protectedHeader.alg).toBe("ES256");
    expect(payload).toMatchObject({
      sub: annaId,
      role: "authenticated",
      aud: "authenticated",
      aal: "aal1",
      amr: [{ method: "password" }],
      iss: `${gateway.url}/auth/v1`,
      email: "anna@journal.example",
    });
  });

  it("takes the passwords that pgcrypto hashed, and no other", async () => {
    const { gateway, cluster } = there();
    const client = createClient(gateway.url, gateway.publishableKey, noSession);
    await service.auth.admin.createUser({
      email: "cleo@journal.example",
      password: "first password",
      email_confirm: true,
    });
    await query(
      cluster.url("supabase_admin"),
      "update auth.users set encrypted_password = extensions.crypt('second password', extensions.gen_salt('bf', 6)) where email = 'cleo@journal.example'",
    );
    const wrong = await client.auth.signInWithPassword({ email: "cleo@journal.example", password: "first password" });
    expect(wrong.error).toMatchObject({ status: 400, code: "invalid_credentials" });
    const none = await client.auth.signInWithPassword({ email: "nobody@journal.example", password });
    expect(none.error).toMatchObject({ status: 400, code: "invalid_credentials" });
    const right = await client.auth.signInWithPassword({ email: "CLEO@journal.example", password: "second password" });
    expect(right.error).toBeNull();
  });

  it("can be refreshed once with each refresh token, and ends with signing out", async () => {
    const { gateway } = there();
    const client = createClient(gateway.url, gateway.publishableKey, noSession);
    const signed = await client.auth.signInWithPassword({ email: "ben@journal.example", password });
    const first = signed.data.session?.refresh_token ?? "";
    const renewed = await client.auth.refreshSession({ refresh_token: first });
    expect(renewed.error).toBeNull();
    expect(renewed.data.user?.email).toBe("ben@journal.example");
    const again = await client.auth.refreshSession({ refresh_token: first });
    expect(again.error).toMatchObject({ code: "refresh_token_already_used" });
    const token = renewed.data.session?.access_token ?? "";
    expect((await client.auth.getUser(token)).data.user?.email).toBe("ben@journal.example");
    await service.auth.admin.signOut(token, "local");
    expect((await client.auth.getUser(token)).error).not.toBeNull();
    expect((await ben.auth.getUser()).error).toBeNull();
  });

  it("comes with signing up", async () => {
    const { gateway } = there();
    const client = createClient(gateway.url, gateway.publishableKey, noSession);
    const { data, error } = await client.auth.signUp({
      email: "dora@journal.example",
      password,
      options: { data: { name: "Dora" } },
    });
    expect(error).toBeNull();
    expect(data.session?.access_token).toMatch(/^eyJ/);
    expect(data.user?.user_metadata["name"]).toBe("Dora");
    expect((await client.auth.signUp({ email: "dora@journal.example", password })).error?.code).toBe("email_exists");
  });

  it("making users is for the service role only", async () => {
    expect((await anna.auth.admin.createUser({ email: "eve@journal.example", password })).error?.status).toBe(403);
  });
});

describe("keys", () => {
  it("missing or foreign ones open nothing", async () => {
    const { gateway } = there();
    expect((await fetch(`${gateway.url}/rest/v1/entries`)).status).toBe(401);
    expect((await fetch(`${gateway.url}/auth/v1/user`)).status).toBe(401);
    const forged = await new SignJWT({ role: "service_role" }).setProtectedHeader({ alg: "HS256" })
      .sign(new TextEncoder().encode("not the project's secret, but long enough"));
    for (const key of [forged, "sb_secret_guessed", "e30.e30."]) {
      const answer = await fetch(`${gateway.url}/rest/v1/entries`, { headers: { apikey: key } });
      expect(answer.status).toBe(401);
    }
    const expired = await new SignJWT({ role: "service_role" }).setProtectedHeader({ alg: "HS256" })
      .setExpirationTime(1).sign(new TextEncoder().encode(gateway.jwtSecret));
    const late = await fetch(`${gateway.url}/rest/v1/entries`, {
      headers: { apikey: gateway.publishableKey, authorization: `Bearer ${expired}` },
    });
    expect([late.status, await late.json()]).toMatchObject([401, { code: "PGRST303" }]);
  });

  it("stand for the role the database sees", async () => {
    const { gateway } = there();
    const roles = await Promise.all(
      [gateway.publishableKey, gateway.anonKey, gateway.secretKey, gateway.serviceRoleKey].map(async (key) => {
        const { data } = await createClient(gateway.url, key, noSession).rpc("claims");
        return data?.user;
      }),
    );
    expect(roles).toEqual(["anon", "anon", "service_role", "service_role"]);
    expect((await anna.rpc("claims")).data).toMatchObject({ user: "authenticated", sub: annaId });
  });
});

describe("rows", () => {
  it("are written and read by their owner, and by nobody else", async () => {
    expect((await anna.from("entries").insert({ id: 1, title: "one", mood: "calm", body: { a: [1, null] } })).error)
      .toBeNull();
    expect((await anna.from("entries").insert([{ id: 2, title: "two" }, { id: 3, title: "three" }])).error).toBeNull();
    expect((await ben.from("entries").insert({ id: 4, title: "four" })).error).toBeNull();
    expect((await anna.from("entries").select("id").order("id")).data).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
    expect((await ben.from("entries").select("id")).data).toEqual([{ id: 4 }]);
    expect((await service.from("entries").select("id", { count: "exact", head: true })).count).toBe(4);

    const theft = await ben.from("entries").insert({ id: 5, title: "five", user_id: annaId });
    expect([theft.status, theft.error?.code]).toEqual([403, "42501"]);
    expect((await ben.from("entries").update({ title: "mine" }).eq("id", 1).select()).data).toEqual([]);
    expect((await ben.from("entries").delete().eq("id", 1).select()).data).toEqual([]);
    expect((await anna.from("entries").select().eq("id", 1).single()).data).toMatchObject({
      title: "one",
      body: { a: [1, null] },
    });
  });

  it("are chosen by filters, columns, order and page", async () => {
    const ids = async (ask: PromiseLike<{ data: { id: number }[] | null }>) => (await ask).data?.map((row) => row.id);
    const all = () => anna.from("entries").select("id");
    expect(await ids(all().gt("id", 1).lte("id", 3).order("id", { ascending: false }))).toEqual([3, 2]);
    expect(await ids(all().in("title", ["one", "th,ree", "three"]).order("id"))).toEqual([1, 3]);
    expect(await ids(all().is("mood", null).order("id"))).toEqual([2, 3]);
    expect(await ids(all().not("mood", "is", null))).toEqual([1]);
    expect(await ids(all().or("id.eq.1,title.eq.two").order("id"))).toEqual([1, 2]);
    expect(await ids(all().like("title", "t%").order("id"))).toEqual([2, 3]);
    const page = await anna.from("entries").select("key:id, first:body->a->>0", { count: "exact" }).order("id").range(
      0,
      0,
    );
    expect([page.data, page.count, page.status]).toEqual([[{ key: 1, first: "1" }], 3, 206]);
  });

  it("change with update, upsert and delete", async () => {
    const entries = () => anna.from("entries");
    expect((await entries().update({ mood: "happy" }).eq("id", 2).select("mood").single()).data).toEqual({
      mood: "happy",
    });
    const merged = await entries().upsert({ id: 2, title: "two again" }).select("title, mood");
    expect(merged.data).toEqual([{ title: "two again", mood: "happy" }]);
    const kept = await entries().upsert({ id: 9, title: "two again", user_id: annaId }, {
      onConflict: "user_id,title",
      ignoreDuplicates: true,
    });
    expect(kept.error).toBeNull();
    expect((await entries().delete({ count: "exact" }).eq("id", 2)).count).toBe(1);
    expect((await entries().select("id").order("id")).data).toEqual([{ id: 1 }, { id: 3 }]);
    expect((await entries().delete()).error?.message).toBe("DELETE requires a WHERE clause");
  });

  it("answer errors as PostgREST does", async () => {
    const outcome = async (ask: PromiseLike<{ status: number; error: { code: string } | null }>) => {
      const { status, error } = await ask;
      return [status, error?.code];
    };
    expect(await outcome(anna.from("entries").insert({ id: 1, title: "x" }))).toEqual([409, "23505"]);
    expect(await outcome(anna.from("entries").insert({ id: 8 }))).toEqual([400, "23502"]);
    expect(await outcome(anna.from("entries").select("nope"))).toEqual([400, "42703"]);
    expect(await outcome(anna.from("entries").select().eq("id", "x"))).toEqual([400, "22P02"]);
    expect(await outcome(anna.from("missing").select())).toEqual([404, "PGRST205"]);
    expect(await outcome(anna.from("closed").select())).toEqual([403, "42501"]);
    expect(await outcome(anna.from("entries").select().eq("id", 77).single())).toEqual([406, "PGRST116"]);
    expect(await outcome(anna.rpc("missing"))).toEqual([404, "PGRST202"]);
    const { gateway } = there();
    const stranger = createClient(gateway.url, gateway.anonKey, noSession);
    expect(await outcome(stranger.from("entries").select())).toEqual([401, "42501"]);
  });
});

describe("functions of the database", () => {
  it("are called by name with their defaults, and give values, sets, rows or nothing", async () => {
    expect((await anna.rpc("add", { a: 1, b: 2 })).data).toBe(3);
    expect((await anna.rpc("add", { a: 1 })).data).toBe(11);
    expect((await anna.rpc("add", { a: 1 }, { get: true })).data).toBe(11);
    expect((await anna.rpc("titles")).data).toEqual(["one", "three"]);
    expect((await anna.rpc("own")).data).toMatchObject([{ id: 1 }, { id: 3 }]);
    expect((await anna.rpc("nothing")).status).toBe(204);
  });

  it("keep every digit of long numbers", async () => {
    const { gateway } = there();
    const { data: { session } } = await anna.auth.getSession();
    const ask = async (path: string, init: RequestInit) => {
      const headers = {
        apikey: gateway.publishableKey,
        authorization: `Bearer ${session?.access_token}`,
        ...init.headers,
      };
      return await (await fetch(`${gateway.url}/rest/v1/${path}`, { ...init, headers })).text();
    };
    const digits = "12345678901234567890.123456789";
    expect(await ask("rpc/same", { method: "POST", body: `{"n": ${digits}}` })).toBe(digits);
    const single = { prefer: "return=representation", accept: "application/vnd.pgrst.object+json" };
    const body = `{"id": 50, "title": "digits", "body": ${digits}}`;
    expect(await ask("entries?select=body", { method: "POST", body, headers: single })).toBe(`{"body":${digits}}`);
    expect(await ask("entries?id=eq.50&select=id", { method: "DELETE", headers: single })).toBe('{"id":50}');
  });

  it("run read-only unless they are volatile and called by POST", async () => {
    expect((await anna.rpc("looks")).data).toBe("on");
    expect((await anna.rpc("acts")).data).toBe("off");
    expect((await anna.rpc("acts", {}, { get: true })).data).toBe("on");
  });
});

describe("a database that goes away", () => {
  it("makes calls answer 503, and serves again once it is back", async () => {
    const { cluster, gateway } = there();
    // The client itself would try a read again for seconds.
    const ask = async () => {
      const answer = await fetch(`${gateway.url}/rest/v1/entries`, { headers: { apikey: gateway.secretKey } });
      await answer.body?.cancel();
      return answer.status;
    };
    expect(await ask()).toBe(200);
    await cluster.kill();
    try {
      expect(await ask()).toBe(503);
    } finally {
      await cluster.start(cluster.port);
    }
    await until(ask, (status) => status === 200);
  });
});

describe("the pre-request function", () => {
  it("runs in each call's transaction once PostgREST is told to reload", async () => {
    const { cluster } = there();
    const [admin, owner] = [cluster.url("supabase_admin"), cluster.url("postgres")];
    await query(
      owner,
      `create function public.fence() returns void language plpgsql as $$
       begin
         if current_setting('request.method') <> 'GET' then
           raise sqlstate 'PT503' using message = 'closed for maintenance', detail = current_setting('request.path');
         end if;
       end $$; grant execute on function public.fence() to anon, authenticated, service_role`,
    );
    await query(admin, "alter role authenticator set pgrst.db_pre_request = 'public.fence'");
    try {
      await query(owner, "notify pgrst, 'reload config'");
      const refused = await until(
        async () => await anna.from("entries").update({ mood: "low" }).eq("id", 1),
        (answer) => answer.status === 503,
      );
      expect(refused.error).toMatchObject({ code: "PT503", message: "closed for maintenance", details: "/entries" });
      expect((await anna.from("entries").select("id")).error).toBeNull();
    } finally {
      await query(admin, "alter role authenticator reset pgrst.db_pre_request");
      await query(owner, "notify pgrst");
    }
    await until(
      async () => await anna.from("entries").update({ mood: "low" }).eq("id", 1),
      (answer) => answer.status === 204,
    );
  });
});
