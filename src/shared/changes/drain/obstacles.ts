/** What a segment brings that no replay can do, told while it is drained: until a new full backup behind it is there. */
import { asHoldfastError } from "../../errors.ts";
import { decodeMessage, messageKind, relationOf } from "../decode/pgoutput.ts";
import { formatLsn, parseLsn } from "../decode/lsn.ts";
import type { Relation } from "../decode/messages.ts";
import { momentOf } from "../decode/moment.ts";
import { DdlTransaction, namesOf, readDdlRow } from "../definitions/ddl_replay.ts";
import { comesOutOfSide } from "../plan/side_schemas.ts";
import type { Obstacle } from "../plan/survey.ts";
import { readRecords, type SegmentHeader } from "../segments/segment.ts";
import { ddlLog } from "../segments/streamed.ts";
import { changedUnlogged, unloggedWhat, unloggedWhy } from "../segments/unlogged.ts";

/** As the last segment of a chain told them; `takenAt`: of that segment. */
export type KnownDefinitions = NonNullable<SegmentHeader["definitions"]> & { readonly takenAt: string };

/**
 * The first and the last place of the records: `lsn` is where a full backup has to be to hold it, moments before `at` can be
 * restored. What is told of tables alone (their rows are not known) is none; a restore knows more, and refuses more.
 */
export function obstaclesIn(name: string, records: Uint8Array): Obstacle[] {
  const found: Obstacle[] = [];
  let log: Relation | null = null;
  let ddl = new DdlTransaction();
  let place = { lsn: "", at: "" };
  for (const { data } of readRecords(name, records)) {
    const kind = messageKind(data);
    if (kind === "begin") {
      const message = decodeMessage(data);
      if (message.kind !== "begin") continue;
      ddl = new DdlTransaction();
      place = { lsn: formatLsn(message.commitLsn), at: momentOf(message.committedAt) ?? "" };
    } else if (kind === "relation") {
      const message = decodeMessage(data);
      if (message.kind !== "relation") continue;
      const { schema, name: table } = message.relation;
      if (schema === ddlLog.schema && table === ddlLog.name) log = message.relation;
    } else if (kind === "insert" && log !== null && relationOf(data) === log.oid) {
      const message = decodeMessage(data);
      // In a later part of a transaction nobody says where it began.
      if (message.kind !== "insert" || place.lsn === "") continue;
      const obstacle = judge(ddl, log, message.row);
      if (obstacle !== null) found.push({ ...obstacle, ...place });
    }
  }
  return [found[0], found.at(-1)].flatMap((one, index) =>
    one === undefined || (index > 0 && found.length === 1) ? [] : [one]
  );
}

function judge(ddl: DdlTransaction, log: Relation, values: readonly unknown[]): Pick<Obstacle, "what" | "why"> | null {
  try {
    const row = readDdlRow(
      new Map(log.columns.map((column, index) => {
        const value = values[index];
        return [column.name, typeof value === "string" ? value : null] as const;
      })),
    );
    const step = ddl.next(row);
    // Which tables a full holds is not known here: only schemas are judged.
    const why = step.do === "refuse" ? step.why : comesOutOfSide(row, step, () => true);
    return why === null ? null : { what: step.do === "refuse" ? step.names : namesOf(row), why };
  } catch (error) {
    // A drain goes on whatever it brings.
    return { what: "a row of the DDL log", why: asHoldfastError(error).message };
  }
}

/** Definitions that nobody logged: they changed somewhere since the last segment was taken. */
export function unloggedObstacle(was: KnownDefinitions | null, header: SegmentHeader): Obstacle[] {
  const { definitions } = header;
  if (was === null || definitions === undefined || !changedUnlogged(was, definitions)) return [];
  return [{ what: unloggedWhat, why: unloggedWhy, lsn: header.endLsn, at: was.takenAt }];
}

/** Headers tell the newest of their chain's. */
const mostTold = 100;

/** In order of their places, each once. */
export function toldObstacles(
  known: NonNullable<SegmentHeader["obstacles"]>,
  more: readonly Obstacle[],
): NonNullable<SegmentHeader["obstacles"]> {
  const all = new Map([...known, ...more].map(({ lsn, at, what, why }) => [lsn, { lsn, at, what, why }]));
  return [...all.values()].sort((a, b) => parseLsn(a.lsn) < parseLsn(b.lsn) ? -1 : 1).slice(-mostTold);
}
