/** The rows of one user, collected in temporary tables of a transaction; what else refers to them; and their end. */
import type { Connection } from "../postgres/connection.ts";
import { whileDeletable } from "../rows/apply/published_deletes.ts";
import { ownPath, withUsersPath } from "../rows/apply/user_path.ts";
import { type Equalities, readEqualities } from "../rows/ownership/equalities.ts";
import { liveGraph } from "../rows/ownership/live_graph.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import {
  type OwnedTable,
  ownedTables,
  type OwnershipPlan,
  planOwnership,
  usersTable,
} from "../rows/ownership/ownership.ts";
import { isVerdictOn, liveRelation, ownershipSql } from "../rows/ownership/ownership_sql.ts";
import { rowsThatMatter, type TableShare, totalSql } from "../rows/ownership/share_limit.ts";
import { decisionOn, mapSaysSo, type Way, waysOf } from "../rows/ownership/ways.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { Graph, GraphTable } from "../rows/past/graph.ts";
import type { TableName } from "../restore/project_rows.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import type { Identity } from "./entry.ts";
import { hashSql, keyTable } from "./hashes.ts";
import { clearable, identitiesOf } from "./removal_plan.ts";

/** Rows of a table that are the user's alone, or others' as well. */
export interface OwnedCount {
  readonly table: string;
  readonly rows: number;
  readonly shared: number;
  /** The map says what becomes of those that are shared. */
  readonly decided: boolean;
  /** Files are removed through Storage, which removes their rows. */
  readonly files: boolean;
}

/** Rows that stay and refer to what goes. */
export interface Referring {
  readonly table: string;
  /** The foreign key, or the column that holds an id. */
  readonly by: string;
  readonly rows: number;
  /** Columns that are emptied; none: they cannot be. */
  readonly clear: readonly string[];
  /** The key or the map says that they may be. */
  readonly decided: boolean;
}

interface Collected {
  readonly owned: OwnedTable;
  readonly table: GraphTable;
  readonly relation: string;
  /** Temporary table with the columns `i0`, `i1` … and `shared`. */
  readonly rows: string;
  readonly count: number;
}

/** Tables whose rows have to go through Storage. */
const isOfFiles = ({ treatment }: OwnedTable): boolean => treatment.erase === "files";

export class OwnedRows {
  readonly graph: Graph;
  readonly plan: OwnershipPlan;
  readonly counts: readonly OwnedCount[];
  readonly shares: readonly TableShare[];
  readonly #connection: Connection;
  readonly #user: string;
  readonly #map: BackupMap;
  readonly #equals: Equalities;
  readonly #collected: ReadonlyMap<string, Collected>;

  private constructor(
    connection: Connection,
    user: string,
    map: BackupMap,
    found: { graph: Graph; plan: OwnershipPlan; equals: Equalities },
    collected: ReadonlyMap<string, Collected>,
    told: { counts: readonly OwnedCount[]; shares: readonly TableShare[] },
  ) {
    this.#connection = connection;
    this.#user = user;
    this.#map = map;
    this.graph = found.graph;
    this.plan = found.plan;
    this.#equals = found.equals;
    this.#collected = collected;
    this.counts = told.counts;
    this.shares = told.shares;
  }

