/** What stands in a task's `detail`, as the plan writes it and a worker reads it. Short names: there is one a range. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Task } from "../jobs/queries.ts";
import type { BaseChunk, PlannedRange } from "./plan.ts";
import type { Range } from "./ranges.ts";

const place = z.tuple([z.int().nonnegative(), z.int().nonnegative()]);

const rangeFormat = z.object({
  oid: z.string(),
  from: place,
  to: place.nullable(),
  bytes: z.number(),
  base: z.object({
    rows: z.int(),
    raw: z.int(),
    stored: z.int(),
    object: z.string(),
    hash: z.string(),
    storedHash: z.string(),
    takenFrom: z.string().nullable(),
    xmin: z.string().regex(/^\d{1,20}$/),
  }).nullable(),
});
const detailFormat = z.object({ ranges: z.array(rangeFormat) });

/** A chunk that may be taken over, without what only the plan needs. */
export type TakeOver = Omit<BaseChunk, "oid" | "relfilenode" | "fingerprint" | "range" | "seen">;

export interface WorkRange {
  readonly oid: string;
  readonly range: Range;
  readonly estimatedBytes: number;
  readonly base: TakeOver | null;
}

export function encodeRanges(ranges: readonly (WorkRange | PlannedRange)[]): z.input<typeof detailFormat> {
  return {
    ranges: ranges.map(({ oid, range, estimatedBytes, base }) => ({
      oid,
      from: [range.from.block, range.from.item],
      to: range.to === null ? null : [range.to.block, range.to.item],
      bytes: estimatedBytes,
      base: base === null ? null : {
        rows: base.rows,
        raw: base.rawBytes,
        stored: base.storedBytes,
        object: base.object,
        hash: base.hash,
        storedHash: base.storedHash,
        takenFrom: base.takenFrom,
        xmin: base.xmin,
      },
    })),
  };
}

export function decodeRanges(task: Task): WorkRange[] {
  const parsed = detailFormat.safeParse(task.detail);
  if (!parsed.success) throw new HoldfastError("internal", `task ${task.id} cannot be read`);
  return parsed.data.ranges.map(({ oid, from, to, bytes, base }) => ({
    oid,
    range: {
      from: { block: from[0], item: from[1] },
      to: to === null ? null : { block: to[0], item: to[1] },
    },
    estimatedBytes: bytes,
    base: base === null ? null : {
      rows: base.rows,
      rawBytes: base.raw,
      storedBytes: base.stored,
      object: base.object,
      hash: base.hash,
      storedHash: base.storedHash,
      takenFrom: base.takenFrom,
      xmin: base.xmin,
    },
  }));
}
