/** What stands around the rows in the document of an export. Pure. */
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { TableName } from "../restore/project_rows.ts";
import { documentFormat, documentVersion, type ExportDocument, purpose } from "./document_format.ts";
import type { ExportedTable, ExportPlan } from "./export_plan.ts";

export interface DocumentFacts {
  readonly id: string;
  readonly install: string;
  readonly project: string | null;
  readonly user: string;
  /** ISO 8601. */
  readonly consistentAt: string;
}

/** Up to the first table. */
export function documentHead(facts: DocumentFacts): string {
  const head = { format: documentFormat, version: documentVersion, purpose, ...facts, timeZone: "UTC" };
  return `${JSON.stringify(head, null, 1).replace(/\n\}$/, "")},\n "tables": [\n`;
}

/** Up to its first row. */
export function tableHead({ schema, name, description, why, key, columns, withheld }: ExportedTable, rowCount: number) {
  const head = {
    schema,
    table: name,
    description,
    why,
    key,
    columns: columns.map(({ name, type, form, description }) => ({ name, type, form, description })),
    withheld,
    rowCount,
  };
  return `${JSON.stringify(head).slice(0, -1)},"rows":[\n`;
}

/** Behind its last row. */
export const tableEnd = "\n]}";

export type LeftOut = ExportDocument["leftOut"];

/** What is not in it, with the reasons. `countsOf`: rows by place. */
export function leftOutOf(
  { ownership, never, noPath, tables }: ExportPlan,
  countsOf: (place: number) => { readonly owned: number; readonly shared: number },
): LeftOut {
  const named = ({ schema, name }: TableName) => ({ schema, table: name });
  return {
    shared: tables.map((table) => ({ ...named(table), rowCount: countsOf(table.place).shared }))
      .filter(({ rowCount }) => rowCount > 0),
    withheld: [...never].map(([place, { table, why }]) => {
      const { owned, shared } = countsOf(place);
      return { ...named(table), rowCount: owned + shared, why };
    }).filter(({ rowCount }) => rowCount > 0),
    noPath: noPath.map(named),
    notFollowed: ownership.notFollowed.filter(({ from }) => from.schema !== "auth" && from.schema !== "storage")
      .map(({ from, columns, to, reason }) => ({ ...named(from), columns: [...columns], to: nameOf(to), why: reason })),
    suspects: ownership.suspects.map(({ table, column }) => ({ ...named(table), column })),
  };
}

/** Behind the last table, up to the files. */
export function documentEnd(leftOut: LeftOut): string {
  return `\n],\n"leftOut": ${JSON.stringify(leftOut, null, 1)},\n"files": [\n`;
}
