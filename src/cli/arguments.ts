/** What stands on the command line, checked against the tables. */
import { parseArgs } from "node:util";
import { HoldfastError } from "../shared/errors.ts";
import { commandFacts, type CommandName, commandNames, commands, optionsOf } from "./command_table.ts";
import { optionFacts, type OptionName } from "./options.ts";

export interface Arguments {
  readonly command: CommandName;
  readonly words: readonly string[];
  readonly flags: ReadonlyMap<OptionName, string | true>;
}

/** `help` asks for a text; null: the general one. */
export type Parsed = Arguments | { readonly help: CommandName | null };

/** Errors: `usage`, naming the argument that is wrong and the command's way out. */
export function parseArguments(argv: readonly string[]): Parsed {
  const [first, ...rest] = argv;
  if (first === undefined || first === "help" || first === "--help" || first === "-h") {
    const [about] = rest;
    return { help: about !== undefined && isCommand(about) ? about : null };
  }
  if (!isCommand(first)) {
    throw new HoldfastError("usage", `there is no command ${JSON.stringify(first)}`, {
      hint: `The commands are: ${commandNames.join(", ")}.`,
    });
  }
  if (rest.some((argument) => argument === "--help" || argument === "-h")) return { help: first };
  return parseCommand(first, rest);
}

function parseCommand(command: CommandName, argv: readonly string[]): Arguments {
  const known = Object.fromEntries(
    optionsOf(command).map((name): [OptionName, { type: "string" | "boolean"; multiple: boolean }] => {
      const { type, multiple } = optionFacts(name);
      return [name, { type, multiple: multiple === true }];
    }),
  );
  let parsed;
  try {
    parsed = parseArgs({ args: [...argv], options: known, allowPositionals: true, strict: true });
  } catch (error) {
    throw wrong(command, error instanceof Error ? error.message.replace(/\. To specify.*$/s, "") : "wrong arguments");
  }
  const flags = new Map<OptionName, string | true>();
  for (const name of optionsOf(command)) {
    const given = parsed.values[name];
    const value = Array.isArray(given) ? given.join(optionFacts(name).separator ?? ",") : given;
    if (typeof value === "string" || value === true) flags.set(name, value);
  }
  const { words } = commandFacts(command);
  const missing = words.filter((word) => word.required)[parsed.positionals.length];
  if (missing !== undefined) throw wrong(command, `<${missing.name}> is missing: ${missing.help}`);
  if (parsed.positionals.length > words.length) {
    throw wrong(command, `${JSON.stringify(parsed.positionals[words.length])} is one word too many`);
  }
  return { command, words: parsed.positionals, flags };
}

function isCommand(word: string): word is CommandName {
  return Object.hasOwn(commands, word);
}

function wrong(command: CommandName, message: string): HoldfastError {
  return new HoldfastError("usage", message, { hint: `holdfast ${command} --help shows what it takes.` });
}
