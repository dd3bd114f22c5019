/** The definitions of a live database made those of a backup: what is done, in which order, and why. Pure. */
import type { Definition, SchemaCapture } from "../../schema/capture_format.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import { superuserAttribute } from "../judge_definition.ts";
import type { ChangePhase, DefinitionNote, DefinitionPlan, DefinitionStep, InPlaceOptions } from "./change_format.ts";
import { changePhases } from "./change_format.ts";
import { effectiveStatements, isGrantsOnly } from "./compared.ts";
import { extensionNotes, missingExtensions, platformNotes } from "./compared_only.ts";
import { asideName, asideType } from "./aside_types.ts";
import { dropStatements, relationName } from "./drop_statement.ts";
import { type Changes, findChanges, parentOf } from "./find_changes.ts";
import { locksOf } from "./locks.ts";
import { loosenPolicy, replacePolicy } from "./policy_changes.ts";
import { privilegeChanges } from "./privilege_changes.ts";
import { resetAccess } from "./reset_access.ts";
import { planRenames, type Rename } from "./renames.ts";
import type { TableStatement } from "./table_changes.ts";

/**
 * The steps from `is` (the live database's capture) to `was` (the backup's). Two equal captures give no step. Once all are
 * applied, a plan from a new capture has only what was kept; what it has besides is to be applied as well, since texts alone
 * do not tell what a rename does to every expression.
 */
export function planDefinitionChanges(
  was: SchemaCapture,
  is: SchemaCapture,
  options: InPlaceOptions,
): DefinitionPlan {
  const renamed = options.sameDatabase ? planRenames(was, is) : { renames: [], is };
  const changes = findChanges(was, renamed.is, options);
  return new Planner(
    changes,
    options,
    [...extensionNotes(was, is), ...platformNotes(was, is)],
    missingExtensions(was, is),
  ).plan(renamed.renames);
}

type Draft =
  & Omit<DefinitionStep, "key" | "identity" | "kind" | "otherwise" | "empties" | "locks">
  & Partial<Pick<DefinitionStep, "otherwise" | "empties" | "locks">>;

const afterPartitions = new Set([
  "index partition",
  "index marks",
  "check constraint",
  "foreign key",
  "statistics",
  "rule",
  "trigger",
  "partition trigger",
  "row security",
]);

/** A partition that is attached without the indexes that it had gets others. */
function createRank({ kind }: Definition): 0 | 1 | 2 {
  return kind === "partition" ? 1 : afterPartitions.has(kind) ? 2 : 0;
}

const typeName = (one: Definition): string => one.identity.replace(/^(?:composite type|type|domain) /, "");
const typeWord = (one: Definition): string => one.kind === "domain" ? "domain" : "type";

class Planner {
  readonly #changes: Changes;
  readonly #options: InPlaceOptions;
  readonly #notes: DefinitionNote[];
  readonly #steps = new Map<ChangePhase, DefinitionStep[]>(changePhases.map((phase) => [phase, []]));
  readonly #keys = new Set<string>();
  readonly #defaults: boolean;
  readonly #missing: ReadonlySet<string>;

  constructor(
    changes: Changes,
    options: InPlaceOptions,
    notes: readonly DefinitionNote[],
    missing: ReadonlySet<string>,
  ) {
    this.#missing = missing;
    this.#changes = changes;
    this.#options = options;
    this.#notes = [...notes, ...changes.notes];
    // Objects that this role makes could get grants that nobody gave them.
    const own = `for role ${quoteIdent(options.user)} `;
    this.#defaults = changes.is.some((one) => one.statements.some((text) => text.includes(own)));
  }

