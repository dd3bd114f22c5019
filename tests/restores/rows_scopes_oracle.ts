/** What is to become of rows, computed by plain SQL over copies of them, and what of others must not change. */
import type pg from "pg";
import { quoteIdent, quoteLiteral, quoteQualified } from "../../src/shared/schema/quote.ts";
import { loadFrom, type Now, publicationOf, type ScopedTable } from "./rows_scopes_damage.ts";

export type Mode = "missing" | "merge" | "replace";
export interface Counts {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
}

interface Keyed {
  readonly key: readonly string[] | null;
}

/** The whole row, short. No column is called `whole_row`. */
export const print = "md5(whole_row::text) as r";

/**
 * `o.was`: rows that come back, `o.is_now`: all that are there, given as selects of rows. `meant`: a condition on those of now
 * (`whole_row`) that `replace` may delete.
 */
export async function prepareRows(
  client: pg.Client,
  key: readonly string[] | null,
  rows: { readonly was: string; readonly now: string; readonly meant: string },
): Promise<void> {
  const own = key === null ? "null" : `row(${key.map((name) => `whole_row.${quoteIdent(name)}`).join(", ")})::text`;
  await client.query(`
    drop table if exists o.was, o.is_now;
    create table o.was as select ${own} as k, ${print} from (${rows.was}) as whole_row;
    create table o.is_now as select ${own} as k, ${print}, (${rows.meant}) is true as meant from (${rows.now}) as whole_row`);
}

/** What is to be there: without a key whole rows are counted, with one it tells them apart. */
export function expectedRows({ key }: Keyed, mode: Mode): string {
  if (key === null) {
    return mode === "replace"
      ? "select r from o.was union all select r from o.is_now where not meant"
      : "select r from o.is_now union all (select r from o.was except all select r from o.is_now)";
  }
  if (mode === "missing") {
    return "select r from o.is_now union all select r from o.was where k not in (select k from o.is_now)";
  }
  const others = "select r from o.was union all select r from o.is_now where k not in (select k from o.was)";
  return mode === "merge" ? others : `${others} and not meant`;
}

export async function expectedCounts(client: pg.Client, { key }: Keyed, mode: Mode): Promise<Counts> {
  const count = (sql: string) => `(select count(*)::int from (${sql}) as q)`;
  const inserted = key === null
    ? "select r from o.was except all select r from o.is_now"
    : "select k from o.was where k not in (select k from o.is_now)";
  const updated = key === null || mode === "missing"
    ? "select where false"
    : "select from o.was join o.is_now using (k) where was.r <> is_now.r";
  const deleted = mode !== "replace"
    ? "select where false"
    : key === null
    ? "select r from o.is_now where meant except all select r from o.was"
    : "select k from o.is_now where meant and k not in (select k from o.was)";
  const { rows: [counts] } = await client.query<Counts>(
    `select ${count(inserted)} as inserted, ${count(updated)} as updated, ${count(deleted)} as deleted`,
  );
  if (counts === undefined) throw new Error("no counts");
  return counts;
}

/** Rows (`r`) that only one of the two has. */
export async function differ(client: pg.Client, one: string, other: string): Promise<number> {
  const { rows: [row] } = await client.query<{ n: number }>(
    `with a as (${one}), b as (${other}) select count(*)::int as n from
       ((select r from a except all select r from b) union all (select r from b except all select r from a)) as q`,
  );
  return row?.n ?? -1;
}

export const rowsOf = (table: ScopedTable) => `select ${print} from ${table.rows} as whole_row`;

/** Would the server take the table with what is expected, every constraint checked? Nothing stays. */
export async function isValid(client: pg.Client, table: ScopedTable, now: Now, mode: Mode): Promise<boolean> {
  const rows = `select x.* from (
      select q.*, row_number() over (partition by q."o r") as "o n" from (
        select whole_row.*, md5(whole_row::text) as "o r" from o.then_rows as whole_row
        union all select whole_row.*, md5(whole_row::text) from o.${now} as whole_row
      ) as q
    ) as x join (select r, count(*) as n from (${
    expectedRows(table, mode)
  }) as q group by r) as e on e.r = x."o r" and x."o n" <= e.n`;
  await client.query("begin; set local session_replication_role = replica");
  try {
    const published = publicationOf(table);
    if (published !== null) await client.query(`alter publication ${published} set (publish = 'insert')`);
    await client.query(loadFrom(table, rows));
    for (const { table: of, name, definition } of table.checks) {
      await client.query(`alter table ${of} drop constraint if exists ${name} cascade`);
      await client.query(`alter table ${of} add constraint ${name} ${definition}`);
    }
    return true;
  } catch (error) {
    if (!/^23/.test((error as { code?: string }).code ?? "")) throw error;
    return false;
  } finally {
    await client.query("rollback");
  }
}

/** Which rows every other table has, by their places and makers: a row that was written again has another. */
export async function prepareFootprints(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ oid: string; schema: string; name: string }>(
    `select c.oid::text as oid, n.nspname as schema, c.relname as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^(pg_|information_schema$|cron$|net$|o$|restore_)'`,
  );
  const parts = rows.map(({ oid, schema, name }) =>
    `select ${
      quoteLiteral(oid)
    } as oid, count(*) || ':' || coalesce(sum(hashtext(ctid::text || xmin::text)::bigint), 0) as print from only ${
      quoteQualified(schema, name)
    }`
  );
  await client.query(`prepare footprints as ${parts.join(" union all ")}`);
}

export async function footprints(client: pg.Client): Promise<Map<string, string>> {
  const { rows } = await client.query<{ oid: string; print: string }>("execute footprints");
  return new Map(rows.map(({ oid, print }) => [oid, print]));
}

export function without(prints: ReadonlyMap<string, string>, family: readonly string[]): Record<string, string> {
  return Object.fromEntries([...prints].filter(([oid]) => !family.includes(oid)));
}
