/** What makes the definitions of a live database those of a backup, step by step; computed before anything is done. */

/**
 * `before` and `after` the rows of the backup are put back; `last`: policies, and all that hangs on the platform's tables,
 * since those commands lock many tables of a hosted project.
 */
export type ChangePhase = "before" | "after" | "last";

export const changePhases = ["before", "after", "last"] as const satisfies readonly ChangePhase[];

/** `keep`: it stays other than it was. `refuse`: it cannot be made what it was without a possible loss. */
export type ChangeAction = "create" | "replace" | "alter" | "drop" | "keep" | "refuse";

/** One transaction, which may be run again after it failed. */
export interface DefinitionStep {
  /** Unique in its plan. */
  readonly key: string;
  readonly identity: string;
  readonly kind: string;
  readonly action: "create" | "replace" | "alter" | "drop";
  readonly phase: ChangePhase;
  readonly statements: readonly string[];
  /** Run instead where `statements` were refused for a value (SQLSTATE classes 22 and 23); empty: then the step fails. */
  readonly otherwise: readonly string[];
  /** Tables whose rows `otherwise` deletes, for the backup's to come back into. */
  readonly empties: readonly string[];
  /** What came after the backup and goes with this step. */
  readonly gone: readonly GoneDefinition[];
  readonly reason: string;
  /** What is locked, for people; null: nothing that others wait for. */
  readonly locks: string | null;
}

/** Something that came after the backup, and goes although nobody asked for it to go, or because extra objects go. */
export interface GoneDefinition {
  readonly identity: string;
  readonly kind: string;
  readonly reason: string;
  /** That make it again; empty: it is a part of something that stays. */
  readonly statements: readonly string[];
  /** Is it tried to make it again once everything is what it was? */
  readonly again: boolean;
}

/** What the plan leaves as it is although it differs. */
export interface DefinitionNote {
  readonly identity: string;
  readonly kind: string;
  readonly action: "keep" | "refuse";
  readonly reason: string;
}

export interface DefinitionPlan {
  /** In the order in which they are applied. */
  readonly steps: readonly DefinitionStep[];
  readonly kept: readonly DefinitionNote[];
  /** Nothing is applied while there is one: restoring rows into such an object could fail or lose something. */
  readonly refused: readonly DefinitionNote[];
}

export interface InPlaceOptions {
  /** Are object ids and column numbers of both captures from the same database? Then renames are seen as such. */
  readonly sameDatabase: boolean;
  /** Objects that came after the backup go, with their rows; else those that stand alone stay. */
  readonly dropExtra: boolean;
  /** The rows of every table of the backup are made what they were; so values that do not fit a type may go before. */
  readonly replacesRows: boolean;
  /** The role that applies the plan. */
  readonly user: string;
  readonly superuser: boolean;
  /** Roles that it may act as, itself among them; ignored for a superuser. */
  readonly reachable: ReadonlySet<string>;
}
