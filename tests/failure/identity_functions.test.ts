/** The functions of a project that was copied: what is asked of them over HTTP leaves the original's place in the store alone. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Stack, type StackOptions, startStack } from "../../src/local/stack.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openStore } from "../../src/shared/store/open_store.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { callFunction, signed } from "../access/attack_calls.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { projectOf, stackMs } from "../support/stack.ts";

const ours = "abcdefghijklmnopqrst";
const theirs = "zyxwvutsrqponmlkjihg";
let server: S3Server;
let store: Store;
let options: StackOptions;
let original: Stack;
/** Copies byte for byte, with a backup that both know. */
const copies = { elsewhere: "", beside: "" };
const running: Stack[] = [];

async function start(directory?: string, projectRef = ours): Promise<Stack> {
  const stack = await startStack({ ...options, projectRef, ...(directory === undefined ? {} : { directory }) });
  running.push(stack);
  return stack;
}

beforeAll(async () => {
  server = await startS3Server();
  const address = `s3://${server.bucket}/project?endpoint=${encodeURIComponent(server.endpoint)}`;
  const { accessKeyId: s3AccessKeyId, secretAccessKey: s3SecretAccessKey } = server;
  const deps = { fetch, clock: systemClock, random: webCryptoRandom, log: silentLog };
  store = openStore(address, { s3AccessKeyId, s3SecretAccessKey }, deps);
  options = {
    durable: false,
    stream: false,
    environment: {
      BACKUP_STORE: address,
      AWS_ACCESS_KEY_ID: s3AccessKeyId,
      AWS_SECRET_ACCESS_KEY: s3SecretAccessKey,
    },
  };
  const first = await start();
  await projectOf(first).query("create table public.notes as select i as id from generate_series(1, 100) as i");
  expect(await backUp(first)).toMatchObject({ status: "succeeded", store_prefix: "" });
  await first.stop();
  for (const name of ["elsewhere", "beside"] as const) {
    copies[name] = `${first.directory}-${name}`;
    expect(spawnSync("cp", ["-a", first.directory, copies[name]]).status).toBe(0);
  }
  original = await start(first.directory);
  expect(await backUp(original)).toMatchObject({ status: "succeeded", store_prefix: "" });
}, 2 * stackMs);

afterAll(async () => {
  for (const stack of running.reverse()) await stack.destroy();
  for (const directory of Object.values(copies)) rmSync(directory, { recursive: true, force: true });
  await server?.close();
}, stackMs);

/** A backup as a caller asks for it over HTTP. */
async function backUp(stack: Stack): Promise<Record<string, unknown>> {
  const body = { action: "start", tier: "manual" };
  const told = await callFunction(stack, "backup", { body, headers: signed(stack, "backup", body) });
  expect(told.status, told.text).toBe(202);
  const { run } = told.document;
  await projectOf(stack).ended(String(run));
  const [row] = await projectOf(stack).query(
    "select status, store_prefix, error_message from backup.runs where id = $1",
    [run],
  );
  return row ?? {};
}

/** What lies in the place of the original, byte for byte. */
async function place(): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { name } of store.list("v1/")) {
    found.set(name, createHash("sha256").update(await store.read(name)).digest("hex"));
  }
  return found;
}

const alertsOf = (stack: Stack) =>
  projectOf(stack).query(
    "select severity, message from backup.alerts where kind = 'identity_changed' and status <> 'resolved'",
  );
const isOriginal = async (stack: Stack) =>
  (await projectOf(stack).query("select backup.is_original() as yes"))[0]?.["yes"];

it("in another project write apart from it, and tell", async () => {
  const before = await place();
  const copy = await start(copies.elsewhere, theirs);
  const run = await backUp(copy);
  expect(run).toMatchObject({ status: "succeeded", store_prefix: expect.stringMatching(/^clone-[0-9a-f]{8}$/) });
  expect(await place()).toEqual(before);
  const prefix = String(run["store_prefix"]);
  const own: string[] = [];
  for await (const { name } of store.list(`${prefix}/v1/backups/`)) own.push(name);
  expect(own).toHaveLength(1);
  expect(await isOriginal(copy)).toBe(false);
  const [alert] = await alertsOf(copy);
  expect(alert).toMatchObject({ severity: "critical", message: expect.stringContaining(`runs in ${theirs}`) });
  expect(alert?.["message"]).toContain(`select backup.adopt('${prefix}')`);
  await copy.destroy();
}, stackMs);

it("in the same project, put back to before the last claim, write apart from it until a person adopts", async () => {
  const before = await place();
  const copy = await start(copies.beside);
  const run = await backUp(copy);
  expect(run).toMatchObject({ status: "succeeded", store_prefix: expect.stringMatching(/^clone-[0-9a-f]{8}$/) });
  expect(await place()).toEqual(before);
  const prefix = String(run["store_prefix"]);
  const [alert] = await alertsOf(copy);
  expect(alert).toMatchObject({ severity: "critical", message: expect.stringMatching(/managed restore/) });
  expect(alert?.["message"]).toContain(`select backup.adopt('${prefix}')`);
  expect([await isOriginal(original), await alertsOf(original)]).toEqual([true, []]);
  expect(await backUp(original)).toMatchObject({ status: "succeeded", store_prefix: "" });
  // As after a managed restore: nobody else is alive.
  await original.stop();
  await projectOf(copy).query("select backup.adopt($1)", [prefix]);
  expect(await backUp(copy)).toMatchObject({ status: "succeeded", store_prefix: "" });
  expect([await isOriginal(copy), await alertsOf(copy)]).toEqual([true, []]);
}, stackMs);
