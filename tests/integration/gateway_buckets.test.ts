/** Our buckets behind Storage: closed whatever policies the project has, and open to the service role. */
import { Buffer } from "node:buffer";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { beforeAll, describe, expect, it } from "vitest";
import { query, withClient } from "../support/cluster.ts";
import { noSession, useGateway } from "./gateway_fixture.ts";

const there = useGateway({ prepared: "installed" });
let service: SupabaseClient;
const people: Record<string, SupabaseClient> = {};
const bytes = Buffer.from("sealed");
const ours = "holdfast-backups";

beforeAll(async () => {
  const { gateway, cluster } = there();
  service = createClient(gateway.url, gateway.secretKey, noSession);
  await service.auth.admin.createUser({ email: "a@b.example", password: "a good password", email_confirm: true });
  people["anon"] = createClient(gateway.url, gateway.publishableKey, noSession);
  const signedIn = createClient(gateway.url, gateway.publishableKey, noSession);
  expect((await signedIn.auth.signInWithPassword({ email: "a@b.example", password: "a good password" })).error)
    .toBeNull();
  people["authenticated"] = signedIn;
  for (const bucket of [ours, "pictures"]) {
    expect((await service.storage.createBucket(bucket, { public: false })).error).toBeNull();
    expect((await service.storage.from(bucket).upload("v1/keys/one", bytes)).error).toBeNull();
  }
  // The widest that a project can do, under every name of a role.
  for (const table of ["storage.objects", "storage.buckets"]) {
    await query(
      cluster.plainUrl(),
      `create policy everything on ${table} for all to anon, authenticated using (true) with check (true);
       create policy everybody on ${table} for all to public using (true) with check (true)`,
    );
  }
}, 180_000);

describe.each(["anon", "authenticated"])("%s, to whom a policy opens every bucket", (name) => {
  const from = (bucket: string) => {
    const client = people[name];
    if (client === undefined) throw new Error("not signed in");
    return client.storage.from(bucket);
  };

  it("reads and writes the project's own", async () => {
    expect((await from("pictures").download("v1/keys/one")).error).toBeNull();
    expect((await from("pictures").upload(`${name}.txt`, bytes)).error).toBeNull();
    expect((await from("pictures").list()).data?.map((one) => one.name)).toContain(`${name}.txt`);
  });

  it("sees nothing of ours, and neither writes, moves, copies, signs nor removes", async () => {
    expect((await from(ours).list("v1/keys")).data ?? []).toEqual([]);
    expect((await from(ours).download("v1/keys/one")).error).not.toBeNull();
    expect((await from(ours).createSignedUrl("v1/keys/one", 60)).error).not.toBeNull();
    expect((await from(ours).upload(`v1/keys/${name}`, bytes)).error).not.toBeNull();
    expect((await from(ours).upload("v1/keys/one", Buffer.from("other"), { upsert: true })).error).not.toBeNull();
    expect((await from(ours).move("v1/keys/one", "v1/keys/two")).error).not.toBeNull();
    expect((await from(ours).copy("v1/keys/one", "out.txt", { destinationBucket: "pictures" })).error).not.toBeNull();
    expect((await from("pictures").copy("v1/keys/one", "in", { destinationBucket: ours })).error).not.toBeNull();
    expect((await from(ours).remove(["v1/keys/one"])).data ?? []).toEqual([]);
    expect((await people[name]?.storage.getBucket(ours))?.error).not.toBeNull();
    expect((await people[name]?.storage.listBuckets())?.data?.map((one) => one.id)).toEqual(["pictures"]);
    const kept = await service.storage.from(ours).download("v1/keys/one");
    expect(await kept.data?.text()).toBe("sealed");
  });

  it("sees nothing of ours by SQL either", async () => {
    await withClient(there().cluster.plainUrl(), async (client) => {
      const rows = async (text: string) => (await client.query(text)).rowCount;
      await client.query(`begin; set local role ${name}`);
      expect(await rows("select from storage.objects where bucket_id = 'pictures'")).toBeGreaterThan(0);
      expect(await rows(`select from storage.objects where bucket_id = '${ours}'`)).toBe(0);
      expect(await rows(`update storage.objects set name = 'x' where bucket_id = '${ours}'`)).toBe(0);
      expect(await rows(`select from storage.buckets where id = '${ours}'`)).toBe(0);
      const into = `update storage.objects set bucket_id = '${ours}' where bucket_id = 'pictures'`;
      await expect(client.query(into)).rejects.toMatchObject({ code: "42501" });
      await client.query("rollback");
    });
  });
});

describe("the service role", () => {
  it("goes on in our buckets: lists, reads, writes, removes", async () => {
    const files = service.storage.from(ours);
    expect((await files.upload("v1/keys/two", bytes)).error).toBeNull();
    expect((await files.list("v1/keys")).data?.map((one) => one.name).sort()).toEqual(["one", "two"]);
    expect((await files.createSignedUrl("v1/keys/two", 60)).error).toBeNull();
    expect((await files.remove(["v1/keys/two"])).data).toHaveLength(1);
  });
});

describe("a bucket that `init` was told of", () => {
  it("is ours from then on", async () => {
    const client = people["authenticated"];
    const seen = async () => (await client?.storage.from("pictures").list())?.data?.length ?? 0;
    expect(await seen()).toBeGreaterThan(0);
    await query(there().cluster.plainUrl(), "select backup.use_bucket('pictures')");
    expect(await seen()).toBe(0);
    expect(
      await query(there().cluster.plainUrl(), "select action from backup.audit_log where subject = 'setting:buckets'"),
    )
      .toEqual([{ action: "setting.changed" }]);
  });
});
