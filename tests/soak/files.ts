/**
 * `npm run soak:files -- --megabytes 5000`: one file as large as Storage takes, backed up by the functions under the platform's limits,
 * verified, deleted, put back by the CLI, and compared byte for byte by its hash. Some three times its size is needed on the disk. Exit 0
 * only if every byte is right and no leg was above the limits.
 */
import { createCipheriv, createHash } from "node:crypto";
import process from "node:process";
import { parseArgs } from "node:util";
import { runProgram } from "../../src/local/child.ts";
import { holdfast } from "../../src/local/demo/holdfast.ts";
import { newDirectory } from "../../src/local/directories.ts";
import type { IsolateRecord } from "../../src/local/gateway/isolate.ts";
import { startStack } from "../../src/local/stack.ts";

const { values } = parseArgs({ options: { megabytes: { type: "string", default: "5000" } } });
const bytes = Number(values.megabytes) * 1_000_000 + 1;
const say = (line: string) => process.stdout.write(`${line}\n`);
const piece = 1024 * 1024;

/** Noise that nothing compresses and no part of which comes twice, the same each time: each block of it is the one before, encrypted. */
function* noise(): Generator<Uint8Array> {
  const cipher = createCipheriv("aes-256-cbc", new Uint8Array(32).fill(7), new Uint8Array(16));
  for (let left = bytes; left > 0; left -= piece) {
    const some: Uint8Array = cipher.update(new Uint8Array(piece));
    yield some.subarray(0, Math.min(piece, left));
  }
}

function expected(): string {
  const hash = createHash("sha256");
  for (const part of noise()) hash.update(part);
  return hash.digest("hex");
}

const stack = await startStack({ directory: newDirectory("stacks", true), durable: false, stream: false, log: say });
try {
  const { cluster, gateway, keys } = stack;
  const sql = async (text: string) => {
    const args = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text];
    return (await runProgram(`${cluster.bin}/psql`, args, cluster.environment("postgres"))).trim();
  };
  const headers = { apikey: gateway.serviceRoleKey, authorization: `Bearer ${gateway.serviceRoleKey}` };
  const send = async (path: string, init: RequestInit & { readonly duplex?: "half" }) => {
    const answer = await fetch(`${gateway.url}/storage/v1${path}`, {
      ...init,
      headers: { ...headers, ...init.headers },
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer;
  };
  const asJson = { "content-type": "application/json" };
  await send("/bucket", {
    method: "POST",
    headers: asJson,
    body: JSON.stringify({ id: "large", name: "large", public: false, file_size_limit: bytes }),
  });
  const source = noise();
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const { done, value } = source.next();
      if (done === true) controller.close();
      else controller.enqueue(value);
    },
  });
  await send("/object/large/one", {
    method: "POST",
    headers: { "content-type": "audio/webm", "content-length": String(bytes) },
    body,
    duplex: "half",
  });
  say(`a file of ${bytes} bytes is in Storage`);

  const began = performance.now();
  const run = await sql("select run from backup.start_backup('manual')");
  for (;;) {
    const [status = "", told = ""] =
      (await sql(`select status, concat_ws(': ', error_code, error_message) from backup.runs where id = '${run}'`))
        .split("|");
    if (status === "succeeded") break;
    if (status === "failed") throw new Error(`the run failed: ${told}`);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  const answer = await fetch(`${gateway.url}/__metrics`);
  const { ended, running } = await answer.json() as { ended: IsolateRecord[]; running: IsolateRecord[] };
  const legs = [...ended, ...running].filter(({ function: name, cpuMs }) => name === "backup" && cpuMs > 0)
    .flatMap(({ uses }) => uses);
  const [cpuMs, peakBytes] = [
    Math.max(...legs.map((leg) => leg.cpuMs)),
    Math.max(...legs.map((leg) => leg.peakBytes)),
  ];
  say(
    `backed up in ${
      ((performance.now() - began) / 1000).toFixed(0)
    } s by ${legs.length} calls; at most ${cpuMs} ms of CPU, ${(peakBytes / 1e6).toFixed(0)} MB`,
  );
  const settings = {
    BACKUP_DB_URL: cluster.url("postgres"),
    BACKUP_DB_CA: cluster.caFile,
    BACKUP_KEYS: keys,
    BACKUP_STORE: "supabase://holdfast-backups",
    SUPABASE_URL: gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: gateway.serviceRoleKey,
  };
  const verified = await holdfast(["verify", run], settings);
  say(`verified: ${verified["objects"]} objects`);
  await send("/object/large", { method: "DELETE", headers: asJson, body: JSON.stringify({ prefixes: ["one"] }) });
  await holdfast(["restore-file", "large/", run, "--apply", "missing", "--yes"], settings);
  const back = createHash("sha256");
  for await (const part of (await send("/object/large/one", { method: "GET" })).body ?? []) back.update(part);
  const problems = [
    ...back.digest("hex") === expected() ? [] : ["other bytes came back"],
    ...verified["ok"] === true ? [] : ["the backup does not verify"],
    ...cpuMs > 2000 || peakBytes > 256e6 ? ["a leg was above the platform's limits"] : [],
  ];
  for (const problem of problems) say(problem);
  say(problems.length === 0 ? "every byte is back" : "it is not right");
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  await stack.destroy();
}
