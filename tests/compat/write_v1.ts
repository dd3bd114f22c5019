/**
 * Wrote `v1/` once, and is kept to show how: `node_modules/deno/deno run -A tests/compat/write_v1.ts`. It refuses to write
 * over a store that is there. From the first release on, `v1/` never changes.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { startCluster } from "../../src/local/postgres.ts";
import { compatKeys } from "./keys.ts";
import { lookAtShop } from "./look.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = fileURLToPath(new URL("./v1/", import.meta.url));
const store = `${folder}store`;
if (existsSync(store)) throw new Error(`${store} is there already`);
mkdirSync(store);

const cluster = await startCluster({ version: 15, platform: false, durable: false });
try {
  const client = new pg.Client({ connectionString: cluster.plainUrl() });
  await client.connect();
  await client.query(readFileSync(`${folder}source.sql`, "utf8"));
  const answers = await lookAtShop(async (text) => (await client.query(text)).rows);
  await client.end();
  const env = {
    ...process.env,
    BACKUP_DB_URL: cluster.url(),
    BACKUP_DB_CA: cluster.caFile,
    BACKUP_STORE: `file://${store}`,
    BACKUP_KEYS: compatKeys,
  };
  for (const command of ["init", "create"]) {
    const made = spawnSync(process.execPath, ["run", "-A", "src/cli/main.ts", command], { cwd: root, env, stdio: "inherit" });
    if (made.status !== 0) throw new Error(`${command} ended with ${made.status}`);
  }
  writeFileSync(`${folder}expected.json`, `${JSON.stringify(answers, null, 1)}\n`);
} finally {
  await cluster.destroy();
}
process.exit(0);
