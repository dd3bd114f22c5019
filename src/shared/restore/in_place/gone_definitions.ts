/** What came after the backup and had to go: kept in mind over a kill, and made again where it still can be. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { closeTable } from "../../rows/beside/side_tables.ts";
import { quoteLiteral } from "../../schema/quote.ts";
import { applyDefinitionChanges, type DefinitionApplyContext } from "./apply_definition_changes.ts";
import type { DefinitionStep, GoneDefinition } from "./change_format.ts";

/** Its name is one of those that a further try leaves in the side schema. */
const tableOf = (schema: string) => `${schema}."holdfast gone of try any"`;

/** To be called before `goneMark`. Errors: those of the connection. */
export async function prepareGone(connection: Connection, schema: string): Promise<void> {
  await connection.execute(
    `create table if not exists ${
      tableOf(schema)
    } (place bigint generated always as identity primary key, document jsonb not null)`,
  );
  await closeTable(connection, tableOf(schema));
}

/** Statements that write down what goes with a step, in its transaction. */
export function goneMark(schema: string): (step: DefinitionStep) => readonly string[] {
  return ({ gone }) =>
    gone.map((one) => `insert into ${tableOf(schema)} (document) values (${quoteLiteral(JSON.stringify(one))}::jsonb)`);
}

/** In the order in which they went; each once. Errors: those of the connection. */
export async function readGone(connection: Connection, schema: string): Promise<GoneDefinition[]> {
  const rows = await connection.query(`select document::text as document from ${tableOf(schema)} order by place`);
  const found = new Map<string, GoneDefinition>();
  for (const { document } of rows) {
    const one = JSON.parse(document ?? "null") as GoneDefinition;
    if (!found.has(one.identity)) found.set(one.identity, one);
  }
  return [...found.values()];
}

type AgainContext = Omit<DefinitionApplyContext, "done" | "mark">;

/**
 * Makes them again, last gone first, until nothing more can be made. Returns what stays gone, and the identities of the others.
 * Errors: `cancelled`, those of a connection that is lost; what the server refuses stays gone.
 */
export async function makeAgain(
  context: AgainContext,
  gone: readonly GoneDefinition[],
): Promise<{ gone: GoneDefinition[]; again: string[] }> {
  const made = new Set<string>();
  const refusals = new Map<string, string>();
  for (let before = -1; before < made.size;) {
    before = made.size;
    for (const one of gone.toReversed()) {
      if (!one.again || made.has(one.identity)) continue;
      const refusal = await tryAgain(context, one);
      if (refusal === null) made.add(one.identity);
      else refusals.set(one.identity, refusal);
    }
  }
  const left = gone.filter(({ identity }) => !made.has(identity)).map((one) => {
    const refusal = refusals.get(one.identity);
    return refusal === undefined
      ? one
      : { ...one, reason: `${one.reason}; made again, the server refused it: ${refusal}` };
  });
  return { gone: left, again: [...made] };
}

/** An object of that name is there. */
const isThere = /^(?:42P07|42710|42723|42P06)$/;

/** Null: it is there. */
async function tryAgain(context: AgainContext, one: GoneDefinition): Promise<string | null> {
  const { identity, kind, statements } = one;
  const step: DefinitionStep = {
    key: identity,
    identity,
    kind,
    action: "create",
    phase: "last",
    statements,
    otherwise: [],
    empties: [],
    gone: [],
    reason: "it had to go meanwhile",
    locks: null,
  };
  const plan = { steps: [step], kept: [], refused: [] };
  try {
    await applyDefinitionChanges({ ...context, done: new Set(), mark: null }, plan, "last");
    return null;
  } catch (error) {
    const cause = error instanceof HoldfastError ? error.cause ?? error : error;
    const sqlstate = sqlstateOf(error) ?? sqlstateOf(cause);
    if (sqlstate === null || /^(?:08|57)/.test(sqlstate)) throw error;
    return isThere.test(sqlstate) ? null : error instanceof HoldfastError ? error.message : sqlstate;
  }
}
