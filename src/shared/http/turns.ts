/** Turns: so many at a time. The others wait in line, and whoever has many waiting lets those with few go between. */
import { HoldfastError } from "../errors.ts";

export interface TurnBounds {
  readonly atOnce: number;
  /** Of everybody together. */
  readonly waiting: number;
  /** Under one key. */
  readonly waitingOfOne: number;
}

export interface Turns {
  /** Does `work` when it is this key's turn. Errors: `too_many_calls`, at once, where too many wait; those of `work`. */
  take<T>(key: string, work: () => Promise<T>): Promise<T>;
}

export function createTurns({ atOnce, waiting, waitingOfOne }: TurnBounds): Turns {
  /** By key, in the order in which the keys come to their next turn. */
  const lines = new Map<string, (() => void)[]>();
  let [busy, inLine] = [0, 0];

  /** Hands a turn that is over to the next one. */
  function handOn(): void {
    const [first] = lines;
    if (first === undefined) {
      busy--;
      return;
    }
    const [key, line] = first;
    const begin = line.shift();
    lines.delete(key);
    if (line.length > 0) lines.set(key, line);
    inLine--;
    begin?.();
  }

  return {
    async take(key, work) {
      if (busy < atOnce) {
        busy++;
      } else {
        const line = lines.get(key) ?? [];
        if (inLine >= waiting || line.length >= waitingOfOne) throw tooManyCalls();
        inLine++;
        lines.set(key, line);
        await new Promise<void>((resolve) => line.push(resolve));
      }
      try {
        return await work();
      } finally {
        handOn();
      }
    },
  };
}

function tooManyCalls(): HoldfastError {
  return new HoldfastError("too_many_calls", "too many calls wait to be let in", { waitSeconds: 2 });
}
