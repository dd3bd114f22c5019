import process from "node:process";

/** What the demo shows a person: steps with their time, one live line, a summary. Plain lines where there is no terminal. */
export class Screen {
  readonly #began = performance.now();
  readonly #live = process.stderr.isTTY === true && process.env["NO_COLOR"] === undefined;
  #step = performance.now();
  #shown = "";
  #lastPlain = -Infinity;

  /** A new step, numbered by the caller's words. */
  step(text: string): void {
    this.#clear();
    this.#step = performance.now();
    process.stderr.write(`\n${this.bold(text)}\n`);
  }

  /** A fact of the present step. */
  fact(text: string): void {
    this.#clear();
    process.stderr.write(`   ${text}\n`);
  }

  /** The end of the present step, with the time it took. */
  done(text: string): void {
    this.#clear();
    process.stderr.write(`   ${this.green("✓")} ${text} ${this.dim(`(${seconds(performance.now() - this.#step)})`)}\n`);
  }

  /** A line that replaces itself at a terminal; elsewhere one at most every ten seconds is shown. */
  live(text: string): void {
    if (text === this.#shown) return;
    if (this.#live) process.stderr.write(`\r\x1b[2K   ${text}`);
    else if (performance.now() - this.#lastPlain > 10_000) {
      process.stderr.write(`   ${text}\n`);
      this.#lastPlain = performance.now();
    }
    this.#shown = text;
  }

  /** `share` from 0 to 1, as a bar of 24 places. */
  bar(share: number): string {
    const full = Math.round(Math.max(0, Math.min(1, share)) * 24);
    return `${"█".repeat(full)}${"░".repeat(24 - full)} ${String(Math.floor(share * 100)).padStart(3)} %`;
  }

  summary(title: string, rows: readonly (readonly [string, string])[]): void {
    this.#clear();
    const width = Math.max(...rows.map(([name]) => name.length));
    const lines = rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`);
    process.stdout.write(`\n${this.bold(title)}\n${lines.join("\n")}\n\n`);
  }

  get elapsed(): string {
    return seconds(performance.now() - this.#began);
  }

  bold(text: string): string {
    return this.#live ? `\x1b[1m${text}\x1b[0m` : text;
  }

  green(text: string): string {
    return this.#live ? `\x1b[32m${text}\x1b[0m` : text;
  }

  dim(text: string): string {
    return this.#live ? `\x1b[2m${text}\x1b[0m` : text;
  }

  #clear(): void {
    if (this.#live && this.#shown !== "") process.stderr.write("\r\x1b[2K");
    this.#shown = "";
  }
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
