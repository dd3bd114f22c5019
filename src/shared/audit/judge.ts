/** What the chain and its anchors say together. Pure. */
import type { StoredAnchor } from "./anchor.ts";

/** A place at which the database itself shows that its audit was changed. */
export interface ChainBreak {
  /** Null for a row outside of the chain. */
  readonly place: number | null;
  /** Null where it is no row. */
  readonly entry: string | null;
  readonly what: string;
}

export interface ChainState {
  /** Of this server (`backup.server_life`). */
  readonly life: string;
  /** Last place; 0 for an empty chain. */
  readonly head: number;
  readonly breaks: readonly ChainBreak[];
  /** Hashes in hex, of the anchors' places. */
  readonly hashAt: ReadonlyMap<number, string>;
}

/** Anchors that a store should hold, and does not. */
export interface MissingAnchor {
  readonly store: string;
  readonly name: string;
}

/** The database went back to what it was: what stood in the audit after `to` is gone from it, up to `from` at least. */
export interface Rewound {
  readonly from: { readonly place: number; readonly at: string };
  /** Place 0: before the first anchor. */
  readonly to: { readonly place: number; readonly at: string | null };
}

export interface AuditVerdict {
  readonly ok: boolean;
  /** In words, each a sign of tampering. */
  readonly tampered: readonly string[];
  /** By managed restores or moves to another server. */
  readonly rewound: readonly Rewound[];
  readonly anchors: number;
  /** The last place that an anchor protects; rows after it are not protected yet. */
  readonly anchoredTo: number;
}

/**
 * A hash covers all rows before it: an anchor that fits vouches for everything up to its place. One of this server's life that
 * does not fit is tampering. Of an earlier life those up to a place fit and the later ones do not, where the database was put
 * back to that place; one that does not fit before another that does is tampering.
 */
export function judgeAudit(
  chain: ChainState,
  anchors: readonly StoredAnchor[],
  missing: readonly MissingAnchor[],
  damaged: readonly MissingAnchor[],
): AuditVerdict {
  const fits = ({ place, hash }: StoredAnchor) => chain.hashAt.get(place) === hash;
  const tampered = [
    ...chain.breaks.map(({ place, entry, what }) =>
      entry === null ? what : `${place === null ? `row ${entry}` : `place ${place} (row ${entry})`}: ${what}`
    ),
    ...damaged.map(({ store, name }) => `${name} in ${store} does not open`),
    ...missing.map(({ store, name }) => `${name} is gone from ${store}`),
  ];
  const rewound: Rewound[] = [];
  // Of the lives so far.
  let held: StoredAnchor | undefined;
  for (const [life, all] of byLife(anchors)) {
    const wrong = all.filter((anchor) => !fits(anchor));
    if (life === chain.life) {
      tampered.push(...wrong.map((anchor) => `${said(anchor, chain)}, as ${anchor.store} says of ${anchor.at}`));
      continue;
    }
    const lastRight = all.findLast(fits)?.place ?? 0;
    held = all.findLast(fits) ?? held;
    const between = wrong.filter(({ place }) => place <= lastRight);
    tampered.push(...between.map((anchor) => `${said(anchor, chain)}, as ${anchor.store} says of ${anchor.at}`));
    const first = wrong.find(({ place }) => place > lastRight);
    const furthest = wrong.at(-1);
    if (first === undefined || furthest === undefined) continue;
    rewound.push({
      from: { place: furthest.place, at: furthest.at },
      to: { place: held?.place ?? 0, at: held?.at ?? null },
    });
  }
  const anchoredTo = Math.max(0, ...anchors.filter(fits).map(({ place }) => place));
  return { ok: tampered.length === 0 && rewound.length === 0, tampered, rewound, anchors: anchors.length, anchoredTo };
}

function said({ place }: StoredAnchor, { head }: ChainState): string {
  return place > head
    ? `rows up to place ${place} are gone`
    : `a row up to place ${place} was changed, and the chain after it`;
}

/** In the order of their places, lives in the order in which they began. */
function byLife(anchors: readonly StoredAnchor[]): Map<string, StoredAnchor[]> {
  const sorted = anchors.toSorted((a, b) => a.at < b.at ? -1 : a.at > b.at ? 1 : a.place - b.place);
  const lives = new Map<string, StoredAnchor[]>();
  for (const anchor of sorted) lives.set(anchor.life, [...lives.get(anchor.life) ?? [], anchor]);
  for (const [life, all] of lives) lives.set(life, all.toSorted((a, b) => a.place - b.place));
  return lives;
}
