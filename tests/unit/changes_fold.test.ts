import { describe, expect, it } from "vitest";
import { KeyedFold } from "../../src/shared/changes/replay/fold.ts";
import { CountedFold } from "../../src/shared/changes/replay/fold_counted.ts";
import { type RowChange, unchanged, type Update, type Value } from "../../src/shared/changes/decode/messages.ts";
import { numbersFrom } from "./backup_numbers.ts";

type Old = Update["old"];

const insert = (...row: Value[]): RowChange => ({ kind: "insert", relation: 1, row });
const update = (old: Old, ...row: Value[]): RowChange => ({ kind: "update", relation: 1, old, row });
const remove = (...values: Value[]): RowChange => ({ kind: "delete", relation: 1, old: { what: "key", values } });
const removeRow = (...values: Value[]): RowChange => ({ kind: "delete", relation: 1, old: { what: "row", values } });
const key = (...values: Value[]): Old => ({ what: "key", values });
const whole = (...values: Value[]): Old => ({ what: "row", values });

function folded(keyAt: readonly number[], changes: readonly RowChange[]) {
  const fold = new KeyedFold("app.t", keyAt);
  for (const change of changes) fold.add(change);
  return fold.effect();
}

function counted(...changes: RowChange[]) {
  const fold = new CountedFold("app.t");
  for (const change of changes) fold.add(change);
  return fold.effect();
}

describe("changes of one key come to", () => {
  it("nothing, for a row that came and went", () => {
    expect(folded([0], [insert("1", "a"), update(null, "1", "b"), remove("1", null)]))
      .toEqual({ deleted: [], kept: [], inserted: [] });
  });

  it("one old key and the last row, for many updates", () => {
    expect(folded([0], [update(null, "1", "a"), update(null, "1", "b"), update(null, "1", "c")]))
      .toEqual({ deleted: [["1"]], kept: [], inserted: [["1", "c"]] });
  });

  it("the old key gone and the row under the last one, for a row that moves on and on", () => {
    expect(folded([0], [update(key("1", null), "2", "a"), update(key("2", null), "3", "a")]))
      .toEqual({ deleted: [["1"]], kept: [], inserted: [["3", "a"]] });
  });

  it("both keys gone and both rows back, for two rows that change places", () => {
    const effect = folded([0], [
      update(key("1", null), "9", "a"),
      update(key("2", null), "1", "b"),
      update(key("9", null), "2", "a"),
    ]);
    expect(effect.deleted).toEqual([["1"], ["2"]]);
    expect(effect.inserted).toEqual([["1", "b"], ["2", "a"]]);
  });

  it("a row put in place of one that was there, for a delete and an insert", () => {
    expect(folded([0], [remove("1", null), insert("1", "b")]))
      .toEqual({ deleted: [["1"]], kept: [], inserted: [["1", "b"]] });
  });

  it("different rows where only the border between the key's parts is different", () => {
    expect(folded([0, 1], [insert("a:", "b"), insert("a", ":b"), insert("1:a", ""), insert("", "1:a")]).inserted)
      .toHaveLength(4);
  });
});

describe("a value that did not travel", () => {
  it("is that of an earlier change, where there is one", () => {
    expect(folded([0], [insert("1", "large", "a"), update(null, "1", unchanged, "b")]).inserted)
      .toEqual([["1", "large", "b"]]);
  });

  it("is the target's under the key of before the group, however often the row moved", () => {
    const effect = folded([0], [
      update(key("1", null, null), "2", unchanged, "a"),
      insert("1", "other", "x"),
      update(key("2", null, null), "3", unchanged, "b"),
    ]);
    expect(effect).toEqual({
      deleted: [],
      kept: [{ key: ["1"], row: ["3", unchanged, "b"] }],
      inserted: [["1", "other", "x"]],
    });
  });

  it("is not asked for when the row is deleted or the value replaced later", () => {
    expect(folded([0], [update(null, "1", unchanged), remove("1", null)]))
      .toEqual({ deleted: [["1"]], kept: [], inserted: [] });
    expect(folded([0], [update(null, "1", unchanged), update(null, "1", "new")]))
      .toEqual({ deleted: [["1"]], kept: [], inserted: [["1", "new"]] });
  });

  it("is that of the old key or the old row, where it is part of them", () => {
    expect(folded([0], [update(key("long key", null), unchanged, "b")]).inserted).toEqual([["long key", "b"]]);
    expect(folded([0], [update(whole("1", "large"), "1", unchanged)]).inserted).toEqual([["1", "large"]]);
    expect(counted(update(whole("1", "large"), "2", unchanged)))
      .toEqual({ deleted: [{ row: ["1", "large"], copies: 1 }], inserted: [["2", "large"]] });
  });

  it("is never NULL for want of better", () => {
    expect(() => folded([0], [insert("1", unchanged)])).toThrow(/came without/);
    expect(() => folded([0], [update(null, unchanged, "b")])).toThrow(/came without/);
    expect(() => counted(update(key("1", null), "1", "b"))).toThrow(/came without/);
  });
});

describe("a stream that contradicts itself", () => {
  it.each([
    ["inserts a key twice", [insert("1", "a"), insert("1", "b")]],
    ["deletes a row twice", [remove("1", null), remove("1", null)]],
    ["updates a row after its end", [remove("1", null), update(null, "1", "b")]],
    ["moves a row onto another", [insert("1", "a"), insert("2", "b"), update(key("1", null), "2", "c")]],
  ])("%s and is refused with the table's name and no value", (_what, changes) => {
    expect(() => folded([0], changes)).toThrow(expect.objectContaining({
      code: "counts_differ",
      message: expect.stringMatching(/^the change stream of app\.t (changes|has two)/),
    }));
  });
});

