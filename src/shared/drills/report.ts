/** The evidence of a drill as people read it, in Markdown. Pure. */
import type { Evidence } from "./evidence.ts";

export function reportOf(evidence: Evidence, signedWith: string | null): string[] {
  const { measured, objectives, proof, failure, backup, stream, files } = evidence;
  return [
    `# ${evidence.title}: ${evidence.ok ? "Success" : "Failure"}`,
    "",
    `Drill ${evidence.id}, ordered ${evidence.orderedAt} by ${evidence.orderedBy}, ended ${evidence.endedAt}.`,
    ...(failure === null ? [] : [`It could not be brought to its end: ${failure.message} (${failure.code}).`]),
    ...(failure?.hint === undefined || failure.hint === "" ? [] : [`What to do: ${failure.hint}`]),
    ...(evidence.notes === "" ? [] : [evidence.notes]),
    "",
    "| measured | seconds | promised | kept |",
    "| --- | --- | --- | --- |",
    measuredRow("time to recover (RTO), from the order to the proof", measured.rtoSeconds, objectives.recoverySeconds),
    measuredRow("loss (RPO), from the newest durable commit to the order", measured.rpoSeconds, objectives.lossSeconds),
    "",
    "## What was restored",
    "",
    `- of: ${evidence.source}`,
    ...(evidence.store === null
      ? []
      : [`- from: ${evidence.store}, opened with ${evidence.keys.join(", ") || "no key yet"}`]),
    ...(backup === null
      ? []
      : [`- backup ${backup.id} of ${backup.consistentAt}: ${backup.rows} rows, ${backup.rawBytes} bytes`]),
    ...(stream === null ? [] : [
      `- change stream: ${stream.transactions} transactions after it, everything before ${stream.coveredUntil}`,
      ...stream.asOfBackup.map((table) => `- as of the backup, since its changes are not all in the stream: ${table}`),
    ]),
    ...(files === null || files === undefined ? [] : [
      `- files of Storage: ${files.files}, of which ${files.withoutContent} have no content in the backup; ${files.checked} read back ` +
      `whole, ${files.bytes} bytes, each part by its hash; ${files.sameMd5} have the MD5 that Storage had given them`,
    ]),
    ...(evidence.subject === null ? [] : [`- rows of: ${evidence.subject}`]),
    ...(evidence.target === null ? [] : [`- into: ${evidence.target}`]),
    "",
    "## Steps",
    "",
    ...evidence.steps.map(({ step, at }) => `- ${at} ${step}`),
    ...(proof === null ? [] : [
      "",
      "## Proof",
      "",
      `${proof.tables} tables with ${proof.rows} rows and ${proof.foreignKeys} foreign keys were compared; ${proof.differencesTotal} differences.`,
      ...proof.differences.map(({ kind, name, detail }) => `- ${kind}: ${name}: ${detail}`),
      ...(proof.notComparedTotal === 0 ? [] : ["", `Not compared (${proof.notComparedTotal}):`]),
      ...proof.notCompared.map(({ identity, reason }) => `- ${identity}: ${reason}`),
    ]),
    "",
    signedWith === null
      ? "Not signed."
      : `Signed with key ${signedWith}; \`holdfast drills verify ${evidence.id}\` checks the signature.`,
  ];
}

function measuredRow(what: string, seconds: number | null, promised: number | null): string {
  const kept = seconds === null || promised === null ? "" : seconds <= promised ? "yes" : "NO";
  return `| ${what} | ${seconds ?? "not measured"} | ${promised ?? "nothing"} | ${kept} |`;
}
