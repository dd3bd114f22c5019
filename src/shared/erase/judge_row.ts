/** What the ledger says of one row, outside of a server: the same as `removalConditions` has a server do. */
import type { Identity } from "./entry.ts";
import type { HashKey } from "./hashes.ts";
import { HashSet, hexOf, KeyedHasher, type PreparedIdentity, prepareIdentity } from "./keyed_hash.ts";
import { identityKey, type RemovalTable, type RemovalWay, usersIdentity } from "./removal_plan.ts";

/** A column's text as UTF-8, null for NULL, undefined where it is not known. By the column's place. */
export type ReadColumn = (place: number) => Uint8Array | null | undefined;

/** What the ledger holds, and what was found to go beside it. */
export class ErasedKeys {
  readonly ledger = new HashSet();
  readonly gone = new HashSet();
  readonly ledgerOnly: readonly HashSet[] = [this.ledger];
  readonly all: readonly HashSet[] = [this.ledger, this.gone];
  readonly #known = new Set<string>([identityKey(usersIdentity)]);
  readonly #hashers: readonly KeyedHasher[];

  constructor(keys: readonly HashKey[], hashes: Iterable<string>, identities: Iterable<Identity>) {
    this.#hashers = keys.map((key) => new KeyedHasher(key));
    for (const hash of hashes) this.ledger.add(hash);
    for (const identity of identities) this.#known.add(identityKey(identity));
  }

  /** Can anything be told by the identity of that `identityKey`? */
  knows(key: string): boolean {
    return this.#known.has(key);
  }

  learn(gone: Iterable<string>, identities: Iterable<Identity>): boolean {
    let grew = false;
    for (const hash of gone) if (!this.ledger.hasHex(hash)) grew = this.gone.add(hash) || grew;
    for (const identity of identities) this.#known.add(identityKey(identity));
    return grew;
  }

  isIn(sets: readonly HashSet[], identity: PreparedIdentity, values: readonly Uint8Array[]): boolean {
    for (const hasher of this.#hashers) {
      hasher.hash(identity, values);
      for (const set of sets) if (set.has(hasher.words)) return true;
    }
    return false;
  }

  isErased(identity: PreparedIdentity, values: readonly Uint8Array[]): boolean {
    return this.isIn(this.all, identity, values);
  }

  hexOf(identity: PreparedIdentity, values: readonly Uint8Array[]): string[] {
    return this.#hashers.map((hasher) => {
      hasher.hash(identity, values);
      return hexOf(hasher.words);
    });
  }
}

interface Told {
  readonly identity: Identity;
  /** Its `identityKey`: asked for with each row. */
  readonly key: string;
  readonly prepared: PreparedIdentity;
  readonly places: readonly number[];
}

interface WayTold extends Told {
  readonly way: RemovalWay;
  readonly clear: readonly number[];
  /** The last value that was asked for: rows of one person lie side by side. */
  last: { readonly value: Uint8Array; readonly erased: boolean; readonly revision: number } | null;
}

export type Verdict =
  | { readonly goes: true }
  /** Places of columns that are emptied; none: the row stays as it is. */
  | { readonly goes: false; readonly clear: readonly number[] };

const stays: Verdict = { goes: false, clear: [] };
const goes: Verdict = { goes: true };

/** Of one table whose rows have these columns. `alsoBy`: columns by which the change stream tells its rows. */
export class RowJudge {
  readonly #erased: ErasedKeys;
  readonly #rule: RemovalTable["rule"];
  readonly #identities: readonly Told[];
  readonly #ways: readonly WayTold[];
  /** The last place that is looked at, plus one. */
  readonly width: number;

