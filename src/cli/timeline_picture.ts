/** The moments that can be restored, drawn with one line a day, or an hour where there is little of it. Pure. */

/** Moments in milliseconds since 1970. */
export interface Drawn {
  readonly windows: readonly { readonly from: number; readonly to: number }[];
  readonly gaps: readonly { readonly from: number; readonly to: number }[];
  readonly fulls: readonly number[];
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Up to this span a line is an hour. */
const byHourMs = 36 * hourMs;
/** Older lines are only counted: nobody reads a picture of several screens. */
const mostLines = 40;

const marks = { full: "●", covered: "█", inPart: "▒", gap: "×", nothing: "·" } as const;

/** Lines with a legend, none wider than `columns` (20 at least); nothing where there is nothing to draw. */
export function timelinePicture(drawn: Drawn, columns: number): string[] {
  const moments = [...drawn.windows, ...drawn.gaps].flatMap(({ from, to }) => [from, to]).concat(drawn.fulls);
  if (moments.length === 0) return [];
  // Not by spreading: there may be many.
  const [first, last] = [moments.reduce((a, b) => Math.min(a, b)), moments.reduce((a, b) => Math.max(a, b))];
  const byHour = last - first <= byHourMs;
  const lineMs = byHour ? hourMs : dayMs;
  const labelColumns = byHour ? "2024-01-09 12h ".length : "2024-01-09 ".length;
  // Cells of whole minutes: 60 a line by hour; 96, 48 or 24 by day.
  const room = Math.max(5, columns - labelColumns);
  const cells = (byHour ? [60, 30, 20, 12, 6] : [96, 48, 24, 12, 6]).find((count) => count <= room) ?? 5;
  const end = Math.floor(last / lineMs);
  const start = Math.max(Math.floor(first / lineMs), end - mostLines + 1);
  const lines: string[] = [];
  const older = drawn.fulls.filter((at) => at < start * lineMs).length;
  if (first < start * lineMs) lines.push(`earlier: ${older} full backups`);
  for (let line = start; line <= end; line++) {
    const from = line * lineMs;
    const label = new Date(from).toISOString().replace("T", " ").slice(0, byHour ? 13 : 10);
    const row = Array.from({ length: cells }, (_, cell) => {
      const at = from + (cell * lineMs) / cells;
      return markOf(drawn, at, at + lineMs / cells);
    });
    lines.push(`${label}${byHour ? "h" : ""} ${row.join("")}`);
  }
  const legend = [
    `${marks.full} full backup`,
    `${marks.covered} every moment`,
    `${marks.inPart} in part`,
    `${marks.gap} gap`,
    `${marks.nothing} nothing`,
  ];
  return [...lines, ...wrapped(legend, columns)];
}

/** Of the span from `from` to just before `to`. A gap never hides behind a covered rest. */
function markOf({ windows, gaps, fulls }: Drawn, from: number, to: number): string {
  if (fulls.some((at) => at >= from && at < to)) return marks.full;
  const covered = windows.filter((window) => window.from < to && window.to > from);
  if (covered.some((window) => window.from <= from && window.to >= to)) return marks.covered;
  if (covered.length > 0) return marks.inPart;
  return gaps.some((gap) => gap.from < to && gap.to > from) ? marks.gap : marks.nothing;
}

function wrapped(parts: readonly string[], columns: number): string[] {
  const lines: string[] = [];
  for (const part of parts) {
    const before = lines.at(-1);
    if (before !== undefined && before.length + 2 + part.length <= columns) {
      lines[lines.length - 1] = `${before}  ${part}`;
    } else lines.push(part);
  }
  return lines;
}
