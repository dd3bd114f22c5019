/** What a target would refuse in the middle of a replay, asked before anything is done to it. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { SchemaCapture } from "../../schema/capture_format.ts";
import type { TargetFacts } from "../../restore/target.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { takenOf } from "../replay/apply_rows.ts";
import { indexOn, readTargetTables, sqlNameOf } from "../replay/apply_target.ts";
import type { ProjectChanges } from "./project_changes.ts";
import type { SeenDefinitions, SeenTable } from "./seen_tables.ts";

/** Roles as which the replay changes definitions. */
export function actingRoles(definitions: SeenDefinitions, facts: TargetFacts): string[] {
  // A project has what its services made.
  const roles = facts.kind === "project"
    ? definitions.byUsers
    : new Set([...definitions.byUsers, ...definitions.byPlatform]);
  return [...roles].sort();
}

/** Errors: `ddl_not_replayable` for a role that the target will not have, or that the restoring one may not act as. */
export function checkRoles(roles: readonly string[], capture: SchemaCapture, facts: TargetFacts): void {
  const made = new Set(capture.definitions.filter((one) => one.kind === "role").map((one) => one.name));
  for (const name of roles) {
    const role = facts.roles.find((one) => one.name === name);
    const isThere = role !== undefined || made.has(name);
    if (isThere && (facts.superuser || role === undefined || role.reachable || name === facts.user)) continue;
    const why = isThere ? `${facts.user} may not act as it` : "the target does not have it";
    throw new HoldfastError("ddl_not_replayable", `role ${quoteIdent(name)} has changed definitions, and ${why}`, {
      hint: isThere
        ? "Restore as a role that may, or to a moment before."
        : "Create the role in the target first, or restore to a moment before.",
    });
  }
}

/** Errors: `target_differs` without an index by which rows are found, `database_denied` without the right to change them. */
export async function checkServiceTables(connection: Connection, changes: ProjectChanges): Promise<void> {
  for (const table of changes.taken) {
    if (!table.rowsChange && !table.emptied) continue;
    const relations = table.relations.map((relation) => takenOf(relation, changes));
    for (const relation of table.rowsChange ? relations : []) {
      const target = (await readTargetTables(connection, [relation])).get(sqlNameOf(relation));
      const keys = relation.columns.filter(({ isKey }) => isKey).map(({ name }) => name);
      if (target !== undefined && relation.identity !== "full" && keys.length > 0) indexOn(target, keys);
    }
    await checkRights(connection, table);
  }
}

async function checkRights(connection: Connection, table: SeenTable): Promise<void> {
  const name = quoteQualified(table.schema, table.name);
  const [row] = await connection.query(
    `select pg_catalog.has_table_privilege($1, 'select') and pg_catalog.has_table_privilege($1, 'delete') as may`,
    [name],
  );
  if (row?.["may"] === "t") return;
  throw new HoldfastError("database_denied", `the restoring role may not delete rows of ${name}`, {
    hint: "Take the table as of the full backup with --at-full, or leave it out with --without-table.",
  });
}
