import { controlMark, type FromIsolate, stateHeader, type ToIsolate, type UnloadReason } from "./isolate_protocol.ts";
import { type EndReason, type IsolateLimits, limitPassed, noLongerYoung } from "./limits.ts";
import { forgetPeak, readProcess } from "./meter.ts";
import { lines } from "./lines.ts";

/** What one isolate used between becoming busy and becoming idle again: usually one request with its `waitUntil`. */
export interface Use {
  readonly startedAt: string;
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakBytes: number;
  readonly status: number | null;
}

export interface IsolateRecord {
  readonly isolate: string;
  readonly function: string;
  readonly pid: number;
  readonly requests: number;
  /** CPU of the isolate's own thread since the first request. */
  readonly cpuMs: number;
  readonly peakBytes: number;
  /** Since the first request. */
  readonly wallMs: number;
  readonly endedBy: EndReason | null;
  /** It has a request, or work that goes on behind one. */
  readonly busy: boolean;
  readonly uses: readonly Use[];
}

export interface IsolateOptions {
  readonly function: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly limits: IsolateLimits;
  /** Each line the function writes. */
  readonly onLine: (isolate: Isolate, stream: "stdout" | "stderr", line: string) => void;
  /** Once, when the process is gone. */
  readonly onEnd: (isolate: Isolate) => void;
  /** Whenever the isolate may have become idle. */
  readonly onIdle: (isolate: Isolate) => void;
  /** When it stands still behind the line it was told to halt at. */
  readonly onHalt: (isolate: Isolate) => void;
}

/** A function takes longer to import its modules than this only when it hangs; the platform gives it less. */
const bootMs = 30_000;
/** `beforeunload` listeners get this long before the process is ended. */
const unloadMs = 500;
/** Uses kept of one isolate: the wall limit ends it long before. */
const usesKept = 1_000;

/** One process that runs one function. It serves requests until it is retired or killed; `ended` then resolves. */
export class Isolate {
  readonly id = crypto.randomUUID();
  readonly function: string;
  readonly pid: number;
  readonly ended: Promise<EndReason>;
  readonly #options: IsolateOptions;
  readonly #process: Deno.ChildProcess;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array>;
  readonly #listening = Promise.withResolvers<number>();
  #unloaded = Promise.withResolvers<void>();
  #armed = Promise.withResolvers<void>();
  #endReason: EndReason | null = null;
  #gone = false;
  #retiring = false;
  #unloadSent = false;
  #firstRequestAt: number | null = null;
  #idleSince = performance.now();
  #cpuBaseMs = 0;
  #cpuMs = 0;
  #peakBytes = 0;
  #wallMs = 0;
  #requests = 0;
  #inFlight = 0;
  #pending = 0;
  #sequence = 0;
  #use: { at: Date; start: number; cpuMs: number; status: number | null } | null = null;
  readonly #uses: Use[] = [];

  constructor(options: IsolateOptions) {
    this.#options = options;
    this.function = options.function;
    this.#process = new Deno.Command(options.command, {
      args: [...options.args],
      env: { ...options.environment },
      clearEnv: true,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.pid = this.#process.pid;
    this.#orders = this.#process.stdin.getWriter();
    const read = Promise.allSettled([this.#read("stdout"), this.#read("stderr")]); // a broken pipe costs output only
    this.ended = this.#process.status.then(async () => {
      this.#gone = true;
      await read;
      this.#endReason ??= "crashed";
      this.#closeUse();
      this.#listening.reject(new Error("the isolate ended before it listened"));
      this.#unloaded.resolve();
      this.#armed.resolve();
      this.#orders.close().catch(() => {}); // the other end is gone already
      options.onEnd(this);
      return this.#endReason;
    });
    this.#listening.promise.catch(() => {}); // whoever waits in `ready` gets it
  }

  get idle(): boolean {
    return this.#inFlight === 0 && this.#pending === 0;
  }

  get used(): boolean {
    return this.#requests > 0;
  }

  get inFlight(): number {
    return this.#inFlight + this.#pending;
  }

  get idleMs(): number {
    return this.idle ? performance.now() - this.#idleSince : 0;
  }

  /** May it get another request? */
  get young(): boolean {
    return !this.#gone && !this.#retiring && this.#endReason === null && this.#tooOld() === null;
  }

  get gone(): boolean {
    return this.#gone;
  }

