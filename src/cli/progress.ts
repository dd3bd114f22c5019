/** Progress on stderr: a bar that redraws itself on a terminal, else a plain line now and then. */
import type { Clock } from "../shared/clock.ts";

export interface ProgressState {
  readonly label: string;
  readonly done: number;
  /** Null while it is not known. */
  readonly total: number | null;
  readonly unit: "bytes" | "rows" | "objects" | "steps" | "changes" | "transactions" | "files";
  /** Said behind the figures. */
  readonly detail?: string;
}

/** Where the lines go. */
export interface ProgressSink {
  readonly isTerminal: boolean;
  readonly columns: number;
  write(text: string): void;
}

const redrawMs = 100;
const plainMs = 5_000;
/** The rate is that of the last ten seconds, so that it follows a slow store and does not jump with each chunk. */
const windowMs = 10_000;

export class Progress {
  readonly #sink: ProgressSink;
  readonly #clock: Clock;
  #samples: { readonly atMs: number; readonly done: number }[] = [];
  #label = "";
  #writtenMs = -Infinity;
  #drawn = false;

  constructor(sink: ProgressSink, clock: Clock) {
    this.#sink = sink;
    this.#clock = clock;
  }

  update(state: ProgressState): void {
    const nowMs = this.#clock.monotonicMs();
    const fresh = state.label !== this.#label;
    if (fresh) {
      this.#label = state.label;
      this.#samples = [];
    }
    this.#samples.push({ atMs: nowMs, done: state.done });
    // Bounded: at most two samples a redraw are of use, the others are thinned out.
    this.#samples = this.#samples.filter((sample, index, all) =>
      nowMs - sample.atMs <= windowMs && (index === 0 || index === all.length - 1 || all.length < 200)
    );
    const ended = state.total !== null && state.done >= state.total;
    const dueMs = this.#sink.isTerminal ? redrawMs : plainMs;
    if (!fresh && !ended && nowMs - this.#writtenMs < dueMs) return;
    this.#writtenMs = nowMs;
    const text = progressText(state, this.#rate());
    if (this.#sink.isTerminal) {
      this.#sink.write(`\r\x1b[K${cut(bar(state) + text, this.#sink.columns - 1)}`);
      this.#drawn = true;
    } else this.#sink.write(`${text}\n`);
  }

  /** A line of its own, above the bar. */
  note(text: string): void {
    this.clear();
    this.#sink.write(`${text}\n`);
  }

  /** Takes the bar away. */
  clear(): void {
    if (this.#drawn) this.#sink.write("\r\x1b[K");
    this.#drawn = false;
  }

  /** Units a second; null before there is anything to tell it from. */
  #rate(): number | null {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.atMs - first.atMs < 500) return null;
    return (last.done - first.done) / ((last.atMs - first.atMs) / 1000);
  }
}

/** `reading  45 %  12.0 of 26.7 MiB  18.2 MiB/s  1 s left`. */
export function progressText(state: ProgressState, rate: number | null): string {
  const { label, done, total, unit } = state;
  const parts = [label];
  if (total !== null && total > 0) parts.push(`${Math.min(100, Math.floor((done / total) * 100))} %`);
  const soFar = unit === "bytes" ? amount(done, unit) : Math.round(done).toLocaleString("en-GB");
  parts.push(total === null ? amount(done, unit) : `${soFar} of ${amount(total, unit)}`);
  // One step may be an index of an hour: there is no rate to tell the rest from.
  if (unit !== "steps" && rate !== null && rate > 0) {
    parts.push(`${amount(rate, unit)}/s`);
    if (total !== null && total > done) parts.push(`${duration(((total - done) / rate) * 1000)} left`);
  }
  if (state.detail !== undefined) parts.push(state.detail);
  return parts.join("  ");
}

/** `12.3 MiB`, `1,234 rows`. */
export function amount(value: number, unit: ProgressState["unit"]): string {
  if (unit !== "bytes") return `${Math.round(value).toLocaleString("en-GB")} ${unit}`;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [size, at] = [value, 0];
  while (size >= 1024 && at < units.length - 1) [size, at] = [size / 1024, at + 1];
  return `${at === 0 ? Math.round(size) : size.toFixed(1)} ${units[at]}`;
}

/** `8 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function bar({ done, total }: ProgressState): string {
  if (total === null || total <= 0) return "";
  const cells = 20;
  const filled = Math.min(cells, Math.floor((done / total) * cells));
  return `[${"#".repeat(filled)}${"-".repeat(cells - filled)}] `;
}

function cut(text: string, columns: number): string {
  return columns > 0 && text.length > columns ? text.slice(0, columns) : text;
}
