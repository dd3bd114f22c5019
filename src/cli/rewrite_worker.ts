/** A thread that does of a rewriting what it is told. */
import { systemClock } from "../shared/clock.ts";
import { epochSource } from "../shared/crypto/epochs.ts";
import { parseKeyRing } from "../shared/crypto/key_ring.ts";
import { OwnHands } from "../shared/erase/rewrite/hands.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { placeIn } from "../shared/identity/settle_place.ts";
import { silentLog } from "../shared/log.ts";
import { webCryptoRandom } from "../shared/random.ts";
import { openStore } from "../shared/store/open_store.ts";
import type { FromRewriter, RewriterSettings, ToRewriter } from "./rewrite_messages.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToRewriter>) => void) | null;
  postMessage(message: FromRewriter): void;
};

let hands: Promise<OwnHands> | undefined;

self.onmessage = ({ data }) => {
  answer(data).then(
    (result) => self.postMessage({ number: data.number, result, failure: null }),
    (error: unknown) => {
      const { code, message, hint, retry } = asHoldfastError(error);
      self.postMessage({ number: data.number, result: null, failure: { code, message, hint, retry } });
    },
  );
};

async function answer(task: ToRewriter): Promise<FromRewriter["result"]> {
  if (task.type === "settings") {
    hands = makeHands(task.settings);
    await hands;
    return null;
  }
  const ours = await hands;
  if (ours === undefined) throw new HoldfastError("internal", "a thread was given work before its settings");
  switch (task.type) {
    case "begin":
      await ours.begin(task.scope, task.rules);
      return null;
    case "learn":
      await ours.learn(task.gone, task.identities);
      return null;
    case "chunk":
      return await ours.chunk(task.task);
    case "list":
      return await ours.list(task.task);
    case "streamList":
      return await ours.streamList(task.task);
    case "segment":
      return await ours.segment(task.task);
  }
}

async function makeHands(given: RewriterSettings): Promise<OwnHands> {
  const top = openStore(given.store, given.credentials, {
    clock: systemClock,
    random: webCryptoRandom,
    log: silentLog,
    fetch: (input, init) => fetch(input, init),
  });
  const store = placeIn(top, given.prefix);
  const epochOf = epochSource(store, parseKeyRing(given.keys), given.repositoryId);
  return new OwnHands({ store, compressor: await loadZstd(), random: webCryptoRandom, epochOf });
}
