import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { startS3Server } from "../support/s3_server.ts";

const root = join(import.meta.dirname ?? "", "../..");

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function runOnDeno(script: string, input: unknown): Promise<unknown> {
  const child = spawn(join(root, "node_modules/.bin/deno"), ["run", "--quiet", "--allow-all", script], { cwd: root });
  child.stdin.end(JSON.stringify(input));
  let [out, problems] = ["", ""];
  child.stdout.on("data", (part) => (out += part));
  child.stderr.on("data", (part) => (problems += part));
  const status = await new Promise((resolve) => child.on("close", resolve));
  if (status !== 0) throw new Error(`deno ended with ${status}: ${problems}`);
  return JSON.parse(out);
}

it("on Deno, sealing, the age layer, the file store and the s3 store do as on Node, and so do failures of the network", async () => {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-deno-"));
  const server = await startS3Server();
  const silent = createServer(() => {});
  const cutting = createServer((_, response) => {
    response.writeHead(200, { "content-length": "1000" });
    response.write("not all of it", () => response.destroy());
  });
  try {
    const { endpoint, region, bucket, accessKeyId, secretAccessKey } = server;
    const s3 = { endpoint, region, bucket, prefix: "p", accessKeyId, secretAccessKey };
    const servers = { silent: await listen(silent), cutting: await listen(cutting) };
    const seen = await runOnDeno(join(root, "tests/contract/on_deno.ts"), { folder, s3, ...servers });
    const whole = { outcomes: ["created", "adopted"], opened: true, listed: 3, sized: true, removed: true };
    expect(seen).toEqual({
      age: true,
      file: whole,
      s3: whole,
      denied: "store_denied",
      silent: "store_unreachable",
      cut: "store_lied",
      refused: "store_unreachable",
    });
    expect(server.counts.accepted).toBeGreaterThan(10);
  } finally {
    for (const each of [silent, cutting]) {
      each.closeAllConnections();
      each.close();
    }
    await server.close();
    await rm(folder, { recursive: true, force: true });
  }
});
