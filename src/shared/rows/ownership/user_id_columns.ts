/** Which columns hold users' ids, directly or by what they refer to. Pure. */
import type { TableName } from "../../restore/project_rows.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { Graph } from "../past/graph.ts";
import type { BackupMap } from "./map_file.ts";
import { usersTable, waysOf } from "./ways.ts";

/**
 * For a user who comes back under another id: every column in which the old one may stand. A foreign key to a column that
 * holds ids holds ids as well (`posts.author_id` → `profiles.id` → `auth.users.id`), whether it is followed or not.
 */
export function userIdColumns(graph: Graph, map: BackupMap): (table: TableName) => readonly string[] {
  const ways = waysOf(graph, map);
  const holding = new Map<string, Set<string>>([[nameOf(usersTable), new Set(["id"])]]);
  for (let more = true; more;) {
    more = false;
    for (const { from, link } of ways) {
      const held = holding.get(nameOf(link.to));
      for (const [place, column] of link.columns.entries()) {
        const own = holding.get(nameOf(from)) ?? new Set();
        if (!held?.has(link.toColumns[place] ?? "") || own.has(column)) continue;
        holding.set(nameOf(from), own.add(column));
        more = true;
      }
    }
  }
  return (table) => [...holding.get(nameOf(table)) ?? []];
}
