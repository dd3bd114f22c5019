/** What a stretch of the stream does to the tables of a project's services, and who changed definitions in it. */
import type { DdlRow } from "../definitions/ddl_replay.ts";
import type { Relation } from "../decode/messages.ts";
import { isFiles, serviceOf, type TableName } from "../../restore/project_rows.ts";
import { isOwnBucket } from "../../schema/own_objects.ts";
import { isDoneByPlatform } from "../definitions/platform_definitions.ts";
import { decodeMessage, messageKind } from "../decode/pgoutput.ts";

/** One with a change at least. */
export interface SeenTable extends TableName {
  /** Every shape in which its changes came. */
  readonly relations: readonly Relation[];
  /** Rows were found again, to be updated or deleted. */
  readonly rowsChange: boolean;
  readonly emptied: boolean;
  /** Inserted less deleted, since it was emptied; without files in our own buckets, but for those that were there before. */
  readonly addedRows: number;
}

export interface SeenDefinitions {
  /** Roles that changed definitions of their own; `byPlatform`: the services', on what is theirs. */
  readonly byUsers: ReadonlySet<string>;
  readonly byPlatform: ReadonlySet<string>;
}

interface Seen {
  relations: Relation[];
  changes: number;
  rowsChange: boolean;
  emptied: boolean;
  addedRows: number;
}

/** Is told of what is not left out, in the order of the stream. */
export class SeenTables {
  readonly #relations = new Map<number, Relation>();
  readonly #tables = new Map<string, Seen & TableName>();
  /** Keys of files that came into our own buckets. */
  readonly #ownFiles = new Set<string>();
  readonly #byUsers = new Set<string>();
  readonly #byPlatform = new Set<string>();

  relation(relation: Relation): void {
    if (serviceOf(relation) === null) {
      this.#relations.delete(relation.oid);
      return;
    }
    const known = this.#relations.get(relation.oid);
    if (JSON.stringify(known) !== JSON.stringify(relation)) this.#relations.set(relation.oid, relation);
  }

  /** `oid`: the one table that the change names; null for a truncate. */
  change(oid: number | null, data: Uint8Array): void {
    if (this.#relations.size === 0) return;
    if (oid === null) return this.#truncate(data);
    const relation = this.#relations.get(oid);
    if (relation === undefined) return;
    const table = this.#table(relation);
    table.changes++;
    const kind = messageKind(data);
    if (kind !== "insert") table.rowsChange = true;
    if (kind === "update" || (isFiles(relation) && this.#isOwnFile(relation, data))) return;
    table.addedRows += kind === "insert" ? 1 : -1;
  }

  definition(row: DdlRow): void {
    (isDoneByPlatform(row) ? this.#byPlatform : this.#byUsers).add(row.role);
  }

  get tables(): readonly SeenTable[] {
    return [...this.#tables.values()].filter((table) => table.changes > 0);
  }

  get definitions(): SeenDefinitions {
    return { byUsers: this.#byUsers, byPlatform: this.#byPlatform };
  }

  #isOwnFile(relation: Relation, data: Uint8Array): boolean {
    const message = decodeMessage(data);
    const [key, bucket] = ["id", "bucket_id"].map((wanted) =>
      relation.columns.findIndex(({ name }) => name === wanted)
    );
    if (message.kind === "delete") return this.#ownFiles.delete(String(message.old.values[key ?? -1]));
    if (message.kind !== "insert" || !isOwnBucket(String(message.row[bucket ?? -1]))) return false;
    this.#ownFiles.add(String(message.row[key ?? -1]));
    return true;
  }

  #truncate(data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "truncate") return;
    for (const oid of message.relations) {
      const relation = this.#relations.get(oid);
      if (relation === undefined) continue;
      const table = this.#table(relation);
      table.changes++;
      table.emptied = true;
      table.addedRows = 0;
    }
  }

  #table(relation: Relation): Seen {
    const key = JSON.stringify([relation.schema, relation.name]);
    let table = this.#tables.get(key);
    if (table === undefined) {
      const { schema, name } = relation;
      table = { schema, name, relations: [], changes: 0, rowsChange: false, emptied: false, addedRows: 0 };
      this.#tables.set(key, table);
    }
    // The same object until the stream tells of another shape.
    if (table.relations.at(-1) !== relation) table.relations.push(relation);
    return table;
  }
}
