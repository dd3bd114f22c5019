/** Rows that became somebody else's between the plan and the locks. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { keyOfDelta, liveName, liveRelation, type Pair, type Part } from "./difference.ts";

/** Behind the locks, before anything is changed. Errors: `rows_conflict`. */
export async function refuseOthers(connection: Connection, pair: Pair, part: Part): Promise<void> {
  await refuse(connection, pair, strayedStatement(pair, part), "were to go");
  await refuse(connection, pair, givenStatement(pair, part), "were to be put back");
}

async function refuse(connection: Connection, pair: Pair, sql: string | null, what: string): Promise<void> {
  const [row] = sql === null ? [] : await connection.query(sql);
  if (Number(row?.["n"] ?? 0) === 0) return;
  throw new HoldfastError("rows_conflict", `rows of ${liveName(pair)} that ${what} are somebody else's by now`, {
    hint: "The last transaction was undone. Look at the plan again.",
  });
}

/** How many rows that were to be deleted are out of the scope by now; null: there is none. */
function strayedStatement(pair: Pair, part: Part): string | null {
  if (pair.fit.key === null || pair.scope === null) return null;
  return `select count(*) as n from ${pair.delta} as d where d."action" = 'delete' and ${part("d")} and not exists (
    select from ${liveRelation(pair)} as l where ${keyOfDelta(pair, "l")} and (${pair.scope})
  )`;
}

/** How many rows that were to be put back are another user's by now, and were not when that was looked up; null: never mind. */
function givenStatement(pair: Pair, part: Part): string | null {
  if (pair.theirs === undefined || pair.theirs.taken) return null;
  const { sql, condition } = pair.theirs;
  return `select count(*) as n from ${pair.delta} as d join ${liveRelation(pair)} as l on ${keyOfDelta(pair, "l")}
    where d."action" = 'update' and ${part("d")} and (${condition})
      and not exists (select from ${sql} as t where ${keyOfDelta(pair, "t")})`;
}
