import { HoldfastError } from "../../errors.ts";
import type { Lsn } from "./messages.ts";

const pattern = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i;

/** `16/B374D848` → a number. `internal` for anything else: callers check what people type with `isLsn`. */
export function parseLsn(text: string): Lsn {
  const found = pattern.exec(text);
  if (found === null) throw new HoldfastError("internal", "a position in the log has the wrong form");
  return (BigInt(`0x${found[1]}`) << 32n) | BigInt(`0x${found[2]}`);
}

export function isLsn(text: string): boolean {
  return pattern.test(text);
}

/** The server's own text. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}
