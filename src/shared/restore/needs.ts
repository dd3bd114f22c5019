import type { BackupContents } from "./contents.ts";
import type { TargetNeeds } from "./target.ts";

/** What the backup asks of a target. */
export function needsOf(contents: BackupContents): TargetNeeds {
  const { capture } = contents;
  const filled = new Set(contents.tables.filter((table) => table.rows > 0).map((table) => table.identity));
  return {
    extensions: capture.extensions.map(({ name, schema }) => ({ name, schema })),
    eventTriggers: capture.definitions.some((one) => one.kind === "event trigger"),
    allTables: capture.definitions.some((one) => one.kind === "publication" || one.kind === "publication schema"),
    settings: capture.definitions.filter((one) => one.kind === "settings" && one.platform === null).flatMap((one) => {
      const role = capture.definitions.find((other) => other.kind === "role" && one.dependsOn.includes(other.identity));
      return one.statements.map((statement) => ({ statement, role: role?.name ?? null }));
    }),
    rowsInto: capture.tables.filter((table) =>
      table.restoreData && table.dataOwner !== "user" && filled.has(table.identity)
    ).map(({ schema, name }) => ({ schema, name })),
  };
}
