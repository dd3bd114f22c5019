/** A database that Holdfast made for itself goes. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { quoteIdent } from "../schema/quote.ts";

const statementMs = 15_000;

/**
 * `database`: another one of the same server. `force`: whoever is still in it is sent away; else it stays while somebody is. No error
 * where there is none of that name. DROP DATABASE hangs beside a session that takes no notice, and a server may say nothing at all:
 * neither is waited for without a bound. Errors: those of the connection, `database_unreachable`.
 */
export async function dropDatabase(
  clock: Clock,
  database: Database,
  name: string,
  { force }: { readonly force: boolean },
): Promise<void> {
  const over = new AbortController();
  let session: Connection | null = null;
  const work = (async () => {
    session = await database.connect("holdfast:scratch");
    // DROP DATABASE stands in no transaction, so each statement goes by itself.
    await session.execute(`set statement_timeout = ${statementMs}`);
    await session.execute(`drop database if exists ${quoteIdent(name)}${force ? " with (force)" : ""}`);
  })();
  work.catch(() => {});
  try {
    await Promise.race([
      work,
      clock.sleep(2 * statementMs, over.signal).then(() => {
        throw new HoldfastError("database_unreachable", "the server does not answer");
      }),
    ]);
  } finally {
    over.abort();
    await (session as Connection | null)?.close();
  }
}
