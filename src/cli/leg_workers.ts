/** Legs in threads of this process, one thread a worker's name. */
import type { LegResult } from "../shared/backup/leg.ts";
import type { LegRunner } from "../shared/backup/run.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import type { Log } from "../shared/log.ts";
import type { FromWorker, ToWorker, WorkerSettings } from "./worker_messages.ts";

/** How long a leg may take to end its task after it was told to stop: some chunks' time. A cut one leaves nothing behind. */
const stopMs = 3_000;

export interface LegWorkers {
  readonly runLeg: LegRunner;
  /** Ends the threads. */
  close(): void;
}

/** Threads (`src/cli/worker.ts`) start when they get their first leg. */
export function legWorkers(settings: WorkerSettings, log: Log): LegWorkers {
  const threads = new Map<string, Worker>();
  const threadOf = (name: string): Worker => {
    const known = threads.get(name);
    if (known !== undefined) return known;
    const thread = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    threads.set(name, thread);
    post(thread, { type: "settings", settings });
    return thread;
  };
  return {
    runLeg: (run, name, signal) => {
      const thread = threadOf(name);
      // One that broke off answers no more: the next leg gets another.
      const onBroken = () => {
        thread.terminate();
        threads.delete(name);
      };
      return legIn({ thread, onBroken }, run, name, signal, log);
    },
    close() {
      for (const thread of threads.values()) thread.terminate();
      threads.clear();
    },
  };
}

function legIn(
  { thread, onBroken }: { readonly thread: Worker; readonly onBroken: () => void },
  run: string,
  worker: string,
  signal: AbortSignal,
  log: Log,
): Promise<LegResult> {
  return new Promise((resolve, reject) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const onAbort = () => {
      post(thread, { type: "stop" });
      timer = setTimeout(() => settle(() => resolve({ workLeft: true, tasks: 0 })), stopMs);
    };
    const settle = (how: () => void) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      how();
    };
    thread.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === "log") return log[data.line.level](data.line.event, data.line.fields);
      const { result, failure } = data;
      if (result !== null) return settle(() => resolve(result));
      const { code = "internal", message = "a worker ended without a word", ...rest } = failure ?? {};
      settle(() => reject(new HoldfastError(code, message, rest)));
    };
    thread.onerror = (event) => {
      event.preventDefault();
      onBroken();
      settle(() => reject(asHoldfastError(event.error)));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    post(thread, { type: "leg", run, worker });
  });
}

function post(thread: Worker, message: ToWorker): void {
  thread.postMessage(message);
}
