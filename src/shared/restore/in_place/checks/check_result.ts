/** What one check after a restore in place found. */
import { asHoldfastError } from "../../../errors.ts";

export const checkNames = ["row counts", "policies", "sign-in", "functions", "smoke queries"] as const;

export interface CheckResult {
  readonly check: typeof checkNames[number];
  /** Null: not tried. */
  readonly ok: boolean | null;
  /** For people, in one line: names and counts, no row's value, no secret. Begins with `not tried` where `ok` is null. */
  readonly detail: string;
}

/** Of a check's work: `ok` null where it could not be tried. */
export type Found = Pick<CheckResult, "ok" | "detail">;

export const well = (detail: string): Found => ({ ok: true, detail });
export const failed = (detail: string): Found => ({ ok: false, detail });
export const notTried = (why: string): Found => ({ ok: null, detail: `not tried: ${why}` });

/** Names that are listed; all are counted. */
const mostListed = 5;

/** `a; b; c and 4 more`. */
export function listed(names: readonly string[]): string {
  const more = names.length - mostListed;
  return names.slice(0, mostListed).join("; ") + (more > 0 ? ` and ${more} more` : "");
}

/** What kept a check from its end, without what a foreign error says. */
export function reasonOf(error: unknown): string {
  const { code, message } = asHoldfastError(error);
  return `${message} (${code})`;
}
