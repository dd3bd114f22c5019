/** Files of Storage in a full backup by the CLI, beside a plain parallel download of the same with the client. */
import { randomFillSync } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Stack } from "../src/local/stack.ts";
import { type Command, measure } from "./measure.ts";
import { ours, type Setting, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";

const bucket = "bench-files";
/** What phones record, and a few that are large: 200 × 1 MB and 8 × 40 MB. */
const sizes = [...Array.from({ length: 200 }, () => 1_000_000), ...Array.from({ length: 8 }, () => 40_000_000)];
/** Downloads at the same time. */
const atOnce = 8;

const download = `
  if (!("WebSocket" in globalThis)) globalThis.WebSocket = class {};
  const { createClient } = await import("@supabase/supabase-js");
  const client = createClient(process.env.URL, process.env.KEY, { auth: { persistSession: false, autoRefreshToken: false } });
  let next = 0;
  await Promise.all(Array.from({ length: ${atOnce} }, async () => {
    while (next < ${sizes.length}) {
      const { data, error } = await client.storage.from("${bucket}").download(String(next++));
      if (error) throw error;
      await data.arrayBuffer();
    }
  }));`;

interface Document {
  readonly status: string;
  readonly warnings?: readonly unknown[];
}

/**
 * What files add to a backup, over one that leaves them out and takes over all rows; each round into a store of its own. Then the same
 * with nothing changed, which reads no file again.
 */
export async function files(
  stack: Stack,
  setting: Setting,
  rounds: number,
  report: Report,
  execute: (sql: string) => Promise<void>,
): Promise<void> {
  await fill(stack);
  const folder = temporaryFolder("files");
  const { url, serviceRoleKey } = stack.gateway;
  const plain: Command = {
    program: "node",
    args: ["--input-type=module", "-e", download],
    env: { URL: url, KEY: serviceRoleKey },
  };
  const ratios: number[] = [];
  const again: number[] = [];
  try {
    for (let round = 0; round < rounds; round++) {
      const store = join(folder.path, `store-${round}`);
      mkdirSync(store);
      const take = async (name: string) => {
        const command = ours(setting, ["create", "--tier", "manual", "--wait"], store);
        const env = { ...command.env, SUPABASE_URL: url, SUPABASE_SERVICE_ROLE_KEY: serviceRoleKey };
        const run = await measure({ ...command, env });
        report.run(name, run.wallMs, run.peakBytes);
        const { status } = JSON.parse(run.stdout) as Document;
        if (status !== "succeeded") throw new Error(`${name} ended as ${status}`);
        return run.wallMs;
      };
      await execute(`update backup.settings set value = '${bucket}' where name = 'file_buckets_left_out'`);
      await take("full without files");
      const without = await take("the same, nothing changed");
      await execute("update backup.settings set value = '' where name = 'file_buckets_left_out'");
      const copied = await take("the same with files") - without;
      const unchanged = await take("the same with files, nothing changed") - without;
      const downloaded = await measure(plain);
      report.run("plain download of the files, 8 at a time", downloaded.wallMs, downloaded.peakBytes);
      ratios.push(downloaded.wallMs / copied);
      again.push(unchanged / copied);
    }
  } finally {
    folder.remove();
  }
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  const question = "plain download of the files, 8 at a time";
  report.find("files", bytes / 1e6, "MB");
  report.find(question, report.seconds(question), "s");
  report.findPaired("speed of the file backup by CLI / of the plain download", ratios, { atLeast: 0.7 });
  report.findPaired("what files take with nothing changed / the first time", again);
}

/** Random content, which nothing compresses, each file another. */
async function fill({ gateway: { url, serviceRoleKey } }: Stack): Promise<void> {
  const headers = { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}` };
  const send = async (path: string, type: string, body: BodyInit) => {
    const answer = await fetch(`${url}/storage/v1${path}`, {
      method: "POST",
      headers: { ...headers, "content-type": type },
      body,
    });
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
    await answer.body?.cancel();
  };
  await send("/bucket", "application/json", JSON.stringify({ id: bucket, name: bucket, public: false }));
  for (const [at, size] of sizes.entries()) {
    const content = new Uint8Array(size);
    for (let from = 0; from < size; from += 65_536) randomFillSync(content, from, Math.min(65_536, size - from));
    await send(`/object/${bucket}/${at}`, "audio/webm", content);
  }
}
