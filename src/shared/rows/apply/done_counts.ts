/** What a restore has done to the live tables, over all its tries: counted by the marks that committed with the rows. */
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent, quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import { liveName, type Pair, workNames } from "./difference.ts";
import type { PutBackResult } from "./put_back.ts";

/** Errors: those of the connection. */
export async function readDone(
  connection: Connection,
  schema: string,
  pairs: readonly Pair[],
): Promise<Omit<PutBackResult, "sequences">> {
  const tables: PutBackResult["tables"][number][] = [];
  for (const pair of pairs) {
    const counts = { inserted: 0, updated: 0, deleted: 0 };
    const rows = pair.fit.key === null ? "coalesce(sum(d.copies), 0)" : "count(*)";
    for (const name of await triesOf(connection, schema, workNames.delta(pair.place))) {
      const [row] = await connection.query(
        `select ${
          ["insert", "update", "delete"].map((action) =>
            `(select ${rows} from ${quoteQualified(schema, name)} as d
               where d."action" = ${quoteLiteral(action)} and d."done") as ${quoteIdent(action)}`
          ).join(", ")
        }`,
      );
      counts.inserted += Number(row?.["insert"]);
      counts.updated += Number(row?.["update"]);
      counts.deleted += Number(row?.["delete"]);
    }
    tables.push({ table: liveName(pair), ...counts });
  }
  const sum = (of: "inserted" | "updated" | "deleted") => tables.reduce((total, table) => total + table[of], 0);
  return { inserted: sum("inserted"), updated: sum("updated"), deleted: sum("deleted"), tables };
}

const tryWord = " of try ";

/** A table of work and those of it that earlier tries left. */
export async function triesOf(connection: Connection, schema: string, name: string): Promise<string[]> {
  const rows = await connection.query(
    `select c.relname from pg_catalog.pg_class as c
      where c.relnamespace = pg_catalog.to_regnamespace($1) and c.relkind = 'r'
        and (c.relname = $2 or pg_catalog.starts_with(c.relname, $3))`,
    [schema, name, `${name}${tryWord}`],
  );
  return rows.map((row) => row["relname"] ?? "");
}

/** Tables that hold rows as they were before, of all tries; none for a pair of which nothing was changed. */
export async function keptBefore(
  connection: Connection,
  schema: string,
  pairs: readonly Pair[],
): Promise<ReadonlyMap<Pair, readonly string[]>> {
  const found = new Map<Pair, readonly string[]>();
  for (const pair of pairs) {
    const names: string[] = [];
    for (const name of await triesOf(connection, schema, workNames.before(pair.place))) {
      const table = quoteQualified(schema, name);
      const [row] = await connection.query(`select exists (select from ${table}) as yes`);
      if (row?.["yes"] === "t") names.push(table);
    }
    if (names.length > 0) found.set(pair, names.sort());
  }
  return found;
}

/**
 * Prepares a further try: what was done, and rows as they were before it, get other names. `pairUp` makes new tables. True where
 * earlier tries have done anything.
 */
export async function keepTries(connection: Connection, schema: string): Promise<boolean> {
  const rows = await connection.query(
    `select c.relname from pg_catalog.pg_class as c
      where c.relnamespace = pg_catalog.to_regnamespace($1) and c.relkind = 'r'`,
    [schema],
  );
  const names = rows.map((row) => row["relname"] ?? "");
  let isChanged = names.some((name) => name.startsWith(workNames.delta(0).slice(0, -1)) && name.includes(tryWord));
  for (const name of names) {
    const isDelta = name.startsWith(workNames.delta(0).slice(0, -1));
    const isBefore = name.startsWith(workNames.before(0).slice(0, -1));
    if ((!isDelta && !isBefore) || name.includes(tryWord)) continue;
    const [used] = await connection.query(
      `select exists (select from ${quoteQualified(schema, name)} as t${isDelta ? ' where t."done"' : ""}) as yes`,
    );
    if (used?.["yes"] !== "t") continue;
    isChanged = true;
    const tries = names.filter((one) => one.startsWith(`${name}${tryWord}`)).length;
    await connection.execute(
      `alter table ${quoteQualified(schema, name)} rename to ${quoteIdent(`${name}${tryWord}${tries + 1}`)}`,
    );
  }
  return isChanged;
}
