/**
 * npm keeps flags that stand before `--` for itself: `npm run backup:verify latest --json` reaches us as `latest`, with
 * `npm_config_json=true` in the environment. Such a run must not go on as if the flag had not been meant.
 */
import { HoldfastError } from "../shared/errors.ts";
import type { Arguments } from "./arguments.ts";
import { commandFacts, type CommandName, optionsOf } from "./command_table.ts";
import { optionFacts, type OptionName } from "./options.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Throws `usage` with the line that was meant when npm took an option of the command. Does nothing outside of
 * `npm run backup:…`, where such variables are somebody's settings. `wordsTook` gives npm's own words for a script: it
 * reads `--local` as `--no-global`, which leaves no trace in the environment.
 */
export function refuseSwallowedFlags(
  command: CommandName,
  argv: readonly string[],
  environment: Environment,
  wordsTook: (script: string) => readonly string[],
): void {
  const script = environment["npm_lifecycle_event"] ?? "";
  if (!script.startsWith("backup:")) return;
  const took = wordsTook(script);
  const { values, rest } = readShorthands(took);
  const wasGiven = (name: OptionName) =>
    values.has(name) || (name === "local" && took.includes("--no-global")) ||
    // A shorthand sets it as well.
    (isSet(environment[variable(name)]) &&
      (values.size === 0 || !inShorthands.has(name) || rest.includes(`--${name}`)));
  const swallowed = optionsOf(command).filter(wasGiven);
  if (swallowed.length === 0) return;
  const own = [...argv];
  for (const value of values.values()) if (own.includes(value)) own.splice(own.indexOf(value), 1);
  const words = own.slice(0, commandFacts(command).words.length);
  const given = Object.fromEntries([...values].map(([name, value]) => [variable(name), value]));
  const flags = flagsOf(swallowed, own.slice(words.length), { ...environment, ...given });
  const line = ["npm", "run", "-s", script, "--", ...words.map(shellWord), ...flags].join(" ");
  const names = swallowed.map((name) => `--${name}`).join(" and ");
  throw new HoldfastError("usage", `npm kept ${names} for itself`, { hint: `Put options behind \`--\`: ${line}` });
}

/**
 * npm reads these as shorthands of one letter each, written together: `--as 4` reaches us as the word `4`. `--format` is to it
 * the beginning of an option of its own, `--only` one of its own that takes no such value: both leave no trace in the environment.
 */
const shorthands: Readonly<Partial<Record<OptionName, readonly string[]>>> = {
  "as": ["--all", "--loglevel", "silent"],
  "apply": ["--all", "--parseable", "--parseable", "--long", "--yes"],
  "format": ["--format"],
  "map": ["--message", "--all", "--parseable"],
  "only": ["--only"],
  "sql": ["--loglevel", "silent", "--loglevel", "warn", "--long"],
};
const inShorthands: ReadonlySet<string> = new Set(["all", "yes", "message"]);

/** Which of those stand in npm's own words, with their values, and the words without them. */
function readShorthands(
  took: readonly string[],
): { readonly values: ReadonlyMap<OptionName, string>; readonly rest: readonly string[] } {
  const values = new Map<OptionName, string>();
  const rest: string[] = [];
  for (let at = 0; at < took.length;) {
    const found = (Object.entries(shorthands) as [OptionName, readonly string[]][]).find(([name, words]) =>
      words.every((word, index) => took[at + index] === word) && (!takesValue(name) || isWord(took[at + words.length]))
    );
    if (found === undefined) {
      rest.push(took[at++] ?? "");
      continue;
    }
    const [name, words] = found;
    at += words.length;
    values.set(name, takesValue(name) ? took[at++] ?? "" : "true");
  }
  return { values, rest };
}

/** The surplus words that npm makes of a swallowed flag's value get the same advice. */
export function adviceForNpm(environment: Environment): string {
  const script = environment["npm_lifecycle_event"] ?? "";
  return script.startsWith("backup:") ? ` Through npm, options go behind \`--\`: npm run -s ${script} -- --help` : "";
}

/**
 * Where npm's words cannot be seen, a swallowed `--local` can only be guessed: where the embedded stack runs, and a command
 * came through npm without any flag, people are told; null: nothing to say.
 */
export function localAdvice(given: Arguments, environment: Environment, stackRuns: boolean): string | null {
  const script = environment["npm_lifecycle_event"] ?? "";
  if (!script.startsWith("backup:") || given.flags.size > 0 || !stackRuns) return null;
  const line = ["npm", "run", "-s", script, "--", ...given.words.map(shellWord), "--local"].join(" ");
  return `note: this is not about the embedded stack that runs here; that would be: ${line}`;
}

function variable(name: OptionName): string {
  return `npm_config_${name.replaceAll("-", "_")}`;
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== "" && value !== "false";
}

/**
 * npm turns `--jobs 4` into `jobs=true` and leaves `4` among our words: one such word belongs to the one flag that lacks
 * its value. Of several nobody can tell which is whose.
 */
function flagsOf(names: readonly OptionName[], surplus: readonly string[], environment: Environment): string[] {
  const lacking = names.filter((name) => takesValue(name) && environment[variable(name)] === "true");
  const [only] = lacking.length === 1 && surplus.length === 1 ? surplus : [];
  return names.flatMap((name) => {
    if (!takesValue(name)) return [`--${name}`];
    const value = environment[variable(name)] ?? "";
    if (value !== "true") return [`--${name}`, shellWord(value)];
    return [`--${name}`, only === undefined ? `<${optionFacts(name).value ?? "value"}>` : shellWord(only)];
  });
}

function isWord(text: string | undefined): boolean {
  return text !== undefined && !text.startsWith("-");
}

function takesValue(name: OptionName): boolean {
  return optionFacts(name).type === "string";
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