  /** In the transaction that is open. `user`: as the server writes ids. Errors: those of the connection. */
  static async collect(connection: Connection, user: string, map: BackupMap, locked: boolean): Promise<OwnedRows> {
    const graph = await liveGraph(connection);
    const plan = planOwnership(graph, map);
    const equals = await readEqualities(connection, graph.tables);
    const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
    const relationOf = (name: TableName): string | null => {
      const table = tables.get(nameOf(name));
      return table === undefined ? null : liveRelation(table);
    };
    const sql = ownershipSql(plan, relationOf, quoteLiteral(user), equals);
    const collected = new Map<string, Collected>();
    const counts: OwnedCount[] = [];
    const shares: TableShare[] = [];
    for (const owned of ownedTables(plan)) {
      const table = tables.get(nameOf(owned));
      if (table === undefined) continue;
      const relation = liveRelation(table);
      const rows = `holdfast_erased_${collected.size}`;
      await connection.execute(
        `drop table if exists pg_temp.${rows}; create temporary table ${rows} on commit drop as ${sql(owned)}`,
      );
      const [row] = await connection.query(
        `select pg_catalog.count(*) filter (where not shared) as own, pg_catalog.count(*) filter (where shared) as shared
           from pg_temp.${rows}`,
      );
      const count = Number(row?.["own"]);
      const shared = Number(row?.["shared"]);
      await connection.execute(`delete from pg_temp.${rows} where shared; analyze pg_temp.${rows}`);
      collected.set(nameOf(owned), { owned, table, relation, rows: `pg_temp.${rows}`, count });
      if (count + shared === 0) continue;
      const decided = decisionOn(owned, map)?.rows !== undefined;
      counts.push({ table: nameOf(owned), rows: count, shared, decided, files: isOfFiles(owned) });
      if (nameOf(owned) === nameOf(usersTable)) continue;
      const [total] = await connection.query(totalSql(owned, count + shared, relation));
      shares.push({
        ...owned,
        reached: count + shared,
        total: Number(total?.["total"] ?? rowsThatMatter(owned, count)),
      });
    }
    const found = new OwnedRows(connection, user, map, { graph, plan, equals }, collected, { counts, shares });
    if (locked) await found.#lock();
    return found;
  }

  get rows(): number {
    return this.counts.reduce((sum, { rows }) => sum + rows, 0);
  }

