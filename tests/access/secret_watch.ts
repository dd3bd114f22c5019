/** Watches processes and the database while a test works, and tells what it found. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import pg from "pg";
import { root } from "../unit/project_files.ts";
import { type Found, lookIn, needlesOf, type Secrets } from "./secret_forms.ts";

export interface Watched {
  /** How often it looked. */
  readonly looks: number;
  /** Programs and scripts whose arguments it saw. */
  readonly seen: readonly string[];
  readonly found: readonly Found[];
}

export interface Watch {
  end(): Promise<Watched>;
}

/** Arguments of every process, some hundred times a second. */
export async function watchProcesses(secrets: Secrets): Promise<Watch> {
  const child: ChildProcess = spawn(process.execPath, [join(root, "tests/access/watch_processes.mjs")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (output += text));
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const needles = needlesOf(secrets).map((needle) => ({ ...needle, bytes: needle.bytes.toString("base64") }));
  child.stdin?.write(`${JSON.stringify(needles)}\n`);
  while (!output.includes("looking\n")) await new Promise((resolve) => setTimeout(resolve, 5));
  return {
    async end() {
      child.stdin?.end();
      await closed;
      return JSON.parse(output.slice("looking\n".length)) as Watched;
    },
  };
}

/** What lives for a moment in the database: statements under way, requests that wait, answers, runs of jobs. */
const momentary = [
  "select * from pg_stat_activity",
  "select * from net.http_request_queue",
  "select * from net._http_response",
  "select * from cron.job_run_details",
];

/** As the superuser of the server, who sees every statement. */
export async function watchDatabase(url: string, secrets: Secrets): Promise<Watch> {
  const needles = needlesOf(secrets);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const found = new Map<string, Found>();
  const seen = new Set<string>();
  let looks = 0;
  let over = false;
  const work = (async () => {
    while (!over) {
      looks++;
      for (const text of momentary) {
        const { rows } = await client.query<Record<string, unknown>>(text);
        if (rows.length > (text.includes("activity") ? 5 : 0)) seen.add(text.split(" ").at(-1) ?? "");
        for (const row of rows) {
          for (const [column, value] of Object.entries(row)) {
            const content = value instanceof Uint8Array
              ? value
              : typeof value === "string"
              ? value
              : JSON.stringify(value);
            for (const one of lookIn(`${text.split(" ").at(-1)}.${column}`, content ?? "", needles)) {
              found.set(JSON.stringify(one), one);
            }
          }
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  return {
    async end() {
      over = true;
      await work.finally(() => client.end());
      return { looks, seen: [...seen], found: [...found.values()] };
    },
  };
}
