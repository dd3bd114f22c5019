import { Buffer } from "node:buffer";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { beforeAll, describe, expect, it } from "vitest";
import { query } from "../support/cluster.ts";
import { noSession, useGateway } from "./gateway_fixture.ts";

const there = useGateway();
let service: SupabaseClient;
let anna: SupabaseClient;
let ben: SupabaseClient;
let annaId: string;

async function signedIn(email: string): Promise<{ client: SupabaseClient; id: string }> {
  const { gateway } = there();
  const made = await service.auth.admin.createUser({ email, password: "a good password", email_confirm: true });
  const client = createClient(gateway.url, gateway.publishableKey, noSession);
  const { error } = await client.auth.signInWithPassword({ email, password: "a good password" });
  if (error !== null || made.data.user === null) throw error ?? made.error;
  return { client, id: made.data.user.id };
}

beforeAll(async () => {
  const { gateway, cluster } = there();
  service = createClient(gateway.url, gateway.secretKey, noSession);
  ({ client: anna, id: annaId } = await signedIn("anna@journal.example"));
  ({ client: ben } = await signedIn("ben@journal.example"));
  for (const [name, options] of [["notes", { public: false }], ["open", { public: true }]] as const) {
    const { error } = await service.storage.createBucket(name, options);
    if (error !== null) throw error;
  }
  await query(
    cluster.url("supabase_admin"),
    `create policy own_notes on storage.objects for all to authenticated
       using (bucket_id = 'notes' and (storage.foldername(name))[1] = (select auth.uid())::text)
       with check (bucket_id = 'notes' and (storage.foldername(name))[1] = (select auth.uid())::text)`,
  );
});

/** Files that Storage holds on the disk. */
function storedFiles(): number {
  const folder = join(there().gateway.dataFolder, "objects");
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true, withFileTypes: true }).filter((one) => one.isFile()).length;
}

/** Storage's error as the client shows it: HTTP status and the code of the body. */
const refusal = (status: number, statusCode: string) => expect.objectContaining({ status, statusCode });

describe("a file", () => {
  it("comes back byte for byte, whole and in ranges", async () => {
    const bytes = randomBytes(3_000_000);
    const path = `${annaId}/voice.webm`;
    const { data, error } = await anna.storage.from("notes").upload(path, bytes, { contentType: "audio/webm" });
    expect(error).toBeNull();
    expect(data?.fullPath).toBe(`notes/${path}`);

    const download = await anna.storage.from("notes").download(path);
    expect(download.data?.type).toBe("audio/webm");
    expect(Buffer.from(await download.data?.arrayBuffer() ?? new ArrayBuffer(0)).equals(bytes)).toBe(true);

    // A Blob travels as a form, anything else as the plain body.
    await anna.storage.from("notes").upload(`${path}.form`, new Blob([bytes], { type: "audio/webm" }));
    const form = await anna.storage.from("notes").download(`${path}.form`);
    expect(Buffer.from(await form.data?.arrayBuffer() ?? new ArrayBuffer(0)).equals(bytes)).toBe(true);

    const { data: { session } } = await anna.auth.getSession();
    const { gateway } = there();
    const part = await fetch(`${gateway.url}/storage/v1/object/notes/${path}`, {
      headers: { authorization: `Bearer ${session?.access_token}`, range: "bytes=1000000-1000099" },
    });
    expect(part.status).toBe(206);
    expect(part.headers.get("content-range")).toBe("bytes 1000000-1000099/3000000");
    expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(1_000_000, 1_000_100))).toBe(true);
  });

  it("has a row that tells size, checksum, type and owner", async () => {
    const { cluster } = there();
    const path = `${annaId}/told.txt`;
    await anna.storage.from("notes").upload(path, new Blob(["dear diary"], { type: "text/plain" }), {
      metadata: { mood: "calm" },
    });
    const [row] = await query(cluster.url("supabase_admin"), "select * from storage.objects where name = $1", [path]);
    expect(row).toMatchObject({
      owner_id: annaId,
      metadata: { size: 10, mimetype: "text/plain", eTag: `"${createHash("md5").update("dear diary").digest("hex")}"` },
      user_metadata: { mood: "calm" },
    });
    const info = await anna.storage.from("notes").info(path);
    expect(info.data).toMatchObject({ size: 10, contentType: "text/plain", metadata: { mood: "calm" } });
    expect((await anna.storage.from("notes").exists(path)).data).toBe(true);
  });

  it("is created once: of twelve at a time one wins, and the bytes are the winner's", async () => {
    const { cluster } = there();
    const before = storedFiles();
    const tries = await Promise.all(
      Array.from(
        { length: 12 },
        (_, mark) => service.storage.from("notes").upload("race", new Uint8Array(50_000).fill(mark)),
      ),
    );
    const winners = tries.flatMap((one, mark) => one.error === null ? [mark] : []);
    expect(winners).toHaveLength(1);
    for (const { error } of tries) if (error !== null) expect(error).toEqual(refusal(400, "409"));
    const { data } = await service.storage.from("notes").download("race");
    expect(new Set(new Uint8Array(await data?.arrayBuffer() ?? new ArrayBuffer(0)))).toEqual(new Set(winners));
    const [{ count }] = await query(
      cluster.url("supabase_admin"),
      "select count(*)::int from storage.objects where name = 'race'",
    ) as [{ count: number }];
    expect(count).toBe(1);
    expect(storedFiles() - before).toBe(1);
  });

  it("is replaced with upsert, and the old bytes go", async () => {
    const path = `${annaId}/again`;
    const first = await anna.storage.from("notes").upload(path, new Uint8Array([1]));
    const before = storedFiles();
    const second = await anna.storage.from("notes").upload(path, new Uint8Array([2, 2]), { upsert: true });
    expect(second.data?.id).toBe(first.data?.id);
    expect((await anna.storage.from("notes").download(path)).data?.size).toBe(2);
    expect(storedFiles()).toBe(before);
  });

  it("that is not there is 400 with 404 in the body; removing it is no error", async () => {
    expect((await anna.storage.from("notes").download("nothing")).error).toEqual(refusal(400, "404"));
    expect(await anna.storage.from("notes").remove(["nothing"])).toEqual({ data: [], error: null });
    expect((await anna.storage.from("nowhere").upload("x", new Uint8Array(1))).error).toEqual(refusal(400, "404"));
  });

  it("is copied, moved and removed", async () => {
    const notes = anna.storage.from("notes");
    await notes.upload(`${annaId}/one`, new Uint8Array([7]));
    expect((await notes.copy(`${annaId}/one`, `${annaId}/two`)).error).toBeNull();
    expect((await notes.move(`${annaId}/two`, `${annaId}/three`)).error).toBeNull();
    expect((await notes.exists(`${annaId}/two`)).data).toBe(false);
    expect((await notes.remove([`${annaId}/one`])).data?.map((one) => one.name)).toEqual([`${annaId}/one`]);
    const kept = await notes.download(`${annaId}/three`);
    expect(new Uint8Array(await kept.data?.arrayBuffer() ?? new ArrayBuffer(0))).toEqual(new Uint8Array([7]));
  });
});

