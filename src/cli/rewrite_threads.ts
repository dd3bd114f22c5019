/** The threads of a rewriting: opening, judging and sealing take one core each. */
import type { Identity } from "../shared/erase/entry.ts";
import type {
  ChunkDone,
  ChunkTask,
  Hands,
  ListDone,
  ListTask,
  Scope,
  SegmentDone,
  SegmentTask,
  StreamListDone,
  StreamListTask,
  StreamRules,
} from "../shared/erase/rewrite/hands.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import type { FromRewriter, RewriterSettings, RewriterTask } from "./rewrite_messages.ts";

/** Of each thread: one is read while another is judged. */
const tasksAThread = 2;

interface Asked {
  readonly resolve: (result: FromRewriter["result"]) => void;
  readonly reject: (error: HoldfastError) => void;
}

export class ThreadHands implements Hands {
  readonly #threads: Thread[];

  private constructor(threads: Thread[]) {
    this.#threads = threads;
  }

  /** Errors: what keeps a thread from the store. `close` ends them. */
  static async start(settings: RewriterSettings, threads: number): Promise<ThreadHands> {
    const hands = new ThreadHands(Array.from({ length: threads }, () => new Thread()));
    await hands.#tell({ type: "settings", settings });
    return hands;
  }

  get atOnce(): number {
    return this.#threads.length * tasksAThread;
  }

  async begin(scope: Scope, rules: StreamRules | null): Promise<void> {
    await this.#tell({ type: "begin", scope, rules });
  }

  async learn(gone: readonly string[], identities: readonly Identity[]): Promise<void> {
    await this.#tell({ type: "learn", gone, identities });
  }

  async chunk(task: ChunkTask): Promise<ChunkDone> {
    return await this.#give({ type: "chunk", task }) as ChunkDone;
  }

  async list(task: ListTask): Promise<ListDone> {
    return await this.#give({ type: "list", task }) as ListDone;
  }

  async streamList(task: StreamListTask): Promise<StreamListDone> {
    return await this.#give({ type: "streamList", task }) as StreamListDone;
  }

  async segment(task: SegmentTask): Promise<SegmentDone[]> {
    return await this.#give({ type: "segment", task }) as SegmentDone[];
  }

  close(): void {
    for (const thread of this.#threads) thread.close();
  }

  async #tell(task: RewriterTask): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.ask(task)));
  }

  /** To the one with least to do. */
  async #give(task: RewriterTask): Promise<FromRewriter["result"]> {
    const [least] = [...this.#threads].sort((a, b) => a.busy - b.busy);
    if (least === undefined) throw new HoldfastError("internal", "a rewriting has no thread");
    return await least.ask(task);
  }
}

class Thread {
  readonly #worker = new Worker(new URL("./rewrite_worker.ts", import.meta.url), { type: "module" });
  readonly #asked = new Map<number, Asked>();
  #last = 0;

  constructor() {
    this.#worker.onmessage = ({ data }: MessageEvent<FromRewriter>) => {
      const asked = this.#asked.get(data.number);
      this.#asked.delete(data.number);
      if (data.failure === null) return asked?.resolve(data.result);
      const { code, message, ...rest } = data.failure;
      asked?.reject(new HoldfastError(code, message, rest));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      for (const { reject } of this.#asked.values()) reject(asHoldfastError(event.error));
      this.#asked.clear();
    };
  }

  get busy(): number {
    return this.#asked.size;
  }

  async ask(task: RewriterTask): Promise<FromRewriter["result"]> {
    const number = ++this.#last;
    return await new Promise((resolve, reject) => {
      this.#asked.set(number, { resolve, reject });
      this.#worker.postMessage({ ...task, number });
    });
  }

  close(): void {
    this.#worker.terminate();
  }
}
