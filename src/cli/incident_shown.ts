/** Incidents as people read them. */
import { z } from "zod";
import { spanOf } from "../shared/incidents/report.ts";
import type { IncidentEvent, IncidentRow } from "../shared/jobs/incident_queries.ts";
import type { Findings } from "./incident_findings.ts";
import { columns } from "./output.ts";

/** Backups of a store that are told to people; the document has all. */
const mostFulls = 5;
const mostTables = 15;

export function findingsLines(found: Findings): string[] {
  return [
    ...heading("What changed", changedLines(found)),
    ...heading("What may have done it, the likeliest first", suspectLines(found)),
    ...heading(`Live rows beside the backup of ${found.backup?.consistentAt ?? ""}`, countLines(found)),
    ...heading("What can be gone back to", pointLines(found)),
    ...heading("What could be done (nothing of it is done before you run it)", offerLines(found)),
    ...heading("What could not be looked at", found.notDone),
  ];
}

function heading(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ["", `${title}:`, ...lines.map((line) => `  ${line}`)];
}

function changedLines({ tables, read, transactions }: Findings): string[] {
  if (read.length === 0) return [];
  const touched = [...tables].sort((a, b) => weight(b) - weight(a));
  return [
    ...read.map(({ from, to }) => `every change from ${from} to ${to}`),
    `${transactions} transactions`,
    ...(touched.length === 0 ? [] : columns([
      ["TABLE", "INSERTED", "UPDATED", "DELETED", "EMPTIED", "FROM", "TO"],
      ...touched.slice(0, mostTables).map((one) => [
        one.table,
        String(one.inserted),
        String(one.updated),
        String(one.deleted),
        one.truncated === 0 ? "" : "yes",
        one.firstAt,
        one.lastAt,
      ]),
    ])),
    ...(touched.length > mostTables ? [`and ${touched.length - mostTables} more tables`] : []),
  ];
}

function weight({ updated, deleted, truncated }: Findings["tables"][number]): number {
  return (truncated > 0 ? 1e15 : 0) + deleted * 1e3 + updated;
}

function suspectLines({ suspects, read }: Findings): string[] {
  if (suspects.length === 0) {
    return read.length === 0 ? [] : ["no transaction of that time dropped, emptied, deleted or changed many rows"];
  }
  return suspects.flatMap(({ xid, lsn, committedAt, before, why }) => [
    `transaction ${xid}, committed at ${committedAt} (${lsn}): ${why}`,
    `  right before: ${before}`,
  ]);
}

function countLines({ counts }: Findings): string[] {
  return counts.map(({ table, atBackup, now }) =>
    now === null
      ? `${table} is not there; the backup has ${atBackup} rows`
      : `${table}: ${now} rows, ${atBackup} in the backup`
  );
}

function pointLines({ points: { windows, gaps, stores } }: Findings): string[] {
  return [
    ...windows.map(({ from, to }) => `every moment from ${from} to ${to}`),
    ...gaps.map(({ from, to, reason }) => `gap from ${from} to ${to}${reason === undefined ? "" : `: ${reason}`}`),
    ...stores.flatMap(({ store, fulls, failure }) => [
      failure !== null ? `${store}: ${failure}` : `${store}: ${fulls.length} full backups`,
      ...fulls.slice(0, mostFulls).map(({ id, tier, consistentAt }) =>
        `  ${id.slice(0, 8)} of ${consistentAt}, ${tier}`
      ),
    ]),
  ];
}

function offerLines({ offers }: Pick<Findings, "offers">): string[] {
  return offers.flatMap(({ what, rows, seconds, steps }, index) => [
    `${index + 1}. ${what}${expected(rows, seconds)}`,
    ...steps.flatMap(({ command, does }) => [`   ${command}`, `       ${does}`]),
  ]);
}

function expected(rows: number | null, seconds: Findings["offers"][number]["seconds"]): string {
  const said = [
    ...rows === null ? [] : [`${rows} rows`],
    ...seconds?.measured == null ? [] : [`the last one took ${spanOf(seconds.measured)}`],
    ...seconds?.objective == null ? [] : [`may take ${spanOf(seconds.objective)}`],
  ];
  return said.length === 0 ? "" : ` (${said.join(", ")})`;
}

export function incidentLines(row: IncidentRow, events: readonly IncidentEvent[], contact: string): string[] {
  return [
    `Incident ${row.id} is ${row.status}: ${row.reason}`,
    `opened at ${row.openedAt} by ${row.openedBy}${row.closedAt === null ? "" : `, closed at ${row.closedAt}`}`,
    ...row.nextUpdateAt === null ? [] : [`people hear next at ${row.nextUpdateAt}`],
    ...contact === "" ? [] : [`emergency contact: ${contact}`],
    "",
    ...events.map(({ at, actor, kind, message }) => `${at}  ${kind.padEnd(8)} ${message} (${actor})`),
    ...row.status === "open" ? heading("What could be done, as it was found", offerLines(recorded.parse(row))) : [],
  ];
}

/** As an incident keeps them; of another version: none. */
const recorded = z.object({
  offers: z.array(z.object({
    what: z.string(),
    scope: z.enum(["table", "user", "point", "full"]),
    rows: z.number().nullable(),
    seconds: z.object({ measured: z.number().nullable(), objective: z.number().nullable() }).nullable(),
    steps: z.array(z.object({ command: z.string(), does: z.string() })),
  })).catch([]),
});