describe("another person's file", () => {
  it("cannot be read, listed, signed, written, moved or removed", async () => {
    const path = `${annaId}/private`;
    await anna.storage.from("notes").upload(path, new Uint8Array([1]));
    const notes = ben.storage.from("notes");
    expect((await notes.download(path)).error).toEqual(refusal(400, "404"));
    expect((await notes.createSignedUrl(path, 60)).error).toEqual(refusal(400, "404"));
    expect((await notes.list(annaId)).data).toEqual([]);
    expect((await notes.upload(`${annaId}/planted`, new Uint8Array(1))).error).toEqual(refusal(400, "403"));
    expect((await notes.upload(path, new Uint8Array(1), { upsert: true })).error).toEqual(refusal(400, "403"));
    expect((await notes.move(path, `${annaId}/gone`)).error).toEqual(refusal(400, "404"));
    expect((await notes.remove([path])).data).toEqual([]);
    expect((await anna.storage.from("notes").exists(path)).data).toBe(true);
  });

  it("is closed to callers without a session or without any key", async () => {
    const { gateway } = there();
    const stranger = createClient(gateway.url, gateway.anonKey, noSession);
    expect((await stranger.storage.from("notes").download(`${annaId}/private`)).error).toEqual(refusal(400, "404"));
    expect((await fetch(`${gateway.url}/storage/v1/object/notes/x`)).status).toBe(400);
    const forged = await fetch(`${gateway.url}/storage/v1/object/notes/x`, {
      headers: { authorization: "Bearer e30.e30.e30" },
    });
    expect(await forged.json()).toMatchObject({ statusCode: "403" });
  });
});

describe("a list", () => {
  it("shows folders and files below a prefix, sorted, in pages", async () => {
    const bucket = service.storage.from("open");
    for (const name of ["a/1", "a/2", "a/deep/3", "b_x", "bx2", "c"]) await bucket.upload(name, new Uint8Array(1));
    const names = async (...given: Parameters<typeof bucket.list>) =>
      (await bucket.list(...given)).data?.map((one) => one.name);
    expect(await names()).toEqual(["a", "b_x", "bx2", "c"]);
    expect(await names("a")).toEqual(["deep", "1", "2"]);
    expect(await names("", { search: "b_" })).toEqual(["b_x"]);
    expect(await names("", { limit: 2, offset: 1 })).toEqual(["b_x", "bx2"]);
    expect(await names("a", { sortBy: { column: "name", order: "desc" } })).toEqual(["deep", "2", "1"]);
    expect((await bucket.list("a")).data?.[0]?.id).toBeNull();
  });
});

