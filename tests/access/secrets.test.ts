/**
 * Where secrets must never come to: while everything is done that works with them, and fails in every way, arguments of processes,
 * logs, answers, queues, tables, dumps and stores are searched for each of them, in every spelling.
 */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { root } from "../../src/local/child.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { type CliResult, startCli } from "../integration/cli_fixture.ts";
import { startTestGateway } from "../integration/gateway_fixture.ts";
import { freshDatabase, query } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { sampled } from "../support/sampled.ts";
import { eventually, type Project, projectOf } from "../support/stack.ts";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { callFunction, signed } from "./attack_calls.ts";
import { type Found, lookIn, needlesOf, type Secrets } from "./secret_forms.ts";
import { watchDatabase, type Watched, watchProcesses } from "./secret_watch.ts";

let s3: S3Server;
let stack: Stack;
let project: Project;
let secrets: Secrets;
let settings: Record<string, string>;
let logBegins = 0;
/** What the CLI said, and the answers of functions, by what was asked. */
const said: [string, string][] = [];
const journals: string[] = [];

/** Of channels of alerts, behind which nobody is: every message fails, and that is said in every place. */
const ofChannels = {
  "the mail server's password": "mail-password-9f8e7d6c5b4a",
  "the mail API's key": "re_mail_api_key_1a2b3c4d5e6f",
  "the chat's address": "chatT0B0secret7a7b7c7d7e7f",
  "the webhook's secret": Buffer.from("a webhook secret of 32 letters!!").toString("base64"),
  "the watcher's address": "watcher-5f5e5d5c5b5a5958",
};
const channels = {
  BACKUP_SMTP_URL: `smtps://holdfast:${ofChannels["the mail server's password"]}@127.0.0.1:9`,
  BACKUP_MAIL_API_URL: "http://127.0.0.1:9/emails",
  BACKUP_MAIL_API_KEY: ofChannels["the mail API's key"],
  BACKUP_SLACK_URL: `http://127.0.0.1:9/services/${ofChannels["the chat's address"]}`,
  BACKUP_WEBHOOK_URL: "http://127.0.0.1:9/hook",
  BACKUP_WEBHOOK_SECRET: `whsec_${ofChannels["the webhook's secret"]}`,
  BACKUP_HEARTBEAT_URL: `http://127.0.0.1:9/${ofChannels["the watcher's address"]}`,
  BACKUP_PRIVATE_CHANNELS: "1",
};

beforeAll(async () => {
  s3 = await startS3Server();
  const store = {
    BACKUP_STORE: `s3://${s3.bucket}/secrets?endpoint=${encodeURIComponent(s3.endpoint)}&region=${s3.region}`,
    BACKUP_S3_ACCESS_KEY_ID: s3.accessKeyId,
    BACKUP_S3_SECRET_ACCESS_KEY: s3.secretAccessKey,
  };
  stack = await startStack({
    durable: false,
    stream: false,
    environment: { ...store, ...channels, BACKUP_LOG_LEVEL: "debug" },
  });
  project = projectOf(stack);
  journals.push(stack.journalFile);
  secrets = {
    "the key of BACKUP_KEYS": stack.keys.split(":")[1] ?? "",
    "the worker secret": stack.workerSecret,
    "the store's secret": s3.secretAccessKey,
    "the database's password": stack.cluster.password("postgres"),
    "the service role's key": stack.gateway.serviceRoleKey,
    "the secret key": stack.gateway.secretKey,
    ...ofChannels,
  };
  settings = {
    ...store,
    ...channels,
    BACKUP_DB_URL: stack.cluster.url("postgres"),
    BACKUP_KEYS: stack.keys,
    BACKUP_WORKER_SECRET: stack.workerSecret,
    BACKUP_PROJECT_URL: stack.gateway.url,
    SUPABASE_URL: stack.gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.gateway.serviceRoleKey,
  };
  await project.query(
    "update backup.settings set value = case name when 'mail_to' then 'ops@example.org' else 'backups@example.org' end where name in ('mail_to', 'mail_from')",
  );
  await project.query(
    `create table public.notes (id int primary key, text text);
     insert into public.notes select i, 'note ' || i from generate_series(1, 200) as i`,
  );
  // The most talkative server: every statement with its parameters, from here on.
  logBegins = statSync(stack.cluster.logFile).size;
  await asOwner("alter system set log_statement = 'all'");
  await asOwner("alter system set log_min_duration_statement = 0");
  await asOwner("alter system set log_parameter_max_length_on_error = -1");
  await asOwner("alter system set log_connections = on");
  await asOwner("select pg_reload_conf()");
}, 300_000);

