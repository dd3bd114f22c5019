/** What a database holds, in a form that two databases can be compared by. */
import type { Session } from "./point_client.ts";
import { compareDefinitions, readDefinitions } from "./point_definitions.ts";

export interface State {
  /** By table and its columns: how many rows, and the sum of their hashes. */
  readonly tables: Readonly<Record<string, string>>;
  readonly definitions: readonly string[];
  /** Last values; null: never used. */
  readonly sequences: Readonly<Record<string, { readonly value: bigint | null; readonly increment: bigint }>>;
}

/** Tables that are compared by the ledger instead. */
const apart = "('ledger', 'accounts')";

/** `definitions`: those that are there, where they are known. */
export async function readState(session: Session, definitions?: readonly string[]): Promise<State> {
  const tables = await session.query(
    `select c.relname as name, (
         select string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
           from pg_attribute as a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       ) as columns
       from pg_class as c where c.relnamespace = 'app'::regnamespace and c.relkind = 'r' and c.relname not in ${apart} order by 1`,
  );
  const hashed = tables.map(({ name, columns }) =>
    `select '${String(name)} (${String(columns)})' as name,
       count(*) || ':' || coalesce(sum(hashtextextended(whole_row::text, 0)::numeric), 0) as hash
       from only app."${String(name)}" as whole_row`
  );
  const hashes = await session.query(hashed.join(" union all "));
  const sequences = await session.query(
    "select sequencename as name, last_value::text as value, increment_by::text as step from pg_sequences where schemaname = 'app'",
  );
  return {
    tables: Object.fromEntries(hashes.map(({ name, hash }) => [String(name), String(hash)])),
    definitions: definitions ?? await readDefinitions(session),
    sequences: Object.fromEntries(sequences.map(({ name, value, step }) => [
      String(name),
      { value: value === null ? null : BigInt(String(value)), increment: BigInt(String(step)) },
    ])),
  };
}

/** What differs, for people; empty when `found` holds what `expected` does. Sequences apart, and the tables `without`. */
export function compareStates(expected: State, found: State, without: readonly string[] = []): string[] {
  const problems: string[] = [];
  for (const name of new Set([...Object.keys(expected.tables), ...Object.keys(found.tables)])) {
    const [wanted, got] = [expected.tables[name] ?? "none", found.tables[name] ?? "none"];
    if (without.includes(`app.${name.replace(/ .*/, "")}`)) continue;
    if (wanted !== got) problems.push(`app.${name}: ${got} instead of ${wanted}`);
  }
  return [...problems, ...compareDefinitions(expected.definitions, found.definitions, without)];
}

/**
 * Sequences that are behind. `later`: states that followed. Of one that was restarted or dropped in these, nobody can know
 * how far it had come; it must still give no value that a row has.
 */
export async function sequencesBehind(
  session: Session,
  expected: State,
  found: State,
  later: readonly State[],
): Promise<string[]> {
  const problems: string[] = [];
  for (const [name, { value, increment }] of Object.entries(expected.sequences)) {
    const isBehind = (one: bigint | null | undefined, other: bigint) =>
      one == null || (increment > 0n ? one < other : one > other);
    const has = found.sequences[name]?.value;
    if (value === null || !isBehind(has, value)) continue;
    const wentBack = later.some(({ sequences }) => isBehind(sequences[name]?.value, value));
    const given = wentBack ? await furthestRow(session, name) : value;
    if (given !== null && isBehind(has, given)) {
      problems.push(`sequence app.${name}: ${has ?? "unused"} is behind ${given}`);
    }
  }
  return problems;
}

/** The greatest value in the column that the sequence is of. */
async function furthestRow(session: Session, sequence: string): Promise<bigint | null> {
  const [owner] = await session.query(
    `select d.refobjid::regclass::text as name, a.attname as column
       from pg_depend as d join pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      where d.objid = to_regclass('app.${sequence}') and d.deptype in ('a', 'i') and d.refobjsubid > 0`,
  );
  if (owner === undefined) return null;
  const furthest = await session.one(
    `select coalesce(max("${String(owner["column"])}")::text, '') from ${String(owner["name"])}`,
  );
  return furthest === "" ? null : BigInt(furthest);
}
