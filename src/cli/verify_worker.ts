/** A thread that verifies its share of a backup's objects. */
import { systemClock } from "../shared/clock.ts";
import { parseIdentities } from "../shared/crypto/age.ts";
import { parseKeyRing } from "../shared/crypto/key_ring.ts";
import { asHoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { createLog } from "../shared/log.ts";
import { webCryptoRandom } from "../shared/random.ts";
import { withIdentities } from "../shared/store/layered.ts";
import { openStore } from "../shared/store/open_store.ts";
import { openBackup } from "../shared/verify/find_backup.ts";
import { type VerifyLeg, verifyLeg } from "../shared/verify/run.ts";
import type { FromVerifier, ToVerifier, VerifierSettings } from "./verify_messages.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToVerifier>) => void) | null;
  postMessage(message: FromVerifier): void;
};

const stop = new AbortController();

self.onmessage = ({ data }) => {
  if (data.type === "stop") return stop.abort();
  verifyShare(data.settings).then(
    (leg) => self.postMessage({ type: "done", leg, failure: null }),
    (error: unknown) => {
      const { code, message, hint, retry } = asHoldfastError(error);
      self.postMessage({ type: "done", leg: null, failure: { code, message, hint, retry } });
    },
  );
};

async function verifyShare(given: VerifierSettings): Promise<VerifyLeg> {
  const log = createLog((line) => self.postMessage({ type: "log", line }), given.logLevel);
  const opened = openStore(given.store, given.credentials, {
    clock: systemClock,
    random: webCryptoRandom,
    log,
    fetch: (input, init) => fetch(input, init),
  });
  const store = withIdentities(opened, parseIdentities(given.identities));
  const deps = { store, ring: parseKeyRing(given.keys), compressor: await loadZstd(), log };
  const backup = await openBackup(deps, given.backup);
  return await verifyLeg(deps, backup, {
    from: 0,
    budgetBytes: Number.MAX_SAFE_INTEGER,
    parallel: given.parallel,
    part: given.part,
    signal: stop.signal,
    onProgress: (at) => self.postMessage({ type: "progress", objects: at.objects, storedBytes: at.storedBytes }),
  });
}
