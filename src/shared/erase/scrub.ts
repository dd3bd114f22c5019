/** What stays as it happened, and says nothing of the person any more: the log that Auth keeps. */
import type { Connection } from "../postgres/connection.ts";
import { arrayText } from "../schema/quote.ts";
import { quoteLiteral } from "../schema/quote.ts";
import { platformMentions } from "../rows/ownership/auth_map.ts";

/** In place of what was said. */
const scrubbed = '"erased"';

/**
 * `isTheirs`: condition on SQL for an id as text. Rows that were changed. The transaction is open. Errors: those of the connection.
 */
export async function scrub(connection: Connection, isTheirs: (id: string) => string): Promise<number> {
  const [table] = await connection.query("select pg_catalog.to_regclass('auth.audit_log_entries') is not null as yes");
  if (table?.["yes"] !== "t") return 0;
  const paths = platformMentions.filter(({ table: { name } }) => name === "audit_log_entries").flatMap(({ path }) =>
    path === null ? [] : [path]
  );
  let rows = 0;
  for (const [id, top] of [[["actor_id"], "actor_"], [["traits", "user_id"], "traits"]] as const) {
    const theirs = isTheirs(`(t.payload::jsonb #>> ${quoteLiteral(arrayText(id))}::text[])`);
    const payload = paths.filter(([first = ""]) => first.startsWith(top)).reduce(
      (value, path) => `pg_catalog.jsonb_set(${value}, ${quoteLiteral(arrayText(path))}::text[], '${scrubbed}', false)`,
      "t.payload::jsonb",
    );
    const address = top === "actor_" ? ", ip_address = ''" : "";
    const [row] = await connection.query(
      `with done as (
         update auth.audit_log_entries as t set payload = ${payload}::json${address} where ${theirs} returning 1
       ) select pg_catalog.count(*) as n from done`,
    );
    rows += Number(row?.["n"]);
  }
  return rows;
}
