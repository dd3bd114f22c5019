import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteLiteral } from "../../schema/quote.ts";

/** Values that are drawn rather than jumped over: some 0.4 s, and 3 MB of log. */
const mostDraws = 1_000_000;
/** Whoever draws a value waits behind us for so long, at most. */
const lockMs = 500;
const lockTries = 3;

/**
 * Brings a sequence to a value that it can have, or past it where it is ahead, never back: `setval` after a look at where it
 * is would hand out again what others have drawn in between. In the caller's transaction, and not undone with it. `sequence`
 * is its quoted name. True when it was behind. Errors: those of the connection.
 *
 * Up to a million values are drawn, which nobody can come in between of and which waits for nobody. A longer way is jumped
 * while a lock keeps others from drawing, for the time of one statement. Where the role does not own the sequence, or others
 * hold it, the jump is made without: it would go back only if somebody drew a million values within that one statement.
 */
export async function raiseSequence(connection: Connection, sequence: string, value: string): Promise<boolean> {
  const [at] = await connection.query(
    `select c.relowner::pg_catalog.regrole::text as owner, s.seqcache as cache, case when s.seqincrement > 0 then '>=' else '<=' end as past,
            w.steps <= ${mostDraws} and q.last_value + w.steps * s.seqincrement between s.seqmin and s.seqmax as is_near
       from pg_catalog.pg_sequence as s
       join pg_catalog.pg_class as c on c.oid = s.seqrelid
       cross join ${sequence} as q
       cross join lateral (
         select pg_catalog.ceil((${value}::numeric - q.last_value) / s.seqincrement) as steps
       ) as w
      where s.seqrelid = ${quoteLiteral(sequence)}::regclass and (w.steps > 0 or (w.steps = 0 and not q.is_called))`,
  );
  if (at === undefined) return false;
  if (at["is_near"] === "t") {
    await connection.query(
      `select from (
         select pg_catalog.nextval(${quoteLiteral(sequence)}::regclass) as value
           from (select pg_catalog.generate_series(0, ${mostDraws} + ${at["cache"]})) as n
       ) as drawn where drawn.value ${at["past"]} ${value} limit 1`,
    );
  } else await jump(connection, sequence, value, at["owner"] ?? "");
  return true;
}

/** Changing the owner to whom it belongs changes nothing but takes the lock; going back to the savepoint gives it back. */
async function jump(connection: Connection, sequence: string, value: string, owner: string): Promise<void> {
  const ahead = `select pg_catalog.setval(${quoteLiteral(sequence)}::regclass, ${value})
    from pg_catalog.pg_sequence as s, ${sequence} as q
   where s.seqrelid = ${quoteLiteral(sequence)}::regclass
     and case when s.seqincrement > 0 then q.last_value < ${value} else q.last_value > ${value} end`;
  for (let left = lockTries; left > 0; left--) {
    await connection.execute("savepoint holdfast_sequence");
    try {
      await connection.execute(`set local lock_timeout = ${lockMs}; alter sequence ${sequence} owner to ${owner}`);
      await connection.query(ahead);
      return;
    } catch (error) {
      const sqlstate = sqlstateOf(error);
      if (sqlstate === null) throw error;
      if (sqlstate !== "55P03") break;
    } finally {
      await connection.execute("rollback to savepoint holdfast_sequence; release savepoint holdfast_sequence");
    }
  }
  await connection.query(ahead);
}
