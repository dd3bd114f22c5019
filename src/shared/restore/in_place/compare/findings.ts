/** What is known so far of what differs. The files beside fill it; nothing in it decides. */
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";
import { mayActAs } from "../actor.ts";
import type { DefinitionNote, InPlaceOptions } from "../change_format.ts";
import type { Alteration, AlteredTable, Aside, Changes } from "./changes.ts";
import { typeName } from "../texts/identity_names.ts";
import { comparedDefinitions, isGrantsOnly } from "./compared.ts";
import { type AttachedIndex, attachedIndexes } from "./index_partitions.ts";

export class Findings {
  readonly was: readonly Definition[];
  readonly is: readonly Definition[];
  readonly wasBy: ReadonlyMap<string, Definition>;
  readonly isBy: ReadonlyMap<string, Definition>;
  readonly options: InPlaceOptions;
  /** Views that CREATE OR REPLACE makes what they were, as far as their columns go. */
  readonly replaceableViews: ReadonlySet<string>;
  readonly lateDrops = new Set<string>();
  readonly asideTypes = new Set<string>();
  readonly alterations = new Map<string, Alteration>();
  readonly tables = new Map<string, AlteredTable>();
  readonly swaps = new Map<string, string>();
  readonly asides: Aside[] = [];
  readonly #drops = new Map<string, string>();
  /** Of what was dropped, what nobody has followed yet. */
  readonly #open: string[] = [];
  readonly #notes = new Map<string, DefinitionNote>();
  readonly #users = new Map<string, Definition[]>();
  readonly #attached = new Map<string, AttachedIndex>();
  readonly #letGo = new Map<string, Set<string>>();
  readonly #platform: ReadonlySet<string>;
  readonly #sameTypes: ReadonlySet<string>;
  readonly #tablesWithRows: ReadonlySet<string>;

  constructor(
    was: SchemaCapture,
    is: SchemaCapture,
    options: InPlaceOptions,
    replaceableViews: ReadonlySet<string>,
  ) {
    this.was = comparedDefinitions(was);
    this.is = comparedDefinitions(is);
    this.wasBy = byIdentity(this.was);
    this.isBy = byIdentity(this.is);
    this.options = options;
    this.replaceableViews = replaceableViews;
    this.#platform = new Set(is.definitions.filter((one) => one.platform !== null).map((one) => one.identity));
    this.#sameTypes = options.sameDatabase ? sameTypes(was, is) : new Set();
    this.#tablesWithRows = new Set(was.tables.map((table) => table.identity));
    for (const one of this.is) {
      for (const need of new Set([...one.dependsOn, ...(one.table === null ? [] : [one.table])])) {
        this.#addUser(need, one);
      }
    }
    for (const attached of attachedIndexes(this.is)) {
      this.#attached.set(attached.attachment, attached);
      const attachment = this.isBy.get(attached.attachment);
      if (attachment === undefined) continue;
      this.#addUser(attached.child, attachment);
      this.#addUser(attached.parent, attachment);
    }
  }

