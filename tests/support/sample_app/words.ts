/** A seeded source of numbers, ids and prose, the same on every machine. */

const vocabulary =
  ("the and of to in a it was that with for on as at by from but not this all they we she he had have " +
    "morning evening river window letter garden coffee market silence harbour mountain winter summer thunder lantern " +
    "walked talked waited listened remembered forgot promised laughed cried slept dreamed wrote cooked planted carried " +
    "slowly gently suddenly almost always never perhaps together alone tomorrow yesterday again finally rather quite " +
    "mother father sister brother neighbour doctor teacher stranger friend colleague children dog cat bird horse " +
    "bread soup apple orange pepper garlic honey butter cheese olive lemon ginger almond walnut cherry plum pear " +
    "blue green yellow quiet bright heavy narrow gentle careful honest stubborn patient restless ordinary remarkable " +
    "train station ticket corner bridge street bicycle kitchen balcony staircase library museum theatre concert song " +
    "anxious calm grateful tired hopeful proud ashamed curious lonely content jealous relieved overwhelmed peaceful " +
    "meeting deadline project review decision mistake apology question answer reason excuse habit exercise breathing " +
    "therapy session journal progress setback routine boundary pattern memory childhood conversation argument silence " +
    "Grüße Straße café naïve façade Ærø Łódź señora Владимир москва 東京 日記 今日 ありがとう שלום مرحبا 😀 🌧️ ☕ 💪🏽 👩‍👩‍👧 e\u0301te\u0301")
    .split(" ");

export interface Seeded {
  /** In [0, 1). */
  number(): number;
  /** In [0, below). */
  integer(below: number): number;
  /** Version 4 in form, from the seed in content. */
  uuid(): string;
  bytes(length: number): Uint8Array;
  /** `count` words with the odd full stop, number and line break; compresses about 3:1. */
  prose(count: number): string;
}

/** Mulberry32: 32 bits of state are plenty for test data. */
export function seeded(seed: number): Seeded {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
  const number = () => next() / 2 ** 32;
  const integer = (below: number) => Math.floor(number() * below);
  const hex = (value: number) => value.toString(16).padStart(8, "0");

  function uuid(): string {
    const [a, b, c, d] = [hex(next()), hex(next()), hex(next()), hex(next())];
    return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-a${c.slice(1, 4)}-${c.slice(4)}${d}`;
  }

  function bytes(length: number): Uint8Array {
    const out = new Uint8Array(length);
    const view = new DataView(out.buffer);
    for (let at = 0; at + 4 <= length; at += 4) view.setUint32(at, next());
    return out;
  }

  function prose(count: number): string {
    let text = "";
    for (let at = 0; at < count; at++) {
      const draw = number();
      text += vocabulary[Math.floor(draw * draw * vocabulary.length)];
      const end = next() & 63;
      if (end < 4) text += ". ";
      else if (end === 4) text += `, ${integer(1000)} `;
      else if (end === 5) text += ".\n";
      else text += " ";
    }
    return text.trimEnd();
  }

  return { number, integer, uuid, bytes, prose };
}
