/** What stood in the side tables when their rows were laid: what somebody made of them since is no row of then. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import type { Laid } from "./beside/laid.ts";
import { closeTable, type SideTable } from "./beside/side_tables.ts";

interface Mark {
  readonly rows: string;
  /** Of a hash of each row's text, so that their order does not matter. */
  readonly sum: string;
}

/** It goes with the rows: the mark of a single short row could be guessed. */
const marksIn = (schema: string) => `${schema}."holdfast marks"`;

/** Once, when the rows are laid; marks that are there stay. Errors: those of the connection. */
export async function markSides(connection: Connection, schema: string, { tables }: Laid): Promise<void> {
  if (await readMarks(connection, schema) !== null) return;
  const marks: Mark[] = [];
  for (const { side } of tables) marks.push(await markOf(connection, side));
  await inTransaction(connection, async () => {
    await connection.execute(`create table ${marksIn(schema)} (marks jsonb not null)`);
    await closeTable(connection, marksIn(schema));
    await connection.query(`insert into ${marksIn(schema)} values ($1::jsonb)`, [JSON.stringify(marks)]);
  });
}

/** Errors: `run_state` naming the table that is not as it was laid, those of the connection. */
export async function refuseChanged(connection: Connection, schema: string, { tables }: Laid): Promise<void> {
  const marks = await readMarks(connection, schema);
  if (marks === null) {
    throw new HoldfastError("run_state", `nothing tells whether rows of ${schema} were changed`, { hint });
  }
  for (const [at, { side }] of tables.entries()) {
    const [laid, now] = [marks[at], await markOf(connection, side)];
    if (laid?.rows === now.rows && laid.sum === now.sum) continue;
    throw new HoldfastError(
      "run_state",
      laid?.rows === now.rows
        ? `rows of ${side.sql} are not as they were laid there`
        : `${side.sql} has ${now.rows} rows, and ${laid?.rows ?? 0} were laid there`,
      { hint },
    );
  }
}

const hint = "Somebody has changed what would be put back as it was then: plan again.";

async function readMarks(connection: Connection, schema: string): Promise<readonly Mark[] | null> {
  const [there] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [marksIn(schema)]);
  if (there?.["yes"] !== "t") return null;
  const rows = await connection.query(
    `select x.mark ->> 'rows' as rows, x.mark ->> 'sum' as sum
       from ${marksIn(schema)} as m
       cross join lateral pg_catalog.jsonb_array_elements(m.marks) with ordinality as x (mark, place) order by x.place`,
  );
  return rows.map((row) => ({ rows: row["rows"] ?? "", sum: row["sum"] ?? "" }));
}

async function markOf(connection: Connection, { sql }: SideTable): Promise<Mark> {
  const [row] = await connection.query(
    `select count(*) as rows, coalesce(sum(pg_catalog.hashtextextended((s.*)::text collate "C", 0)), 0) as sum from ${sql} as s`,
  );
  return { rows: row?.["rows"] ?? "", sum: row?.["sum"] ?? "" };
}
