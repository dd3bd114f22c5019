/** A backup worker: a thread of its own that does legs as it is told. */
import { unlimited } from "../shared/backup/budget.ts";
import type { BackupDeps } from "../shared/backup/deps.ts";
import { type LegResult, runLeg } from "../shared/backup/leg.ts";
import { processLimits } from "../shared/backup/limits.ts";
import { systemClock } from "../shared/clock.ts";
import { parseIdentities } from "../shared/crypto/age.ts";
import { parseKeyRing } from "../shared/crypto/key_ring.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { openProjectFiles } from "../shared/files/project_files.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { createLog } from "../shared/log.ts";
import { openDatabase } from "../shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../shared/random.ts";
import { withIdentities } from "../shared/store/layered.ts";
import { openStore } from "../shared/store/open_store.ts";
import type { FromWorker, ToWorker, WorkerSettings } from "./worker_messages.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
};

let settings: WorkerSettings | undefined;
let deps: Promise<BackupDeps> | undefined;
const stop = new AbortController();

self.onmessage = ({ data }) => {
  if (data.type === "settings") settings = data.settings;
  else if (data.type === "stop") stop.abort();
  else {
    doLeg(data.run, data.worker).then(
      (result) => self.postMessage({ type: "leg", result, failure: null }),
      (error: unknown) => {
        const { code, message, hint, retry } = asHoldfastError(error);
        self.postMessage({ type: "leg", result: null, failure: { code, message, hint, retry } });
      },
    );
  }
};

async function doLeg(run: string, worker: string): Promise<LegResult> {
  if (settings === undefined) throw new HoldfastError("internal", "a worker was given a leg before its settings");
  deps ??= makeDeps(settings);
  const limits = processLimits(settings.maxMemoryBytes);
  return await runLeg(await deps, { run, worker, budget: unlimited, limits, signal: stop.signal });
}

async function makeDeps(given: WorkerSettings): Promise<BackupDeps> {
  const { database, store, credentials, project, keys, identities, logLevel } = given;
  const shared = {
    clock: systemClock,
    random: webCryptoRandom,
    log: createLog((line) => self.postMessage({ type: "log", line }), logLevel),
  };
  return {
    ...shared,
    database: openDatabase(database),
    store: withIdentities(
      openStore(store, credentials, { ...shared, fetch: (input, init) => fetch(input, init) }),
      parseIdentities(identities),
    ),
    files: project === null ? null : openProjectFiles(project, (input, init) => fetch(input, init)),
    ring: parseKeyRing(keys),
    compressor: await loadZstd(),
  };
}
