/** What differs between two captures, and what must make way for it, until nothing more follows. Pure. */
import type { Definition, SchemaCapture } from "../../schema/capture_format.ts";
import type { DefinitionNote, InPlaceOptions } from "./change_format.ts";
import { comparedDefinitions, effectiveStatements, isGrantsOnly, isOfServer, standsAlone } from "./compared.ts";
import { isAside, withAsideTypes } from "./aside_types.ts";
import { relationName } from "./drop_statement.ts";
import { loosenTable } from "./loosen_table.ts";
import { type AttachedIndex, attachedIndexes } from "./index_partitions.ts";
import { isRemark, remarkChanges } from "./remark_changes.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { mentions } from "./sql_text.ts";
import { type TableChanges, tableChanges } from "./table_changes.ts";
import { parseTable, type TableText } from "./table_text.ts";
import { type TextChange, textChange } from "./text_changes.ts";

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
  /** As it is after those. */
  readonly is: TableText;
  readonly changes: TableChanges;
}

export interface Changes {
  readonly was: readonly Definition[];
  readonly is: readonly Definition[];
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
  /** What stays under another name, since the backup's needs its own. */
  readonly asides: readonly Aside[];
  /** Indexes of partitions that are dropped with those of the partitioned table. */
  readonly attached: ReadonlySet<string>;
  readonly notes: readonly DefinitionNote[];
}

export interface Aside {
  readonly one: Definition;
  readonly statements: readonly string[];
  readonly reason: string;
}

/** Kinds that share the names of relations in a schema. */
const relations = new Set([
  "table",
  "foreign table",
  "view",
  "materialized view",
  "sequence",
  "identity",
  "index",
  "primary key",
  "unique constraint",
  "exclusion constraint",
]);

const types = new Set(["enum", "domain", "composite type", "range"]);
const routines = new Set(["function", "procedure"]);

/** Kinds that PostgreSQL does not carry over when a column's type changes. */
const heldByType = new Set([
  "view",
  "materialized view",
  "policy",
  "trigger",
  "rule",
  "function",
  "procedure",
  "publication table",
  "foreign key",
  "statistics",
]);

export function findChanges(was: SchemaCapture, is: SchemaCapture, options: InPlaceOptions): Changes {
  return new Finder(was, is, options).find();
}

class Finder {
  readonly #was: Definition[];
  readonly #is: Definition[];
  readonly #wasBy: Map<string, Definition>;
  readonly #isBy: Map<string, Definition>;
  readonly #platform: Set<string>;
  readonly #options: InPlaceOptions;
  readonly #wasRows: Set<string>;
  /** Who hangs on or needs an object that is there. */
  readonly #users = new Map<string, Definition[]>();
  readonly #drops = new Map<string, string>();
  readonly #late = new Set<string>();
  readonly #asideTypes = new Set<string>();
  readonly #alterations = new Map<string, Alteration>();
  readonly #tables = new Map<string, AlteredTable>();
  readonly #swaps = new Map<string, string>();
  readonly #notes = new Map<string, DefinitionNote>();
  /** Names that each table is loosened from. */
  readonly #loosened = new Map<string, Set<string>>();
  readonly #queue: string[] = [];
  readonly #attached = new Map<string, AttachedIndex>();
  readonly #asides: Aside[] = [];

