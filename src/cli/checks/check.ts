import { asHoldfastError } from "../../shared/errors.ts";

/** One line of `doctor`. */
export interface Check {
  readonly name: string;
  readonly state: "ok" | "warn" | "fail";
  readonly message: string;
  /** The way out; empty for `ok`. */
  readonly hint: string;
}

export function ok(name: string, message: string): Check {
  return { name, state: "ok", message, hint: "" };
}

export function warn(name: string, message: string, hint: string): Check {
  return { name, state: "warn", message, hint };
}

export function fail(name: string, message: string, hint: string): Check {
  return { name, state: "fail", message, hint };
}

/** The failure as a line; our own errors carry their way out. */
export function failed(name: string, error: unknown): Check {
  const ours = asHoldfastError(error);
  return fail(name, `${ours.code}: ${ours.message}`, ours.hint);
}

export function passed(check: Check): boolean {
  return check.state !== "fail";
}
