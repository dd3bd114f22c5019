/** A table that was dropped, back into its place: as it was defined then, with its rows. */
import { HoldfastError } from "../shared/errors.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { leftOutSchemas } from "../shared/backup/tables.ts";
import { readActor } from "../shared/restore/in_place/actor.ts";
import { type GoneTablePlan, planGoneTable } from "../shared/restore/in_place/plan/plan_gone_table.ts";
import type { TableName } from "../shared/restore/project_rows.ts";
import { beginSide } from "../shared/restore/prove.ts";
import { putGoneTable } from "../shared/rows/apply/put_gone_table.ts";
import type { Laid } from "../shared/rows/beside/laid.ts";
import { capBytesOf } from "../shared/rows/cap_bytes.ts";
import { quoteQualified } from "../shared/schema/quote.ts";
import type { Context } from "./context.ts";
import type { Outcome } from "./output.ts";
import { amount, duration } from "./progress.ts";
import type { Restoring } from "./restore_rows.ts";
import { finishRows } from "./rows_end.ts";
import { rowsText } from "./rows_shown.ts";
import { isSkipped } from "./safety_backup.ts";

/** Whoever writes to a table that a key points to is waited for this long. */
const lockMs = 10_000;

/** Is there nothing of that name? */
export async function isGone(connection: Connection, { schema, name }: TableName): Promise<boolean> {
  const [row] = await connection.query("select pg_catalog.to_regclass($1) is null as gone", [
    quoteQualified(schema, name),
  ]);
  return row?.["gone"] === "t";
}

/**
 * The document: that of `restoreRows`, with `definitions[]`, what is made. All modes are one where nothing is there. Errors: those of
 * `planGoneTable` and `putGoneTable`; `space_missing` where the rows are more than one transaction may write.
 */
export async function restoreGoneTable(
  context: Context,
  restoring: Restoring,
  table: TableName,
  laid: Laid,
  { warnings, startMs, safety }: {
    readonly warnings: readonly string[];
    readonly startMs: number;
    /** Takes the safety backup; its id. */
    readonly safety: () => Promise<string | null>;
  },
): Promise<Outcome> {
  const { settings, clock } = context;
  const { work, source, subject } = restoring;
  const [side] = laid.tables;
  if (side === undefined) throw new HoldfastError("internal", "no table lies beside");
  await requireOneTransaction(work.connection, work.identity.installed, side.side.sql);
  const was = await source.definitions();
  const plan = async () => {
    const is = await beginSide(work.connection, await leftOutSchemas(work.connection));
    await work.connection.execute("rollback");
    return planGoneTable(was, is, table, await readActor(work.connection));
  };
  const planned = await plan();
  const notes = [...warnings, ...planned.notes];
  const document = (more: object) => ({
    id: source.backupId,
    ok: false,
    inserted: 0,
    updated: 0,
    deleted: 0,
    warnings: notes,
    restore: work.lease?.id ?? null,
    mode: restoring.mode,
    at: source.at,
    sideSchema: work.schema,
    database: restoring.target.label,
    definitions: planned.makes,
    ...more,
  });
  const shown = linesOf(planned, { subject, at: source.at, database: work.identity.database, rows: side.rows });
  if (settings.has("dry-run")) {
    await work.fail(new HoldfastError("cancelled", "only the plan was wanted"));
    return { exit: 0, document: document({ dryRun: true }), lines: shown };
  }
  let askedMs = 0;
  if (!settings.has("yes")) {
    context.note(shown.join("\n"));
    const sinceMs = clock.monotonicMs();
    const isConfirmed = await work.waiting(() =>
      context.confirm(`This changes ${restoring.target.label}.`, work.identity.database)
    );
    askedMs = clock.monotonicMs() - sinceMs;
    if (!isConfirmed) {
      const missing = new HoldfastError("confirmation_missing", "nothing was restored");
      await work.fail(new HoldfastError("cancelled", "it was not confirmed"));
      return {
        exit: missing.exit,
        document: document({ dryRun: true, ...missing.toDocument() }),
        lines: [`Nothing was restored. ${missing.hint}`],
      };
    }
  }
  isSkipped(settings.get("skip-safety-backup"), work.identity.database);
  const safetyRun = await safety();
  await work.applying(safetyRun);
  // A person's answer and a backup lie between.
  const now = await plan();
  await work.keptAlive(() => putGoneTable(work.connection, now, side.side, { rows: side.rows, lockMs }));
  work.changed();
  const spentMs = clock.monotonicMs() - startMs - askedMs;
  await finishRows(context, restoring, [{ ...table, inserted: side.rows, updated: 0, deleted: 0 }], spentMs);
  for (const note of notes) context.note(`warning: ${note}`);
  return {
    exit: 0,
    document: document({ ok: true, inserted: side.rows, safetyRun, durationMs: Math.round(spentMs) }),
    lines: [
      `${subject} as of ${source.at} is there again in ${duration(spentMs)}: ${rowsText(side.rows)}, and ${
        now.makes.length - 1
      } definitions with it.`,
      ...safetyRun === null ? [] : [`The safety backup from before is ${safetyRun}.`],
    ],
  };
}

function linesOf(
  { makes, notes }: GoneTablePlan,
  { subject, at, database, rows }: {
    readonly subject: string;
    readonly at: string;
    readonly database: string;
    readonly rows: number;
  },
): string[] {
  return [
    `${subject} is not there any more. As of ${at} it comes back into ${database} with ${
      rowsText(rows)
    }, in one transaction:`,
    ...makes.map((one) => `  ${one}`),
    ...notes.map((one) => `  warning: ${one}`),
  ];
}

/** Nobody is to see a part of it, so that it cannot be done in steps. Errors: `space_missing`. */
async function requireOneTransaction(connection: Connection, installed: boolean, side: string): Promise<void> {
  const [row] = await connection.query("select pg_catalog.pg_table_size($1::regclass)::text as bytes", [side]);
  const [bytes, cap] = [Number(row?.["bytes"]), await capBytesOf(connection, installed, false)];
  if (bytes <= cap) return;
  throw new HoldfastError(
    "space_missing",
    `the table is dropped, and its rows (${amount(bytes, "bytes")}) are more than one transaction may write (${
      amount(cap, "bytes")
    })`,
    {
      hint:
        "Make the table, empty, from the definitions of a copy (`restore-point`); the same command then fills it in steps.",
    },
  );
}
