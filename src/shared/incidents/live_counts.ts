/** What the live database looks like beside a backup: tables that are gone or much smaller, and which keys bind them. */
import type { Clock } from "../clock.ts";
import type { Manifest } from "../format/manifest.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { quoteQualified } from "../schema/quote.ts";

export interface ComparedTable {
  readonly table: string;
  readonly atBackup: number;
  /** Null: the table is not there. */
  readonly now: number | null;
}

type CountedTable = Pick<Manifest["tables"][number], "schema" | "name" | "rows" | "dataOwner" | "relfilenode">;

/** For the count of one table; a larger one is said not to have been counted. */
const countMs = 15_000;
/** For all of them: people wait for what comes behind it. */
const allMs = 60_000;

/**
 * Exact counts of the user's tables, one after the other, the smallest first, as the session's role without row-level security: a count
 * that a policy had filtered would be a lie. The session is used for nothing else: it becomes read-only. `notDone`: tables that
 * could not be counted, in sentences. Errors: those of the session.
 */
export async function compareCounts(
  connection: Pick<Connection, "execute" | "query">,
  manifest: { readonly tables: readonly CountedTable[] },
  clock: Pick<Clock, "monotonicMs">,
  onTable: (done: number, of: number) => void = () => {},
): Promise<{ readonly tables: readonly ComparedTable[]; readonly notDone: readonly string[] }> {
  const tables: ComparedTable[] = [];
  const notDone: string[] = [];
  const wanted = manifest.tables.filter(({ schema, dataOwner, relfilenode }) =>
    relfilenode !== 0 && (dataOwner === "user" || schema === "auth")
  ).sort((a, b) => a.rows - b.rows);
  await connection.execute("set row_security = off; set default_transaction_read_only = on");
  const endMs = clock.monotonicMs() + allMs;
  for (const [index, { schema, name, rows }] of wanted.entries()) {
    const table = quoteQualified(schema, name);
    onTable(index, wanted.length);
    const leftMs = Math.floor(endMs - clock.monotonicMs());
    if (leftMs <= 0) {
      notDone.push(
        `${wanted.length - index} tables were not counted, the smallest of them ${table}: the others took a minute`,
      );
      break;
    }
    try {
      await connection.execute(`set statement_timeout = ${Math.min(countMs, leftMs)}`);
      const [row] = await connection.query(`select count(*)::text as rows from only ${table}`);
      tables.push({ table, atBackup: rows, now: Number(row?.["rows"]) });
    } catch (error) {
      const state = sqlstateOf(error);
      // The table, or its schema.
      if (state === "42P01" || state === "3F000") tables.push({ table, atBackup: rows, now: null });
      else if (state === "57014") notDone.push(`${table} was not counted: it took too long`);
      else if (state === "42501") notDone.push(`${table} was not counted: the role may not read all of it`);
      else throw error;
    }
  }
  return { tables: tables.filter(isMuchSmaller), notDone };
}

/** A tenth of its rows, and ten at least; or all of them. */
export function isMuchSmaller({ atBackup, now }: ComparedTable): boolean {
  if (now === null) return true;
  const lost = atBackup - now;
  return lost > 0 && (now === 0 || (lost >= 10 && lost * 10 >= atBackup));
}

/** The tables of this list, those first that others of it refer to; where they refer in a circle, by name. */
export async function fillOrder(connection: Connection, tables: readonly string[]): Promise<string[]> {
  const keys = await connection.query(
    `select c.conrelid::oid::text as child, c.confrelid::oid::text as parent,
            pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(cc.relname) as child_name,
            pg_catalog.quote_ident(pn.nspname) || '.' || pg_catalog.quote_ident(pc.relname) as parent_name
       from pg_catalog.pg_constraint as c
       join pg_catalog.pg_class as cc on cc.oid = c.conrelid join pg_catalog.pg_namespace as cn on cn.oid = cc.relnamespace
       join pg_catalog.pg_class as pc on pc.oid = c.confrelid join pg_catalog.pg_namespace as pn on pn.oid = pc.relnamespace
      where c.contype = 'f' and c.conrelid <> c.confrelid`,
  );
  return parentsFirst(tables, keys.map((key) => [key["child_name"] ?? "", key["parent_name"] ?? ""] as const));
}

/** `keys`: child and parent. Pure. */
export function parentsFirst(tables: readonly string[], keys: readonly (readonly [string, string])[]): string[] {
  const left = new Set([...tables].sort());
  const ordered: string[] = [];
  while (left.size > 0) {
    const free = [...left].filter((table) => !keys.some(([child, parent]) => child === table && left.has(parent)));
    for (const table of free.length > 0 ? free : [...left]) {
      left.delete(table);
      ordered.push(table);
    }
  }
  return ordered;
}
