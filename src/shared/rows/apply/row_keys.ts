import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent } from "../../schema/quote.ts";
import type { SideTable } from "../beside/side_tables.ts";

/** Of the first rows, in their order: the primary key by its columns, or all columns where there is none. */
export async function listKeys(
  connection: Connection,
  side: SideTable,
  atMost: number,
): Promise<Readonly<Record<string, string | null>>[]> {
  const names = side.past.key ?? side.columns.map(({ name }) => name);
  if (names.length === 0) return [];
  const list = names.map((name) => `s.${quoteIdent(name)}::text as ${quoteIdent(name)}`).join(", ");
  return await connection.query(
    `select ${list} from ${side.sql} as s order by ${names.map((_, at) => at + 1).join(", ")} limit ${atMost}`,
  );
}
