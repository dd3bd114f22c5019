/** What rows that go say of whose they are, kept for the certificate before they go. */
import type { Connection } from "../../postgres/connection.ts";
import { hexOf, KeyedHasher, prepareIdentity } from "../keyed_hash.ts";
import type { Ledger, PutDeps } from "../ledger.ts";
import { usersIdentity } from "../removal_plan.ts";
import { addTerms } from "./terms_file.ts";
import { type FoundTerm, type Term, termsIn, termTables } from "./terms.ts";

/** Each to the erasure whose entry names the user. Errors: those of keys and store. */
export async function keepTerms(
  deps: PutDeps,
  ledger: Ledger,
  ...found: readonly (readonly FoundTerm[])[]
): Promise<void> {
  const users = new Map<string, Term[]>();
  for (const { user, kind, text } of found.flat()) users.set(user, [...users.get(user) ?? [], { kind, text }]);
  const erasureOf = new Map(
    ledger.entries.flatMap(({ erasure, hashes }) => hashes.map((hash) => [hash, erasure] as const)),
  );
  const hashers = ledger.keys.map((key) => new KeyedHasher(key));
  const identity = prepareIdentity(usersIdentity);
  const byErasure = new Map<string, Term[]>();
  for (const [user, terms] of users) {
    for (const hasher of hashers) {
      hasher.hash(identity, [new TextEncoder().encode(user)]);
      const erasure = erasureOf.get(hexOf(hasher.words));
      if (erasure !== undefined) byErasure.set(erasure, [...byErasure.get(erasure) ?? [], ...terms]);
    }
  }
  for (const [erasure, terms] of byErasure) await addTerms(deps, erasure, terms);
}

/** What the live rows of a user say. `user`: as the server writes ids. Errors: those of the connection. */
export async function liveTerms(connection: Connection, user: string): Promise<Term[]> {
  const terms: Term[] = [{ kind: "id", text: user }];
  for (const { schema, name, by } of termTables) {
    const [there] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [
      `${schema}.${name}`,
    ]);
    if (there?.["yes"] !== "t") continue;
    const rows = await connection.query(`select t.* from ${schema}.${name} as t where t.${by}::text = $1`, [user]);
    for (const row of rows) {
      const columns = Object.keys(row);
      const read = (place: number) => {
        const value = row[columns[place] ?? ""];
        return value == null ? value : new TextEncoder().encode(value);
      };
      for (const { kind, text } of termsIn({ schema, name }, columns, read)) terms.push({ kind, text });
    }
  }
  return terms;
}
