/** Functions that are set up wrongly: each says by code and hint what is missing, no run is left behind as a success. */
import { afterAll, describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/local/child.ts";
import { freePort } from "../../src/local/ports.ts";
import { startTestGateway, type TestGateway } from "../integration/gateway_fixture.ts";
import { query } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { sampled } from "../support/sampled.ts";
import { eventually, type Project, useProject } from "../support/stack.ts";

const otherKey = `${"B".repeat(42)}E`;
let s3: S3Server | undefined;

// The store is not in the project, so that gateways of their own, with other settings, reach the same one.
const project = useProject({}, async ({ query }) => {
  s3 = await startS3Server();
  await query("create table public.letters as select i, md5(i::text) as t from generate_series(1, 500) as i");
});

afterAll(async () => {
  await s3?.close();
});

const vaultUrl = "holdfast_project_url";
const vaultSecret = "holdfast_worker_secret";

async function setVault(name: string, value: string): Promise<void> {
  await project().query("select vault.update_secret(s.id, $2) from vault.secrets as s where s.name = $1", [
    name,
    value,
  ]);
}

/** Does `use` while the project's calls go to functions with these settings beside or in place of the right ones. */
async function withSettings(
  settings: Readonly<Record<string, string>>,
  use: (project: Project, gateway: TestGateway) => Promise<void>,
): Promise<void> {
  if (s3 === undefined) throw new Error("the store is there in tests only");
  const { cluster, gateway: rightGateway, keys, workerSecret } = project().stack;
  const gateway = await startTestGateway(cluster, {
    folder: join(root, "supabase/functions"),
    environment: {
      SUPABASE_DB_URL: cluster.url("postgres"),
      BACKUP_DB_CA: readFileSync(cluster.caFile, "utf8"),
      BACKUP_KEYS: keys,
      BACKUP_WORKER_SECRET: workerSecret,
      BACKUP_STORE: `s3://${s3.bucket}/settings?endpoint=${encodeURIComponent(s3.endpoint)}&region=${s3.region}`,
      BACKUP_S3_ACCESS_KEY_ID: s3.accessKeyId,
      BACKUP_S3_SECRET_ACCESS_KEY: s3.secretAccessKey,
      ...settings,
    },
    readable: [join(root, "src"), join(root, "supabase"), join(root, "node_modules"), cluster.caFile],
  });
  try {
    await setVault(vaultUrl, gateway.url);
    await use(project(), gateway);
  } finally {
    await setVault(vaultUrl, rightGateway.url);
    await gateway.stop();
  }
}

async function openAlerts(kind: string): Promise<Record<string, unknown>[]> {
  return await project().query("select message from backup.alerts where kind = $1 and status = 'open'", [kind]);
}

async function expectSuccess(): Promise<void> {
  await withSettings({}, async (project) => {
    const { run } = await project.startBackup();
    expect(await project.ended(run), await project.story(run)).toMatchObject({ status: "succeeded", error_code: null });
  });
}

describe("a backup through functions", () => {
  it("succeeds with the right settings, so that what follows is the settings' fault", expectSuccess);

  const wrong: readonly [string, Record<string, string>, string, RegExp][] = [
    ["no key", { BACKUP_KEYS: "" }, "key_missing", /BACKUP_KEYS/],
    ["a short key", { BACKUP_KEYS: "local:AAAA" }, "key_malformed", /BACKUP_KEYS/],
    ["another key", { BACKUP_KEYS: `other:${otherKey}` }, "key_wrong", /local/],
    ["another key of the same name", { BACKUP_KEYS: `local:${otherKey}` }, "key_wrong", /local/],
    ["no address of a store that is one", { BACKUP_STORE: "ftp://somewhere" }, "usage", /store/],
    [
      "no credentials of the store",
      { BACKUP_S3_SECRET_ACCESS_KEY: "" },
      "setting_missing",
      /BACKUP_S3_SECRET_ACCESS_KEY/,
    ],
    [
      "wrong credentials of the store",
      { BACKUP_S3_SECRET_ACCESS_KEY: "wrong" },
      "store_denied",
      /SignatureDoesNotMatch/,
    ],
    ["no address of the database", { SUPABASE_DB_URL: "" }, "setting_missing", /SUPABASE_DB_URL/],
  ];
  it.each(sampled("settings", wrong, 4, ([, settings, code]) => [`${code} ${Object.keys(settings).join()}`]))(
    "fails by name with %s, and the next one succeeds",
    async (_name, settings, code, message) => {
      await withSettings(settings, async (project) => {
        const { run } = await project.startBackup();
        const ended = await project.ended(run);
        expect(ended, await project.story(run)).toMatchObject({
          status: "failed",
          error_code: code,
          manifest_name: null,
        });
        expect(`${ended.error_message} ${ended.hint}`).toMatch(message);
        expect(await openAlerts("backup_failed")).toEqual([{ message: expect.stringContaining(code) }]);
      });
      await expectSuccess();
    },
  );

  it("without a key says so in the run's hint, by itself, and the next run is another one that says so too", async () => {
    await withSettings({ BACKUP_KEYS: "" }, async (project) => {
      const runs: string[] = [];
      for (let nth = 1; nth <= 2; nth++) {
        const { run } = await project.startBackup();
        runs.push(run);
        // The watchdog is not called here: the function itself writes down why it cannot work.
        const failed = await eventually("the run fails", async () => {
          const now = await project.run(run);
          return now.status === "failed" ? now : null;
        });
        expect(failed).toMatchObject({ error_code: "key_missing", hint: expect.stringContaining("BACKUP_KEYS") });
      }
      expect(new Set(runs).size).toBe(2);
    });
    await expectSuccess();
  });

  const anotherSecret = "another-secret-of-more-than-32-letters";
  it.each([["the functions have", "functions"], ["Vault has", "vault"]])(
    "where %s another worker secret is not begun: an alert says so, and the watchdog goes on once it is right",
    async (_name, place) => {
      let run = "";
      if (place === "vault") await setVault(vaultSecret, anotherSecret);
      try {
        await withSettings(place === "vault" ? {} : { BACKUP_WORKER_SECRET: anotherSecret }, async (project) => {
          ({ run } = await project.startBackup());
          const [alert] = await eventually("the alert", async () => {
            await project.query("select backup.tick()");
            const rows = await openAlerts("call_failed");
            return rows.length > 0 ? rows : null;
          });
          expect(alert?.["message"]).toMatch(/HTTP 401.*BACKUP_WORKER_SECRET/);
          expect(await project.run(run)).toMatchObject({ status: "queued", attempt: 0 });
        });
      } finally {
        await setVault(vaultSecret, project().stack.workerSecret);
      }
      await withSettings({}, async (project) => {
        expect(await project.ended(run), await project.story(run)).toMatchObject({ status: "succeeded" });
      });
    },
  );

  it("whose address in Vault leads nowhere is not begun: the call says so, and it can be cancelled", async () => {
    const { gateway } = project().stack;
    await setVault(vaultUrl, `http://127.0.0.1:${await freePort()}`);
    try {
      const { run } = await project().startBackup();
      const [call] = await eventually("the call fails", async () => {
        await project().query("select backup.tick()");
        const rows = await project().query(
          "select answer from backup.calls where run_id = $1 and status = 'failed'",
          [run],
        );
        return rows.length > 0 ? rows : null;
      });
      expect(call?.["answer"]).toMatch(/connect/);
      await project().query("select backup.cancel_run($1)", [run]);
      expect(await project().run(run)).toMatchObject({ status: "cancelled" });
    } finally {
      await setVault(vaultUrl, gateway.url);
    }
    await expectSuccess();
  });

  it.each([vaultUrl, vaultSecret])("fails at once, with what to do, when Vault has no %s", async (name) => {
    const [kept] = await project().query(
      "select decrypted_secret as value from vault.decrypted_secrets where name = $1",
      [name],
    );
    await project().query("delete from vault.secrets where name = $1", [name]);
    try {
      const { run, status } = await project().startBackup();
      expect(status).toBe("failed");
      const ended = await project().run(run);
      expect(ended).toMatchObject({ error_code: "setting_missing" });
      expect(`${ended.error_message} ${ended.hint}`).toContain(name);
    } finally {
      await project().query("select vault.create_secret($1, $2)", [kept?.["value"], name]);
    }
    await expectSuccess();
  });

  it("whose role may not read a table fails with the table's name, and succeeds once it may", async () => {
    const { cluster } = project().stack;
    const superuser = cluster.url(cluster.superuser);
    await query(
      superuser,
      `create table public.locked_away as select 1 as i;
       grant select on all tables in schema auth, storage to postgres;
       revoke pg_read_all_data from postgres`,
    );
    try {
      const { run } = await project().startBackup();
      const ended = await project().ended(run);
      expect(ended, await project().story(run)).toMatchObject({ status: "failed", error_code: "table_unreadable" });
      expect(ended.error_message).toContain("locked_away");
      expect(ended.hint).toMatch(/grant select/i);
      await query(superuser, "grant select on public.locked_away to postgres");
      const { run: next } = await project().startBackup();
      expect(await project().ended(next), await project().story(next)).toMatchObject({ status: "succeeded" });
    } finally {
      await query(superuser, "grant pg_read_all_data to postgres; drop table public.locked_away");
    }
  });
});
