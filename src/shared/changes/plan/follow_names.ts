/** What a row of the DDL log does to the names of tables. */
import type { DdlRow, DdlStep } from "../definitions/ddl_replay.ts";
import { leadingWords } from "../definitions/statements.ts";
import type { Relation } from "../decode/messages.ts";
import { splitQualified, unquoteIdent } from "../../schema/quote.ts";
import { type SchemaRename, schemaRename, type TableNames } from "./named_tables.ts";

/**
 * Tells `names` of it, in the order of the stream. Returns the former name of the row's table; null: it has the one that it
 * had. `step`: what the same transaction's `DdlTransaction` says of the row.
 */
export function followNames(names: TableNames, row: DdlRow, step: DdlStep): string | null {
  let former: string | null = null;
  for (const { type, oid, identity } of row.objects) {
    if (type !== "table" || oid == null || identity === null) continue;
    if (row.what === "drop") names.dropped(oid);
    else if (row.what === "command") former = names.named(oid, identity) ?? former;
  }
  const renamed = schemaRenameOf(row, step);
  if (renamed !== null && renamed !== "unclear") names.renamedSchema(renamed.former, renamed.now);
  return former;
}

/** A schema takes its tables along, and no row of the log tells of them. `unclear`: neither does the text. */
export function schemaRenameOf(row: DdlRow, step: DdlStep): SchemaRename | "unclear" | null {
  if (row.tag !== "ALTER SCHEMA" || step.do !== "run") return null;
  const renaming = step.statements.find((one) => {
    const words = leadingWords(one, 10);
    return words[0] === "alter" && words[1] === "schema" && words.includes("rename");
  });
  return renaming === undefined ? null : schemaRename(renaming) ?? "unclear";
}

/**
 * The relation by its table's name at this place. The server describes a table once a session, and not anew when its schema
 * is renamed. The same object where that is its name; one that no row of the log has named keeps its own.
 */
export function asNamed(names: TableNames, relation: Relation): Relation {
  const [schema, name] = splitQualified(names.tables.get(relation.oid) ?? "")?.map(unquoteIdent) ?? [];
  if (schema === undefined || name === undefined) return relation;
  return schema === relation.schema && name === relation.name ? relation : { ...relation, schema, name };
}
