/** What becomes of an object that came after the backup. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { isJobOfOtherDatabase } from "../../../schema/unnamed_jobs.ts";
import { isAside } from "../texts/aside_types.ts";
import { isGrantsOnly, isOfServer, isType, standsAlone } from "./compared.ts";
import type { Findings } from "./findings.ts";

const came = "it came after the backup";

/** What stands alone stays, unless extra objects go; what hangs on an object of the backup goes. */
export function judgeExtra(findings: Findings, one: Definition): void {
  if (isGrantsOnly(one) || one.kind === "index partition") return;
  if (one.kind === "materialized view data") {
    const isFormer = one.dependsOn.some((need) => findings.wasBy.has(need) && need.startsWith("materialized view "));
    if (isFormer) findings.note(one, "keep", "it holds rows, which it did not when the backup was taken");
    return;
  }
  if (isOfServer(one)) {
    if (one.kind !== "database") findings.note(one, "keep", `${came}; what concerns roles and settings stays`);
    return;
  }
  if (isType(one) && isAside(one.name)) return findings.drop(one, "a restore that was stopped has left it");
  if (one.kind === "sequence" && belongsToFormerTable(findings, one)) {
    return findings.drop(one, `${came}, for a column`);
  }
  if (standsAlone(one)) {
    if (isJobOfOtherDatabase(one)) findings.note(one, "keep", `${came}, and runs in another database`);
    else if (findings.options.dropExtra) findings.drop(one, came);
    else findings.note(one, "keep", `${came}${one.kind === "table" ? "; it stays with its rows" : ""}`);
    return;
  }
  if (one.kind === "partition") judgePartition(findings, one);
  else judgeAppendage(findings, one);
}

/** Who is asked about what there was and what the platform has. */
interface Former {
  readonly wasBy: { has(identity: string): boolean };
  isPlatform(identity: string): boolean;
}

/** It hangs on nothing that was there, or is part of a publication that came after the backup. */
function hangsOnKept(former: Former, one: Definition): boolean {
  const { wasBy } = former;
  const holder = holderOf(former, one);
  if (holder === null || !(wasBy.has(holder) || former.isPlatform(holder))) return true;
  const others = one.dependsOn.filter((need) => need !== holder && need.startsWith("publication "));
  return others.some((need) => !wasBy.has(need));
}

/**
 * Does it stay after a restore in place that drops no extra objects, so that it is no difference? `former.wasBy` and
 * `isPlatform` are asked about identities. A sequence that came with a column of a former table does not.
 */
export function staysAlthoughExtra(former: Former, one: Definition, sequencesOfFormer: ReadonlySet<string>): boolean {
  if (isGrantsOnly(one) || sequencesOfFormer.has(one.identity)) return false;
  if (isOfServer(one) || standsAlone(one) || one.kind === "materialized view data") return true;
  if (one.kind === "partition") {
    return ![one.table, ...one.dependsOn].some((side) =>
      side !== null && /^(?:foreign )?table /.test(side) && former.wasBy.has(side)
    );
  }
  return hangsOnKept(former, one);
}

/** Did the sequence come with a column of a table that was there before? */
function belongsToFormerTable(findings: Findings, sequence: Definition): boolean {
  const ownership = findings.usersOf(sequence.identity).find((user) => user.kind === "sequence ownership");
  return findings.wasBy.has(ownership?.table ?? "");
}

/** What it hangs on: its table, else an object of the backup that it needs. */
function holderOf({ wasBy }: Pick<Former, "wasBy">, one: Definition): string | null {
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
  if (hangsOnKept(findings, one)) return;
  if (findings.isSwapped(one)) findings.swaps.set(one.identity, came);
  else if (one.kind !== "row security") findings.drop(one, came);
}
