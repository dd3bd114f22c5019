import { describe, expect, it } from "vitest";
import type { StoredAnchor } from "../../src/shared/audit/anchor.ts";
import { type ChainState, judgeAudit } from "../../src/shared/audit/judge.ts";

const hash = (word: string) => word.padStart(64, "0");
const now = "server/2";
const before = "server/1";

function anchor(place: number, word: string, life = now, store = "one"): StoredAnchor {
  const at = `2026-01-01T00:00:${String(place).padStart(2, "0")}Z`;
  return { install: "i", place, hash: hash(word), life, at, store, name: `${store}/${place}` };
}

/** A chain whose hash at a place is the place itself, in hex. */
function chain(head: number, more: Partial<ChainState> = {}): ChainState {
  const hashAt = new Map(Array.from({ length: head }, (_, index) => [index + 1, hash(String(index + 1))]));
  return { life: now, head, breaks: [], hashAt, ...more };
}

describe("the audit's verdict", () => {
  it("is good where every anchor fits, and says how far they protect", () => {
    expect(judgeAudit(chain(9), [anchor(3, "3"), anchor(7, "7"), anchor(7, "7", now, "two")], [], [])).toEqual({
      ok: true,
      tampered: [],
      rewound: [],
      anchors: 3,
      anchoredTo: 7,
    });
    expect(judgeAudit(chain(0), [], [], [])).toMatchObject({ ok: true, anchoredTo: 0 });
  });

  it("is tampering where an anchor of this server does not fit, or is beyond the end", () => {
    expect(judgeAudit(chain(9), [anchor(3, "3"), anchor(7, "f")], [], []).tampered).toEqual([
      "a row up to place 7 was changed, and the chain after it, as one says of 2026-01-01T00:00:07Z",
    ]);
    expect(judgeAudit(chain(5), [anchor(3, "3"), anchor(7, "7")], [], []).tampered).toEqual([
      "rows up to place 7 are gone, as one says of 2026-01-01T00:00:07Z",
    ]);
  });

  it("is tampering when one store alone still knows better", () => {
    const both = [anchor(3, "3"), anchor(3, "f", now, "two")];
    expect(judgeAudit(chain(9), both, [], [])).toMatchObject({ ok: false, tampered: [expect.stringContaining("two")] });
  });

  it("is a restore, from where to where, when anchors of the life before fit up to a place", () => {
    const anchors = [anchor(3, "3", before), anchor(5, "e", before), anchor(8, "e8", before), anchor(6, "6")];
    expect(judgeAudit(chain(9), anchors, [], [])).toMatchObject({
      ok: false,
      tampered: [],
      rewound: [{ from: { place: 8 }, to: { place: 3 } }],
      anchoredTo: 6,
    });
    expect(judgeAudit(chain(4), [anchor(6, "6", before)], [], []).rewound).toEqual([
      { from: { place: 6, at: "2026-01-01T00:00:06Z" }, to: { place: 0, at: null } },
    ]);
  });

  it("is a restore and another one, each with its own ends", () => {
    const anchors = [
      anchor(2, "2", "a"),
      anchor(6, "a6", "a"),
      anchor(4, "4", "b"),
      anchor(7, "b7", "b"),
      anchor(5, "5"),
    ];
    expect(judgeAudit(chain(9), anchors, [], []).rewound.map(({ from, to }) => [from.place, to.place])).toEqual([
      [6, 2],
      [7, 4],
    ]);
  });

  it("is tampering when an anchor of the life before does not fit and a later one does", () => {
    const anchors = [anchor(3, "f", before), anchor(5, "5", before)];
    expect(judgeAudit(chain(9), anchors, [], [])).toMatchObject({
      ok: false,
      tampered: [expect.stringContaining("place 3")],
      rewound: [],
    });
  });

  it("tells of breaks, of anchors that are gone and of those that do not open", () => {
    const breaks = [{ place: 4, entry: "12", what: "the row is gone" }, { place: null, entry: "9", what: "forged" }];
    const { ok, tampered } = judgeAudit(
      chain(9, { breaks }),
      [],
      [{ store: "one", name: "x" }],
      [{ store: "two", name: "y" }],
    );
    expect(ok).toBe(false);
    expect(tampered).toEqual([
      "place 4 (row 12): the row is gone",
      "row 9: forged",
      "y in two does not open",
      "x is gone from one",
    ]);
  });
});
