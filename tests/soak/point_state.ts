/** What a database holds, in a form that two databases can be compared by. */
import type { Session } from "./point_client.ts";

export interface State {
  /** By table and its columns: how many rows, and the sum of their hashes. */
  readonly tables: Readonly<Record<string, string>>;
  readonly labels: string;
  /** Last values; null: never used. */
  readonly sequences: Readonly<Record<string, { readonly value: bigint | null; readonly increment: bigint }>>;
}

/** Tables that are compared by the ledger instead. */
const apart = "('ledger', 'accounts')";

export async function readState(session: Session): Promise<State> {
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
  const labels = await session.one(
    "select string_agg(enumlabel, ',' order by enumsortorder) from pg_enum where enumtypid = 'app.mood'::regtype",
  );
  return {
    tables: Object.fromEntries(hashes.map(({ name, hash }) => [String(name), String(hash)])),
    labels,
    sequences: Object.fromEntries(sequences.map(({ name, value, step }) => [
      String(name),
      { value: value === null ? null : BigInt(String(value)), increment: BigInt(String(step)) },
    ])),
  };
}

/** What differs, for people; empty when `found` holds what `expected` does, its sequences at or ahead. */
export function compareStates(expected: State, found: State): string[] {
  const problems: string[] = [];
  for (const name of new Set([...Object.keys(expected.tables), ...Object.keys(found.tables)])) {
    const [wanted, got] = [expected.tables[name] ?? "none", found.tables[name] ?? "none"];
    if (wanted !== got) problems.push(`app.${name}: ${got} instead of ${wanted}`);
  }
  if (expected.labels !== found.labels) problems.push(`labels ${found.labels} instead of ${expected.labels}`);
  for (const [name, { value, increment }] of Object.entries(expected.sequences)) {
    const other = found.sequences[name];
    const isBehind = value !== null &&
      (other == null || other.value === null || (increment > 0n ? other.value < value : other.value > value));
    if (isBehind) problems.push(`sequence app.${name}: ${other?.value ?? "unused"} is behind ${value}`);
  }
  return problems;
}
