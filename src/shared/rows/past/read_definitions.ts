/** Keys and partitions out of the statements of a capture (schema/collect_indexes.ts, collect_tables.ts write them). Pure. */
import type { TableName } from "../../restore/project_rows.ts";
import { DefinitionText } from "./definition_text.ts";
import type { Edge, GraphColumn } from "./graph.ts";

/** `alter table [only] t add constraint k PRIMARY KEY (…)…` */
export function readPrimaryKey(statement: string): { readonly table: TableName; readonly columns: readonly string[] } {
  const text = new DefinitionText(statement);
  const { table } = readConstraint(text);
  text.expect("primary", "key");
  return { table, columns: text.names() };
}

/** `alter table [only] t add constraint k FOREIGN KEY (…) REFERENCES u(…)…` */
export function readForeignKey(statement: string): Edge {
  const text = new DefinitionText(statement);
  const { table, constraint } = readConstraint(text);
  text.expect("foreign", "key");
  const columns = text.names();
  text.expect("references");
  const to = text.tableName();
  const toColumns = text.names();
  return { constraint, from: table, columns, to, toColumns, onDelete: readOnDelete(text) };
}

/** `alter table only parent attach partition child …` */
export function readPartition(statement: string): { readonly parent: TableName; readonly child: TableName } {
  const text = new DefinitionText(statement);
  text.expect("alter", "table", "only");
  const parent = text.tableName();
  text.expect("attach", "partition");
  return { parent, child: text.tableName() };
}

/**
 * The stored columns of a partitioned table, from its `create table … partition by …`; null for a statement that makes
 * another kind of table. One that is made `of` a type names no columns: its list is empty.
 */
export function readPartitioned(statement: string): readonly GraphColumn[] | null {
  const text = new DefinitionText(statement);
  if (!text.take("create", "table") && !text.take("create", "unlogged", "table")) return null;
  text.tableName();
  const columns: GraphColumn[] = [];
  if (text.take("of")) text.upTo("partition");
  else {
    text.expect("(");
    while (!text.take(")")) {
      const column = readColumn(text);
      if (column !== null) columns.push(column);
      text.take(",");
    }
  }
  return text.take("partition", "by") ? columns : null;
}

function readConstraint(text: DefinitionText): { readonly table: TableName; readonly constraint: string } {
  text.expect("alter", "table");
  text.take("only");
  const table = text.tableName();
  text.expect("add", "constraint");
  return { table, constraint: text.name() };
}

function readOnDelete(text: DefinitionText): Edge["onDelete"] {
  text.upTo("on");
  while (text.take("on")) {
    if (text.take("delete")) {
      for (const action of ["no action", "restrict", "cascade", "set null", "set default"] as const) {
        if (text.take(...action.split(" "))) return action;
      }
    }
    text.upTo("on");
  }
  return "no action";
}

/** Null for a check, and for a column that is computed. */
function readColumn(text: DefinitionText): GraphColumn | null {
  if (text.take("constraint")) {
    text.upTo(",", ")");
    return null;
  }
  const name = text.name();
  const type = text.upTo("collate", "generated", "default", "not", ",", ")");
  if (text.take("collate")) text.upTo("generated", "default", "not", ",", ")");
  const generated = text.take("generated");
  const rest = text.upTo(",", ")");
  return generated ? null : { name, type, notNull: /(?:^| )not null$/.test(rest) };
}
