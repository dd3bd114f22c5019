/** --help and docs/cli.md, made from the tables. */
import { commandFacts, type CommandName, commandNames, optionsOf } from "./command_table.ts";
import { optionFacts, type OptionName } from "./options.ts";

const width = 100;

export function commandHelp(name: CommandName): string {
  const facts = commandFacts(name);
  const words = facts.words.map((word) => (word.required ? ` <${word.name}>` : ` [${word.name}]`)).join("");
  const lines = [
    `holdfast ${name}${words} [options]`,
    "",
    ...wrap(`${capital(facts.summary)}. ${facts.about}`, "", width),
    "",
  ];
  const rows = [
    ...facts.words.map((word): [string, string] => [`<${word.name}>`, word.help]),
    ...optionsOf(name).map((option): [string, string] => [optionLabel(option), optionHelp(option)]),
  ];
  lines.push(...table(rows), "", "Examples:");
  for (const example of facts.examples) {
    lines.push(`  npm run -s backup:${example.line}`, `      ${example.does}`);
  }
  return lines.join("\n");
}

export function generalHelp(): string {
  return [
    "holdfast <command> [options]",
    "",
    "Backup and recovery for Supabase projects.",
    "",
    ...table(commandNames.map((name) => [name, commandFacts(name).summary])),
    "",
    "Settings come from flags, then the environment, then .env. BACKUP_KEYS, BACKUP_WORKER_SECRET and passwords",
    "have no flag, so that they stay out of process lists and shell histories.",
    "Through npm, options go behind `--`: npm run -s backup:create -- --json",
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a check found a problem.",
    "`holdfast <command> --help` tells more.",
  ].join("\n");
}

/** The text of docs/cli.md. */
export function cliReference(): string {
  const parts = [
    "# Commands",
    "",
    "This page is made by `deno run -A src/cli/write_reference.ts`; a test compares it with the code.",
    "",
    ...fenced(generalHelp()),
  ];
  for (const name of commandNames) parts.push("", `## ${name}`, "", ...fenced(commandHelp(name)));
  return parts.join("\n") + "\n";
}

function optionLabel(name: OptionName): string {
  const { value } = optionFacts(name);
  return value === undefined ? `--${name}` : `--${name} <${value}>`;
}

function optionHelp(name: OptionName): string {
  const { help, variable, preset } = optionFacts(name);
  const notes = [variable, preset === undefined ? undefined : `default ${preset}`].filter((note) => note !== undefined);
  return notes.length === 0 ? help : `${help} (${notes.join("; ")})`;
}

function table(rows: readonly (readonly [string, string])[]): string[] {
  const left = Math.max(...rows.map(([label]) => label.length)) + 4;
  return rows.flatMap(([label, text]) => {
    const [first = "", ...rest] = wrap(text, "", width - left);
    return [`  ${label}`.padEnd(left) + first, ...rest.map((line) => " ".repeat(left) + line)];
  });
}

/** Breaks at spaces; a longer word stands alone. */
function wrap(text: string, indent: string, columns: number): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(" ")) {
    if (line.length > indent.length && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = indent;
    }
    line += line.length > indent.length ? ` ${word}` : word;
  }
  return [...lines, line];
}

function fenced(text: string): string[] {
  return ["```text", text, "```"];
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