  constructor(
    erased: ErasedKeys,
    table: RemovalTable,
    columns: readonly string[],
    alsoBy: readonly (readonly string[])[] = [],
  ) {
    const places = new Map(columns.map((name, place) => [name, place]));
    const told = (identity: Identity, own: readonly string[]): Told[] => {
      const found = own.map((name) => places.get(name));
      const all = found.filter((place): place is number => place !== undefined);
      return all.length === own.length
        ? [{ identity, key: identityKey(identity), prepared: prepareIdentity(identity), places: all }]
        : [];
    };
    const { schema, name } = table;
    const more = alsoBy.map((own): Identity => ({ schema, name, columns: [...own].sort() }));
    const identities = new Map([...table.identities, ...more].map((one) => [identityKey(one), one]));
    this.#erased = erased;
    this.#rule = table.rule;
    this.#identities = [...identities.values()].flatMap((one) => told(one, one.columns));
    this.#ways = table.ways.flatMap((way) =>
      told(way.to, way.columns).map((one) => ({
        ...one,
        way,
        clear: way.clear.flatMap((column) => places.get(column) ?? []),
        last: null,
      }))
    );
    const asked = [...this.#identities, ...this.#ways].flatMap((one) => one.places);
    this.width = asked.reduce((most, place) => Math.max(most, place + 1), 0);
  }

  /** Can any row of it go, or change, by what is known now? */
  get matters(): boolean {
    return [...this.#identities, ...this.#ways].some(({ key }) => this.#erased.knows(key));
  }

  get identities(): readonly Identity[] {
    return this.#identities.map(({ identity }) => identity);
  }

  judge(read: ReadColumn): Verdict {
    if (this.#isIn(this.#erased.ledgerOnly, read)) return goes;
    const { reaches, others, stuck, clear } = this.#led(read);
    const theirs = this.#rule !== "shared" && reaches && (this.#rule === "owned" || !others);
    if (!theirs && !stuck) return clear.length === 0 ? stays : { goes: false, clear };
    return goes;
  }

  /** Is it, by its key alone, a row that the ledger names, or one that went? */
  goesByKey(read: ReadColumn): boolean {
    return this.#isIn(this.#erased.all, read);
  }

  /** Does it hold the id of somebody who was erased, in what is there of it? A parent may have become theirs after the row came. */
  namesErased(read: ReadColumn): boolean {
    return this.#ways.some((one) => {
      const values = one.way.isUser && one.way.followed ? valuesOf(one, read) : null;
      return values !== null && this.#isErased(one, values);
    });
  }

  /** Hashes by which others know the row. */
  hashes(read: ReadColumn): string[] {
    return this.#identities.flatMap((one) => {
      const values = valuesOf(one, read);
      return values === null ? [] : this.#erased.hexOf(one.prepared, values);
    });
  }

  #isIn(sets: readonly HashSet[], read: ReadColumn): boolean {
    for (const one of this.#identities) {
      if (!this.#erased.knows(one.key)) continue;
      const values = valuesOf(one, read);
      if (values !== null && this.#erased.isIn(sets, one.prepared, values)) return true;
    }
    return false;
  }

  /** As `removalConditions`: what leads to an erased row, to somebody else, and what cannot stay without. */
  #led(read: ReadColumn): { reaches: boolean; others: boolean; stuck: boolean; clear: number[] } {
    const found = { reaches: false, others: false, stuck: false, clear: [] as number[] };
    for (const one of this.#ways) {
      const { way, key } = one;
      if (!this.#erased.knows(key)) continue;
      const values = valuesOf(one, read);
      if (values === null) continue;
      const erased = this.#isErased(one, values);
      if (way.followed && way.isUser && !erased) found.others = true;
      if (!erased) continue;
      if (way.followed) found.reaches = true;
      if (way.clear.length === 0) found.stuck = true;
      else found.clear.push(...one.clear);
    }
    return found;
  }

  #isErased(one: WayTold, values: readonly Uint8Array[]): boolean {
    const [value] = values;
    if (value === undefined || values.length > 1) return this.#erased.isErased(one.prepared, values);
    const { revision } = this.#erased.gone;
    if (one.last !== null && one.last.revision === revision && same(one.last.value, value)) return one.last.erased;
    const erased = this.#erased.isErased(one.prepared, values);
    one.last = { value: new Uint8Array(value), erased, revision };
    return erased;
  }
}

function valuesOf({ places }: Told, read: ReadColumn): Uint8Array[] | null {
  const values: Uint8Array[] = [];
  for (const place of places) {
    const value = read(place);
    if (value === null || value === undefined) return null;
    values.push(value);
  }
  return values;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