  #addUser(need: string, user: Definition): void {
    const users = this.#users.get(need);
    if (users === undefined) this.#users.set(need, [user]);
    else users.push(user);
  }

  /** What hangs on an object that is there, or needs it. */
  usersOf(identity: string): readonly Definition[] {
    return this.#users.get(identity) ?? [];
  }

  /** Both sides of an `index partition`; undefined where they are not known. */
  attachedIndex(identity: string): AttachedIndex | undefined {
    return this.#attached.get(identity);
  }

  isPartitionOf(table: Definition, parent: string): boolean {
    return this.usersOf(parent).some((user) => user.kind === "partition" && user.table === table.identity);
  }

  isPlatform(identity: string): boolean {
    return this.#platform.has(identity);
  }

  /** Is the type the very one that it was? Known where a table has a column of it, then and now. */
  isSameType(identity: string): boolean {
    return this.#sameTypes.has(typeName(identity));
  }

  hangsOnPlatform(one: Definition): boolean {
    return one.table !== null && this.#platform.has(one.table);
  }

  /** Is it dropped and made in one last step? */
  isSwapped(one: Definition): boolean {
    return one.kind === "policy" || (one.kind === "trigger" && this.hangsOnPlatform(one));
  }

  mayActAs(role: string | null): boolean {
    return mayActAs(this.options, role);
  }

  /** Do the rows of this table come back from the backup? */
  rowsComeBack(identity: string): boolean {
    return this.options.replacesRows && this.#tablesWithRows.has(identity);
  }

  /** Reasons to keep an object add up; a refusal stands. */
  note(one: Definition, action: "keep" | "refuse", reason: string): void {
    const known = this.#notes.get(one.identity);
    if (known?.action === "refuse") return;
    const said = known === undefined || action === "refuse" ? reason : `${known.reason}; ${reason}`;
    this.#notes.set(one.identity, { identity: one.identity, kind: one.kind, action, reason: said });
  }

  refuseForOwner(one: Definition, reason: string): void {
    this.note(one, "refuse", `${reason} belongs to ${one.owner}, whom ${this.options.user} may not act for`);
  }

  isDropped(identity: string): boolean {
    return this.#drops.has(identity);
  }

  /** Refused where it is another's, or hangs on a table of another's. What follows from the drop is found later (`nextDrop`). */
  drop(one: Definition, reason: string): void {
    if (this.#drops.has(one.identity)) return;
    if (!this.mayActAs(one.owner) && !this.hangsOnPlatform(one) && !isGrantsOnly(one)) {
      this.refuseForOwner(one, `${reason}, but it`);
      return;
    }
    const holder = this.isBy.get(one.table ?? "");
    if (holder !== undefined && !this.mayActAs(holder.owner)) {
      const { user } = this.options;
      this.note(
        one,
        "refuse",
        `${reason}, but ${holder.identity} belongs to ${holder.owner}, whom ${user} may not act for`,
      );
      return;
    }
    this.#drops.set(one.identity, reason);
    this.#open.push(one.identity);
  }

  takeBackDrop(identity: string): void {
    this.#drops.delete(identity);
  }

  /** One that nobody has followed yet; undefined: there is none left. */
  nextDrop(): string | undefined {
    return this.#open.pop();
  }

  get hasOpenDrops(): boolean {
    return this.#open.length > 0;
  }

  /** Types and routines, as `schema.name`, that a table has to let go of: they are made anew. */
  namesToLetGo(table: string): readonly string[] {
    return [...this.#letGo.get(table) ?? []];
  }

  /** False: it is known already. */
  letGo(table: string, name: string): boolean {
    const names = this.#letGo.get(table) ?? new Set();
    this.#letGo.set(table, names);
    if (names.has(name)) return false;
    names.add(name);
    return true;
  }

  /** What goes is not altered before. */
  changes(): Changes {
    const stays = <T>(found: ReadonlyMap<string, T>) =>
      new Map([...found].filter(([identity]) => !this.#drops.has(identity)));
    return {
      was: this.was,
      is: this.is,
      wasBy: this.wasBy,
      isBy: this.isBy,
      drops: this.#drops,
      lateDrops: this.lateDrops,
      asideTypes: this.asideTypes,
      alterations: stays(this.alterations),
      tables: stays(this.tables),
      swaps: this.swaps,
      asides: this.asides,
      attached: new Set(
        [...this.#attached.values()].filter((one) => this.#drops.has(one.attachment)).map((one) => one.child),
      ),
      notes: [...this.#notes.values()],
    };
  }
}

/** Names of types that columns have, with the same object id in both captures; those of arrays count for their elements. */
function sameTypes(was: SchemaCapture, is: SchemaCapture): ReadonlySet<string> {
  const oids = (capture: SchemaCapture) =>
    new Map(capture.tables.flatMap(({ columns }) => columns.map(({ type, typeOid }) => [type, typeOid])));
  const former = oids(was);
  return new Set(
    [...oids(is)].filter(([type, oid]) => former.get(type) === oid).map(([type]) => type.replace(/\[\]$/, "")),
  );
}

function byIdentity(definitions: readonly Definition[]): Map<string, Definition> {
  return new Map(definitions.map((one) => [one.identity, one]));
}
