/** Structured log lines. No secret, token, row value or object content goes into one. */

export type LogLevel = "debug" | "info" | "warn" | "error";

export type LogFields = Readonly<Record<string, string | number | boolean | null>>;

export interface LogLine {
  readonly level: LogLevel;
  readonly event: string;
  readonly fields: LogFields;
}

export interface Log {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
  /** A named point of a run (docs/architecture.md), written as `step:<name>` at level `debug`. */
  step(name: string, fields?: LogFields): void;
}

const order: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

/** A log that hands every line at or above `least` to `write`. */
export function createLog(write: (line: LogLine) => void, least: LogLevel = "info"): Log {
  const at = (level: LogLevel) => (event: string, fields: LogFields = {}) => {
    if (order[level] >= order[least]) write({ level, event, fields });
  };
  const debug = at("debug");
  return {
    debug,
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    step: (name, fields) => debug(`step:${name}`, fields),
  };
}

/** One JSON object a line, as log collectors read it. */
export function jsonLine(line: LogLine): string {
  return JSON.stringify({ level: line.level, event: line.event, ...line.fields });
}

/** Writes nothing. */
export const silentLog: Log = createLog(() => {});
