/** Which names every store takes. docs/format.md, "Names". */
import { HoldfastError } from "../errors.ts";

/** Leaves room for a store's own prefix below the 1,024 bytes that S3 allows. */
export const maxNameLength = 900;

const namePattern = /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/;
const prefixPattern = /^([A-Za-z0-9._-]+\/)*[A-Za-z0-9._-]*$/;

/** `store_name_refused` unless it is a relative ASCII path without a part that is `.` or `..`. */
export function checkName(name: string): void {
  if (!namePattern.test(name) || !isPlain(name)) throw refused("name");
}

/** A beginning of a name: the same signs; empty means everything. */
export function checkPrefix(prefix: string): void {
  if (!prefixPattern.test(prefix) || !isPlain(prefix)) throw refused("prefix");
}

function isPlain(path: string): boolean {
  return path.length <= maxNameLength && !path.split("/").some((part) => part === "." || part === "..");
}

function refused(what: string): HoldfastError {
  return new HoldfastError("store_name_refused", `this ${what} cannot be used in a store`);
}