  constructor(was: SchemaCapture, is: SchemaCapture, options: InPlaceOptions) {
    this.#was = comparedDefinitions(was);
    this.#is = comparedDefinitions(is);
    this.#wasBy = new Map(this.#was.map((one) => [one.identity, one]));
    this.#isBy = new Map(this.#is.map((one) => [one.identity, one]));
    this.#platform = new Set(is.definitions.filter((one) => one.platform !== null).map((one) => one.identity));
    this.#wasRows = new Set(was.tables.map((table) => table.identity));
    this.#options = options;
    for (const one of this.#is) {
      for (const need of new Set([...one.dependsOn, ...(one.table === null ? [] : [one.table])])) {
        const users = this.#users.get(need);
        if (users === undefined) this.#users.set(need, [one]);
        else users.push(one);
      }
    }
    for (const attached of attachedIndexes(this.#is)) {
      this.#attached.set(attached.attachment, attached);
      const attachment = this.#isBy.get(attached.attachment);
      for (const side of [attached.child, attached.parent]) {
        if (attachment !== undefined) this.#users.set(side, [...this.#users.get(side) ?? [], attachment]);
      }
    }
  }

  find(): Changes {
    for (const one of this.#is) {
      const former = this.#wasBy.get(one.identity);
      if (former === undefined) this.#lookAtExtra(one);
      else this.#compare(former, one);
    }
    this.#clearNames();
    this.#settle();
    return {
      was: this.#was,
      is: this.#is,
      wasBy: this.#wasBy,
      isBy: this.#isBy,
      drops: this.#drops,
      lateDrops: this.#late,
      asideTypes: this.#asideTypes,
      alterations: this.#alterations,
      tables: this.#tables,
      swaps: this.#swaps,
      asides: this.#asides,
      attached: new Set(
        [...this.#attached.values()].filter((one) => this.#drops.has(one.attachment)).map((one) => one.child),
      ),
      notes: [...this.#notes.values()],
    };
  }

  /** Objects that came after the backup and have the name of one that is to be made. */
  #clearNames(): void {
    const nameOf = (one: Definition) => quoteQualified(one.schema ?? "", one.name);
    const taken = new Map<string, Definition>();
    for (const one of this.#is) {
      if (relations.has(one.kind) && !this.#wasBy.has(one.identity) && !this.#drops.has(one.identity)) {
        taken.set(nameOf(one), one);
      }
    }
    for (const one of this.#was) {
      const other = relations.has(one.kind) ? taken.get(nameOf(one)) : undefined;
      if (other === undefined) continue;
      const reason = `it has the name that ${one.identity} needs`;
      if (other.kind === "table") this.#note(other, "refuse", reason);
      else if (other.table === null || this.#wasBy.has(other.table)) this.#drop(other, reason);
      else {
        const name = nameOf(other);
        const aside = quoteIdent(`${other.name.slice(0, 45)}_holdfast_aside`);
        const statements = [`alter ${other.kind === "identity" ? "sequence" : "index"} ${name} rename to ${aside}`];
        this.#asides.push({ one: other, statements, reason });
      }
    }
  }

  #note(one: Definition, action: "keep" | "refuse", reason: string): void {
    const known = this.#notes.get(one.identity);
    if (known?.action === "refuse") return;
    const said = known === undefined || action === "refuse" ? reason : `${known.reason}; ${reason}`;
    this.#notes.set(one.identity, { identity: one.identity, kind: one.kind, action, reason: said });
  }

  #drop(one: Definition, reason: string): void {
    if (this.#drops.has(one.identity)) return;
    const owner = one.owner;
    if (owner !== null && !this.#mayActAs(owner) && !this.#hangsOnPlatform(one) && !isGrantsOnly(one)) {
      this.#note(one, "refuse", `${reason}, but it belongs to ${owner}, whom ${this.#options.user} may not act for`);
      return;
    }
    this.#drops.set(one.identity, reason);
    this.#queue.push(one.identity);
  }

  #mayActAs(role: string): boolean {
    return this.#options.superuser || this.#options.reachable.has(role);
  }

  #hangsOnPlatform(one: Definition): boolean {
    return one.table !== null && this.#platform.has(one.table);
  }

  #isSwapped(one: Definition): boolean {
    return one.kind === "policy" || (one.kind === "trigger" && this.#hangsOnPlatform(one));
  }

