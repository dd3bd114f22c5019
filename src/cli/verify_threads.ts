/** A backup verified by threads of this process: hashing and unpacking take one core each. */
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { VerifyLeg } from "../shared/verify/run.ts";
import type { FromVerifier, ToVerifier, VerifierSettings } from "./verify_messages.ts";

/** Of each thread: one is read and opened while another is unpacked. */
const parallel = 2;

export interface ThreadsOptions {
  readonly threads: number;
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly onProgress: (done: { readonly objects: number; readonly storedBytes: number }) => void;
}

/** The legs of all threads. Errors: those of `verifyLeg`, and of what keeps a thread from the store; then all threads are ended. */
export async function verifyByThreads(
  settings: Omit<VerifierSettings, "part" | "parallel">,
  { threads, signal, log, onProgress }: ThreadsOptions,
): Promise<VerifyLeg[]> {
  const done = Array.from({ length: threads }, () => ({ objects: 0, storedBytes: 0 }));
  const workers: Worker[] = [];
  const one = (share: number) =>
    new Promise<VerifyLeg>((resolve, reject) => {
      const worker = new Worker(new URL("./verify_worker.ts", import.meta.url), { type: "module" });
      workers.push(worker);
      worker.onmessage = ({ data }: MessageEvent<FromVerifier>) => {
        if (data.type === "log") return log[data.line.level](data.line.event, data.line.fields);
        if (data.type === "progress") {
          done[share] = { objects: data.objects, storedBytes: data.storedBytes };
          const sum = (of: (part: typeof done[number]) => number) => done.reduce((total, part) => total + of(part), 0);
          return onProgress({
            objects: sum(({ objects }) => objects),
            storedBytes: sum(({ storedBytes }) => storedBytes),
          });
        }
        if (data.leg !== null) return resolve(data.leg);
        const { code = "internal", message = "a thread ended without a word", ...rest } = data.failure ?? {};
        reject(new HoldfastError(code, message, rest));
      };
      worker.onerror = (event) => {
        event.preventDefault();
        reject(asHoldfastError(event.error));
      };
      signal.addEventListener("abort", () => post(worker, { type: "stop" }), { once: true });
      post(worker, { type: "verify", settings: { ...settings, parallel, part: { share, of: threads } } });
    });
  try {
    return await Promise.all(done.map((_, share) => one(share)));
  } finally {
    for (const worker of workers) worker.terminate();
  }
}

function post(worker: Worker, message: ToVerifier): void {
  worker.postMessage(message);
}
