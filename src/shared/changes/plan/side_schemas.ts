/** Tables that come out of a schema that does not travel: no backup has the rows that they had there. */
import type { DdlRow, DdlStep } from "../definitions/ddl_replay.ts";
import { isStreamedSchema } from "../segments/streamed.ts";
import { schemaRenameOf } from "./follow_names.ts";

/** Why no replay can do what the row says; null: nothing came out. `isKnown`: is a table one of the full, or made since? */
export function comesOutOfSide(row: DdlRow, step: DdlStep, isKnown: (oid: number) => boolean): string | null {
  const renamed = schemaRenameOf(row, step);
  if (renamed === "unclear") return "its text does not say plainly which schema it was";
  if (renamed !== null && !isStreamedSchema(renamed.former)) return "no backup holds what the schema had";
  if (row.what !== "command" || row.tag !== "ALTER TABLE" || !/\bset\s+schema\b/i.test(row.query)) return null;
  const isNew = row.objects.some(({ oid, made }) =>
    made != null && "table" in made && made.table.kind === "r" && oid != null && !isKnown(oid)
  );
  return isNew ? "no backup holds the rows that it had in its former schema" : null;
}
