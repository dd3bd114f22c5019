/** Which definitions after the data may be made side by side. Pure. */
import type { LaneLock } from "./lanes.ts";
import type { LaneSqlStep } from "./apply.ts";
import type { BackupContents } from "./contents.ts";
import type { AppliedDefinition } from "./plan_definitions.ts";

/** CREATE INDEX takes SHARE, which goes with itself. */
const sharing = new Set(["index"]);

/** ALTER TABLE … ADD CONSTRAINT keeps everybody else off its table, a foreign key off the other table's definition too. */
const excluding = new Set([
  "primary key",
  "unique constraint",
  "exclusion constraint",
  "check constraint",
  "foreign key",
]);

/**
 * One step for each definition. An index locks its table to share, a constraint locks its own table and all tables of
 * what it needs; a family of partitions or of inheritance counts as one table, since locks on a parent reach its children.
 * Everything else runs alone: on a hosted project a policy or trigger locks a score of the platform's tables.
 * A foreign key also waits for the index partitions of its families, since a partitioned table's key is none before.
 */
export function laneSteps(applied: readonly AppliedDefinition[], contents: BackupContents): LaneSqlStep[] {
  const families = tableFamilies(contents);
  const bytes = new Map(contents.tables.map((table) => [table.identity, table.rawBytes]));
  const tableOf = new Map(contents.capture.definitions.map((one) => [one.identity, one.table ?? one.identity]));
  const familiesOf = ({ definition }: AppliedDefinition) =>
    [definition.table ?? definition.identity, ...definition.dependsOn].flatMap((identity) =>
      families.get(tableOf.get(identity) ?? identity) ?? []
    );
  const attachments = applied.filter((one) => one.definition.kind === "index partition")
    .map((one) => ({ key: keyOf(one.definition.identity), families: familiesOf(one) }));
  return applied.filter((one) => one.statements.length > 0).map((one) => {
    const { identity, kind, table, dependsOn } = one.definition;
    const lock: LaneLock | null = sharing.has(kind) ? "share" : excluding.has(kind) ? "exclusive" : null;
    const touched = familiesOf(one);
    const partitions = kind === "foreign key"
      ? attachments.filter((attachment) => attachment.families.some((family) => touched.includes(family)))
      : [];
    return {
      key: keyOf(identity),
      title: identity,
      statements: one.statements,
      after: [...dependsOn.map(keyOf), ...partitions.map((attachment) => attachment.key)],
      weight: bytes.get(table ?? "") ?? 0,
      locks: lock === null ? null : new Map(touched.map((family) => [family, lock])),
    };
  });
}

const keyOf = (identity: string): string => `post-data ${identity}`;

/** The family of every table: itself, or the table at the top of what it inherits from or is a partition of. */
function tableFamilies(contents: BackupContents): Map<string, string> {
  const kinds = new Set(["table", "foreign table", "materialized view", "partition"]);
  const family = new Map<string, string>();
  const top = (identity: string): string => {
    let at = identity;
    for (let next = family.get(at); next !== undefined && next !== at; next = family.get(at)) at = next;
    return at;
  };
  for (const definition of contents.capture.definitions) {
    if (!kinds.has(definition.kind)) continue;
    const own = definition.kind === "partition" ? definition.table ?? definition.identity : definition.identity;
    if (!family.has(own)) family.set(own, own);
    for (const other of definition.dependsOn) {
      if (family.has(other) && top(other) !== top(own)) family.set(top(own), top(other));
    }
  }
  return new Map([...family.keys()].map((identity) => [identity, top(identity)]));
}
