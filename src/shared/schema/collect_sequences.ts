/** Sequences: free, owned by a column, and those behind identity columns. */
import { type Collector, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { quoteIdent, quoteQualified } from "./quote.ts";
import { ownedByText, type Sequence, sequenceOptions } from "./sequences.ts";

export function sequenceCollector(sequences: readonly Sequence[]): Collector {
  // deno-lint-ignore require-await
  return async (context) =>
    sequences.filter((sequence) => ownObject(context, "pg_class", sequence.oid) !== undefined).flatMap(sequenceDrafts);
}

function sequenceDrafts(sequence: Sequence): Draft[] {
  const key = `pg_class:${sequence.oid}`;
  const name = quoteQualified(sequence.schema, sequence.name);
  const ownedBy = ownedByText(sequence);
  if (sequence.dependency === "i" && ownedBy !== null) return [identityDraft(sequence, name)];
  const made = draft(key, "sequence", "pre-data", [
    `create ${sequence.persistence === "u" ? "unlogged " : ""}sequence ${name} as ${sequence.type} ${
      sequenceOptions(sequence)
    }`,
  ], { ownerWord: "sequence" });
  if (ownedBy === null) return [made];
  const table = `pg_class:${sequence.tableOid ?? ""}`;
  return [
    made,
    draft(`owned:${sequence.oid}`, "sequence ownership", "pre-data", [`alter sequence ${name} owned by ${ownedBy}`], {
      identity: `ownership of sequence ${name} by ${ownedBy}`,
      after: [key, table],
      table,
    }),
  ];
}

function identityDraft(sequence: Sequence, name: string): Draft {
  const tableName = quoteQualified(sequence.tableSchema ?? "", sequence.tableName ?? "");
  const statements = [
    `alter table ${tableName} alter column ${quoteIdent(sequence.column ?? "")} add generated ${
      sequence.identity === "a" ? "always" : "by default"
    } as identity (sequence name ${name} ${sequenceOptions(sequence)})`,
  ];
  if (sequence.persistence !== sequence.tablePersistence) {
    statements.push(`alter sequence ${name} set ${sequence.persistence === "u" ? "unlogged" : "logged"}`);
  }
  const table = `pg_class:${sequence.tableOid ?? ""}`;
  return draft(`pg_class:${sequence.oid}`, "identity", "pre-data", statements, { table, after: [table] });
}
