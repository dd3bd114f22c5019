/** What came after the backup and had to go: kept in mind over a kill, and made again where it still can be. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { closeTable } from "../../rows/beside/side_tables.ts";
import { quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import { applyDefinitionChanges, type DefinitionApplyContext } from "./apply_definition_changes.ts";
import type { DefinitionStep, GoneDefinition } from "./change_format.ts";
import type { EarlierTries } from "./earlier_tries.ts";

/** Its name is one of those that a further try leaves in the side schema. */
export const goneTable = "holdfast gone of try any";
/** The other name that it gets where no record says that it was told. */
export const toldTable = "holdfast gone, told";
const tableOf = (schema: string) => quoteQualified(schema, goneTable);

/** To be called before `goneMark`. Errors: those of the connection. */
export async function prepareGone(connection: Connection, schema: string): Promise<void> {
  await connection.execute(
    `create table if not exists ${
      tableOf(schema)
    } (place bigint generated always as identity primary key, document jsonb not null)`,
  );
  await closeTable(connection, tableOf(schema));
}

/** What went in tries that were broken off; before anything of this one goes. May be called again. Errors: those of the connection. */
export async function inheritGone(
  connection: Connection,
  schema: string,
  { sideSchemas, lists }: Pick<EarlierTries, "sideSchemas" | "lists">,
): Promise<void> {
  await prepareGone(connection, schema);
  const own = tableOf(schema);
  const add = (from: string) =>
    connection.execute(
      `insert into ${own} (document) select g.document from ${from} as g
        where not exists (select from ${own} as o where o.document = g.document) order by g.place`,
    );
  for (const other of sideSchemas) {
    const [row] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [tableOf(other)]);
    if (row?.["yes"] === "t") await add(tableOf(other));
  }
  for (const list of lists) {
    await add(
      `(select e.document, e.place from pg_catalog.jsonb_array_elements(${quoteLiteral(list)}::jsonb)
         with ordinality as e (document, place))`,
    );
  }
}

/** Statements that write down what goes with a step, in its transaction. */
export function goneMark(schema: string): (step: Pick<DefinitionStep, "gone">) => readonly string[] {
  return ({ gone }) =>
    gone.map((one) => `insert into ${tableOf(schema)} (document) values (${quoteLiteral(JSON.stringify(one))}::jsonb)`);
}

/**
 * In the order in which they went; each once, as it was at last: somebody may have made it otherwise between two tries. A policy
 * as it was at first, since it is shut and not dropped. Errors: those of the connection.
 */
export async function readGone(connection: Connection, schema: string): Promise<GoneDefinition[]> {
  const rows = await connection.query(`select document::text as document from ${tableOf(schema)} order by place`);
  const found = new Map<string, GoneDefinition>();
  for (const { document } of rows) {
    const one = JSON.parse(document ?? "null") as GoneDefinition;
    if (one.kind === "policy" && found.has(one.identity)) continue;
    found.delete(one.identity);
    found.set(one.identity, one);
  }
  return [...found.values()];
}

interface AgainContext extends Omit<DefinitionApplyContext, "done" | "mark"> {
  /** Identities of what is there now. */
  readonly present: () => Promise<ReadonlySet<string>>;
}

/**
 * Makes them again, last gone first, until nothing more can be made. Returns what stays gone, and the identities of the others.
 * Errors: `cancelled`, those of a connection that is lost; what the server refuses stays gone.
 */
export async function makeAgain(
  context: AgainContext,
  gone: readonly GoneDefinition[],
): Promise<{ gone: GoneDefinition[]; again: string[] }> {
  // What is there already, an earlier try or somebody made; CREATE OR REPLACE would undo what it is now.
  const there = gone.some(({ again }) => again) ? await context.present() : new Set<string>();
  const made = new Set(
    gone.filter(({ identity, kind, again }) => again && kind !== "policy" && there.has(identity)).map((one) =>
      one.identity
    ),
  );
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
  // A name that was taken may be something else's.
  const present = made.size === 0 ? made : await context.present();
  for (const identity of made) {
    if (!present.has(identity)) refusals.set(identity, "something else has its name");
  }
  const again = [...made].filter((identity) => present.has(identity));
  const left = gone.filter(({ identity }) => !again.includes(identity)).map((one) => {
    const refusal = refusals.get(one.identity);
    return refusal === undefined
      ? one
      : { ...one, reason: `${one.reason}; made again, the server refused it: ${refusal}` };
  });
  return { gone: left, again };
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
