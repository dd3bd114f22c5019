/** What lies in a side schema once it is filled, written down in it. */
import { z } from "zod";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { closeTable } from "./side_tables.ts";

const tableName = z.object({ schema: z.string(), name: z.string() });

const pastTable = tableName.extend({
  oid: z.string(),
  leaf: z.string().optional(),
  columns: z.array(z.object({ name: z.string(), type: z.string(), attnum: z.int() })).readonly(),
  key: z.array(z.string()).readonly().nullable(),
  dataOwner: z.string(),
  rows: z.number(),
  rawBytes: z.number(),
});

const laidTable = z.object({
  side: z.object({
    past: pastTable,
    name: z.string(),
    sql: z.string(),
    columns: z.array(z.object({ name: z.string(), type: z.string() })).readonly(),
  }),
  rows: z.number(),
  /** Live columns that a row which is there keeps. */
  keep: z.array(z.string()).readonly(),
  /** Live rows that `replace` may delete; see `Newcomers`. Null or absent: it deletes none, or any where a whole table was asked for. */
  newcomers: z.object({ sql: z.string(), types: z.array(z.string()).readonly() }).nullable().optional(),
  /** Live rows that are meant now, and that `replace` leaves since they were there then. */
  stay: z.int().optional(),
});

const counted = z.array(z.object({ table: z.string(), rows: z.number() })).readonly();

const userFacts = z.object({
  /** Rows that reach another user too; among the rows only where they were asked for. */
  shared: counted,
  notFollowed: z.array(z.object({
    constraint: z.string().nullable(),
    from: tableName,
    columns: z.array(z.string()).readonly(),
    to: tableName,
    reason: z.string(),
  })).readonly(),
  /** Columns that look like a user's id and are no key: a map can say so. */
  suspects: z.array(z.object({ table: tableName, column: z.string() })).readonly(),
  /** Entries of the map that fit nothing. */
  unmatched: z.array(z.string()).readonly(),
  /** Tables of which rows of the user stay out, with the reason. */
  leftOut: z.array(z.object({ table: z.string(), reason: z.string() })).readonly(),
  /** Rows that are the user's now and were not theirs alone then. */
  stay: counted,
  /** Rows that are the user's now, of tables without a key that tells whether they were there then. */
  untold: counted.default([]),
});

const laidFormat = z.object({
  tables: z.array(laidTable).readonly(),
  /** Null: no user's rows. */
  user: userFacts.nullable(),
});

/** A table in the side schema, before it is paired with a live one. */
export type LaidTable = z.infer<typeof laidTable>;
export type UserFacts = z.infer<typeof userFacts>;
export type Laid = z.infer<typeof laidFormat>;

const tableOf = (schema: string) => `${schema}."holdfast laid"`;

/** Null: it is not filled yet. Errors: those of the connection. */
export async function readLaid(connection: Connection, schema: string): Promise<Laid | null> {
  const [there] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [tableOf(schema)]);
  if (there?.["yes"] !== "t") return null;
  const [row] = await connection.query(`select document::text as document from ${tableOf(schema)}`);
  if (row === undefined) return null;
  const parsed = laidFormat.safeParse(JSON.parse(row["document"] ?? "null"));
  if (parsed.success) return parsed.data;
  throw new HoldfastError("internal", `what stands in ${schema} about its tables is not as this version writes it`, {
    cause: parsed.error,
  });
}

/** Finishes the filling, once: what `settle` does and what it says stand together or not at all. */
export async function settleOnce(connection: Connection, schema: string, settle: () => Promise<Laid>): Promise<Laid> {
  return await inTransaction(connection, async () => {
    const laid = await settle();
    const table = tableOf(schema);
    await connection.execute(`create table ${table} (document jsonb not null)`);
    await closeTable(connection, table);
    await connection.query(`insert into ${table} values ($1::jsonb)`, [JSON.stringify(laid)]);
    return laid;
  });
}