describe("links", () => {
  it("signed ones open one object for their time, without a key", async () => {
    const path = `${annaId}/shared`;
    await anna.storage.from("notes").upload(path, new TextEncoder().encode("for you"));
    await anna.storage.from("notes").upload(`${annaId}/not-yet`, new Uint8Array(1));
    const { data } = await anna.storage.from("notes").createSignedUrl(path, 60);
    const url = data?.signedUrl ?? "";
    expect(await (await fetch(url)).text()).toBe("for you");
    expect((await fetch(url.replace("shared", "not-yet"))).status).toBe(400);
    expect((await fetch(url.slice(0, -4))).status).toBe(400);
    const many = await anna.storage.from("notes").createSignedUrls([path, "nothing"], 60);
    expect(many.data?.map((one) => one.error === null)).toEqual([true, false]);
  });

  it("public ones work in public buckets only", async () => {
    await service.storage.from("open").upload("hello.txt", new Blob(["hello"], { type: "text/plain" }));
    const open = service.storage.from("open").getPublicUrl("hello.txt").data.publicUrl;
    expect(await (await fetch(open)).text()).toBe("hello");
    await service.storage.from("notes").upload("inner.txt", new Uint8Array(1));
    const closed = service.storage.from("notes").getPublicUrl("inner.txt").data.publicUrl;
    expect((await fetch(closed)).status).toBe(400);
  });
});

describe("a bucket", () => {
  it("keeps to its size limit and types, and leaves nothing of what it refused", async () => {
    await service.storage.createBucket("small", { public: false, fileSizeLimit: 1000, allowedMimeTypes: ["audio/*"] });
    const small = service.storage.from("small");
    const audio = { contentType: "audio/webm" };
    expect((await small.upload("fits", new Uint8Array(1000), audio)).error).toBeNull();
    expect((await small.upload("long", new Uint8Array(1001), audio)).error).toEqual(refusal(400, "413"));
    const endless = new Blob([new Uint8Array(1001)]).stream(); // says no length
    const before = storedFiles();
    expect((await small.upload("stream", endless, { ...audio, duplex: "half" })).error).toEqual(refusal(400, "413"));
    expect(storedFiles()).toBe(before);
    expect((await small.upload("text", "words", { contentType: "text/plain" })).error).toEqual(refusal(400, "415"));
    expect((await small.list()).data?.map((one) => one.name)).toEqual(["fits"]);
    expect((await small.upload("Grüße", new Uint8Array(1), audio)).error).toEqual(refusal(400, "400"));
  });

  it("is made once, only by the service role, and goes only when it is empty", async () => {
    expect((await anna.storage.createBucket("mine")).error).toEqual(refusal(400, "403"));
    expect((await service.storage.createBucket("notes")).error).toEqual(refusal(400, "409"));
    await service.storage.createBucket("passing");
    await service.storage.from("passing").upload("x", new Uint8Array(1));
    expect((await service.storage.deleteBucket("passing")).error).toEqual(refusal(400, "409"));
    expect((await service.storage.emptyBucket("passing")).error).toBeNull();
    expect((await service.storage.deleteBucket("passing")).error).toBeNull();
    expect((await service.storage.getBucket("passing")).error).toEqual(refusal(400, "404"));
  });

  it("loses no row to plain SQL", async () => {
    const { cluster } = there();
    await expect(query(cluster.url("postgres"), "delete from storage.objects")).rejects.toThrow(/Storage API/);
  });
});

describe("a read-only database", () => {
  it("makes writes answer 503 while downloads go on", async () => {
    const { cluster } = there();
    await service.storage.from("open").upload("before", new Uint8Array([5]));
    const admin = cluster.url("supabase_admin");
    await query(
      admin,
      `create function public.fence() returns trigger language plpgsql as $$
         begin raise exception 'closed' using errcode = '25006'; end $$`,
    );
    await query(
      admin,
      "create trigger fence before insert or update on storage.objects for each statement execute function public.fence()",
    );
    try {
      expect((await service.storage.from("open").upload("after", new Uint8Array(1))).error).toEqual(
        refusal(503, "503"),
      );
      expect((await service.storage.from("open").download("before")).data?.size).toBe(1);
    } finally {
      await query(admin, "drop trigger fence on storage.objects");
    }
  });
});
