/** A table that differs, or has to let go of something: ALTERs, and what must make way for these. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { withAsideTypes } from "../texts/aside_types.ts";
import { loosenTable } from "../texts/loosen_table.ts";
import { mentions } from "../texts/sql_text.ts";
import { type TableChanges, tableChanges } from "../texts/table_changes.ts";
import { parseTable, type TableText } from "../texts/table_text.ts";
import { isGrantsOnly } from "./compared.ts";
import type { Findings } from "./findings.ts";

/** May be called again once there is more to let go of. A table that came after the backup is only loosened. */
export function alterTable(findings: Findings, identity: string): void {
  const is = findings.isBy.get(identity);
  if (is === undefined || findings.isDropped(identity)) return;
  if (!findings.mayActAs(is.owner)) return findings.refuseForOwner(is, "it differs, but");
  const was = findings.wasBy.get(identity) ?? is;
  const names = findings.namesToLetGo(identity);
  const [wanted, present] = [parseTable(was.statements), parseTable(is.statements)];
  if (wanted === null || present === null) {
    const isSame = was.statements.join(";\n") === is.statements.join(";\n");
    if (isSame && names.length === 0) return;
    return makeAnew(findings, is, "its definition differs in a way that no ALTER is known for");
  }
  const hasHeirs = findings.usersOf(identity).some((user) =>
    user.kind === "table" && !findings.isPartitionOf(user, identity)
  );
  const { table: loosened, statements } = loosenTable(present, names, hasHeirs);
  const changes = tableChanges(wanted, withAsideTypes(loosened, names), hasHeirs);
  if (changes.stuck !== null) return makeAnew(findings, is, changes.stuck);
  findings.tables.set(identity, { loosen: statements, changes });
  refuseForHeirs(findings, identity, changes);
  dropUsersOfColumns(findings, is, takenOff(present, loosened), changes);
}

/** The columns of tables that inherit change along, and of one that came after the backup no row comes back. */
function refuseForHeirs(findings: Findings, identity: string, { retyped, remade, dropped }: TableChanges): void {
  const columns = [...new Set([...retyped, ...remade, ...dropped])];
  if (columns.length === 0 || findings.options.dropExtra) return;
  for (const heir of heirsOf(findings, identity)) {
    if (findings.wasBy.has(heir.identity)) continue;
    const what = `whose columns ${columns.join(", ")} change`;
    const reason = inherits(heir)
      ? `inherits from ${identity}, ${what}: its values would go or be converted. Take it out with NO INHERIT first`
      : `has a column of the row type of ${identity}, ${what}: its values would go or be converted. Drop that column first`;
    findings.note(heir, "refuse", `it came after the backup and ${reason}`);
  }
}

function heirsOf(findings: Findings, identity: string, found = new Set<string>()): Definition[] {
  return findings.usersOf(identity).flatMap((user) => {
    if (user.kind !== "table" || found.has(user.identity) || findings.isPartitionOf(user, identity)) return [];
    found.add(user.identity);
    return [user, ...heirsOf(findings, user.identity, found)];
  });
}

/** Else it has a column of a table's row type. One that is not understood counts as inheriting. */
function inherits(table: Definition): boolean {
  const text = parseTable(table.statements);
  return text === null || text.inherits !== "" || text.rest.some((one) => / inherit /.test(one));
}

/** Columns that were loosened by dropping them. */
function takenOff(before: TableText, after: TableText): string[] {
  const left = new Set(after.columns.map((column) => column.name));
  return before.columns.map((column) => column.name).filter((name) => !left.has(name));
}

/** Kinds that PostgreSQL does not carry over when a column's type changes. */
const heldByType = new Set([
  "view",
  "materialized view",
  "policy",
  "trigger",
  "rule",
  "function",
  "procedure",
  "publication table",
  "foreign key",
  "statistics",
]);

function dropUsersOfColumns(
  findings: Findings,
  table: Definition,
  taken: readonly string[],
  { remade, retyped, dropped }: TableChanges,
): void {
  const uses = (one: Definition, columns: Iterable<string>) =>
    [...columns].some((column) => one.statements.some((text) => mentions(text, column)));
  for (const user of findings.usersOf(table.identity)) {
    if (user.kind === "table" || isGrantsOnly(user)) continue;
    const column = `it uses a column of ${table.identity}`;
    // What is in the backup and differs is looked at by itself.
    const staysOtherwise = findings.isSwapped(user) || !findings.wasBy.has(user.identity);
    if (uses(user, [...remade, ...taken])) findings.drop(user, `${column} that is made again`);
    else if (heldByType.has(user.kind) && uses(user, retyped)) findings.drop(user, `${column} whose type changes`);
    else if (staysOtherwise && uses(user, dropped)) findings.drop(user, `${column} that came after the backup`);
  }
}

/** Only where its rows come back; one that is partitioned has none of its own, and gets those that it had in its partitions. */
function makeAnew(findings: Findings, is: Definition, reason: string): void {
  const hasRows = !isPartitioned(is);
  const was = findings.wasBy.get(is.identity);
  const comeBack = findings.rowsComeBack(is.identity) ||
    (findings.options.replacesRows && was !== undefined && isPartitioned(was));
  if (hasRows && !comeBack) return findings.note(is, "refuse", reason);
  findings.drop(is, `${reason}${hasRows ? "; it is made anew, and its rows come back from the backup" : ""}`);
}

/** A table that is not understood counts as one with rows. */
function isPartitioned(table: Definition): boolean {
  return (parseTable(table.statements)?.partitionBy ?? "") !== "";
}
