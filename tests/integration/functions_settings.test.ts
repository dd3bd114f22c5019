/** A project whose settings are wrong: the run says so, and nothing crashes. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort } from "../../src/local/ports.ts";
import { type Stack, startStack } from "../../src/local/stack.ts";

let stack: Stack;
let postgres: pg.Client;

beforeAll(async () => {
  stack = await startStack({ durable: false, environment: { BACKUP_KEYS: "" } });
  postgres = new pg.Client({ connectionString: stack.cluster.plainUrl() });
  await postgres.connect();
}, 300_000);

afterAll(async () => {
  await postgres?.end();
  await stack?.destroy();
}, 60_000);

async function row(sql: string, values: readonly unknown[] = []): Promise<Record<string, unknown>> {
  return (await postgres.query(sql, [...values])).rows[0] ?? {};
}

describe("a function", () => {
  it("without BACKUP_KEYS fails the run with code and hint, raises an alert, and works on", async () => {
    const { run } = await row("select run from backup.start_backup()");
    const read = () => row("select status, error_code, hint from backup.runs where id = $1", [run]);
    await expect.poll(async () => (await read())["status"], { timeout: 60_000 }).toBe("failed");
    expect(await read()).toMatchObject({ error_code: "key_missing", hint: expect.stringContaining("BACKUP_KEYS") });
    expect(await row("select status, message from backup.alerts where kind = 'backup_failed'")).toMatchObject({
      status: "open",
      message: expect.stringContaining("key_missing"),
    });
    const again = await row("select run from backup.start_backup()");
    expect(again["run"]).not.toBe(run);
    const second = () => row("select error_code from backup.runs where id = $1", [again["run"]]);
    await expect.poll(async () => (await second())["error_code"], { timeout: 60_000 }).toBe("key_missing");
  });

  it("whose secret is another one than Vault's takes no call, and the watchdog says why", async () => {
    const replace =
      "select vault.update_secret(id, repeat('x', 40)) from vault.secrets where name = 'holdfast_worker_secret'";
    await postgres.query(replace);
    const { run } = await row("select run from backup.start_backup()");
    const alert = async () => {
      await postgres.query("select backup.tick()");
      return (await row("select message from backup.alerts where kind = 'call_failed' and status = 'open'"))["message"];
    };
    await expect.poll(alert, { timeout: 60_000 }).toMatch(/HTTP 401.*BACKUP_WORKER_SECRET/);
    expect(await row("select status from backup.runs where id = $1", [run])).toEqual({ status: "queued" });
    await postgres.query("select backup.cancel_run($1)", [run]);
  });

  it("whose address in Vault leads nowhere is not reached, and the watchdog says so", async () => {
    const replace = "select vault.update_secret(id, $1) from vault.secrets where name = 'holdfast_project_url'";
    await postgres.query(replace, [`http://127.0.0.1:${await freePort()}`]);
    const { run } = await row("select run from backup.start_backup()");
    const answer = async () => {
      await postgres.query("select backup.tick()");
      return (await row("select answer from backup.calls where run_id = $1 and status = 'failed'", [run]))["answer"];
    };
    await expect.poll(answer, { timeout: 60_000 }).toMatch(/connect/);
    await postgres.query("select backup.cancel_run($1)", [run]);
  });
});
