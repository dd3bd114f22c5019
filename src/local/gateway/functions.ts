import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { json } from "./answer.ts";
import { forward, timedOut } from "./forward.ts";
import { Isolate, type IsolateRecord } from "./isolate.ts";
import type { Journal } from "./journal.ts";
import { KillSwitch } from "./kill_switch.ts";
import type { IsolateLimits } from "./limits.ts";

export interface FunctionsOptions {
  /** The folder that holds `<name>/index.ts` and `<name>/deno.json`; without one there are no functions. */
  readonly folder: string | undefined;
  /** What every function finds in its environment: the hosted variables and the function secrets. */
  readonly environment: Readonly<Record<string, string>>;
  /** Folders a function may read, besides `/tmp`. */
  readonly readable: readonly string[];
  readonly limits: IsolateLimits;
  /** Processes at a time, over all functions. */
  readonly atMost: number;
  /** Requests an isolate serves at a time, its `waitUntil` work counted as one. */
  readonly concurrency: number;
  /** Booted isolates kept ready for each function in use. */
  readonly spare: number;
  readonly idleMs: number;
  readonly journal: Journal;
}

interface Module {
  readonly name: string;
  readonly folder: string;
  readonly file: string;
  readonly config: string | undefined;
}

/** Ended isolates whose figures are kept for `/__metrics`. */
const recordsKept = 5_000;
/** Requests that wait for a place; more are refused with 503. */
const longestQueue = 200;
const busyPollMs = 20;
const idlePollMs = 250;

/** Runs the functions, each in processes of its own, within the platform's limits. */
export class Functions {
  readonly killSwitch = new KillSwitch();
  readonly #options: FunctionsOptions;
  readonly #isolates = new Set<Isolate>();
  readonly #records: IsolateRecord[] = [];
  readonly #waiting: (() => void)[] = [];
  #timer: number | undefined;
  #closed = false;

  constructor(options: FunctionsOptions) {
    this.#options = options;
  }

  /** `path` is what follows `/functions/v1`, such as `/echo/part?x=1`: functions see it as their own path. */
  async handle(request: Request, path: string): Promise<Response> {
    const name = /^\/([A-Za-z0-9_-]+)(?=[/?]|$)/.exec(path)?.[1];
    const module = name === undefined ? undefined : this.#module(name);
    if (name === undefined || module === undefined) {
      return json(404, { code: "NOT_FOUND", message: "Requested function was not found" });
    }
    const deadline = performance.now() + this.#options.limits.responseMs;
    const isolate = await this.#place(module, deadline);
    if (isolate === "late") return timedOut();
    if (isolate === "full") return json(503, { code: "SERVICE_UNAVAILABLE", message: "Too many requests are waiting" });
    this.#watch();
    this.#keepSpare(module);
    return await forward(isolate, this.killSwitch, request, path, deadline);
  }