describe("rows without a key", () => {
  it("are known by all of their values, NULL apart from empty, and by their number", () => {
    expect(counted(
      removeRow("a", null),
      removeRow("a", ""),
      removeRow("a", null),
      insert("b", "-"),
      insert("b", null),
      insert("b", "-"),
    )).toEqual({
      deleted: [{ row: ["a", null], copies: 2 }, { row: ["a", ""], copies: 1 }],
      inserted: [["b", "-"], ["b", "-"], ["b", null]],
    });
  });

  it("come to nothing when inserted and then deleted, but must be there when deleted first", () => {
    expect(counted(insert("a"), update(whole("a"), "b"), removeRow("b"))).toEqual({ deleted: [], inserted: [] });
    expect(counted(removeRow("a"), insert("a")))
      .toEqual({ deleted: [{ row: ["a"], copies: 1 }], inserted: [["a"]] });
  });
});

/** A table of rows by key: change by change, values in full; what an update leaves alone may travel as `unchanged`. */
class Model {
  readonly rows = new Map<string, readonly string[]>();

  keyOf(row: readonly (string | null)[]): string {
    return JSON.stringify([row[0], row[2]]);
  }

  /** One random change that fits the rows there are. */
  change(below: (bound: number) => number): RowChange {
    const present = [...this.rows.values()];
    const old = present[below(present.length)];
    const fresh = [String(below(6)), `v${below(1000)}`, String.fromCharCode(97 + below(3)), `w${below(1000)}`];
    const kind = below(10);
    if (old === undefined || kind < 3) {
      if (this.rows.has(this.keyOf(fresh))) return this.change(below);
      this.rows.set(this.keyOf(fresh), fresh);
      return insert(...fresh);
    }
    const oldKey = [old[0] ?? "", null, old[2] ?? "", null];
    if (kind < 5) {
      this.rows.delete(this.keyOf(old));
      return remove(...oldKey);
    }
    const moves = below(3) === 0;
    const next = moves ? fresh : [old[0] ?? "", fresh[1] ?? "", old[2] ?? "", fresh[3] ?? ""];
    const keeps = [below(3) === 0, below(3) === 0];
    if (keeps[0]) next[1] = old[1] ?? "";
    if (keeps[1]) next[3] = old[3] ?? "";
    if (moves && this.keyOf(next) !== this.keyOf(old) && this.rows.has(this.keyOf(next))) return this.change(below);
    this.rows.delete(this.keyOf(old));
    this.rows.set(this.keyOf(next), next);
    const sent: Value[] = [...next];
    if (keeps[0]) sent[1] = unchanged;
    if (keeps[1]) sent[3] = unchanged;
    return update(moves ? key(...oldKey) : null, ...sent);
  }
}

it("any history in groups of any size leads where it leads change by change", () => {
  let kept = 0;
  for (let seed = 1; seed <= 400; seed++) {
    const below = numbersFrom(seed);
    const model = new Model();
    let target = new Map<string, readonly string[]>();
    for (let group = 0; group < 8; group++) {
      const fold = new KeyedFold("app.t", [0, 2]);
      const changes = Array.from({ length: 1 + below(30) }, () => model.change(below));
      for (const change of changes) fold.add(change);
      const effect = fold.effect();
      const next = new Map(target);
      for (const place of [...effect.deleted, ...effect.kept.map((row) => row.key)]) {
        expect(next.delete(JSON.stringify(place)), `seed ${seed}`).toBe(true);
      }
      for (const { key: place, row } of effect.kept) {
        const before = target.get(JSON.stringify(place));
        put(next, model, row.map((value, at) => value === unchanged ? before?.[at] ?? "lost" : value ?? "null"), seed);
        kept++;
      }
      for (const row of effect.inserted) put(next, model, row.map(String), seed);
      expect(Object.fromEntries(next), `seed ${seed}`).toEqual(Object.fromEntries(model.rows));
      target = next;
    }
  }
  expect(kept, "rows that keep values").toBeGreaterThan(1_000);
});

function put(rows: Map<string, readonly string[]>, model: Model, row: readonly string[], seed: number): void {
  expect(rows.has(model.keyOf(row)), `seed ${seed}`).toBe(false);
  rows.set(model.keyOf(row), row);
}

it("any history of duplicates leads to the same rows in the same number, and asks for no more than there were", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const below = numbersFrom(seed);
    const rows: string[][] = [];
    let target: string[] = [];
    for (let group = 0; group < 6; group++) {
      const fold = new CountedFold("app.t");
      for (let step = below(20); step >= 0; step--) {
        const at = below(rows.length);
        const old = rows[at];
        const fresh = [String(below(3)), String(below(2))];
        if (old === undefined || below(3) === 0) {
          rows.push(fresh);
          fold.add(insert(...fresh));
        } else if (below(2) === 0) {
          rows.splice(at, 1);
          fold.add(removeRow(...old));
        } else {
          rows[at] = fresh;
          fold.add(update(whole(...old), ...fresh.map((value, part) => value === old[part] ? unchanged : value)));
        }
      }
      const { deleted, inserted } = fold.effect();
      for (const { row, copies } of deleted) {
        for (let copy = 0; copy < copies; copy++) {
          const at = target.indexOf(row.join());
          expect(at, `seed ${seed}`).toBeGreaterThanOrEqual(0);
          target.splice(at, 1);
        }
      }
      target.push(...inserted.map((row) => row.join()));
      target = target.sort();
      expect(target, `seed ${seed}`).toEqual(rows.map((row) => row.join()).sort());
    }
  }
});
