/** What people see of files that come back: the plan, and what became of it. */
import type { BringPlan, BroughtFiles } from "../shared/files/bring_files.ts";
import type { PlannedFile } from "../shared/files/plan_put_back.ts";
import { columns } from "./output.ts";
import { amount } from "./progress.ts";

/** Lines of a plan that people see; the document has all. */
const shownFiles = 20;

/** `{put, bytes, same, differs, later, lost, erased, orphans[], files[{file, state, puts}], warnings[]}`. */
export function filesDocument(plan: BringPlan) {
  return {
    put: plan.files.filter(({ puts }) => puts).length,
    bytes: plan.bytes,
    same: countOf(plan, "same"),
    differs: countOf(plan, "differs"),
    later: countOf(plan, "later"),
    lost: countOf(plan, "lost"),
    erased: plan.erased.length,
    orphans: plan.orphans.map(({ bucket, name }) => `${bucket}/${name}`),
    files: plan.files.map(({ file, state, puts }) => ({ file: `${file.bucket}/${file.name}`, state, puts })),
    warnings: filesWarnings(plan),
  };
}

/** The same once they were put: `madeBuckets[]` and `failed[{file, code, message}]` besides; `put` and `bytes` are what came of it. */
export function broughtDocument(plan: BringPlan, brought: BroughtFiles) {
  return { ...filesDocument(plan), ...brought };
}

/** 3 where something that was asked for has not come back. */
export function filesExit(plan: BringPlan, brought: BroughtFiles): 0 | 3 {
  return countOf(plan, "lost") + brought.failed.length > 0 ? 3 : 0;
}

export function filesWarnings(plan: BringPlan): string[] {
  const warnings: string[] = [];
  for (const { file, state } of plan.files) {
    const name = `${file.bucket}/${file.name}`;
    if (state === "lost") warnings.push(`${name}: the backup has no content of it (${file.missed})`);
    if (state === "later") warnings.push(`${name}: its version of the backup's moment was missed; a later one is put`);
  }
  if (plan.erased.length > 0) {
    warnings.push(`${amount(plan.erased.length, "files")} of people who were erased are not put back`);
  }
  return warnings;
}

const reasons: Readonly<Record<PlannedFile["state"], string>> = {
  gone: "is not there",
  half: "was put by a restore that was broken off, and is nobody's yet",
  differs: "has another content there",
  same: "is the same there",
  lost: "has no content in the backup",
  later: "is not there as of the backup; a later version is put",
};

/** Of a plan; `host`: the project whose Storage it is. */
export function filesLines(plan: BringPlan, host: string): string[] {
  const puts = plan.files.filter((file) => file.puts);
  return [
    `${amount(puts.length, "files")}, ${amount(plan.bytes, "bytes")}, into Storage of ${host}:`,
    ...otherLines(plan),
  ];
}

export function broughtLines(plan: BringPlan, { put, bytes, failed }: BroughtFiles, of: string): string[] {
  return [
    `${amount(put, "files")} of ${of} are back in Storage, ${amount(bytes, "bytes")}, read back and equal.`,
    ...otherLines(plan),
    ...failed.map(({ file, code, message }) => `  FAILED ${file}: ${code}: ${message}`),
  ];
}

function otherLines(plan: BringPlan): string[] {
  const lines = plan.files.filter(({ state }) => state !== "same").slice(0, shownFiles)
    .map(({ file, state, puts }) => [puts ? "  put" : "  leave", `${file.bucket}/${file.name}`, reasons[state]]);
  const same = countOf(plan, "same");
  return [
    ...columns(lines),
    ...(same === 0 ? [] : [`  ${amount(same, "files")} are the same there`]),
    ...(plan.orphans.length === 0
      ? []
      : [`  ${amount(plan.orphans.length, "files")} there are not in the backup, and stay`]),
    ...filesWarnings(plan).map((warning) => `  warning: ${warning}`),
  ];
}

function countOf(plan: BringPlan, state: PlannedFile["state"]): number {
  return plan.files.filter((file) => file.state === state).length;
}