  metrics(): { ended: readonly IsolateRecord[]; running: readonly IsolateRecord[] } {
    return { ended: this.#records, running: [...this.#isolates].map((isolate) => isolate.record()) };
  }

  /** Ends every process. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#wakeAll();
    for (const isolate of this.#isolates) isolate.kill("stopped");
    await Promise.all([...this.#isolates].map((isolate) => isolate.ended));
  }

  #module(name: string): Module | undefined {
    const { folder } = this.#options;
    if (folder === undefined || name.startsWith("_")) return undefined;
    const file = join(folder, name, "index.ts");
    const config = join(folder, name, "deno.json");
    return existsSync(file) ? { name, folder, file, config: existsSync(config) ? config : undefined } : undefined;
  }

  /**
   * A young isolate with room: one that has served before, else a spare or a new one, else the next that has room. It is
   * taken in the same turn in which it is found, so that no other request finds it too.
   */
  async #place(module: Module, deadline: number): Promise<Isolate | "late" | "full"> {
    const { name } = module;
    const { concurrency, atMost } = this.#options;
    while (!this.#closed) {
      const open = [...this.#isolates].filter((one) =>
        one.function === name && one.young && one.inFlight < concurrency
      );
      const found = open.find((one) => one.used) ?? open[0];
      const place = found ?? (this.#isolates.size < atMost || this.#dropIdle(name) ? this.#start(module) : undefined);
      if (place !== undefined) {
        place.begin();
        return place;
      }
      if (this.#waiting.length >= longestQueue) return "full";
      if (!await this.#wait(deadline)) return "late";
    }
    return "full";
  }

  /** Makes room by ending an idle isolate of another function. */
  #dropIdle(name: string): boolean {
    const victim = [...this.#isolates].find((one) => one.function !== name && one.idle && one.young);
    if (victim === undefined) return false;
    victim.retire("idle");
    return true;
  }

  #wait(deadline: number): Promise<boolean> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        resolve(true);
      };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(wake), 1);
        resolve(false);
      }, deadline - performance.now());
      this.#waiting.push(wake);
    });
  }

  /** All look again, since the first in line may wait for another function. */
  #wakeAll(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #keepSpare(module: Module): void {
    const spare = [...this.#isolates].filter((one) => one.function === module.name && !one.used && one.young).length;
    if (spare < this.#options.spare && this.#isolates.size < this.#options.atMost) this.#start(module);
  }

  #start({ name, folder, file, config }: Module): Isolate {
    const readable = [folder, "/tmp", ...this.#options.readable].join(",");
    const isolate = new Isolate({
      function: name,
      command: Deno.execPath(),
      args: [
        "run",
        "--quiet",
        "--no-prompt",
        "--cached-only",
        "--no-lock",
        "--node-modules-dir=manual",
        ...(config === undefined ? [] : ["--config", config]),
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        `--allow-read=${readable}`,
        "--allow-write=/tmp",
        fileURLToPath(new URL("./isolate_bootstrap.ts", import.meta.url)),
        pathToFileURL(file).href,
      ],
      environment: { ...runtimeEnvironment(), ...this.#options.environment, SB_EXECUTION_ID: crypto.randomUUID() },
      limits: this.#options.limits,
      onLine: (from, stream, line) => {
        this.#options.journal.write({ kind: "output", function: name, isolate: from.id, stream, line });
      },
      onHalt: (from) => this.killSwitch.halted(from),
      onIdle: (from) => {
        if (!from.young) from.retire("retired");
        this.#wakeAll();
      },
      onEnd: (from) => this.#forget(from),
    });
    this.#isolates.add(isolate);
    this.killSwitch.started(isolate);
    return isolate;
  }

  #forget(isolate: Isolate): void {
    this.#isolates.delete(isolate);
    this.#wakeAll();
    if (!isolate.used && isolate.record().endedBy !== "crashed") return;
    if (this.#records.length >= recordsKept) this.#records.shift();
    this.#records.push(isolate.record());
    this.#options.journal.write({ kind: "isolate", ...isolate.record(), uses: undefined });
  }

  /** Looks at every process, more often while one works. */
  #watch(): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    let busy = false;
    for (const isolate of this.#isolates) {
      isolate.measure();
      busy ||= !isolate.idle;
      if (isolate.idle && isolate.used && !isolate.young) isolate.retire("retired");
      else if (isolate.idleMs > this.#options.idleMs) isolate.retire("idle");
    }
    if (this.#isolates.size > 0) this.#timer = setTimeout(() => this.#watch(), busy ? busyPollMs : idlePollMs);
  }
}

/** What Deno itself needs; the bootstrap takes it away again before the function runs. */
function runtimeEnvironment(): Record<string, string> {
  const home = Deno.env.get("HOME") ?? "/tmp";
  return {
    DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("XDG_CACHE_HOME") ?? `${home}/.cache`}/deno`,
    DENO_NO_UPDATE_CHECK: "1",
    NO_COLOR: "1",
  };
}
