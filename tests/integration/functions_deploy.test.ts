/** `supabase functions deploy` itself, against an API of our own that keeps what is uploaded. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filesUploadedByCli } from "../unit/deploy_walker.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const cliMs = 100_000;

interface Upload {
  readonly files: readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
}

let api: Server;
let home: string;
const uploads = new Map<string, Upload>();

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), "holdfast-deploy-"));
  api = createServer(async (request, response) => {
    const slug = new URL(request.url ?? "/", "http://api").searchParams.get("slug") ?? "";
    const body = await textOf(request);
    response.setHeader("content-type", "application/json");
    if (request.method === "GET") {
      response.end("[]");
      return;
    }
    uploads.set(slug, {
      files: [...body.matchAll(/filename="([^"]+)"/g)].map(([, name = ""]) => name).sort(),
      metadata: JSON.parse(/name="metadata"\r\n\r\n([^\r]*)/.exec(body)?.[1] ?? "{}"),
    });
    response.statusCode = 201;
    response.end(JSON.stringify({ id: slug, slug, name: slug, status: "ACTIVE", version: 1 }));
  });
  await new Promise<void>((resolve) => api.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${(api.address() as AddressInfo).port}`;
  const profile = {
    name: "test",
    api_url: address,
    dashboard_url: address,
    docs_url: address,
    project_host: "supabase.co",
  };
  writeFileSync(
    join(home, "profile.yaml"),
    Object.entries(profile).map(([name, value]) => `${name}: ${value}\n`).join(""),
  );
});

afterAll(() => {
  api?.close();
  rmSync(home, { recursive: true, force: true });
});

/** Latin 1, so that every byte is a character. */
async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  request.setEncoding("latin1");
  for await (const part of request) text += part;
  return text;
}

/** Runs beside this process, which answers its requests. */
function deploy(name: string): Promise<{ readonly status: number | null; readonly output: string }> {
  const profile = ["--profile", join(home, "profile.yaml"), "--remote=abcdefghijklmnopqrst"];
  const args = ["functions", "deploy", name, "--use-api", "--yes", "--agent", "no", "--workdir", root, ...profile];
  const child = spawn(`${root}node_modules/.bin/supabase`, args, {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: cliMs,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: home,
      SUPABASE_ACCESS_TOKEN: `sbp_${"0123456789".repeat(4)}`,
      SUPABASE_YES: "1",
      SUPABASE_TELEMETRY_DISABLED: "1",
    },
  });
  let output = "";
  child.stdout.on("data", (bytes) => output += bytes);
  child.stderr.on("data", (bytes) => output += bytes);
  return new Promise((resolve) => child.once("close", (status) => resolve({ status, output })));
}

describe.each(["backup", "download", "restore", "verify"])("supabase functions deploy %s", (name) => {
  it("uploads exactly what the function needs, closed to verify_jwt, and warns of nothing", async () => {
    const { status, output } = await deploy(name);
    expect(status, output).toBe(0);
    expect(output).not.toMatch(/WARN/);
    const upload = uploads.get(name);
    expect(upload?.metadata).toMatchObject({
      entrypoint_path: `supabase/functions/${name}/index.ts`,
      import_map_path: `supabase/functions/${name}/deno.json`,
      verify_jwt: false,
    });
    // tests/unit/deploy.test.ts compares the same list with what Deno needs.
    const expected = filesUploadedByCli(`${root}supabase/functions/${name}/index.ts`, {}, root)
      .map((file) => relative(root, file)).concat(`supabase/functions/${name}/deno.json`).sort();
    expect(upload?.files).toEqual(expected);
  }, cliMs);
});
