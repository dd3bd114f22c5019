/** Objects that came after the backup and have the name of one that is to be made. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { quoteIdent, quoteQualified } from "../../../schema/quote.ts";
import { isType } from "./compared.ts";
import type { Findings } from "./findings.ts";

/** Kinds that share the names of relations in a schema. */
const relations = new Set([
  "table",
  "foreign table",
  "view",
  "materialized view",
  "sequence",
  "identity",
  "index",
  "primary key",
  "unique constraint",
  "exclusion constraint",
]);

/** Those of relations that have a row type, which shares the names of types. */
const rowTypes = new Set(["table", "foreign table", "view", "materialized view"]);

const routines = new Set(["function", "procedure", "aggregate"]);

/** Longest part of a name that is kept in another; 63 bytes are the most that a name has. */
const keptLength = 45;

/** A table is refused, what hangs on one of the backup goes, an index or a sequence of another table gets another name. */
export function clearNames(findings: Findings): void {
  const taken = new Map<string, Definition>();
  for (const one of findings.is) {
    if (findings.wasBy.has(one.identity) || findings.isDropped(one.identity)) continue;
    for (const name of namesOf(one)) taken.set(name, one);
  }
  for (const one of findings.was) {
    const others = new Set(namesOf(one).flatMap((name) => taken.get(name) ?? []));
    for (const other of others) makeRoom(findings, other, `it has the name that ${one.identity} needs`);
  }
}

/** What no two objects can share. */
function namesOf(one: Definition): string[] {
  const name = quoteQualified(one.schema ?? "", one.name);
  if (routines.has(one.kind)) return [`routine ${one.identity.replace(/^\w+ /, "")}`];
  return [
    ...(relations.has(one.kind) || one.kind === "composite type" ? [`relation ${name}`] : []),
    ...(rowTypes.has(one.kind) || isType(one) ? [`type ${name}`] : []),
  ];
}

function makeRoom(findings: Findings, other: Definition, reason: string): void {
  if (other.kind === "table") findings.note(other, "refuse", reason);
  else if (other.table === null || findings.wasBy.has(other.table)) findings.drop(other, reason);
  else {
    const word = other.kind === "identity" ? "sequence" : "index";
    const name = quoteQualified(other.schema ?? "", other.name);
    const aside = quoteIdent(`${other.name.slice(0, keptLength)}_holdfast_aside`);
    findings.asides.push({ one: other, statements: [`alter ${word} ${name} rename to ${aside}`], reason });
  }
}
