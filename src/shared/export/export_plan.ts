/** What of a person's rows goes into their export, and what does not, with the reasons. Pure. */
import type { TableName } from "../restore/project_rows.ts";
import { platformSchemas } from "../restore/target.ts";
import { platformMentions, treatmentOf } from "../rows/ownership/auth_map.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { ownedTables, type OwnershipPlan } from "../rows/ownership/ownership.ts";
import { liveRelation } from "../rows/ownership/ownership_sql.ts";
import { userIdColumns } from "../rows/ownership/user_id_columns.ts";
import { decisionOn } from "../rows/ownership/ways.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { Graph, GraphTable } from "../rows/past/graph.ts";
import type { DescribedTable, ValueForm } from "./describe_tables.ts";

export interface ExportedColumn {
  readonly name: string;
  /** As the server writes it. */
  readonly type: string;
  readonly form: ValueForm;
  readonly description: string | null;
  /**
   * `unless theirs`: it holds a user's id, and is emptied where that is another's. `if a user's`: the same where the value is the id of a
   * user who is there, whatever the column is called. `always`: the map says that it is of others.
   */
  readonly ofOthers: "never" | "unless theirs" | "if a user's" | "always";
}

export interface ExportedTable extends TableName {
  /** Of its rows in `backup.export_rows`: its place in `ownedTables`, or behind them. */
  readonly place: number;
  /** What stands behind FROM. */
  readonly relation: string;
  /** Columns of the primary key; null: there is none. */
  readonly key: readonly string[] | null;
  readonly description: string | null;
  /** Whose rows they are, and why. */
  readonly why: string;
  readonly columns: readonly ExportedColumn[];
  /** Columns that no export holds. */
  readonly withheld: readonly { readonly column: string; readonly why: string }[];
  /** SQL: a condition on rows `t` by which they are the person's where no key leads to them; null: the ownership plan tells. */
  readonly condition: string | null;
}

export interface ExportPlan {
  readonly ownership: OwnershipPlan;
  /** In the document's order. */
  readonly tables: readonly ExportedTable[];
  /** Place of `storage.objects`; null: there is no Storage. */
  readonly filesPlace: number | null;
  /** Rows that reach the person and that no export holds, by place. */
  readonly never: ReadonlyMap<number, { readonly table: TableName; readonly why: string }>;
  /** Tables of the project from whose rows no way leads to a person. */
  readonly noPath: readonly TableName[];
}

/** In tables of Auth: what lets somebody in, also under names that a later version of it brings. */
const secretNames = /(token|secret|password|credential|challenge|nonce|verifier|_hash$|public_key|sign_count)/;

/** Schemas whose tables hold nothing of people but what the built-in map names. */
const notPeoples: ReadonlySet<string> = new Set([...platformSchemas, "supabase_migrations"]);

/** `user`: SQL of a literal, the person's id as text. `described`: by `nameOf`. */
export function planExport(
  graph: Graph,
  ownership: OwnershipPlan,
  map: BackupMap,
  described: ReadonlyMap<string, DescribedTable>,
  user: string,
): ExportPlan {
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  const idColumns = userIdColumns(graph, map);
  const suspects = new Map<string, string[]>();
  for (const { table, column } of ownership.suspects) {
    suspects.set(nameOf(table), [...suspects.get(nameOf(table)) ?? [], column]);
  }
  const exported: ExportedTable[] = [];
  const never = new Map<number, { table: TableName; why: string }>();
  let filesPlace: number | null = null;
  const take = (table: GraphTable, place: number, condition: string | null) => {
    const treatment = treatmentOf(table);
    const description = described.get(nameOf(table));
    if (treatment.export === "files") {
      filesPlace = place;
      return;
    }
    if (treatment.export === "never" || description === undefined) {
      never.set(place, { table: { schema: table.schema, name: table.name }, why: treatment.why });
      return;
    }
    const secrets = new Set(
      treatment.export === "without secrets" ? [...treatment.credentials, ...treatment.tokens] : [],
    );
    const isSecret = (column: string) =>
      secrets.has(column) || table.schema === "auth" && secretNames.test(column) && !sentAt.test(column);
    const held = new Set([...idColumns(table), ...suspects.get(nameOf(table)) ?? []]);
    const redacted = new Set(decisionOn(table, map)?.redact ?? []);
    exported.push({
      schema: table.schema,
      name: table.name,
      place,
      relation: liveRelation(table),
      key: table.key,
      description: description.description,
      why: treatment.why,
      columns: description.columns.filter(({ name }) => !isSecret(name)).map((column) => ({
        ...column,
        ofOthers: redacted.has(column.name)
          ? "always"
          : held.has(column.name)
          ? "unless theirs"
          : column.type === "uuid"
          ? "if a user's"
          : "never",
      })),
      withheld: description.columns.filter(({ name }) => isSecret(name))
        .map(({ name }) => ({ column: name, why: "it lets somebody in" })),
      condition,
    });
  };
  const owned = ownedTables(ownership);
  for (const [place, found] of owned.entries()) {
    const table = tables.get(nameOf(found));
    if (table !== undefined) take(table, place, null);
  }
  const reached = new Set(owned.map(nameOf));
  for (const [at, [name, condition]] of [...mentionConditions(user)].entries()) {
    const table = tables.get(name);
    if (table === undefined || reached.has(name) || owned.length === 0) continue;
    reached.add(name);
    take(table, owned.length + at, condition);
  }
  return {
    ownership,
    tables: exported,
    filesPlace,
    never,
    noPath: graph.tables.filter((table) => !reached.has(nameOf(table)) && !notPeoples.has(table.schema)).map((
      { schema, name },
    ) => ({ schema, name })),
  };
}

/** When something was sent says nothing of what was. */
const sentAt = /_(at|ip|ip_address)$/;

/** Tables without a way to a person whose documents name one: theirs are the rows that name nobody else. */
function mentionConditions(user: string): Map<string, string> {
  const places = new Map<string, string[]>();
  for (const { table, column, path, holds } of platformMentions) {
    if (holds !== "user id" || path === null) continue;
    const value = `t.${column}::jsonb #>> '{${path.join(",")}}'`;
    places.set(nameOf(table), [...places.get(nameOf(table)) ?? [], value]);
  }
  return new Map(
    [...places].map(([name, values]) => [
      name,
      `coalesce(${values.join(", ")}) is not null and ${
        values.map((value) => `coalesce(${value}, ${user}) = ${user}`).join(" and ")
      }`,
    ]),
  );
}
