import type { Manifest } from "../format/manifest.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";

/**
 * An empty database with the encoding and locale of the backup's server, closed to everybody but its owner before anybody can
 * connect. One that a call before left half made is made to its end.
 * Errors: those of the connection.
 */
export async function createDatabase(
  session: Connection,
  name: string,
  like: Pick<Manifest["server"], "encoding" | "collate" | "ctype">,
): Promise<void> {
  const quoted = quoteIdent(name);
  const [encoding, collate, ctype] = [like.encoding, like.collate, like.ctype].map(quoteLiteral);
  const there = await session.query("select from pg_catalog.pg_database where datname = $1", [name]);
  if (there.length === 0) {
    await session.execute(
      `create database ${quoted} template template0 encoding ${encoding} lc_collate ${collate} lc_ctype ${ctype}
         allow_connections false`,
    ).catch((error: unknown) => {
      // Another one has begun to make it at the same moment.
      if (!["42P04", "23505"].includes(sqlstateOf(error) ?? "")) throw error;
    });
  }
  await session.execute(`revoke connect, temporary on database ${quoted} from public`);
  await session.execute(`alter database ${quoted} allow_connections true`);
}
