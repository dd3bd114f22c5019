import { HoldfastError } from "../../shared/errors.ts";
import type { Beside } from "../../shared/rows/beside/beside.ts";
import { parseCondition } from "../../shared/rows/beside/conditions.ts";
import { insertTexts } from "../../shared/rows/apply/insert_text.ts";
import { readAsOwner } from "../../shared/rows/apply/read_as_owner.ts";
import { listKeys } from "../../shared/rows/apply/row_keys.ts";
import type { RowsWork } from "../../shared/rows/work.ts";
import type { Context } from "../context.ts";
import { whereSeparator } from "../options.ts";
import type { Outcome } from "../output.ts";
import { restoreRows } from "../restore_rows.ts";
import { tableOf } from "../table_names.ts";

/** Rows whose keys are listed, or that are printed as INSERTs, at most. */
const mostListed = 20;
const mostInserts = 10_000;

/**
 * The document: that of `restoreRows`, with `readBack[{user, rows, visible}]`; with --sql `{id, ok, sql[]}`; where several rows
 * fit and --all is not given `{matches[], error}` with exit 1.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  const [text = "", wanted] = context.words;
  const table = tableOf(text);
  const conditions = (settings.get("where") ?? "").split(whereSeparator).filter((one) => one !== "").map(
    parseCondition,
  );
  if (conditions.length === 0) {
    throw new HoldfastError("usage", "no --where says which row is meant", { hint: "Give --where column=value." });
  }
  if (settings.has("sql") && settings.get("apply") !== undefined) {
    throw new HoldfastError("usage", "--sql prints the rows, and --apply puts them into place: give one of the two");
  }
  return await restoreRows(context, wanted, {
    asked: { scope: "record", table, where: conditions },
    look: (beside, work) => lookAt(context, beside, work, text),
    after: (beside, work) => readBack(beside, work),
  });
}

async function lookAt(context: Context, beside: Beside, work: RowsWork, table: string): Promise<Outcome | null> {
  const { settings } = context;
  const [laid] = beside.sides;
  const rows = laid?.rows ?? 0;
  if (laid === undefined || rows === 0) {
    throw new HoldfastError("row_not_found", `no row of ${table} fits the condition`);
  }
  if (rows > 1 && !settings.has("all")) {
    const several = new HoldfastError("rows_ambiguous", `${rows} rows of ${table} fit the condition`);
    const matches = await listKeys(work.connection, laid.side, mostListed);
    return {
      exit: several.exit,
      document: { matches, ...several.toDocument() },
      lines: [
        `${several.message}:`,
        ...matches.map((key) => `  ${Object.entries(key).map(([name, value]) => `${name}=${value}`).join(" ")}`),
        ...(rows > matches.length ? [`  and ${rows - matches.length} more`] : []),
        several.hint,
      ],
    };
  }
  if (!settings.has("sql")) return null;
  const pair = beside.pairs.find((one) => one.side === laid.side);
  const sql = await insertTexts(work.connection, laid.side, pair, mostInserts);
  return { exit: 0, document: { ok: true, rows: sql.length, sql }, lines: sql };
}

async function readBack(beside: Beside, work: RowsWork) {
  const [pair] = beside.pairs;
  if (pair === undefined) return { more: {}, lines: [] };
  const found = await readAsOwner(work.connection, pair);
  const lines = found.map(({ user, rows, visible }) =>
    user === null
      ? `${rows} of the rows lead to no single user, so nobody's view of them was tried.`
      : visible === rows
      ? `Read again as their owner, under row-level security: ${visible} of ${rows} rows.`
      : `warning: their owner sees ${visible} of ${rows} rows under row-level security.`
  );
  return { more: { readBack: found }, lines };
}
