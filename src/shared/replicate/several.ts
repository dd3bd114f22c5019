/** Several pieces of work at once, bounded in number and in bytes. */

export interface SeveralBounds {
  readonly most: number;
  /** More than one only while they are no more than this together. */
  readonly mostBytes: number;
}

export interface Piece {
  readonly bytes: number;
  /** Nothing is done beside it: it begins after all before it have ended, and ends before what comes after begins. */
  readonly alone: boolean;
}

/**
 * Begins the pieces in their order; one for which `act` says false, or throws, is the last that is begun. All that were begun
 * have ended when it returns. True: every piece was done. The first error is thrown, once nothing is under way any more.
 */
export async function severalAtOnce<T extends Piece>(
  pieces: readonly T[],
  { most, mostBytes }: SeveralBounds,
  act: (piece: T) => Promise<boolean>,
): Promise<boolean> {
  const underWay = new Set<Promise<void>>();
  let bytes = 0;
  let goesOn = true;
  let failure: { readonly error: unknown } | null = null;
  const fits = (piece: T) =>
    underWay.size === 0 || (!piece.alone && underWay.size < most && bytes + piece.bytes <= mostBytes);
  for (const piece of pieces) {
    while (goesOn && !fits(piece)) await Promise.race(underWay);
    if (!goesOn) break;
    bytes += piece.bytes;
    const work = act(piece).then(
      (more) => void (goesOn &&= more),
      (error: unknown) => {
        goesOn = false;
        failure ??= { error };
      },
    ).finally(() => {
      bytes -= piece.bytes;
      underWay.delete(work);
    });
    underWay.add(work);
    if (piece.alone) await work;
  }
  await Promise.all(underWay);
  if (failure !== null) throw (failure as { readonly error: unknown }).error;
  return goesOn;
}