  /** Nobody comes to refer to a row that is locked so. */
  async #lock(): Promise<void> {
    for (const one of this.#rowTables()) {
      await this.#connection.query(
        `select pg_catalog.count(*) from (select from ${one.relation} as l where ${
          this.#isOwned(one, "l")
        } for update) as locked`,
      );
    }
  }

  #rowTables(): Collected[] {
    return [...this.#collected.values()].filter(({ owned, count }) => count > 0 && !isOfFiles(owned));
  }

  #isOwned({ owned, rows }: Collected, alias: string): string {
    return `exists (select from ${rows} as g where ${isVerdictOn(owned, alias, "g", this.#equals)})`;
  }

  /** What tells the rows, for the ledger: keys, what foreign keys refer to, and files by bucket and name. */
  identities(): { readonly identity: Identity; readonly of: string }[] {
    const ways = waysOf(this.graph, this.#map);
    return [...this.#collected.values()].filter(({ count }) => count > 0).flatMap((one) => {
      const named = identitiesOf(one.table, ways);
      const files = nameOf(one.owned) === "storage.objects"
        ? [{ schema: "storage", name: "objects", columns: ["bucket_id", "name"] }]
        : [];
      return [...named, ...files].map((identity) => ({ identity, of: nameOf(one.owned) }));
    });
  }

  /** COPY of the hashes of such rows, in hex, a line each; `layHashes` has laid the key. */
  hashesSql({ identity, of }: { readonly identity: Identity; readonly of: string }): string {
    const one = this.#collected.get(of);
    const values = identity.columns.map((column) => `l.${quoteIdent(column)}::text`);
    return `copy (
      select pg_catalog.encode(h.hash, 'hex') from ${one?.relation} as l cross join ${keyTable} as k
       cross join lateral (select ${hashSql(identity, values)} as hash) as h
       where h.hash is not null and ${one === undefined ? "false" : this.#isOwned(one, "l")}
    ) to stdout`;
  }

  /** Rows of others, and of nobody, that refer to what goes. */
  async referring(): Promise<(Referring & { readonly statement: string })[]> {
    const found: (Referring & { readonly statement: string })[] = [];
    for (const way of waysOf(this.graph, this.#map)) {
      const table = this.graph.tables.find((one) => nameOf(one) === nameOf(way.from));
      if (table === undefined || isService(table)) continue;
      const where = this.#refersBy(way, table);
      if (where === null) continue;
      const relation = liveRelation(table);
      const [row] = await this.#connection.query(
        `select pg_catalog.count(*) as n from ${relation} as c where ${where}`,
      );
      const rows = Number(row?.["n"]);
      if (rows === 0) continue;
      const clear = clearable(way.link, table);
      const set = clear.map((column) => `${quoteIdent(column)} = null`).join(", ");
      found.push({
        table: nameOf(table),
        by: way.link.constraint ?? way.link.columns.join(", "),
        rows,
        clear,
        decided: this.#isDecided(way),
        statement: `with done as (update ${relation} as c set ${set} where ${where} returning 1)
          select pg_catalog.count(*) as n from done where ${withUsersPath}`,
      });
    }
    return found;
  }

  #isDecided({ from, link, reason }: Way): boolean {
    const edge = this.graph.edges.find((one) =>
      one.constraint === link.constraint && nameOf(one.from) === nameOf(from)
    );
    const rows = decisionOn(from, this.#map)?.rows;
    return edge?.onDelete === "set null" || edge?.onDelete === "set default" || reason === mapSaysSo ||
      rows === "shared" || rows === "never";
  }

  /** Condition on rows `c` that stay; null: none can. */
  #refersBy({ from, link }: Way, table: GraphTable): string | null {
    const own = this.#collected.get(nameOf(from));
    const stays = own === undefined || own.count === 0 ? "true" : `not ${this.#isOwned(own, "c")}`;
    if (link.userColumn !== null) {
      return `c.${quoteIdent(link.userColumn)}::text = ${quoteLiteral(this.#user)} and ${stays}`;
    }
    const target = this.#collected.get(nameOf(link.to));
    if (target === undefined || target.count === 0 || isOfFiles(target.owned)) return null;
    const type = (of: GraphTable, name: string) => of.columns.find((column) => column.name === name)?.type ?? "";
    const same = link.columns.map((column, at) => {
      const other = link.toColumns[at] ?? "";
      return `c.${quoteIdent(column)} ${this.#equals(type(table, column), type(target.table, other))} p.${
        quoteIdent(other)
      }`;
    });
    return `exists (select from ${target.relation} as p where ${same.join(" and ")} and ${
      this.#isOwned(target, "p")
    }) and ${stays}`;
  }

  /**
   * Empties the references, then deletes children before parents, under `session_replication_role = replica`. By table.
   * Errors: those of the connection, `definitions_stuck`.
   */
  async remove(): Promise<Map<string, number>> {
    for (const { statement } of await this.referring()) {
      await this.#connection.query(statement);
      await this.#connection.execute(ownPath);
    }
    const removed = new Map<string, number>();
    for (const one of this.#rowTables().reverse()) {
      removed.set(nameOf(one.owned), await this.#delete(one, this.#isOwned(one, "l")));
    }
    return removed;
  }

  /** At most so many rows of a table to which no key leads, beyond what one transaction should write; how many went. */
  async removeSome(table: string, atMost: number): Promise<number> {
    const one = this.#collected.get(table);
    if (one === undefined) return 0;
    const some = { ...one, rows: `(select * from ${one.rows} limit ${atMost})` };
    return await this.#delete(one, this.#isOwned(some, "l"));
  }

  async #delete({ owned, relation }: Collected, where: string): Promise<number> {
    const [found] = await this.#connection.query("select pg_catalog.to_regclass($1)::pg_catalog.oid as oid", [
      nameOf(owned),
    ]);
    return await whileDeletable(this.#connection, [found?.["oid"] ?? "0"], async () => {
      const [row] = await this.#connection.query(
        `with gone as (delete from ${relation} as l where ${where} returning 1) select pg_catalog.count(*) as n from gone`,
      );
      return Number(row?.["n"]);
    });
  }

  /** Tables with more than so many bytes of the user's rows, and to which no key leads. */
  async largeLeaves(bytes: number): Promise<{ readonly table: string; readonly rowBytes: number }[]> {
    const led = new Set(this.graph.edges.map(({ to }) => nameOf(to)));
    const found: { table: string; rowBytes: number }[] = [];
    for (const { owned, count } of this.#rowTables()) {
      if (led.has(nameOf(owned))) continue;
      const [row] = await this.#connection.query(
        `select coalesce((select pg_catalog.sum(pg_catalog.pg_table_size(p.relid)) from pg_catalog.pg_partition_tree($1::regclass) as p),
                  pg_catalog.pg_table_size($1::regclass))::float8 as bytes,
                (select pg_catalog.count(*) from ${
          liveRelation({ ...owned, partitions: [] }).replace(/^only /, "")
        }) as rows`,
        [nameOf(owned)],
      );
      const rowBytes = Math.max(64, Number(row?.["bytes"]) / Math.max(1, Number(row?.["rows"])));
      if (count * rowBytes > bytes) found.push({ table: nameOf(owned), rowBytes });
    }
    return found;
  }
}

const isService = ({ schema }: TableName): boolean => schema === "auth" || schema === "storage";
