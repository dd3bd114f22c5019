import type { HoldfastError } from "../errors.ts";

/** Says this error something about the object, rather than about the way to it? */
export function isVerdict(error: Pick<HoldfastError, "code" | "retry">): boolean {
  return error.retry !== "backoff" && error.code !== "cancelled" && error.code !== "internal" &&
    error.code !== "store_denied" && error.code !== "store_missing" && error.code !== "identity_missing";
}
