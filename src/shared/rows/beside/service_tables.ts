/** Tables of schemas auth and storage, when they are asked for by name: what of them goes back into place. */
import type { TableName } from "../../restore/project_rows.ts";
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { projectTables, type Treatment, treatmentOf } from "../ownership/auth_map.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { SideTable } from "./side_tables.ts";

/** What a service keeps for itself: it would be wrong about its own tables, or its files. */
const ownBooks: ReadonlySet<string> = new Set(["auth.schema_migrations", "storage.migrations", "storage.prefixes"]);

/** Why rows of the table are laid beside and go no further, in a sentence; null: they can. */
export function whyBesideOnly(table: TableName): string | null {
  const name = nameOf(table);
  const said = (why: string) => `rows of ${quoteQualified(table.schema, table.name)} are laid beside only: ${why}`;
  if (ownBooks.has(name)) return said("the service keeps them for itself");
  if (projectTables.has(name)) return null;
  const { restore, why } = treatmentOf(table);
  if (restore === "rows") return null;
  return said(restore === "credentials" ? `${why} come back with their user (restore-user --credentials)` : why);
}

/** Live columns that a row which is there keeps: by which its user signs in, and what opens something once. */
export function keptColumns({ credentials, tokens }: Treatment, withCredentials: boolean): string[] {
  return [...tokens, ...(withCredentials ? [] : credentials)];
}

/** What opened something once opens nothing again. */
export async function forgetTokens(connection: Connection, { tokens }: Treatment, side: SideTable): Promise<void> {
  const columns = tokens.filter((token) => side.columns.some((column) => column.name === token));
  if (columns.length === 0) return;
  await connection.execute(`update ${side.sql} set ${columns.map((one) => `${quoteIdent(one)} = ''`).join(", ")}`);
}
