/** What a person types for a point in time, read strictly. */
import { HoldfastError } from "../../errors.ts";
import { isLsn, parseLsn } from "../decode/lsn.ts";
import type { Point } from "../replay/replay.ts";

const form = /^(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?\s*(Z|z|[+-]\d{2}(?::?\d{2})?)?$/;

/**
 * `2024-01-09T12:00:00Z` (seconds, fractions to a microsecond and offsets like `+02:00` allowed), a position (`16/B374D848`),
 * or `latest`. `usage` for anything else: a moment without a zone is not guessed, both readings are shown.
 */
export function parsePoint(text: string, localZoneMinutes: (utc: Date) => number): Point {
  const wanted = text.trim();
  if (wanted === "latest") return { by: "end" };
  if (isLsn(wanted)) return { by: "lsn", lsn: parseLsn(wanted) };
  const parts = form.exec(wanted);
  if (parts === null) {
    throw new HoldfastError("usage", `"${text}" is no moment and no position in the log`, {
      hint: "A moment looks like 2024-01-09T12:00:00Z, a position like 16/B374D848; `latest` is all there is.",
    });
  }
  const [, year = "", month = "", day = "", hour = "", minute = "", second = "00", fraction = "", zone] = parts;
  const utc = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  const isReal = !Number.isNaN(utc.getTime()) &&
    utc.toISOString().slice(0, 19) === `${year}-${month}-${day}T${hour}:${minute}:${second}`;
  if (!isReal) throw new HoldfastError("usage", `"${text}" is no moment: there is no such day or time`);
  const micros = BigInt(utc.getTime()) * 1000n + BigInt(fraction.padEnd(6, "0") || "0");
  if (zone === undefined) {
    const local = new Date(utc.getTime() + localZoneMinutes(utc) * 60_000);
    throw new HoldfastError("usage", `"${text}" has no time zone`, {
      hint: `As UTC it is ${utc.toISOString().slice(0, 19)}Z, in this machine's zone ${
        local.toISOString().slice(0, 19)
      }Z: add a Z or an offset.`,
    });
  }
  return { by: "time", at: micros - BigInt(offsetMinutes(zone)) * 60_000_000n };
}

function offsetMinutes(zone: string): number {
  if (zone.toUpperCase() === "Z") return 0;
  const [, sign = "+", hours = "0", minutes = "0"] = /^([+-])(\d{2}):?(\d{2})?$/.exec(zone) ?? [];
  const total = Number(hours) * 60 + Number(minutes);
  if (total > 16 * 60 || Number(minutes) > 59) throw new HoldfastError("usage", `${zone} is no offset of a time zone`);
  return sign === "-" ? -total : total;
}

/** For people and documents. */
export function describePoint(
  point: Point,
  moment: (micros: bigint) => string | null,
  lsn: (at: bigint) => string,
): string {
  switch (point.by) {
    case "time":
      return moment(point.at) ?? "";
    case "lsn":
      return lsn(point.lsn);
    case "before_xid":
      return `before transaction ${point.xid}`;
    case "end":
      return "latest";
  }
}
