/** Indexes and constraints that only have another name now: told by their texts, on the same table. Pure. */
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";
import { quoteIdent, quoteQualified } from "../../../schema/quote.ts";
import { relationName } from "../texts/identity_names.ts";
import type { Rename } from "./renames.ts";
import { replaceName } from "../texts/sql_text.ts";

const kinds = new Set([
  "index",
  "primary key",
  "unique constraint",
  "exclusion constraint",
  "foreign key",
  "check constraint",
]);

/** Renames that make indexes and constraints of `is` those of `was`, each with the identity that it gets. */
export function renamedConstraints(was: SchemaCapture, is: SchemaCapture): { rename: Rename; identity: string }[] {
  const [had, has] = [was, is].map((capture) => new Set(capture.definitions.map((one) => one.identity)));
  const open = (list: readonly Definition[], others: ReadonlySet<string> | undefined) =>
    list.filter((one) => kinds.has(one.kind) && one.table !== null && others?.has(one.identity) === false);
  const missing = open(was.definitions, has);
  const found: { rename: Rename; identity: string }[] = [];
  const taken = new Set<string>();
  for (const one of open(is.definitions, had)) {
    const same = missing.find((other) =>
      !taken.has(other.identity) && other.kind === one.kind && other.table === one.table &&
      other.schema === one.schema &&
      other.statements.join("\n") ===
        one.statements.map((text) => replaceName(text, quoteIdent(one.name), quoteIdent(other.name))).join("\n")
    );
    if (same === undefined) continue;
    taken.add(same.identity);
    const table = relationName(one.table ?? "");
    const [from, to] = [quoteIdent(one.name), quoteIdent(same.name)];
    found.push({
      identity: same.identity,
      rename: {
        identity: one.identity,
        statements: [
          one.kind === "index"
            ? `alter index ${quoteQualified(one.schema ?? "", one.name)} rename to ${to}`
            : `alter table ${table} rename constraint ${from} to ${to}`,
        ],
        reason: `it was called ${to}`,
        table,
      },
    });
  }
  return found;
}