  /** Something that came after the backup. */
  #lookAtExtra(one: Definition): void {
    const came = "it came after the backup";
    if (isGrantsOnly(one) || one.kind === "materialized view data" || one.kind === "index partition") return;
    if (isOfServer(one)) {
      if (one.kind !== "database") this.#note(one, "keep", `${came}; what concerns roles and settings stays`);
      return;
    }
    if (types.has(one.kind) && isAside(one.name)) return this.#drop(one, "a restore that was stopped has left it");
    if (one.kind === "sequence" && this.#ownerTable(one) !== null) return this.#drop(one, `${came}, for a column`);
    if (standsAlone(one)) {
      if (this.#options.dropExtra) this.#drop(one, came);
      else this.#note(one, "keep", `${came}${one.kind === "table" ? "; it stays with its rows" : ""}`);
      return;
    }
    const holder = one.table ?? one.dependsOn.find((need) => this.#wasBy.has(need) && !need.startsWith("schema ")) ??
      null;
    if (one.kind === "partition") {
      // Its rows would be among those of the restored table.
      const parent = one.dependsOn.find((need) => need !== one.table) ?? "";
      if (this.#wasBy.has(parent) || (holder !== null && this.#wasBy.has(holder))) {
        this.#drop(one, `${came}: the partition is detached and keeps its rows`);
      }
      return;
    }
    if (holder === null || !(this.#wasBy.has(holder) || this.#platform.has(holder))) return;
    const others = one.dependsOn.filter((need) => need !== holder && /^publication /.test(need));
    if (others.some((need) => !this.#wasBy.has(need))) return;
    if (this.#isSwapped(one)) this.#swaps.set(one.identity, came);
    else if (one.kind !== "row security") this.#drop(one, came);
  }

  /** Of a sequence that came with a column of a table that was there before. */
  #ownerTable(one: Definition): string | null {
    const ownership = (this.#users.get(one.identity) ?? []).find((user) => user.kind === "sequence ownership");
    const table = ownership?.table ?? null;
    return table !== null && this.#wasBy.has(table) ? table : null;
  }

  #compare(was: Definition, is: Definition): void {
    const [wanted, present] = [effectiveStatements(was), effectiveStatements(is)];
    if (was.kind !== is.kind) {
      const reason = `it was a ${was.kind} and is a ${is.kind}`;
      if (was.kind === "table" || is.kind === "table") this.#note(is, "refuse", reason);
      else {
        // The column's default lets go of it first.
        if (is.kind === "sequence") this.#late.add(is.identity);
        this.#drop(is, reason);
      }
      return;
    }
    if (wanted.join(";\n") === present.join(";\n") || isGrantsOnly(is)) return;
    if (is.identity.startsWith("body of ")) {
      const view = this.#isBy.get(is.table ?? "");
      if (view !== undefined) this.#drop(view, "its definition differs");
      return;
    }
    // A shell that waits for its body, which replaces it.
    const body = `body of ${is.identity}`;
    if (this.#wasBy.has(body) && !this.#isBy.has(body)) return;
    if (is.kind === "table") return this.#alterTable(was.identity);
    if (this.#isSwapped(is)) {
      this.#swaps.set(is.identity, "its definition differs");
      return;
    }
    const main = (texts: readonly string[]) => texts.filter((text) => !isRemark(text)).join(";\n");
    const change: TextChange = main(wanted) === main(present)
      ? { kind: "alter", before: [], after: [] }
      : textChange(was, is, this.#options.dropExtra);
    if (change.kind === "remake") {
      if (is.kind !== "row security") this.#drop(is, "its definition differs");
    } else if (change.kind === "alter") {
      const owner = is.owner;
      if (owner !== null && !this.#mayActAs(owner) && !this.#hangsOnPlatform(is)) {
        this.#note(is, "refuse", `it differs, but belongs to ${owner}, whom ${this.#options.user} may not act for`);
        return;
      }
      const remarks = remarkChanges(was.statements, is.statements);
      this.#alterations.set(is.identity, {
        before: [...change.before, ...remarks],
        after: change.after,
        otherwise: (change.otherwise ?? []).length > 0 ? [...(change.otherwise ?? []), ...remarks] : [],
      });
    } else this.#note(is, change.kind, change.reason);
  }

  #settle(): void {
    const open = new Set<string>();
    for (;;) {
      for (let next = this.#queue.pop(); next !== undefined; next = this.#queue.pop()) {
        for (const table of this.#follow(next)) open.add(table);
      }
      for (const table of open) this.#alterTable(table);
      open.clear();
      if (this.#queue.length === 0) break;
    }
    for (const identity of this.#drops.keys()) this.#alterations.delete(identity);
    for (const identity of [...this.#tables.keys()]) if (this.#drops.has(identity)) this.#tables.delete(identity);
  }

  /** What stands on an object that goes, goes before it. Returns tables that must let go of it instead. */
  #follow(identity: string): string[] {
    const tables: string[] = [];
    for (const user of this.#users.get(identity) ?? []) {
      if (this.#drops.has(user.identity) || isGrantsOnly(user) || isOfServer(user)) continue;
      if (user.kind === "table") {
        if (this.#lettingGo(user, identity)) tables.push(user.identity);
        continue;
      }
      if (user.kind === "sequence" || user.kind === "schema") continue;
      const alike = user.table === identity ? "it goes with" : "it stands on";
      const fate = this.#wasBy.has(identity) ? "made anew" : "gone afterwards";
      this.#drop(user, `${alike} ${identity}, which is ${fate}`);
      if (user.kind === "index partition") {
        // Neither side can be detached from the other.
        const attached = this.#attached.get(user.identity);
        for (const need of attached === undefined ? [] : [attached.parent, attached.child]) {
          const side = this.#isBy.get(need);
          if (side !== undefined) this.#drop(side, `it stands on ${identity}, which is ${fate}`);
        }
      }
    }
    return tables;
  }

  /** A table never goes for what it uses. True: it has to be looked at again. */
  #lettingGo(table: Definition, identity: string): boolean {
    const used = this.#isBy.get(identity);
    if (used === undefined) return false;
    if (used.kind === "partition" || used.kind === "table") {
      if (used.kind === "table" && !this.#isPartitionOf(table, identity)) {
        this.#note(table, "refuse", `it inherits from ${identity}, which is made anew`);
      }
      return false;
    }
    const remade = this.#wasBy.has(identity) && !this.#late.has(identity);
    if (!remade) this.#late.add(identity);
    if (!remade && this.#wasBy.has(table.identity)) return true;
    if (!remade && used.kind === "sequence") {
      // What owned it lets go; the table that came after the backup still counts by it.
      this.#drops.delete(identity);
      this.#note(used, "keep", `it came after the backup; ${table.identity} uses it`);
      return false;
    }
    if (!types.has(used.kind) && !routines.has(used.kind)) {
      this.#note(used, "refuse", `it must be made anew, but ${table.identity} stands on it`);
      return false;
    }
    if (used.kind === "range") {
      this.#note(used, "refuse", `it must be made anew, but columns of ${table.identity} are of it`);
      return false;
    }
    if (types.has(used.kind)) this.#asideTypes.add(identity);
    const name = identity.replace(/^(?:composite type|type|domain|function|procedure) /, "").replace(/\([^]*$/, "");
    const names = this.#loosened.get(table.identity);
    if (names === undefined) this.#loosened.set(table.identity, new Set([name]));
    else if (names.has(name)) return false;
    else names.add(name);
    return true;
  }

  #isPartitionOf(table: Definition, parent: string): boolean {
    return (this.#users.get(parent) ?? []).some((user) => user.kind === "partition" && user.table === table.identity);
  }

  #alterTable(identity: string): void {
    const is = this.#isBy.get(identity);
    if (is === undefined || this.#drops.has(identity)) return;
    const was = this.#wasBy.get(identity) ?? is;
    if (is.owner !== null && !this.#mayActAs(is.owner)) {
      return this.#note(
        is,
        "refuse",
        `it differs, but belongs to ${is.owner}, whom ${this.#options.user} may not act for`,
      );
    }
    const wanted = parseTable(was.statements);
    const present = parseTable(is.statements);
    if (wanted === null || present === null) {
      if (was.statements.join(";\n") === is.statements.join(";\n") && !this.#loosened.has(identity)) return;
      return this.#makeTableAnew(is, "its definition differs in a way that no ALTER is known for");
    }
    const names = [...this.#loosened.get(identity) ?? []];
    const family = (this.#users.get(identity) ?? []).some((user) =>
      user.kind === "table" && !this.#isPartitionOf(user, identity)
    );
    const { table: loosened, statements } = loosenTable(present, names, family);
    const table = withAsideTypes(loosened, names);
    const changes = tableChanges(wanted, table, family);
    if (changes.stuck !== null) return this.#makeTableAnew(is, changes.stuck);
    this.#tables.set(identity, { loosen: statements, is: table, changes });
    this.#moveUsers(is, present, table, changes);
  }

  /** What uses columns that are converted or made again. */
  #moveUsers(is: Definition, present: TableText, loosened: TableText, changes: TableChanges): void {
    const left = new Set(loosened.columns.map((column) => column.name));
    const remade = new Set([
      ...changes.remade,
      ...present.columns.map((column) => column.name).filter((name) => !left.has(name)),
    ]);
    const { retyped } = changes;
    const uses = (one: Definition, columns: ReadonlySet<string>) =>
      [...columns].some((column) => one.statements.some((text) => mentions(text, column)));
    for (const user of this.#users.get(is.identity) ?? []) {
      if (user.kind === "table" || isGrantsOnly(user)) continue;
      if (uses(user, remade)) this.#drop(user, `it uses a column of ${is.identity} that is made again`);
      else if (heldByType.has(user.kind) && uses(user, retyped)) {
        this.#drop(user, `it uses a column of ${is.identity} whose type changes`);
      } else if ((this.#isSwapped(user) || !this.#wasBy.has(user.identity)) && uses(user, changes.dropped)) {
        this.#drop(user, `it uses a column of ${is.identity} that came after the backup`);
      }
    }
  }

  /** Only where its rows come back; one that is partitioned has none of its own. */
  #makeTableAnew(is: Definition, reason: string): void {
    const hasRows = this.#isBy.get(is.identity)?.statements.some((text) => / partition by /.test(text)) !== true;
    if (hasRows && !(this.#options.replacesRows && this.#wasRows.has(is.identity))) {
      return this.#note(is, "refuse", reason);
    }
    this.#drop(is, `${reason}${hasRows ? "; it is made anew, and its rows come back from the backup" : ""}`);
  }
}

/** The parent of a partition that stays attached; null for other tables. */
export function parentOf(changes: Changes, identity: string): string | null {
  for (const user of changes.is) {
    if (user.kind !== "partition" || user.table !== identity || changes.drops.has(user.identity)) continue;
    return user.dependsOn.find((need) => need !== identity) ?? null;
  }
  return null;
}

/** For messages and locks. */
export const tableName = (identity: string): string => relationName(identity);
