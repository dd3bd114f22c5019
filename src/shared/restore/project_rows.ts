/** Which rows and columns the tables of a project's own services take. Pure. */
import { dataOf } from "../schema/platform.ts";
import type { TargetFacts, TargetTable } from "./target.ts";

export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** `keep`: indexes of the columns that the project takes, by name; what it computes itself is in neither list. */
export type RowsIntoProject =
  | { readonly keep: readonly number[]; readonly lost: readonly string[] }
  | { readonly reason: string };

/** Uploads that were under way; their parts are in no backup. */
const unfinishedUploads = new Set(["s3_multipart_uploads", "s3_multipart_uploads_parts"]);

/** Rows of which come back with their bytes only. */
export function isFiles({ schema, name }: TableName): boolean {
  return schema === "storage" && name === "objects";
}

/** `owner` as a table shape's `dataOwner`: `user`, a service, or `extension …`. */
export function isOfPlatform(dataOwner: string): boolean {
  return dataOwner !== "user" && !dataOwner.startsWith("extension ");
}

/** The service that would own a table of this name, were it not the user's; with whether its rows are the project's own. */
export function serviceOf(
  { schema, name }: TableName,
): { readonly service: string; readonly restoreData: boolean } | null {
  const { dataOwner, restoreData } = dataOf(schema, name, "supabase_admin");
  return dataOwner === "user" ? null : { service: dataOwner, restoreData };
}

export function rowsIntoProject(table: TableName, columns: readonly string[], facts: TargetFacts): RowsIntoProject {
  if (table.schema === "storage" && unfinishedUploads.has(table.name)) {
    return { reason: "they belong to uploads that never ended" };
  }
  const target = facts.tables.find((one) => one.schema === table.schema && one.name === table.name);
  if (target === undefined) return { reason: "the project does not have the table" };
  if (!target.writable) return { reason: `${facts.user} may not write to the table` };
  return matchColumns(columns, target);
}

function matchColumns(columns: readonly string[], target: TargetTable): { keep: number[]; lost: string[] } {
  const there = new Map(target.columns.map((column) => [column.name, column]));
  const keep: number[] = [];
  const lost: string[] = [];
  for (const [index, name] of columns.entries()) {
    const column = there.get(name);
    if (column === undefined) lost.push(name);
    else if (!column.generated) keep.push(index);
  }
  return { keep, lost };
}

export function lostColumnsWarning(table: string, lost: readonly string[]): string {
  return `${table}: the project has no column ${lost.join(", ")}; its values are not restored`;
}

/** Empty where there is none. */
export function filesWarning(files: number): string[] {
  return files === 0
    ? []
    : [`${files} files of storage.objects are not restored with the rows: they come with their bytes`];
}
