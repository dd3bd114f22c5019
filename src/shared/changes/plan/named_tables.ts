/** What tables are called on the way from a full backup to a point, and which of them a name means at its end. */
import { quoteQualified, splitQualified, unquoteIdent } from "../../schema/quote.ts";

/** Names are `schema.name`, quoted where needed. */
export interface NamedTables {
  /** Names of the tables at the point, by oid. */
  readonly tables: ReadonlyMap<number, string>;
  /** What tables were called before, by oid: also those that were dropped. */
  readonly formerNames: ReadonlyMap<number, ReadonlySet<string>>;
}

/** Is told of names in the order of the stream. */
export class TableNames implements NamedTables {
  readonly #now = new Map<number, string>();
  readonly #former = new Map<number, Set<string>>();
  /** Names that tables were given behind the point. */
  readonly #later = new Map<string, Set<number>>();
  /** Made behind the point. */
  readonly #unmade = new Set<number>();
  readonly #dropped = new Set<number>();

  constructor(tables: Iterable<{ readonly oid: number; readonly schema: string; readonly name: string }>) {
    for (const { oid, schema, name } of tables) this.#now.set(oid, quoteQualified(schema, name));
  }

  get tables(): ReadonlyMap<number, string> {
    return this.#now;
  }

  get formerNames(): ReadonlyMap<number, ReadonlySet<string>> {
    return this.#former;
  }

  /** A command made the table, or left it, with this name; the former one, where that was another. */
  named(oid: number, name: string): string | null {
    const former = this.#now.get(oid);
    this.#now.set(oid, name);
    if (former === undefined || former === name) return null;
    this.#add(this.#former, oid, former);
    return former;
  }

  dropped(oid: number): void {
    const former = this.#now.get(oid);
    if (former !== undefined) this.#add(this.#former, oid, former);
    this.#now.delete(oid);
    this.#dropped.add(oid);
  }

  /** Behind the point. */
  laterNamed(oid: number, name: string): void {
    this.#add(this.#later, name, oid);
  }

  /** Behind the point. */
  laterMade(oid: number): void {
    if (!this.#now.has(oid)) this.#unmade.add(oid);
  }

  renamedSchema(former: string, now: string): void {
    for (const [oid, table] of this.#now) {
      const moved = inSchema(table, former, now);
      if (moved !== null) this.named(oid, moved);
    }
  }

  isDropped(oid: number): boolean {
    return this.#dropped.has(oid);
  }

  wasNamed(name: string): boolean {
    return [...this.#former.values()].some((names) => names.has(name));
  }

  /**
   * Tables at the point that a segment's list may mean by this name: it is read from the catalog at some moment around the
   * segment. Itself where none is known.
   */
  everNamed(name: string): string[] {
    const later = this.#later.get(name);
    const found = [...this.#now].filter(([oid, now]) =>
      now === name || this.#former.get(oid)?.has(name) === true || later?.has(oid) === true
    );
    return found.length === 0 ? [name] : found.map(([, now]) => now);
  }

  /** What a table of a segment's list is called at the point; by its oid where the list and the log tell it. */
  listedAs(
    { oid, schema, name }: { readonly oid?: number | undefined; readonly schema: string; readonly name: string },
  ) {
    if (oid !== undefined && (this.#dropped.has(oid) || this.#unmade.has(oid))) return [];
    const now = oid === undefined ? undefined : this.#now.get(oid);
    return now === undefined ? this.everNamed(quoteQualified(schema, name)) : [now];
  }

  #add<Key, Value>(map: Map<Key, Set<Value>>, key: Key, value: Value): void {
    map.set(key, (map.get(key) ?? new Set()).add(value));
  }
}

function inSchema(table: string, former: string, now: string): string | null {
  const [schema, name] = splitQualified(table) ?? [];
  return schema === undefined || name === undefined || unquoteIdent(schema) !== former
    ? null
    : quoteQualified(now, unquoteIdent(name));
}

export interface MeantTables {
  readonly oids: ReadonlySet<number>;
  /** At the point, each once; those that nothing was called stay as they were given. */
  readonly names: readonly string[];
  /** Those that nothing was called. */
  readonly unknown: readonly string[];
}

/**
 * What people mean by these names: the table that is called so at the point, else every table that was before. Dropped ones
 * that were called so are meant as well.
 */
export function meantTables({ tables, formerNames }: NamedTables, names: readonly string[]): MeantTables {
  const oids = new Set<number>();
  const meant = new Set<string>();
  const unknown = new Set<string>();
  for (const name of names) {
    const former = [...formerNames].filter(([, had]) => had.has(name)).map(([oid]) => oid);
    const here = [...tables].filter(([, now]) => now === name).map(([oid]) => oid);
    const living = here.length > 0 ? here : former.filter((oid) => tables.has(oid));
    const gone = former.filter((oid) => !tables.has(oid));
    for (const oid of [...living, ...gone]) oids.add(oid);
    for (const oid of living) meant.add(tables.get(oid) ?? name);
    if (living.length === 0) meant.add(name);
    if (living.length + gone.length === 0) unknown.add(name);
  }
  return { oids, names: [...meant], unknown: [...unknown] };
}

export interface SchemaRename {
  readonly former: string;
  readonly now: string;
}

/** Of `ALTER SCHEMA … RENAME TO …`; null for any other statement. */
export function schemaRename(statement: string): SchemaRename | null {
  const [, former, now] = renamed.exec(statement) ?? [];
  return former === undefined || now === undefined ? null : { former: folded(former), now: folded(now) };
}

const part = `("(?:[^"]|"")+"|[^\\s".;]+)`;
const renamed = new RegExp(`^alter\\s+schema\\s+${part}\\s+rename\\s+to\\s+${part}\\s*;?\\s*$`, "i");

/** As the server reads a name that somebody typed. */
function folded(name: string): string {
  return name.startsWith('"') ? unquoteIdent(name) : name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}