  #tooOld(): "cpu" | "wall_clock" | null {
    return noLongerYoung({ cpuMs: this.#cpuMs, wallMs: this.#wall() }, this.#options.limits);
  }

  record(): IsolateRecord {
    return {
      isolate: this.id,
      function: this.function,
      pid: this.pid,
      requests: this.#requests,
      cpuMs: this.#cpuMs,
      peakBytes: this.#peakBytes,
      wallMs: this.#gone ? this.#wallMs : this.#wall(),
      endedBy: this.#gone ? this.#endReason : null,
      busy: !this.#gone && !this.idle,
      uses: this.#uses,
    };
  }

  /** Resolves with the port once the function serves; rejects when it ended or took longer than 30 s. */
  async ready(): Promise<number> {
    let timer: number | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("the isolate did not listen in time")), bootMs);
    });
    try {
      return await Promise.race([this.#listening.promise, late]);
    } catch (error) {
      this.kill("crashed");
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Takes the isolate for a request; every `begin` is followed by one `end`. */
  begin(): void {
    this.#inFlight += 1;
    this.#requests += 1;
  }

  /** The request goes out now. From the first one on everything is counted; what booting took is not. */
  dispatch(): void {
    if (this.#firstRequestAt === null) {
      this.#firstRequestAt = performance.now();
      this.#cpuBaseMs = readProcess(this.pid)?.cpuMs ?? 0;
      forgetPeak(this.pid);
    }
    this.#use ??= { at: new Date(), start: performance.now(), cpuMs: this.#cpuMs, status: null };
  }

  end(): void {
    this.#inFlight -= 1;
    this.#settle();
  }

  /** Takes the state a response carried; it may be ahead of what stdout has brought so far. */
  noteResponse(headers: Headers, status: number): void {
    if (this.#use !== null) this.#use.status = status;
    const [pending, sequence] = (headers.get(stateHeader) ?? "").split(";").map(Number);
    if (pending !== undefined && sequence !== undefined) this.#notePending(pending, sequence);
  }

  #notePending(pending: number, sequence: number): void {
    if (sequence < this.#sequence) return;
    this.#sequence = sequence;
    this.#pending = pending;
    this.#settle();
  }

  #settle(): void {
    if (!this.idle) return;
    this.measure();
    this.#closeUse();
    this.#idleSince = performance.now();
    if (!this.#gone) this.#options.onIdle(this);
  }

  #closeUse(): void {
    const use = this.#use;
    if (use === null) return;
    this.#use = null;
    if (this.#uses.length >= usesKept) this.#uses.shift();
    this.#uses.push({
      startedAt: use.at.toISOString(),
      wallMs: performance.now() - use.start,
      cpuMs: this.#cpuMs - use.cpuMs,
      peakBytes: this.#peakBytes,
      status: use.status,
    });
  }

  #wall(): number {
    return this.#firstRequestAt === null ? 0 : performance.now() - this.#firstRequestAt;
  }

  /** Looks at the kernel's figures and kills the isolate once one is passed. Before the first request nothing counts. */
  measure(): void {
    if (this.#gone || this.#firstRequestAt === null) return;
    const reading = readProcess(this.pid);
    if (reading === null) return;
    this.#wallMs = this.#wall();
    // A process that is ending has no figures any more: what was seen before stands.
    this.#cpuMs = Math.max(this.#cpuMs, reading.cpuMs - this.#cpuBaseMs);
    this.#peakBytes = Math.max(this.#peakBytes, reading.peakBytes);
    const { limits } = this.#options;
    const passed = limitPassed({ cpuMs: this.#cpuMs, peakBytes: this.#peakBytes, wallMs: this.#wallMs }, limits);
    if (passed !== null) return this.kill(passed);
    if (this.#cpuMs >= limits.cpuSoftMs) this.#sendUnload("cpu");
    else if (this.#wallMs >= limits.wallMs * 0.9) this.#sendUnload("wall_clock");
  }

  /** Ends the process at once; the first reason given counts. */
  kill(reason: EndReason): void {
    if (this.#gone) return;
    this.#endReason ??= reason;
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It ended by itself a moment ago.
    }
  }

  /** Ends an idle isolate: `beforeunload`, then the process. Never throws. */
  async retire(reason: "retired" | "idle" | "stopped"): Promise<void> {
    if (this.#retiring || this.#gone) return;
    this.#retiring = true;
    this.#sendUnload(reason === "stopped" ? "termination" : "early_drop");
    let timer: number | undefined;
    const enough = new Promise<void>((resolve) => timer = setTimeout(resolve, unloadMs));
    await Promise.race([this.#unloaded.promise, enough]);
    clearTimeout(timer);
    this.kill(reason);
  }

  /** For tests: stand still behind the nth line that contains `text` (null: no more). Bounded by 2 s. */
  async haltAt(text: string | null, nth: number): Promise<void> {
    this.#armed = Promise.withResolvers<void>();
    this.#order({ kind: "halt_at", text, nth });
    let timer: number | undefined;
    const enough = new Promise<void>((resolve) => timer = setTimeout(resolve, 2_000));
    await Promise.race([this.#armed.promise, enough]);
    clearTimeout(timer);
  }

  #sendUnload(reason: UnloadReason): void {
    if (this.#unloadSent) return;
    this.#unloadSent = true;
    this.#order({ kind: "unload", reason });
  }

  #order(order: ToIsolate): void {
    if (this.#gone) return;
    this.#orders.write(new TextEncoder().encode(`${JSON.stringify(order)}\n`)).catch(() => {}); // its end is seen elsewhere
  }

  async #read(stream: "stdout" | "stderr"): Promise<void> {
    for await (const line of lines(this.#process[stream])) {
      // What the function wrote without an end of line stands before the mark on the same line.
      const mark = stream === "stdout" ? line.indexOf(controlMark) : -1;
      const message = mark < 0 ? null : messageOf(line.slice(mark + 1));
      if (message !== null) this.#obey(message);
      const output = message === null ? line : line.slice(0, mark);
      if (output !== "" || message === null) this.#options.onLine(this, stream, output);
    }
  }

  #obey(message: FromIsolate): void {
    if (message.kind === "listening") this.#listening.resolve(message.port);
    else if (message.kind === "pending") this.#notePending(message.pending, message.sequence);
    else if (message.kind === "unloaded") this.#unloaded.resolve();
    else if (message.kind === "armed") this.#armed.resolve();
    else this.#options.onHalt(this);
  }
}

/** Null for a line that only looks like one of ours: functions may write anything. */
function messageOf(text: string): FromIsolate | null {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
