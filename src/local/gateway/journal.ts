import { appendFileSync, existsSync, renameSync, statSync } from "node:fs";

/** At this size the file is set aside as `<file>.1` (the one before is dropped) and begun anew. */
const longestFile = 64 * 1024 * 1024;

/** What the gateway saw, one JSON object a line: the output of functions and the figures of ended isolates. */
export class Journal {
  readonly #file: string | undefined;
  #size: number;

  constructor(file: string | undefined) {
    this.#file = file;
    this.#size = file !== undefined && existsSync(file) ? statSync(file).size : 0;
  }

  write(entry: Record<string, unknown>): void {
    if (this.#file === undefined) return;
    const line = `${JSON.stringify({ at: new Date().toISOString(), ...entry })}\n`;
    try {
      if (this.#size > longestFile) {
        renameSync(this.#file, `${this.#file}.1`);
        this.#size = 0;
      }
      appendFileSync(this.#file, line, { mode: 0o600 });
      this.#size += line.length;
    } catch (error) {
      console.error("journal:", error); // a full disk costs the line, not the project's front door
    }
  }
}
