/** What becomes of an object that came after the backup. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { isAside } from "../texts/aside_types.ts";
import { isGrantsOnly, isOfServer, isType, standsAlone } from "./compared.ts";
import type { Findings } from "./findings.ts";

const came = "it came after the backup";

/** What stands alone stays, unless extra objects go; what hangs on an object of the backup goes. */
export function judgeExtra(findings: Findings, one: Definition): void {
  if (isGrantsOnly(one) || one.kind === "materialized view data" || one.kind === "index partition") return;
  if (isOfServer(one)) {
    if (one.kind !== "database") findings.note(one, "keep", `${came}; what concerns roles and settings stays`);
    return;
  }
  if (isType(one) && isAside(one.name)) return findings.drop(one, "a restore that was stopped has left it");
  if (one.kind === "sequence" && belongsToFormerTable(findings, one)) {
    return findings.drop(one, `${came}, for a column`);
  }
  if (standsAlone(one)) {
    if (findings.options.dropExtra) findings.drop(one, came);
    else findings.note(one, "keep", `${came}${one.kind === "table" ? "; it stays with its rows" : ""}`);
    return;
  }
  if (one.kind === "partition") judgePartition(findings, one);
  else judgeAppendage(findings, one);
}

/** Did the sequence come with a column of a table that was there before? */
function belongsToFormerTable(findings: Findings, sequence: Definition): boolean {
  const ownership = findings.usersOf(sequence.identity).find((user) => user.kind === "sequence ownership");
  return findings.wasBy.has(ownership?.table ?? "");
}

/** What it hangs on: its table, else an object of the backup that it needs. */
function holderOf({ wasBy }: Findings, one: Definition): string | null {
  return one.table ?? one.dependsOn.find((need) => wasBy.has(need) && !need.startsWith("schema ")) ?? null;
}

/** Its rows would be among those of the restored table. */
function judgePartition(findings: Findings, one: Definition): void {
  const parent = one.dependsOn.find((need) => need !== one.table);
  if ([parent, holderOf(findings, one)].some((side) => findings.wasBy.has(side ?? ""))) {
    findings.drop(one, `${came}: the partition is detached and keeps its rows`);
  }
}

/** A column's default, an index, a policy and the like: it changes what it hangs on. */
function judgeAppendage(findings: Findings, one: Definition): void {
  const { wasBy } = findings;
  const holder = holderOf(findings, one);
  if (holder === null || !(wasBy.has(holder) || findings.isPlatform(holder))) return;
  const others = one.dependsOn.filter((need) => need !== holder && need.startsWith("publication "));
  if (others.some((need) => !wasBy.has(need))) return;
  if (findings.isSwapped(one)) findings.swaps.set(one.identity, came);
  else if (one.kind !== "row security") findings.drop(one, came);
}
