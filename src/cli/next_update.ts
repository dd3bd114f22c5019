import { HoldfastError } from "../shared/errors.ts";
import type { Context } from "./context.ts";

/** --next-update: a moment, or a span from now on such as 30m or 2h; ISO 8601 in UTC, null: not set. Errors: `usage`. */
export function nextUpdateOf({ settings, clock }: Pick<Context, "settings" | "clock">): string | null {
  const asked = settings.get("next-update");
  if (asked === undefined) return null;
  const [, count, unit] = /^([1-9]\d{0,3})([mh])$/.exec(asked) ?? [];
  const moment = count === undefined
    ? /T.*(Z|[+-]\d\d:\d\d)$/.test(asked) ? Date.parse(asked) : NaN
    : clock.now().getTime() + Number(count) * (unit === "h" ? 3_600_000 : 60_000);
  if (Number.isNaN(moment)) {
    throw new HoldfastError("usage", "--next-update is a span such as 30m or 2h, or a moment with a zone");
  }
  return `${new Date(moment).toISOString().slice(0, 19)}Z`;
}
