/** Whose rows a restore shows, for the audit: so that whoever they are of can be told. */
import { call } from "../jobs/call.ts";
import type { Connection } from "../postgres/connection.ts";
import { arrayText, quoteIdent } from "../schema/quote.ts";
import type { Laid } from "./beside/laid.ts";
import { emptyMap } from "./ownership/map_file.ts";
import { userIdColumns } from "./ownership/user_id_columns.ts";
import type { Graph } from "./past/graph.ts";

/** More people than these are not listed: the audit says then that it does not know all of them. */
const mostPeople = 100;

/**
 * By the columns that hold users' ids. Where a row has none, or there are too many people, the audit is told that it does not know
 * all of them. Errors: those of the connection.
 */
export async function notePeople(connection: Connection, restore: string, graph: Graph, laid: Laid): Promise<void> {
  const columnsOf = userIdColumns(graph, emptyMap);
  const people = new Set<string>();
  let complete = true;
  for (const { side, rows } of laid.tables) {
    if (rows === 0) continue;
    const there = new Set(side.columns.map(({ name }) => name));
    const columns = columnsOf(side.past).filter((name) => there.has(name));
    if (columns.length === 0) {
      complete = false;
      continue;
    }
    const ids = columns.map((name) => `l.${quoteIdent(name)}::text`).join(", ");
    const found = await connection.query(
      `select distinct p.id from ${side.sql} as l, pg_catalog.unnest(array[${ids}]) as p (id)
        where p.id is not null limit ${mostPeople + 1}`,
    );
    for (const { id } of found) people.add(id ?? "");
    const [nobodys] = await connection.query(
      `select exists (select from ${side.sql} as l where pg_catalog.num_nonnulls(${ids}) = 0) as yes`,
    );
    complete &&= nobodys?.["yes"] !== "t" && found.length <= mostPeople;
  }
  const listed = [...people].slice(0, mostPeople);
  complete &&= people.size === listed.length;
  await call(connection, "select backup.note_shown($1::uuid, $2::text[], $3::boolean)", [
    restore,
    arrayText(listed),
    String(complete),
  ]);
}
