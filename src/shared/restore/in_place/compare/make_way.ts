/** What stands on an object that goes, goes before it; tables let go of it instead. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { typeName } from "../texts/identity_names.ts";
import { alterTable } from "./alter_table.ts";
import { isGrantsOnly, isOfServer, isType } from "./compared.ts";
import type { Findings } from "./findings.ts";
import { dropUnreplaceable } from "./replace_views.ts";

/** Until nothing more follows: a drop brings others, and so does a table that is altered. */
export function makeWay(findings: Findings): void {
  do {
    const tables = new Set<string>();
    for (let next = findings.nextDrop(); next !== undefined; next = findings.nextDrop()) {
      for (const table of dropUsers(findings, next)) tables.add(table);
    }
    for (const table of tables) alterTable(findings, table);
    dropUnreplaceable(findings);
  } while (findings.hasOpenDrops);
}

/** Returns the tables that must let go of it instead. */
function dropUsers(findings: Findings, identity: string): string[] {
  const tables: string[] = [];
  const fate = `${identity}, which is ${findings.wasBy.has(identity) ? "made anew" : "gone afterwards"}`;
  for (const user of findings.usersOf(identity)) {
    if (findings.isDropped(user.identity) || isGrantsOnly(user) || isOfServer(user)) continue;
    if (user.kind === "table") {
      if (mustLetGo(findings, user, identity)) tables.push(user.identity);
    } else if (user.kind !== "sequence" && user.kind !== "schema") {
      findings.drop(user, `${user.table === identity ? "it goes with" : "it stands on"} ${fate}`);
      if (user.kind === "index partition") dropBothSides(findings, user, `it stands on ${fate}`);
    }
  }
  return tables;
}

/** Neither index can be detached from the other. */
function dropBothSides(findings: Findings, attachment: Definition, reason: string): void {
  const attached = findings.attachedIndex(attachment.identity);
  if (attached === undefined) return;
  for (const side of [attached.parent, attached.child]) {
    const index = findings.isBy.get(side);
    if (index !== undefined) findings.drop(index, reason);
  }
}

const routines = new Set(["function", "procedure"]);

/** A table never goes for what it uses. True: it has to be looked at again. */
function mustLetGo(findings: Findings, table: Definition, identity: string): boolean {
  const used = findings.isBy.get(identity);
  if (used === undefined || used.kind === "partition") return false;
  if (used.kind === "table") {
    if (!findings.isPartitionOf(table, identity)) {
      findings.note(table, "refuse", `it inherits from ${identity}, which is made anew`);
    }
    return false;
  }
  const isRemade = findings.wasBy.has(identity) && !findings.lateDrops.has(identity);
  if (!isRemade) {
    findings.lateDrops.add(identity);
    if (findings.wasBy.has(table.identity)) return true;
    if (used.kind === "sequence") {
      // What owned it lets go; the table that came after the backup still counts by it.
      findings.takeBackDrop(identity);
      findings.note(used, "keep", `it came after the backup; ${table.identity} uses it`);
      return false;
    }
  }
  if (!isType(used) && !routines.has(used.kind)) {
    findings.note(used, "refuse", `it must be made anew, but ${table.identity} stands on it`);
    return false;
  }
  if (used.kind === "range") {
    findings.note(used, "refuse", `it must be made anew, but columns of ${table.identity} are of it`);
    return false;
  }
  if (isType(used)) findings.asideTypes.add(identity);
  return findings.letGo(table.identity, isType(used) ? typeName(identity) : routineName(identity));
}

/** Without its arguments. */
function routineName(identity: string): string {
  return identity.replace(/^(?:function|procedure) /, "").replace(/\([^]*$/, "");
}
