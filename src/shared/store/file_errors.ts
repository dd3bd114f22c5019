/** What a failure of the file system means to a store. */
import { HoldfastError } from "../errors.ts";

/** The error code of a failed system call, such as `ENOSPC`; empty for anything else. */
export function errno(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** `what` is the call in words, such as "write v1/objects/…"; no path outside the store is in the message. */
export function fileFailure(error: unknown, what: string, label: string): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const code = errno(error);
  const say = (why: string) => `could not ${what} in ${label}: ${why}`;
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new HoldfastError("store_full", say(`no room left (${code})`), { cause: error });
    case "EROFS":
      return new HoldfastError("store_read_only", say("the file system is read-only"), { cause: error });
    case "EACCES":
    case "EPERM": {
      const reading = what.startsWith("read") || what.startsWith("list") || what.startsWith("look at");
      return new HoldfastError(reading ? "store_denied" : "store_read_only", say(`not permitted (${code})`), {
        hint: reading
          ? "Give this user the right to read the folder."
          : "Give this user the right to write there; the file system must know hard links.",
        cause: error,
      });
    }
    case "ENOTSUP":
    case "EOPNOTSUPP":
    case "EMLINK":
      return new HoldfastError("store_denied", say("the file system has no hard links"), {
        hint: "Create-only writes need hard links; use a local file system.",
        cause: error,
      });
    case "ENOTDIR":
    case "EISDIR":
    case "ENAMETOOLONG":
      return new HoldfastError("store_name_refused", say(`the name collides with another (${code})`), { cause: error });
    default:
      return new HoldfastError("store_unreachable", say(code === "" ? "unexpected failure" : code), { cause: error });
  }
}
