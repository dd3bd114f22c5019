/** Numbers from a seed, the same on every machine; each session of a history has its own. */
export interface Random {
  /** 0 … below - 1. */
  below(limit: number): number;
  /** True with this probability, 0 … 1. */
  chance(probability: number): boolean;
  pick<T>(list: readonly T[]): T;
  /** For positions and moments, which do not fit into a number; limit at least 1. */
  belowBig(limit: bigint): bigint;
}

/** splitmix32, with its constants. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  const word = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
  const below = (limit: number) => Math.floor(word() / 2 ** 32 * limit);
  return {
    below,
    chance: (probability) => word() / 2 ** 32 < probability,
    pick: (list) => {
      const found = list[below(list.length)];
      if (found === undefined) throw new Error("nothing to pick from");
      return found;
    },
    belowBig: (limit) => ((BigInt(word()) << 32n) | BigInt(word())) % limit,
  };
}
