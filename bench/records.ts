import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runProgram } from "../src/local/child.ts";
import { backupBucket, type Stack } from "../src/local/stack.ts";
import { systemClock } from "../src/shared/clock.ts";
import { budgetOf, functionBudget } from "../src/shared/backup/budget.ts";
import { parseKeyRing } from "../src/shared/crypto/key_ring.ts";
import { HoldfastError } from "../src/shared/errors.ts";
import { loadZstd } from "../src/shared/format/zstd.ts";
import { claimTask } from "../src/shared/jobs/queries.ts";
import { PruneTask, requestPrune } from "../src/shared/jobs/retention_queries.ts";
import { silentLog } from "../src/shared/log.ts";
import type { Connection } from "../src/shared/postgres/connection.ts";
import { openDatabase } from "../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../src/shared/random.ts";
import { planRetention } from "../src/shared/retention/plan.ts";
import { readFacts } from "../src/shared/retention/read_facts.ts";
import { sweep } from "../src/shared/retention/sweep.ts";
import { openStore } from "../src/shared/store/open_store.ts";
import type { Store, StoredObject } from "../src/shared/store/store.ts";
import { measure } from "./measure.ts";
import { ours } from "./programs.ts";
import type { Report } from "./report.ts";

const objects = 1_000_000;

/**
 * How long do `status`, a plan of retention and the listing of a sweep take with 10,000 runs and 1,000,000 objects on record? The
 * plan is over recorded listings, as the store would give them; the sweep lists the embedded Storage itself, leg by leg.
 */
export async function records(stack: Stack, rounds: number, report: Report): Promise<void> {
  const { cluster } = stack;
  const psql = (role: string, args: readonly string[]) =>
    runProgram(
      join(cluster.bin, "psql"),
      ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", ...args],
      cluster.environment(role),
    );
  report.note("making 10,000 runs, 50,000 segments and 1,000,000 objects");
  await psql("postgres", ["-f", fileURLToPath(new URL("records.sql", import.meta.url))]);
  await psql("supabase_admin", [
    "-c",
    `set session_replication_role = replica;
     insert into storage.objects (bucket_id, name, metadata) select '${backupBucket}', name, jsonb_build_object('size', stored_bytes) from backup.objects;
     analyze storage.objects`,
  ]);
  await psql("postgres", ["-c", "select backup.look()"]);

  const setting = { cluster, role: "postgres", keys: stack.keys };
  for (let round = 0; round < rounds; round++) {
    const { wallMs, peakBytes } = await measure({ ...ours(setting, ["status"], "/nowhere"), mayFail: true });
    report.run("status", wallMs, peakBytes);
  }
  report.find("`status`, 10,000 runs and 1,000,000 objects on record", report.seconds("status"), "s", 1);

  const connection = await openDatabase({ url: cluster.plainUrl() }).connect("holdfast:bench");
  try {
    await plan(connection, rounds, report);
    await list(stack, connection, report);
  } finally {
    await connection.close();
  }
}

async function plan(connection: Connection, rounds: number, report: Report): Promise<void> {
  const names = (await connection.query(
    "select manifest_name as name from backup.runs where kind = 'full' union all select name from backup.segments",
  )).map(({ name }) => name ?? "");
  const first = recorded(names);
  for (let round = 0; round < rounds; round++) {
    const began = performance.now();
    const facts = await readFacts({ connection, first, second: null, now: () => new Date() });
    const { remove, refused } = planRetention(facts);
    if (refused !== null || remove.length === 0) {
      throw new Error(`the plan removes nothing: ${refused ?? "all is kept"}`);
    }
    report.run("retention plan", performance.now() - began, 0);
  }
  report.find("retention plan over their recorded listings", report.seconds("retention plan"), "s", 10);
}

/** The listing of all objects by the sweep, each leg within what a function may use. */
async function list(stack: Stack, connection: Connection, report: Report): Promise<void> {
  const requested = await requestPrune(connection, "cli");
  const task = requested === null ? null : await claimTask(connection, requested.run, "bench", 3_600);
  if (task === null) throw new Error("there is no task to sweep under");
  const credentials = { supabaseUrl: stack.gateway.url, supabaseServiceKey: stack.gateway.serviceRoleKey };
  const deps = {
    fetch: (input: string, init: RequestInit) => fetch(input, init),
    clock: systemClock,
    random: webCryptoRandom,
  };
  const first = openStore(`supabase://${backupBucket}`, credentials, deps);
  const prune = {
    ...deps,
    connection,
    first,
    second: null,
    unplaced: first,
    ring: parseKeyRing(stack.keys),
    compressor: await loadZstd(),
    log: silentLog,
  };
  const began = performance.now();
  let legs = 0;
  let longestMs = 0;
  for (let [next, over] = [0, false]; !over;) {
    const legBegan = performance.now();
    const options = { worker: "bench", budget: budgetOf(functionBudget, systemClock) };
    ({ next, over } = await sweep(prune, new PruneTask(connection, task), next, options));
    longestMs = Math.max(longestMs, performance.now() - legBegan);
    legs++;
  }
  const [row] = await connection.query("select count(*) as condemned from backup.condemned");
  if (row?.["condemned"] !== "0") throw new Error(`${row?.["condemned"]} objects were condemned that a manifest names`);
  report.find(
    `listing of ${objects.toLocaleString("en-GB")} objects by a sweep, in ${legs} legs`,
    (performance.now() - began) / 1000,
    "s",
  );
  report.find("the longest of these legs", longestMs / 1000, "s", 100);
}

/** A store of which nothing is known but its names. */
function recorded(names: readonly string[]): Store {
  const no = () => Promise.reject(new HoldfastError("store_unreachable", "only names are recorded"));
  return {
    kind: "file",
    label: "recorded",
    lock: null,
    create: no,
    replace: no,
    read: no,
    size: no,
    remove: no,
    async *list(prefix): AsyncGenerator<StoredObject> {
      for (const name of names) if (name.startsWith(prefix)) yield { name, size: 1 };
    },
  };
}