afterAll(async () => {
  await stack?.destroy();
  await s3?.close();
}, 60_000);

const asOwner = (text: string) => query(stack.cluster.plainUrl("supabase_admin"), text);

async function tell(args: readonly string[], given: Readonly<Record<string, string>> = settings): Promise<CliResult> {
  const result = await startCli(args, given).result;
  said.push([args.join(" "), `${result.stdout}\n${result.stderr}`]);
  return result;
}

async function machine(name: string, body: Readonly<Record<string, unknown>>) {
  const told = await callFunction(stack, name, { body, headers: signed(stack, name, body) });
  said.push([`${name}: ${JSON.stringify(body)}`, JSON.stringify(told)]);
  return told;
}

/** Does the work while processes and database are watched; both have looked often, at what they had to see. */
async function watched(work: () => Promise<void>, programs: readonly string[]): Promise<void> {
  const processes = await watchProcesses(secrets);
  const database = await watchDatabase(stack.cluster.plainUrl("supabase_admin"), secrets);
  let seen: readonly Watched[] = [];
  try {
    await work();
  } finally {
    seen = [await processes.end(), await database.end()];
  }
  const [arguments_, tables] = seen as [Watched, Watched];
  expect(arguments_.found).toEqual([]);
  expect(tables.found).toEqual([]);
  expect(arguments_.looks).toBeGreaterThan(100);
  expect(arguments_.seen).toEqual(expect.arrayContaining([...programs]));
  expect(tables.looks).toBeGreaterThan(50);
}

const ended = async (run: unknown) => {
  const told = await project.ended(String(run));
  expect(told, await project.story(String(run))).toMatchObject({ status: "succeeded" });
};

describe("while everything is done, no secret is in an argument, a statement, a queue or an answer", () => {
  it("through the functions: a backup, the stream, a verification, an anchor, restores", async () => {
    await watched(async () => {
      const begun = await machine("backup", { action: "start", tier: "daily" });
      await ended(begun.document["run"]);
      await machine("backup", { action: "status", run: begun.document["run"] });
      for (let time = 0; time < 2; time++) {
        await project.query("insert into public.notes values (1000 + $1, 'later')", [time]);
        await machine("backup", { action: "drain" });
        await eventually("a drain has ended", async () => {
          const [row] = await project.query(
            "select count(*)::int as n from backup.calls where function_name = 'backup' and status = 'begun'",
          );
          return row?.["n"] === 0 ? row : null;
        }, 60_000);
      }
      await machine("backup", { action: "anchor" });
      const { document: tried } = await machine("notify", { action: "test" });
      await eventually("every channel was tried", async () => {
        const rows = await project.query(
          "select failure from backup.deliveries where notice_id = $1 and status = 'failed'",
          [
            tried["notice"],
          ],
        );
        return rows.length === 5 ? rows : null;
      }, 60_000);
      // By pg_net, whose queue shows what waits.
      await project.query("select backup.invoke('backup', '{\"action\": \"anchor\"}')");
      const verification = await machine("verify", { action: "start", id: begun.document["run"] });
      await ended(verification.document["run"]);
      const plan = await machine("restore", {
        action: "plan",
        scope: "table",
        table: "public.notes",
        backup: begun.document["run"],
      });
      const outline = await machine("restore", { action: "full", backup: begun.document["run"] });
      const full = await machine("restore", {
        action: "full",
        backup: begun.document["run"],
        confirm: outline.document["database"],
      });
      for (const { document } of [plan, full]) {
        const told = await eventually("the restore", async () => {
          await project.query("select backup.tick()");
          const { document: now } = await machine("restore", { action: "status", restore: document["restore"] });
          return ["beside", "succeeded", "failed"].includes(String(now["status"])) ? now : null;
        }, 120_000);
        expect(told["error"], JSON.stringify(told)).toBeNull();
      }
    }, ["isolate_bootstrap.ts", "main.ts"]);
  }, 400_000);

  it("through the CLI: every command that works with them, for people and as documents", async () => {
    const target = await freshDatabase(stack.cluster, { platform: false });
    const into = { ...settings, BACKUP_TARGET_DB_URL: stack.cluster.url("supabase_admin", target) };
    const { BACKUP_PROJECT_URL: _, ...direct } = settings;
    await watched(async () => {
      for (
        const [args, given] of [
          [["init"], settings],
          [["create", "--wait"], settings],
          [["create"], direct],
          [["list"], settings],
          [["status"], settings],
          [["timeline"], direct],
          [["verify", "latest"], direct],
          [["doctor"], settings],
          [["keys", "list"], direct],
          [["admins", "list"], settings],
          [["audit", "verify"], direct],
          [["restore-table", "public.notes", "latest", "--apply", "missing", "--dry-run"], direct],
          [["restore-full", "latest", "--yes"], into],
          [["validate", "latest"], into],
        ] as const
      ) {
        for (const [nth, form] of sampled(args.join(" "), [[], ["--json"]], 1).entries()) {
          const { exit, stdout, stderr } = await tell([...args, ...form], given);
          // A second restore into the same database is refused; that is said too.
          if (args[0] !== "restore-full" || nth === 0) {
            expect([0, 3], `${args.join(" ")}: ${stdout}${stderr}`).toContain(exit);
          }
        }
      }
      for (const form of [[], ["--json"]]) {
        const { exit, stdout } = await tell(["alerts", "test", ...form]);
        expect(exit, stdout).toBe(1);
        expect((await tell(["alerts", "deliver", ...form])).exit).toBeLessThan(2);
        expect((await tell(["alerts", "list", ...form])).exit).toBe(0);
      }
    }, ["holdfast.mjs", "main.ts"]);
  }, 400_000);
});

