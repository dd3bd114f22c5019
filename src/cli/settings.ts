/** Settings of one command: flags, then the environment, then .env; with `--local` flags and the running stack alone. */
import { readFile } from "node:fs/promises";
import { errno } from "../shared/store/file_errors.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { Arguments } from "./arguments.ts";
import { parseDotenv } from "./dotenv.ts";
import { optionFacts, type OptionName } from "./options.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export class Settings {
  readonly #flags: Arguments["flags"];
  readonly #variables: (name: string) => string | undefined;

  /** `variables` answers for names in capitals, such as BACKUP_STORE; an empty value counts as none. */
  constructor(flags: Arguments["flags"], variables: (name: string) => string | undefined) {
    this.#flags = flags;
    this.#variables = variables;
  }

  /** Whether a boolean option was given. */
  has(name: OptionName): boolean {
    return this.#flags.get(name) === true;
  }

  /** Whether the value comes from the command line. */
  isFlag(name: OptionName): boolean {
    return this.#flags.has(name);
  }

  /** The flag, else its variable, else its preset. */
  get(name: OptionName): string | undefined {
    const flag = this.#flags.get(name);
    const { variable, preset } = optionFacts(name);
    if (typeof flag === "string") return flag;
    return (variable === undefined ? undefined : this.variable(variable)) ?? preset;
  }

  /** A variable that has no flag, such as BACKUP_KEYS. */
  variable(name: string): string | undefined {
    const value = this.#variables(name);
    return value === undefined || value.trim() === "" ? undefined : value;
  }

  /** Errors: `setting_missing` naming the flag and its variable. */
  need(name: OptionName): string {
    const value = this.get(name);
    if (value !== undefined) return value;
    const { variable } = optionFacts(name);
    throw new HoldfastError("setting_missing", `--${name} is not set`, {
      hint: variable === undefined
        ? `Give --${name}.`
        : `Give --${name}, or set ${variable} in the environment or in .env.`,
    });
  }

  /** A whole number within bounds. Errors: `usage`, `setting_missing`. */
  integer(name: OptionName, lowest: number, highest: number): number {
    const text = this.need(name);
    const value = Number(text);
    if (!/^\d{1,9}$/.test(text) || value < lowest || value > highest) {
      throw new HoldfastError("usage", `--${name} is a whole number from ${lowest} to ${highest}`);
    }
    return value;
  }
}

/** Reads .env where there is one. A file that was asked for by name and is missing is `usage`. */
export async function readSettings(parsed: Arguments, environment: Environment): Promise<Settings> {
  const named = parsed.flags.get("env-file");
  const file = typeof named === "string" ? named : optionFacts("env-file").preset ?? ".env";
  const dotenv = await readDotenv(file, named !== undefined);
  return new Settings(parsed.flags, (name) => environment[name] || dotenv.get(name));
}

/** The text of a file that a setting names, without the line's end. Errors: `usage`. */
export async function readSettingFile(path: string, option: OptionName): Promise<string> {
  try {
    return (await readFile(path, "utf8")).replace(/\r?\n$/, "");
  } catch (cause) {
    throw new HoldfastError("usage", `the file of --${option} cannot be read (${errno(cause) || "unknown reason"})`, {
      cause,
      hint: `Check the path: ${path}`,
    });
  }
}

async function readDotenv(file: string, wanted: boolean): Promise<Map<string, string>> {
  try {
    return parseDotenv(await readFile(file, "utf8"));
  } catch (cause) {
    if (!wanted && errno(cause) === "ENOENT") return new Map();
    throw new HoldfastError("usage", `${file} cannot be read (${errno(cause) || "unknown reason"})`, { cause });
  }
}
