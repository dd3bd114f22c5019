/** What is kept of a person, for people. Pure. */
import type { Act, KeptBackup, Report } from "../shared/privacy/report_format.ts";
import { columns } from "./output.ts";
import { amount } from "./progress.ts";

export function reportLines(user: string, report: Report): string[] {
  return [
    `What is kept of ${user}, as of ${report.at}`,
    standingLine(report),
    ...(report.hold === null ? [] : [`A legal hold keeps it since ${report.hold.since}: ${report.hold.reason}`]),
    ...guardianLines(report),
    ...section("In the live project, until it is deleted or erased", liveLines(report)),
    ...section(
      `In the first store${report.stores?.first == null ? "" : ` (${report.stores.first})`}`,
      report.backups.map(backupLine),
    ),
    ...section("", storeLines(report)),
    ...section(
      `In the second store${report.stores?.second == null ? "" : ` (${report.stores.second})`}`,
      report.backups.filter(({ second }) => second).map(({ backup, secondLockedUntil }) =>
        `backup ${backup}${secondLockedUntil === null ? "" : `, locked until ${secondLockedUntil}`}`
      ),
    ),
    ...section("Laid out to be fetched", laidLines(report)),
    ...erasureLines(report),
    ...section("Who saw it, newest first", report.seen.map(actLine)),
    ...section("Who may have seen it: whose rows these acts showed was not noted", report.mayHaveSeen.map(actLine)),
    ...section("What cannot be told", report.cannotTell),
  ];
}

function section(title: string, lines: readonly string[]): string[] {
  if (title === "") return lines.map((line) => `  ${line}`);
  return [`${title}:`, ...(lines.length === 0 ? ["  nothing"] : lines.map((line) => `  ${line}`))];
}

function standingLine({ standing, since, until, isAdministrator, person }: Report): string {
  const words: Readonly<Record<Report["standing"], string>> = {
    there: `They are a user since ${since ?? "an unknown day"}${
      isAdministrator ? ", and an administrator of the backups" : ""
    }.`,
    deleted: `They were deleted by ${until ?? "an unknown day"}, and are still in backups: \`holdfast erase\`.`,
    erasing: "They are being erased.",
    erased: `They were erased by ${until ?? "an unknown day"}. What follows is of the ledger and the audit.`,
    unknown: "They are no user, and were not erased; the audit knows them.",
  };
  return `${words[standing]} In the audit they are ${person}.`;
}

function guardianLines({ guardians }: Report): string[] {
  return guardians.map(({ request, relation, asks, identityBy, saidOn, status, reviewedAt, erasedAt }) =>
    `A ${relation} asked for ${
      asks.join(" and ")
    } on ${saidOn}, known by ${identityBy} (request ${request}): ${status}${
      reviewedAt === null ? "" : `, shown ${reviewedAt}`
    }${erasedAt === null ? "" : `, erased ${erasedAt}`}`
  );
}

function liveLines({ live, notCounted }: Report): string[] {
  if (live === null) return [`not counted: ${notCounted ?? ""}`];
  const { tables, files, withoutPath, suspects } = live;
  return [
    ...columns(tables.map(({ table, rows, shared }) => [
      table,
      `${amount(rows, "rows")}${shared === 0 ? "" : `, and ${amount(shared, "rows")} that are others' as well`}`,
    ])),
    ...files.map(({ bucket, files: count, bytes }) =>
      `bucket ${bucket}: ${amount(count, "files")}, ${amount(bytes, "bytes")}`
    ),
    ...(withoutPath.length === 0 ? [] : [`no way from these tables to a person: ${withoutPath.join(", ")}`]),
    ...(suspects.length === 0 ? [] : [`not followed, and named like a user's id: ${suspects.join(", ")}`]),
  ];
}

function backupLine({ backup, tiers, takenAt, until, latest, heldUntil, holdReason, lockedUntil }: KeptBackup): string {
  return [
    `backup ${backup} (${tiers.join(", ")}) of ${takenAt}`,
    until === null ? "kept until it is removed by hand" : `kept until ${until}`,
    ...(latest !== null && latest !== until ? [`${latest} if it is a month's or year's`] : []),
    ...(heldUntil === null ? [] : [`on hold until ${heldUntil}: ${holdReason ?? ""}`]),
    ...(lockedUntil === null ? [] : [`locked until ${lockedUntil}`]),
  ].join(", ");
}

function storeLines({ stream, fileCopies }: Report): string[] {
  return [
    ...(stream.segments === 0 ? [] : [
      `${
        counted(stream.segments, "segments")
      } of the change stream from ${stream.from} to ${stream.to}, ${stream.copied} of them in the second store: as long as a backup or the window of ${
        Math.round(stream.window / 86_400)
      } days needs them`,
    ]),
    ...(fileCopies.versions === 0 ? [] : [
      `${counted(fileCopies.versions, "copies")} of ${
        amount(fileCopies.files, "files")
      }: as long as a backup or the change stream names them`,
    ]),
  ];
}

function laidLines({ exports, downloads, sides, imports }: Report): string[] {
  const until = (day: string | null) => day === null ? "" : `, until ${day}`;
  return [
    ...exports.map((one) => `export ${one.export} of their data, ${one.status}, ${one.links} links${until(one.until)}`),
    ...downloads.map(({ download, backup, table, format, status, links, until: day }) =>
      `download ${download} of ${table ?? "all"} of backup ${backup} as ${format}, ${status}, ${links} links${
        until(day)
      }: they may be in it`
    ),
    ...sides.map(({ schema, restore, theirs, until: day }) =>
      `side schema ${schema} of restore ${restore}${until(day)}${theirs ? "" : ": they may be in it"}`
    ),
    ...imports.map((one) => `the record of import ${one.import}, ${one.status}, asked for ${one.askedAt}`),
  ];
}

function erasureLines({ erasure }: Report): string[] {
  if (erasure === null) return [];
  const { rows, files, entries, certificate, termsKept, remains, mentions } = erasure;
  const total = Object.values(rows).reduce((sum, count) => sum + count, 0);
  return section(`Erasure ${erasure.erasure}, ${erasure.status}`, [
    `begun ${erasure.begunAt}, gone from the live project ${erasure.emptiedAt ?? "not yet"}: ${
      amount(total, "rows")
    }, ${amount(files, "files")}`,
    `out of what is kept: ${erasure.rewrittenAt ?? "not yet"}; the last copy gone: ${erasure.cleanAt ?? "not yet"}`,
    ...remains.map(({ store, objects, lockedUntil }) =>
      `${amount(objects, "objects")} of before in ${store}, ${
        lockedUntil === null ? "until retention has swept them" : `locked until ${lockedUntil}`
      }`
    ),
    ...mentions.map(({ table, rows: count }) =>
      `the id stands in ${amount(count, "rows")} of ${table}, which are not theirs`
    ),
    `keyed hashes in the ledger, for ever: ${entries.join(", ")}`,
    ...(termsKept ? ["what the certificate searches for, sealed in the first store until there is one"] : []),
    certificate === null
      ? "no certificate yet"
      : `certificate of ${String(certificate["issuedAt"])}: \`holdfast erase certificate ${erasure.erasure}\``,
  ]);
}

const counted = (count: number, what: string): string => `${count.toLocaleString("en-GB")} ${what}`;

function actLine({ at, action, subject, who, detail }: Act): string {
  const told = Object.entries(detail).filter(([, value]) => typeof value !== "object").map(([name, value]) =>
    `${name} ${String(value)}`
  );
  return `${at} ${action} ${subject} by ${who}${told.length === 0 ? "" : ` (${told.join(", ")})`}`;
}
