/**
 * A restore in a process of its own, for tests that kill it. Its input is one JSON object in HOLDFAST_CHILD. At the given
 * occurrence of the given step it prints `reached` and stands still, so that the kill meets it exactly there.
 */
import { readFileSync, writeSync } from "node:fs";
import process from "node:process";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { createLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import { createFileStore } from "../../src/shared/store/file.ts";

export interface ChildInput {
  readonly folder: string;
  readonly keys: string;
  readonly url: string;
  readonly caFile: string;
  readonly id: string;
  readonly step: string;
  readonly occurrence: number;
}

const input: ChildInput = JSON.parse(process.env["HOLDFAST_CHILD"] ?? "{}");
let seen = 0;
const log = createLog((line) => {
  if (line.event !== `step:${input.step}` || ++seen !== input.occurrence) return;
  writeSync(1, "reached\n");
  // Longer than any test waits: the process ends by the signal, and by this bound where no signal comes.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
}, "debug");

await restoreBackup(
  {
    store: createFileStore(input.folder),
    ring: parseKeyRing(input.keys),
    compressor: await loadZstd(),
    clock: systemClock,
    log,
    target: openDatabase({ url: input.url, caPem: readFileSync(input.caFile, "utf8") }),
  },
  input.id,
);
writeSync(1, "ended\n");
process.exit(0);
