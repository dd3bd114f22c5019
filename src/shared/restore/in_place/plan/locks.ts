/** What a step locks, in words. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { relationName } from "../texts/identity_names.ts";

/** `drops`: the step takes the object away (first). */
export function locksOf(one: Definition, drops: boolean): string | null {
  const table = one.table === null ? null : relationName(one.table);
  const moment = (name: string | null) => name === null ? null : `${name}: against everybody, for a moment`;
  switch (one.kind) {
    case "policy":
      return `${moment(table)}; on a hosted project also tables of auth and storage`;
    case "trigger":
      return drops
        ? `${moment(table)}; on a hosted project also tables of auth and storage`
        : `${table}: against writes, for a moment`;
    case "index":
    case "primary key":
    case "unique constraint":
    case "exclusion constraint":
      return drops ? moment(table) : `${table}: against writes, while its rows are read`;
    case "foreign key":
      return drops
        ? `${moment(table)}, and the table that it refers to`
        : `${table} and the table that it refers to: against writes, while the rows are compared`;
    case "check constraint":
      return drops ? moment(table) : `${table}: against everybody, while its rows are read`;
    case "table":
    case "view":
    case "materialized view":
    case "foreign table":
      return moment(relationName(one.identity));
    default:
      return moment(table);
  }
}