  plan(renames: readonly Rename[]): DefinitionPlan {
    for (const one of this.#changes.was) {
      if (one.section !== "roles") continue;
      this.#alter(one);
      this.#create(one);
    }
    for (const { identity, statements, reason, table } of renames) {
      const locks = `${table}: against everybody, for a moment`;
      this.#step({ identity, kind: "table" }, { action: "alter", phase: "before", statements, reason, locks });
    }
    for (const { one, statements, reason } of this.#changes.asides) {
      this.#step(one, { action: "alter", phase: "before", statements, reason, locks: locksOf(one, true) });
    }
    this.#loosenTables();
    this.#drops();
    const rest = this.#changes.was.filter((one) => one.section !== "roles");
    for (const one of rest) {
      this.#alter(one);
      if (createRank(one) === 0) this.#create(one);
    }
    for (const wanted of [1, 2]) {
      for (const one of rest) if (createRank(one) === wanted) this.#create(one);
    }
    this.#alterExtraTables();
    this.#lateDrops();
    this.#ownersAndGrants();
    this.#lastSection();
    this.#swaps();
    this.#rowSecurity();
    const steps = changePhases.flatMap((phase) => this.#steps.get(phase) ?? []);
    return {
      steps,
      kept: this.#notes.filter((note) => note.action === "keep"),
      refused: this.#notes.filter((note) => note.action === "refuse"),
    };
  }

  #step(one: Pick<Definition, "identity" | "kind">, draft: Draft): void {
    if (draft.statements.length === 0) return;
    let key = `${draft.phase} ${draft.action} ${one.identity}`;
    for (let count = 2; this.#keys.has(key); count++) key = `${draft.phase} ${draft.action} ${one.identity} (${count})`;
    this.#keys.add(key);
    const { otherwise = [], empties = null, locks = null } = draft;
    this.#steps.get(draft.phase)?.push({
      identity: one.identity,
      kind: one.kind,
      ...draft,
      key,
      otherwise,
      empties,
      locks,
    });
  }

  #keep(one: Definition, reason: string): void {
    this.#notes.push({ identity: one.identity, kind: one.kind, action: "keep", reason });
  }

  #mayActAs(role: string | null): boolean {
    return role === null || this.#options.superuser || this.#options.reachable.has(role);
  }

  /** Is it there already, and does it stay? */
  #stays(one: Definition): boolean {
    return this.#changes.isBy.has(one.identity) && !this.#changes.drops.has(one.identity);
  }

  #loosenTables(): void {
    for (const [identity, table] of this.#changes.tables) {
      const one = this.#changes.isBy.get(identity);
      if (one === undefined) continue;
      this.#step(one, {
        action: "alter",
        phase: "before",
        statements: table.loosen,
        reason: "defaults, checks or generated columns use what is made anew",
        locks: locksOf(one, false),
      });
    }
  }

  #drops(): void {
    const going = this.#changes.is.filter((one) => this.#changes.drops.has(one.identity)).reverse();
    // Detached first, what is on a partition is its own; on one that stays attached it goes with the parent's.
    // A foreign key that a partition has from its table would stay with it.
    const rank = ({ kind, identity }: Definition) =>
      kind === "foreign key" ? 0 : kind === "partition" ? 1 : this.#changes.attached.has(identity) ? 3 : 2;
    for (const wanted of [0, 1, 2, 3]) {
      for (const one of going.filter((each) => rank(each) === wanted)) {
        if (this.#changes.asideTypes.has(one.identity)) this.#stepAside(one);
        else if (!this.#changes.lateDrops.has(one.identity)) this.#drop(one);
      }
    }
  }

  #lateDrops(): void {
    const { is, lateDrops, asideTypes, drops } = this.#changes;
    for (const one of [...is].reverse()) {
      if (lateDrops.has(one.identity) && drops.has(one.identity)) this.#drop(one);
      if (!asideTypes.has(one.identity)) continue;
      this.#step(one, {
        action: "drop",
        phase: "before",
        statements: [`drop ${typeWord(one)} ${asideType(typeName(one))}`],
        reason: "no column is of it any more",
      });
    }
  }

  #stepAside(one: Definition): void {
    const name = typeName(one);
    this.#step(one, {
      action: "alter",
      phase: "before",
      statements: [`alter ${typeWord(one)} ${name} rename to ${asideName(name)}`],
      reason: `${this.#changes.drops.get(one.identity)}; the columns of it are converted to the one that was`,
    });
  }

  #drop(one: Definition): void {
    const comes = this.#changes.wasBy.has(one.identity);
    const reason = this.#changes.drops.get(one.identity) ?? "";
    const statements = one.kind === "policy" && comes ? loosenPolicy(one) : dropStatements(one);
    if (statements === null) {
      this.#notes.push({
        identity: one.identity,
        kind: one.kind,
        action: "refuse",
        reason: `${reason}, and it is not known how to take a ${one.kind} back`,
      });
      return;
    }
    this.#step(one, {
      action: "drop",
      phase: "before",
      statements,
      reason: comes ? `${reason}; it comes back` : reason,
      locks: locksOf(one, true),
    });
  }

  #alter(one: Definition): void {
    if (!this.#stays(one)) return;
    this.#giveTo(one);
    const alteration = this.#changes.alterations.get(one.identity);
    if (alteration !== undefined) {
      const reason = "its definition differs";
      const { before, after, otherwise } = alteration;
      const early = one.section === "last" ? "after" : "before";
      this.#step(one, {
        action: "alter",
        phase: early,
        statements: before,
        otherwise,
        reason,
        locks: locksOf(one, false),
      });
      this.#step(one, { action: "alter", phase: "after", statements: after, reason, locks: locksOf(one, false) });
    }
    if (this.#changes.tables.has(one.identity)) this.#alterTable(one);
  }

  #alterExtraTables(): void {
    for (const one of this.#changes.is) {
      if (this.#changes.tables.has(one.identity) && !this.#changes.wasBy.has(one.identity)) this.#alterTable(one);
    }
  }

  #alterTable(one: Definition): void {
    const table = this.#changes.tables.get(one.identity);
    if (table === undefined) return;
    const parent = parentOf(this.#changes, one.identity);
    const above = parent === null ? undefined : this.#changes.tables.get(parent)?.changes;
    const byParent = new Set(
      [...above?.before ?? [], ...above?.convert ?? [], ...above?.after ?? []].flatMap((each) => each.recursive ?? []),
    );
    const own = (list: readonly TableStatement[]) =>
      list.filter((each) => each.recursive === null || !byParent.has(each.recursive)).map((each) => each.text);
    const { changes } = table;
    const columns = (names: ReadonlySet<string>) => [...names].join(", ");
    const reason = [
      "its definition differs",
      changes.dropped.size > 0
        ? `columns that came after the backup go with their values: ${columns(changes.dropped)}`
        : "",
    ].filter((text) => text !== "").join("; ");
    const locks = `${relationName(one.identity)}: against everybody, for a moment`;
    this.#step(one, { action: "alter", phase: "before", statements: own(changes.before), reason, locks });
    const convert = own(changes.convert);
    this.#step(one, {
      action: "alter",
      phase: "before",
      statements: convert,
      otherwise: this.#options.replacesRows && this.#changes.wasBy.has(one.identity)
        ? [
          "set local session_replication_role = replica",
          `delete from ${relationName(one.identity)}`,
          ...convert,
        ]
        : [],
      empties: relationName(one.identity),
      reason: `types of columns differ: ${columns(changes.retyped)}`,
      locks: `${relationName(one.identity)}: against everybody, while it is written anew`,
    });
    this.#step(one, {
      action: "alter",
      phase: "after",
      statements: own(changes.after),
      reason: "what only the rows of the backup satisfy",
      locks: `${relationName(one.identity)}: against everybody, while its rows are read`,
    });
    for (const kept of changes.keeps) this.#keep(one, kept);
  }

  #create(one: Definition): void {
    if (this.#stays(one) || isGrantsOnly(one) || one.section === "last" || one.kind === "policy") return;
    const needs = one.dependsOn.find((need) => this.#missing.has(need));
    if (needs !== undefined) {
      const reason = `it is missing, and needs ${needs}, which is not there`;
      this.#notes.push({ identity: one.identity, kind: one.kind, action: "refuse", reason });
      return;
    }
    const comes = this.#changes.isBy.has(one.identity);
    const statements = this.#creation(one);
    const reason = comes ? this.#changes.drops.get(one.identity) ?? "" : "it is missing";
    const old = this.#changes.isBy.get(one.table ?? "");
    const onOldTable = old !== undefined && !this.#changes.drops.has(old.identity);
    // On rows that are there already it would be checked before they are the backup's.
    const waits = one.section === "post-data" || (onOldTable && (one.kind === "identity" || one.kind === "partition"));
    this.#step(one, {
      action: comes ? "replace" : "create",
      phase: waits ? "after" : "before",
      statements,
      reason,
      locks: locksOf(one, false),
    });
  }

  #creation(one: Definition): readonly string[] {
    const { statements, ownership } = one;
    if (one.kind === "role" && !this.#options.superuser) {
      return statements.filter((text) => !superuserAttribute.test(text));
    }
    const reset = this.#defaults ? resetAccess(one) : null;
    const keepsOwner = !this.#mayActAs(one.owner) && ownership.length > 0;
    if (keepsOwner) this.#keep(one, `it belongs to ${this.#options.user}, who may not give it to ${one.owner}`);
    const made = effectiveStatements(one);
    if (made.length === 0) return [];
    return [...made, ...(reset === null ? [] : [reset]), ...(keepsOwner ? [] : ownership)];
  }

  #ownersAndGrants(): void {
    const { was, is, wasBy, isBy } = this.#changes;
    for (const one of was) {
      const other = isBy.get(one.identity);
      const stays = other !== undefined && this.#stays(one);
      if (one.privileges.length === 0 && (!stays || other.privileges.length === 0) && !isGrantsOnly(one)) continue;
      this.#grant(one, stays ? other : null);
    }
    for (const one of is) {
      if (wasBy.has(one.identity) || !isGrantsOnly(one)) continue;
      const [texts, grants] = [privilegeChanges([], one.statements), privilegeChanges([], one.privileges)];
      if (texts === null || grants === null) this.#keep(one, "grants that came after the backup and cannot be read");
      else {
        this.#step(one, {
          action: "alter",
          phase: "after",
          statements: [...texts, ...grants],
          reason: "grants that came after the backup",
        });
      }
    }
  }

  /** Before anything that wants the same owner, such as a sequence for a column. */
  #giveTo(one: Definition): void {
    const { is, isBy, drops } = this.#changes;
    const other = isBy.get(one.identity);
    if (other === undefined || one.ownership.join() === other.ownership.join()) return;
    // A sequence of a column belongs to the owner of the table, and changes with it.
    const isOwned = is.some((each) =>
      one.kind === "sequence" && each.kind === "sequence ownership" && each.dependsOn.includes(one.identity) &&
      !drops.has(each.identity)
    );
    if (isOwned) return;
    if (!this.#mayActAs(one.owner) || !this.#mayActAs(other.owner)) {
      const may = `${this.#options.user} may not change that`;
      return this.#keep(one, `it belongs to ${other.owner} instead of ${one.owner}; ${may}`);
    }
    this.#step(one, {
      action: "alter",
      phase: one.section === "last" ? "after" : "before",
      statements: one.ownership,
      reason: `it belongs to ${other.owner} instead of ${one.owner}`,
      locks: locksOf(one, false),
    });
  }

  #grant(one: Definition, other: Definition | null): void {
    const texts = isGrantsOnly(one) ? privilegeChanges(one.statements, other?.statements ?? []) : [];
    // A new object has been given to its owner; grants of schemas that were there are compared.
    const grants = other === null ? one.privileges : privilegeChanges(one.privileges, other.privileges);
    if (texts === null || grants === null) {
      const missing = one.privileges.filter((text) => !other?.privileges.includes(text));
      this.#step(one, { action: "alter", phase: "after", statements: missing, reason: "grants that are missing" });
      return this.#keep(one, "grants that came after the backup stay: they are in no form that can be compared");
    }
    if (texts.length + grants.length === 0) return;
    if (!this.#mayActAs(one.owner) && one.owner !== null) {
      return this.#keep(one, `its grants differ, but it belongs to ${one.owner}`);
    }
    this.#step(one, {
      action: "alter",
      phase: "after",
      statements: [...texts, ...grants],
      reason: other === null ? "its grants" : "its grants differ",
    });
  }

  /** What needs grants: publications, jobs, event triggers, what fills materialised views. */
  #lastSection(): void {
    for (const one of this.#changes.was) {
      if (one.section !== "last" || this.#stays(one) || isGrantsOnly(one)) continue;
      const statements = one.kind === "cron job" ? this.#job(one) : this.#creation(one);
      if (statements === null) {
        this.#keep(one, `it is missing, and ${this.#options.user} may not schedule for another role`);
        continue;
      }
      const comes = this.#changes.isBy.has(one.identity);
      this.#step(one, {
        action: comes ? "replace" : "create",
        phase: "after",
        statements,
        reason: comes ? this.#changes.drops.get(one.identity) ?? "" : "it is missing",
        locks: locksOf(one, false),
      });
    }
  }

  /** pg_cron takes a user's name from superusers only; everybody else schedules for himself. */
  #job(one: Definition): readonly string[] | null {
    const all = effectiveStatements(one);
    if (this.#options.superuser) return all;
    const user = quoteLiteral(this.#options.user);
    const statements = all.map((text) => {
      for (const end of [`, ${user}, false)`, `, username => ${user}, active => false)`]) {
        if (text.endsWith(end)) return `${text.slice(0, -end.length)}, active => false)`;
      }
      return text.endsWith(` and j.username = ${user}`) ? text : null;
    });
    return statements.includes(null) ? null : statements.flatMap((text) => text ?? []);
  }

  /** One short transaction each. */
  #swaps(): void {
    const { was, is, wasBy, isBy, drops, swaps } = this.#changes;
    for (const one of is) {
      const reason = swaps.get(one.identity);
      if (reason === undefined || wasBy.has(one.identity) || drops.has(one.identity)) continue;
      const statements = dropStatements(one) ?? [];
      this.#step(one, { action: "drop", phase: "last", statements, reason, locks: locksOf(one, true) });
    }
    for (const one of was) {
      const isPolicy = one.kind === "policy";
      const there = isBy.has(one.identity);
      const gone = drops.get(one.identity);
      if (!isPolicy && !swaps.has(one.identity)) continue;
      if (there && gone === undefined && !swaps.has(one.identity)) continue;
      const statements = isPolicy
        ? replacePolicy(one)
        : [...(gone === undefined ? [`drop ${one.identity}`] : []), ...effectiveStatements(one)];
      this.#step(one, {
        action: there ? "replace" : "create",
        phase: "last",
        statements,
        reason: there ? gone ?? swaps.get(one.identity) ?? "" : "it is missing",
        locks: locksOf(one, true),
      });
    }
  }

  /** Switched on with what comes after the rows, switched off at the very end. */
  #rowSecurity(): void {
    const { was, is, wasBy, isBy, drops } = this.#changes;
    const flags = [...was, ...is.filter((one) => !wasBy.has(one.identity))].filter((one) =>
      one.kind === "row security"
    );
    for (const one of flags) {
      const present = isBy.get(one.identity);
      if (present === undefined || drops.has(present.identity)) continue;
      if (one.table !== null && !wasBy.has(one.table)) continue;
      const wanted = wasBy.get(one.identity)?.statements ?? [];
      const on = wanted.filter((text) => !present.statements.includes(text));
      const off = present.statements.filter((text) => !wanted.includes(text));
      const reason = "row security differs";
      this.#step(one, { action: "alter", phase: "after", statements: on, reason, locks: locksOf(one, false) });
      this.#step(one, {
        action: "alter",
        phase: "last",
        statements: dropStatements({ ...present, statements: off }) ?? [],
        reason,
        locks: locksOf(one, false),
      });
    }
  }
}
