/** The runbooks' commands as a person types them, block by block, in a folder of their own. */
import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { expect } from "vitest";
import { root } from "../unit/project_files.ts";
import { type Block, exportsOf, type Runbook, runbooks } from "../unit/runbook_pages.ts";

export interface RunbookPlace {
  /** Its `bin` holds what stands in for npm. */
  readonly folder: string;
  /** What a person runs in the SQL editor. */
  readonly sql: (text: string) => Promise<unknown>;
}

export function preparePlace(folder: string): void {
  mkdirSync(join(folder, "bin"));
  writeFileSync(join(folder, "bin/npm"), npm, { mode: 0o755 });
}

export interface ShellResult {
  readonly exit: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What npm makes of the lines of a page: `npm_run.test.ts` has npm itself, which takes longer than the commands. */
const npm = `#!/bin/sh
shift 2
script=$1
shift
for word do
  shift
  [ "$word" = -- ] || set -- "$@" "$word"
done
exec node '${join(root, "src/cli/holdfast.mjs")}' "\${script#backup:}" "$@"
`;

/** As a person types it into a shell, in a folder without a .env. */
export function shell(
  { folder }: Pick<RunbookPlace, "folder">,
  text: string,
  settings: Readonly<Record<string, string>>,
): Promise<ShellResult> {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn("sh", ["-e", "-u", "-c", text], {
    cwd: join(folder, "bin"),
    env: { PATH: `${join(folder, "bin")}:${PATH}`, HOME, ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (part: string) => (stdout += part));
  child.stderr.setEncoding("utf8").on("data", (part: string) => (stderr += part));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exit) => resolve({ exit, stdout, stderr }));
  });
}

/** A page that is followed from top to bottom. */
export class Followed {
  readonly settings: Record<string, string>;
  /** Of everything that was printed, the side schema that was named last. */
  side = "";
  readonly #place: RunbookPlace;
  readonly #left: Block[];
  /** What the page has told to set so far: nothing else is set. Null: it tells so in sentences. */
  readonly #exported: Set<string> | null;

  constructor(place: RunbookPlace, name: string, settings: Readonly<Record<string, string>>) {
    this.#place = place;
    const page = runbooks().find((one): one is Runbook => one.name === name);
    if (page === undefined) throw new Error(`there is no runbook ${name}`);
    this.#left = [...page.blocks];
    this.#exported = page.blocks.some((block) => exportsOf(block) !== null) ? new Set() : null;
    this.settings = { ...settings };
  }

  /** The next blocks, which have to stand below that heading; all that are left there, or so many. Returns their output. */
  async follow(section: string, blocks = this.#left.filter((block) => block.section === section).length) {
    let output = "";
    for (const block of this.#left.splice(0, blocks)) {
      expect(block.section, block.text).toBe(section);
      output += block.language === "sh" ? await this.#shell(block) : await this.#sql(block);
    }
    return output;
  }

  /** Nothing on the page was left out, and nothing was set that it does not name. */
  end(): void {
    expect(this.#left).toEqual([]);
    if (this.#exported !== null) expect([...this.#exported].sort()).toEqual(Object.keys(this.settings).sort());
  }

  async #shell(block: Block): Promise<string> {
    const { text, exit } = block;
    for (const name of exportsOf(block) ?? []) this.#exported?.add(name);
    const settings = Object.entries(this.settings).filter(([name]) => this.#exported?.has(name) ?? true);
    const result = await shell(this.#place, text, Object.fromEntries(settings));
    expect(result.exit, `${text}\n${result.stdout}${result.stderr}`).toBe(exit);
    this.side = result.stdout.match(/restore_[0-9a-f]{8}/g)?.at(-1) ?? this.side;
    return result.stdout + result.stderr;
  }

  async #sql({ text }: Block): Promise<string> {
    return JSON.stringify(await this.#place.sql(text.replaceAll("restore_1a2b3c4d", this.side)));
  }
}
