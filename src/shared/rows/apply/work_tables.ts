/** Tables of work in the side schema, of one try after the other. */
import type { Connection } from "../../postgres/connection.ts";
import { quoteQualified, splitQualified, unquoteIdent } from "../../schema/quote.ts";
import { closeTable } from "../beside/side_tables.ts";
import { type Pair, workNames, workStatements } from "./difference.ts";
import { keepTries, triesOf } from "./done_counts.ts";

/** Makes those of a try, in place of what is there. */
export async function makeWork(connection: Connection, pair: Pair): Promise<void> {
  await connection.execute(`drop table if exists ${pair.delta}, ${pair.before}`);
  await connection.execute(workStatements(pair).join("; "));
  for (const table of [pair.delta, pair.before]) await closeTable(connection, table);
}

/** What was done gets other names, so that the difference is looked at anew for all rows. False: nothing was done. */
export async function beginTry(connection: Connection, pairs: readonly Pair[]): Promise<boolean> {
  const [first] = pairs;
  if (first === undefined || !(await keepTries(connection, schemaOf(first)))) return false;
  for (const pair of pairs) {
    const [there] = await connection.query(
      "select pg_catalog.to_regclass($1) is not null and pg_catalog.to_regclass($2) is not null as yes",
      [pair.delta, pair.before],
    );
    if (there?.["yes"] !== "t") await makeWork(connection, pair);
  }
  return true;
}

/** The pairs with their tables of work: all together, then each with those of an earlier try. */
export async function triedPairs(connection: Connection, pairs: readonly Pair[]): Promise<Pair[][]> {
  const found: Pair[][] = [[...pairs]];
  for (const pair of pairs) {
    const schema = schemaOf(pair);
    const current = workNames.delta(pair.place);
    const kept = new Set(await triesOf(connection, schema, workNames.before(pair.place)));
    for (const name of await triesOf(connection, schema, current)) {
      if (name === current) continue;
      const before = `${workNames.before(pair.place)}${name.slice(current.length)}`;
      found.push([{
        ...pair,
        delta: quoteQualified(schema, name),
        // One that only inserted has kept nothing.
        before: kept.has(before) ? quoteQualified(schema, before) : pair.before,
      }]);
    }
  }
  return found;
}

function schemaOf(pair: Pair): string {
  return unquoteIdent(splitQualified(pair.delta)?.[0] ?? "");
}