describe("where it fails", () => {
  it("no command repeats a secret that stands in the wrong place, or is wrong", async () => {
    const names = ["BACKUP_DB_URL", "BACKUP_STORE", "BACKUP_KEYS", "BACKUP_PROJECT_URL"];
    const misplaced = Object.entries(secrets).filter(([what]) => !what.includes("role"));
    const password = secrets["the database's password"] ?? "";
    const key = secrets["the key of BACKUP_KEYS"] ?? "";
    const s3Secret = secrets["the store's secret"] ?? "";
    const { host, port } = stack.cluster;
    const crooked: Record<string, string>[] = [
      { BACKUP_DB_URL: `postgresql://postgres:${password}x@${host}:${port}/postgres` },
      { BACKUP_DB_URL: `postgresql://postgres:${password}@${host}:${port}/not_there` },
      { BACKUP_DB_URL: `postgresql://postgres:${password}@${host}:1/postgres` },
      { BACKUP_DB_URL: `postgresql://postgres:${password}@${host}:port/postgres` },
      { BACKUP_DB_URL: `postgresql://postgres:${password}@[${host}/postgres` },
      { BACKUP_DB_URL: `postgresql://${password}:%zz@${host}:${port}/postgres` },
      { BACKUP_DB_URL: `postgresql://postgres@${host}:${port}/postgres?password=${password}&sslmode=no-verify` },
      { BACKUP_DB_URL: `mysql://postgres:${password}@${host}/x` },
      { BACKUP_KEYS: `local:${key}!` },
      { BACKUP_KEYS: `local:${key.slice(0, -2)}` },
      { BACKUP_KEYS: `${key}:local` },
      { BACKUP_KEYS: `local:${key},local:${key}` },
      { BACKUP_KEYS: `other:${key}` },
      { BACKUP_STORE: `s3://AKIA:${encodeURIComponent(s3Secret)}@${s3.bucket}/x` },
      { BACKUP_STORE: `s3://${s3.bucket}/x?endpoint=${encodeURIComponent(`http://a:${s3Secret}@127.0.0.1:1`)}` },
      { BACKUP_STORE: `s3://${s3.bucket}/x?secret=${encodeURIComponent(s3Secret)}` },
      { BACKUP_S3_SECRET_ACCESS_KEY: `${s3Secret}x` },
      { BACKUP_S3_SECRET_ACCESS_KEY: `${s3Secret}\nx` },
      { BACKUP_WORKER_SECRET: `${stack.workerSecret}x` },
      { BACKUP_WORKER_SECRET: stack.workerSecret.slice(0, 20) },
    ];
    await watched(async () => {
      const wrongPlace = names.flatMap((name) => misplaced.map(([, secret]) => ({ [name]: secret })));
      const left = [...sampled("wrong place", wrongPlace, 6, (one) => Object.keys(one)), ...crooked].entries();
      // Each has to look at database, store, keys and project, and says of each what is wrong.
      await Promise.all(Array.from({ length: 4 }, async () => {
        for (const [nth, settled] of left) {
          await tell(nth % 2 === 0 ? ["doctor", "--json"] : ["doctor"], { ...settings, ...settled });
        }
      }));
    }, ["holdfast.mjs"]);
    expect(said.length).toBeGreaterThan(20);
  }, 500_000);

  it("no function writes one down, into a log, a run or an alert", async () => {
    const right = {
      SUPABASE_DB_URL: stack.cluster.url("postgres"),
      BACKUP_DB_CA: readFileSync(stack.cluster.caFile, "utf8"),
      BACKUP_KEYS: stack.keys,
      BACKUP_WORKER_SECRET: stack.workerSecret,
      BACKUP_LOG_LEVEL: "debug",
      BACKUP_STORE: settings["BACKUP_STORE"] ?? "",
      BACKUP_S3_ACCESS_KEY_ID: s3.accessKeyId,
      BACKUP_S3_SECRET_ACCESS_KEY: s3.secretAccessKey,
    };
    const wrong: Record<string, string>[] = [
      { BACKUP_KEYS: `local:${stack.keys.split(":")[1]}!` },
      { BACKUP_KEYS: stack.workerSecret },
      { BACKUP_S3_SECRET_ACCESS_KEY: `${s3.secretAccessKey}x` },
      { BACKUP_STORE: `s3://AKIA:${encodeURIComponent(s3.secretAccessKey)}@${s3.bucket}/x` },
      { BACKUP_STORE: settings["BACKUP_STORE"]?.replace(s3.bucket, "not-there") ?? "" },
      { SUPABASE_DB_URL: `not-${right.SUPABASE_DB_URL}` },
      { SUPABASE_DB_URL: right.SUPABASE_DB_URL.replace("@", "x@") },
    ];
    const setUrl = (url: string) =>
      project.query(
        "select vault.update_secret(s.id, $1) from vault.secrets as s where s.name = 'holdfast_project_url'",
        [url],
      );
    await watched(async () => {
      for (const settled of sampled("wrong", wrong, 3, (one) => Object.keys(one))) {
        const gateway = await startTestGateway(stack.cluster, {
          folder: join(root, "supabase/functions"),
          environment: { ...right, ...settled },
          readable: [join(root, "src"), join(root, "supabase"), join(root, "node_modules"), stack.cluster.caFile],
        });
        try {
          await setUrl(gateway.url);
          const { run } = await project.startBackup();
          const body = { action: "status", run };
          const elsewhere = { ...stack, gateway } as Stack;
          await eventually("the functions have answered", async () => {
            const told = await callFunction(elsewhere, "backup", { body, headers: signed(stack, "backup", body) });
            said.push([`backup with ${Object.keys(settled)}`, JSON.stringify(told)]);
            await project.query("select backup.tick()");
            return told.status >= 400 || told.document["status"] === "failed" ? told : null;
          }, 60_000);
          await callFunction(elsewhere, "backup", {
            body: { action: "drain" },
            headers: signed(stack, "backup", { action: "drain" }),
          });
          await project.query("select backup.cancel_run($1)", [run]).catch(() => []);
          said.push(["a journal", existsSync(gateway.journalFile) ? readFileSync(gateway.journalFile, "utf8") : ""]);
        } finally {
          await setUrl(stack.gateway.url);
          await gateway.stop();
        }
      }
    }, ["isolate_bootstrap.ts"]);
  }, 400_000);
});

/** What the server has logged since it was made talkative. */
function serverLog(): string {
  const file = stack.cluster.logFile;
  const bytes = Buffer.alloc(statSync(file).size - logBegins);
  const handle = openSync(file, "r");
  readSync(handle, bytes, 0, bytes.length, logBegins);
  closeSync(handle);
  return bytes.toString("utf8");
}

function dump(database: string): string {
  return execFileSync(join(stack.cluster.bin, "pg_dump"), ["--inserts"], {
    encoding: "utf8",
    maxBuffer: 512 * 1024 * 1024,
    env: { ...stack.cluster.environment("supabase_admin", database), PATH: process.env["PATH"] ?? "" },
  });
}

async function databases(): Promise<string[]> {
  return (await asOwner("select datname from pg_database where not datistemplate order by 1")).map((row) =>
    String(row["datname"])
  );
}

describe("afterwards no secret is", () => {
  const needles = () => needlesOf(secrets);

  it("in anything that a command, a function or a server has said or logged", () => {
    const found: Found[] = said.flatMap(([what, text]) => lookIn(what, text, needles()));
    for (const file of journals) found.push(...lookIn("the functions' log", readFileSync(file), needles()));
    found.push(...lookIn("the server's log", serverLog(), needles()));
    expect(found).toEqual([]);
    expect(serverLog()).toContain("backup.accept_call");
    expect(readFileSync(stack.journalFile, "utf8")).toContain("chunk.put");
  });

  it(
    "in a dump of the database or of one that was restored: not the keys of the backups, and the worker secret in Vault alone",
    async () => {
      const names = await databases();
      expect(names.some((name) => name.startsWith("postgres_at_"))).toBe(true);
      for (const name of names) {
        const text = dump(name);
        expect(lookIn(`a dump of ${name}`, text, needles()), name).toEqual([]);
        if (name === "postgres") {
          expect(text).toMatch(/INSERT INTO backup\.runs/);
          expect(text).toMatch(/INSERT INTO cron\.job_run_details|INSERT INTO cron\.job/);
          expect(text).toMatch(/INSERT INTO vault\.secrets/);
        }
      }
      const [row] = await project.query(
        "select decrypted_secret as value from vault.decrypted_secrets where name = 'holdfast_worker_secret'",
      );
      expect(row?.["value"], "where it has to be").toBe(stack.workerSecret);
    },
    120_000,
  );

  it("in an object or a name of the store", async () => {
    const store = createS3Store({
      endpoint: s3.endpoint,
      region: s3.region,
      bucket: s3.bucket,
      prefix: "",
      accessKeyId: s3.accessKeyId,
      secretAccessKey: s3.secretAccessKey,
    }, { fetch: (url, init) => fetch(url, init), clock: systemClock });
    let objects = 0;
    for await (const { name } of store.list("")) {
      objects++;
      expect([...lookIn(`the name ${name}`, name, needles()), ...lookIn(name, await store.read(name), needles())])
        .toEqual([]);
    }
    expect(objects).toBeGreaterThan(10);
  }, 60_000);
});

describe("the search itself finds one that was planted", () => {
  const secret = () => secrets["the worker secret"] ?? "";

  it("in an argument, whatever its form", async () => {
    const watch = await watchProcesses(secrets);
    const forms = [secret(), Buffer.from(secret()).toString("hex"), Buffer.from(`user:${secret()}`).toString("base64")];
    const children = forms.map((form) => spawn(process.execPath, ["-e", "setTimeout(() => {}, 20_000)", form]));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    for (const child of children) child.kill("SIGKILL");
    const { found } = await watch.end();
    expect(new Set(found.map(({ place }) => place)).size).toBe(3);
  }, 60_000);

  it("in a statement, a queue, a table, a dump, a log", async () => {
    const watch = await watchDatabase(stack.cluster.plainUrl("supabase_admin"), secrets);
    await project.query(
      "select net.http_post('http://127.0.0.1:9', jsonb_build_object('a', encode(convert_to($1, 'UTF8'), 'base64')))",
      [secret()],
    );
    await project.query(`select pg_sleep(0.3), '${secret()}'`);
    await project.query("select backup.raise_alert('planted', 'here', $1)", [`secret ${secret()}`]);
    const { found } = await watch.end();
    const places = new Set(found.map(({ place }) => place));
    expect([...places].filter((place) => place.startsWith("pg_stat_activity.query"))).not.toEqual([]);
    expect(lookIn("dump", dump("postgres"), needlesOf(secrets))).not.toEqual([]);
    expect(lookIn("log", serverLog(), needlesOf(secrets))).not.toEqual([]);
  }, 60_000);

  it("in text, in every form that it looks for", () => {
    for (const [name, value] of Object.entries(secrets)) {
      for (
        const form of [
          value,
          `Basic ${Buffer.from(`x:${value}`).toString("base64")}`,
          `Basic ${Buffer.from(`xy:${value}yz`).toString("base64")}`,
          `Basic ${Buffer.from(`xyz:${value}y`).toString("base64url")}`,
          Buffer.from(value).toString("hex").toUpperCase(),
          encodeURIComponent(value),
          JSON.stringify({ value }),
        ]
      ) {
        expect(lookIn("text", `before ${form} behind`, needlesOf({ [name]: value })).length, form.slice(0, 12))
          .toBeGreaterThan(0);
      }
      expect(lookIn("text", "nothing of it", needlesOf({ [name]: value }))).toEqual([]);
    }
  });
});
