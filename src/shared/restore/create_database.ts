import type { Manifest } from "../format/manifest.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";

/**
 * An empty database with the encoding and locale of the backup's server, closed to everybody but its owner at once.
 * Errors: those of the connection.
 */
export async function createDatabase(
  session: Connection,
  name: string,
  like: Pick<Manifest["server"], "encoding" | "collate" | "ctype">,
): Promise<void> {
  const quoted = quoteIdent(name);
  const [encoding, collate, ctype] = [like.encoding, like.collate, like.ctype].map(quoteLiteral);
  await session.execute(
    `create database ${quoted} template template0 encoding ${encoding} lc_collate ${collate} lc_ctype ${ctype}`,
  );
  await session.execute(`revoke connect, temporary on database ${quoted} from public`);
}
