/** What a command hands back, and how it is printed. stdout carries the result and nothing else. */
import { asHoldfastError, type ExitCode } from "../shared/errors.ts";

export interface Outcome {
  readonly exit: 0 | ExitCode;
  /** What --json prints. */
  readonly document: unknown;
  /** What people read. */
  readonly lines: readonly string[];
}

export interface Printer {
  stdout(text: string): void;
  stderr(text: string): void;
}

export function printOutcome(outcome: Outcome, json: boolean, printer: Printer): number {
  const text = json ? JSON.stringify(outcome.document, null, 2) : printable(outcome.lines.join("\n"));
  if (text !== "") printer.stdout(`${text}\n`);
  return outcome.exit;
}

/** A table may be called anything: no control character but line feed and tab reaches a terminal, which would obey it. */
function printable(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}/gu, "\ufffd");
}

/** One line on stderr, or with `json` a document on stdout. Returns the exit code. */
export function printFailure(error: unknown, json: boolean, printer: Printer): number {
  const failure = asHoldfastError(error);
  const [message, hint] = [failure.message, failure.hint].map((text) => printable(oneLine(text)));
  if (json) printer.stdout(`${JSON.stringify(failure.toDocument(), null, 2)}\n`);
  else printer.stderr(`${failure.code}: ${message} (${hint})\n`);
  return failure.exit;
}

/** Columns as wide as their widest cell; the last one is not padded. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => (row[at] ?? "").length)));
  return rows.map((row) =>
    row.map((cell, at) => at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0)).join("  ")
  );
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, " ");
}
