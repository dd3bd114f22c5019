/** One backup into a folder, with each step on a line of its own, so that a test can end this process there. */
import process from "node:process";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { runLeg } from "../../src/shared/backup/leg.ts";
import { functionLimits } from "../../src/shared/backup/limits.ts";
import { runBackup } from "../../src/shared/backup/run.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { createLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { createFileStore } from "../../src/shared/store/file.ts";

/** At the step where it is to be killed this process waits, so that it is killed there and not a little later. */
const pauseMs = 300;
const killStep = `step:${process.env["TEST_KILL_STEP"] ?? ""}`;

const deps = {
  database: openDatabase({ url: process.env["TEST_DATABASE_URL"] ?? "" }),
  store: createFileStore(process.env["TEST_STORE"] ?? ""),
  ring: parseKeyRing(`test:${"A".repeat(42)}E`),
  compressor: await loadZstd(),
  clock: systemClock,
  random: webCryptoRandom,
  log: createLog(({ event }) => {
    if (!event.startsWith("step:")) return;
    console.log(event);
    if (event === killStep) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
  }, "debug"),
};
const limits = { ...functionLimits, chunkBytes: 64 * 1024, chunkCapBytes: 512 * 1024 };
await runBackup(deps, { tiers: ["manual"], origin: "cli" }, {
  workers: 1,
  runLeg: (run, worker, signal) => runLeg(deps, { run, worker, signal, budget: unlimited, limits }),
});
