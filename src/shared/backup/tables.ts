/** The tables whose rows go into a backup, as a session sees them. */
import type { Connection, Row } from "../postgres/connection.ts";
import { text } from "../jobs/run_row.ts";
import { dataOf } from "../schema/platform.ts";
import { firstUserOid } from "../schema/inventory.ts";
import { quoteQualified } from "../schema/quote.ts";

/** Our own schemas (`holdfast` holds the state of a restore), and side schemas of restores by the pattern of their names. */
export const ownSchemas: readonly string[] = ["backup", "holdfast"];
export const sideSchemaPattern = "^restore_[0-9a-f]{8}$";

export interface ListedTable {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  /** Quoted `schema.table`. */
  readonly sqlName: string;
  /** As the catalog shows it, and as it is now; "0" for a partitioned table. They differ once it was rewritten. */
  readonly relfilenode: string;
  readonly presentFilenode: string;
}

/** Tables, partitions and partitioned tables whose rows are captured. One query, in the session's snapshot or a fresh one. */
export async function listTables(connection: Connection): Promise<ListedTable[]> {
  const rows = await connection.query(
    `select c.oid, n.nspname as schema, c.relname as name, r.rolname as owner, c.relfilenode,
            coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) as present
       from pg_catalog.pg_class as c
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
       join pg_catalog.pg_roles as r on r.oid = c.relowner
      where c.relkind in ('r', 'p') and c.relpersistence in ('p', 'u') and c.oid >= ${firstUserOid}
        and n.nspname !~ '^pg_(temp|toast)' and n.nspname <> all ($1::text[]) and n.nspname !~ '${sideSchemaPattern}'
        and (
          not exists (
            select from pg_catalog.pg_depend as d
            where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
          )
          or exists (select from pg_catalog.pg_extension as x where c.oid = any (x.extconfig))
        )
      order by c.oid`,
    [`{${ownSchemas.join(",")}}`],
  );
  return rows
    .filter((row) => dataOf(text(row, "schema"), text(row, "name"), text(row, "owner")).captured === "capture")
    .map(listedOf);
}

function listedOf(row: Row): ListedTable {
  const schema = text(row, "schema");
  const name = text(row, "name");
  return {
    oid: text(row, "oid"),
    schema,
    name,
    sqlName: quoteQualified(schema, name),
    relfilenode: text(row, "relfilenode"),
    presentFilenode: text(row, "present"),
  };
}

/** Schemas that no backup holds, by exact name. */
export async function leftOutSchemas(connection: Connection): Promise<string[]> {
  const rows = await connection.query(
    "select n.nspname as name from pg_catalog.pg_namespace as n where n.nspname ~ $1 order by 1",
    [sideSchemaPattern],
  );
  return [...ownSchemas, ...rows.map((row) => text(row, "name"))];
}

/** Schemas that have the name of a side schema and are none of ours: no backup holds them, so that it has to be said. */
export async function readNamesakes(connection: Connection): Promise<string[]> {
  const rows = await connection.query(
    `select n.nspname as name from pg_catalog.pg_namespace as n
      where n.nspname ~ $1 and coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '') !~ '^holdfast:' order by 1`,
    [sideSchemaPattern],
  );
  return rows.map((row) => text(row, "name"));
}

/** Sizes, and counters that tell a cause for rows that are gone. */
export interface TableFacts {
  readonly oid: string;
  /** Blocks now; rows of an earlier snapshot lie below. 0 for tables without storage. */
  readonly blocks: number;
  readonly blockBytes: number;
  readonly toastBytes: number;
  /** Rows come in the order of their places and can be cut by it. */
  readonly heap: boolean;
  readonly statistics: TableStatistics;
}

export interface TableStatistics {
  readonly deleted: number;
  readonly inserted: number;
}

export async function readTableFacts(connection: Connection, oids: readonly string[]): Promise<TableFacts[]> {
  const rows = await connection.query(
    `select c.oid, case when c.relkind = 'p' then 0 else pg_catalog.pg_relation_size(c.oid) end as heap_bytes,
            case when c.reltoastrelid = 0 then 0 else pg_catalog.pg_relation_size(c.reltoastrelid) end as toast_bytes,
            pg_catalog.current_setting('block_size') as block_bytes,
            coalesce(m.amhandler = 'pg_catalog.heap_tableam_handler'::regproc, false) as heap,
            coalesce(s.n_tup_del, 0) as deleted, coalesce(s.n_tup_ins, 0) as inserted
       from pg_catalog.pg_class as c
       left join pg_catalog.pg_am as m on m.oid = c.relam
       left join pg_catalog.pg_stat_all_tables as s on s.relid = c.oid
      where c.oid = any ($1::oid[])`,
    [`{${oids.join(",")}}`],
  );
  return rows.map((row) => ({
    oid: text(row, "oid"),
    blocks: Math.ceil(Number(row["heap_bytes"]) / Number(row["block_bytes"])),
    blockBytes: Number(row["block_bytes"]),
    toastBytes: Number(row["toast_bytes"]),
    heap: row["heap"] === "t",
    statistics: { deleted: Number(row["deleted"]), inserted: Number(row["inserted"]) },
  }));
}
