/** A binary heap of numbers. */

/** Smallest number first. */
export class Heap {
  readonly #values: number[] = [];

  constructor(values: readonly number[]) {
    for (const value of values) this.push(value);
  }

  push(value: number): void {
    const values = this.#values;
    values.push(value);
    for (let at = values.length - 1; at > 0;) {
      const up = (at - 1) >> 1;
      if (valueAt(values, up) <= valueAt(values, at)) break;
      swap(values, up, at);
      at = up;
    }
  }

  pop(): number | undefined {
    const values = this.#values;
    const first = values[0];
    const last = values.pop();
    if (first === undefined || last === undefined || values.length === 0) return first;
    values[0] = last;
    for (let at = 0;;) {
      const left = at * 2 + 1;
      const right = left + 1;
      let least = at;
      if (left < values.length && valueAt(values, left) < valueAt(values, least)) least = left;
      if (right < values.length && valueAt(values, right) < valueAt(values, least)) least = right;
      if (least === at) return first;
      swap(values, least, at);
      at = least;
    }
  }
}

const valueAt = (values: readonly number[], index: number): number => values[index] ?? Infinity;

function swap(values: number[], a: number, b: number): void {
  [values[a], values[b]] = [valueAt(values, b), valueAt(values, a)];
}
