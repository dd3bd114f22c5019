/** What differs between two captures, and what follows from it: made in this folder, read by the plan. */
import type { Definition } from "../../../schema/capture_format.ts";
import type { DefinitionNote } from "../change_format.ts";
import type { TableChanges } from "../texts/table_changes.ts";

/** ALTERs that make an object what it was. */
export interface Alteration {
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly otherwise: readonly string[];
}

/** A table that is there, with what changes in it. */
export interface AlteredTable {
  /** Statements that take off it what uses objects that are made anew. */
  readonly loosen: readonly string[];
  /** From what it is after those. */
  readonly changes: TableChanges;
}

/** An object that stays under another name, since one of the backup needs its own. */
export interface Aside {
  readonly one: Definition;
  readonly statements: readonly string[];
  readonly reason: string;
}

export interface Changes {
  readonly was: readonly Definition[];
  readonly is: readonly Definition[];
  /** Both by identity. */
  readonly wasBy: ReadonlyMap<string, Definition>;
  readonly isBy: ReadonlyMap<string, Definition>;
  /** What goes, with the reason. What is in `wasBy` too is made again. */
  readonly drops: ReadonlyMap<string, string>;
  /** Those of `drops` that only tables use, until these are altered. */
  readonly lateDrops: ReadonlySet<string>;
  /** Types of `drops` that step aside while columns are converted. */
  readonly asideTypes: ReadonlySet<string>;
  readonly alterations: ReadonlyMap<string, Alteration>;
  readonly tables: ReadonlyMap<string, AlteredTable>;
  /** Policies everywhere, and triggers on the platform's tables: dropped and made in one last step. */
  readonly swaps: ReadonlyMap<string, string>;
  readonly asides: readonly Aside[];
  /** Indexes of partitions that are dropped with those of the partitioned table. */
  readonly attached: ReadonlySet<string>;
  readonly notes: readonly DefinitionNote[];
}

/** The table, and all that is in the backup and stays among its partitions and the tables that inherit from it. */
export function familyOf(changes: Changes, identity: string): string[] {
  const family = [identity];
  for (const parent of family) {
    for (const user of changes.is) {
      const child = user.kind === "table" ? user.identity : user.kind === "partition" ? user.table : null;
      if (child === null || family.includes(child) || !user.dependsOn.includes(parent)) continue;
      if (changes.wasBy.has(child) && !changes.drops.has(child) && !changes.drops.has(user.identity)) {
        family.push(child);
      }
    }
  }
  return family;
}

/** The parent of a partition that stays attached; null for other tables. */
export function parentOf(changes: Changes, identity: string): string | null {
  for (const user of changes.is) {
    if (user.kind !== "partition" || user.table !== identity || changes.drops.has(user.identity)) continue;
    return user.dependsOn.find((need) => need !== identity) ?? null;
  }
  return null;
}
