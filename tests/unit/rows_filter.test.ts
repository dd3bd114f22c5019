/** The filter over COPY text, against one that splits and decodes every row. */
import { randomInt } from "node:crypto";
import { describe, expect, it } from "vitest";
import { orderCopyFields } from "../../src/shared/rows/past/backup_fields.ts";
import type { RowFilter } from "../../src/shared/rows/past/past.ts";
import { compileRowFilter, type FilterColumn, filterRows } from "../../src/shared/rows/past/row_filter.ts";
import { textForm } from "../../src/shared/rows/past/row_filter_types.ts";

const utf8 = new TextEncoder();
const decoded = (bytes: Uint8Array) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);
const column = (name: string, type = "text"): FilterColumn => ({ name, form: textForm(type) });

/** Source: PostgreSQL documentation, COPY, "Text Format". */
const escapes: Readonly<Record<string, string>> = {
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
};

const escaped = (value: string | null): string =>
  value === null ? "\\N" : [...value].map((sign) => escapes[sign] ?? sign).join("");

function unescaped(field: string): string | null {
  if (field === "\\N") return null;
  const back = new Map(Object.entries(escapes).map(([sign, text]) => [text, sign]));
  return field.replace(/\\./gs, (pair) => back.get(pair) ?? pair);
}

/** Rows of values that fit, by the values themselves. */
function naive(text: string, columns: readonly string[], filter: NonNullable<RowFilter>): string {
  return text.split("\n").slice(0, -1).filter((row) => {
    const values = new Map(row.split("\t").map((field, at) => [columns[at], unescaped(field)]));
    return filter.some((condition) =>
      [...condition.values].some((tuple) =>
        tuple.split("\t").every((part, at) => {
          const value = values.get(condition.columns[at] ?? "");
          return value !== null && value !== undefined && value === unescaped(part);
        })
      )
    );
  }).map((row) => `${row}\n`).join("");
}

function generator(seed: number) {
  let state = seed;
  const below = (limit: number) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor(state / 2147483648 * limit);
  };
  const pick = <T>(from: readonly T[]): T => from[below(from.length)] as T;
  return { below, pick };
}

const pieces = [
  "a",
  "ab",
  "é",
  "日本",
  "🙂",
  " x",
  "N",
  "\\N",
  "\\",
  "\\\\",
  "\t",
  "\n",
  "\r",
  "\b",
  "\f",
  "\v",
  "1",
  "longer than six",
  "\u0001",
  "\u0007",
];

describe("rows that fit a filter", () => {
  it("are those that a filter finds that splits and decodes, on random rows with every escape", () => {
    for (let round = 0; round < 400; round++) {
      const seed = randomInt(1e9);
      const { below, pick } = generator(seed);
      const names = Array.from({ length: 1 + below(5) }, (_, at) => `c${at}`);
      const value = (): string | null =>
        below(8) === 0 ? null : Array.from({ length: below(6) }, () => pick(pieces)).join("");
      const known = Array.from({ length: 1 + below(12) }, value);
      const rows = Array.from({ length: below(60) }, () => names.map(() => below(2) === 0 ? pick(known) : value()));
      const text = rows.map((row) => `${row.map(escaped).join("\t")}\n`).join("");
      const filter = Array.from({ length: below(3) }, () => {
        const columns = names.filter(() => below(2) === 0).sort(() => below(3) - 1);
        const used = columns.length === 0 ? [pick(names)] : columns;
        const taken = Array.from({ length: below(4) }, () => {
          const from = below(3) === 0 ? undefined : rows[below(rows.length)];
          return used.map((name) => escaped(from?.[names.indexOf(name)] ?? (below(9) === 0 ? null : pick(known))));
        });
        return { columns: used, values: new Set(taken.map((parts) => parts.join("\t"))) };
      });
      const got = decoded(filterRows(utf8.encode(text), names.map((name) => column(name)), filter));
      expect(got, `seed ${seed}`).toBe(naive(text, names, filter));
    }
  });

  it("are found by one long value wherever it stands, and not where it is only a part of another", () => {
    const id = "11111111-2222-3333-4444-555555555555";
    const columns = [column("a", "uuid"), column("b"), column("c", "uuid")];
    const text = [
      `${id}\tx\t${id}`,
      `${id}\t\\N\t\\N`,
      `\\N\t${id}\t${id}`,
      `x${id}\t${id}x\t${id}y`,
      `z\tx${id}\t\\N`,
      `${id}\t${id}\tz`,
    ].map((row) => `${row}\n`);
    const kept = (name: string) =>
      decoded(filterRows(utf8.encode(text.join("")), columns, [{ columns: [name], values: new Set([id]) }]));
    expect(kept("a")).toBe([text[0], text[1], text[5]].join(""));
    expect(kept("b")).toBe([text[2], text[5]].join(""));
    expect(kept("c")).toBe([text[0], text[2]].join(""));
    expect(decoded(filterRows(utf8.encode(`${id}\n`), [column("a")], [{ columns: ["a"], values: new Set([id]) }])))
      .toBe(`${id}\n`);
    const long = "long ".repeat(200_000).trim();
    expect(
      filterRows(utf8.encode(`1\t${long}\n2\tx\n`), [column("n"), column("a")], [{
        columns: ["a"],
        values: new Set([long]),
      }]),
    )
      .toHaveLength(long.length + 3);
  });

  it("are none where a condition has no value but null, and nothing is to be read then", () => {
    expect(compileRowFilter([column("a")], [])).toBeNull();
    expect(compileRowFilter([column("a")], [{ columns: ["a"], values: new Set() }])).toBeNull();
    expect(compileRowFilter([column("a")], [{ columns: ["a"], values: new Set(["\\N"]) }])).toBeNull();
    expect(decoded(filterRows(utf8.encode("\\N\na\n"), [column("a")], [{ columns: ["a"], values: new Set(["\\N"]) }])))
      .toBe("");
  });

  it("are all where the type's text does not tell, where a value has another form, and without a filter", () => {
    const text = utf8.encode("1\tx\n2\ty\n");
    const all = (type: string, value: string) =>
      filterRows(text, [column("a", type), column("b")], [{ columns: ["a"], values: new Set([value]) }]) === text;
    expect(filterRows(text, [column("a"), column("b")], null)).toBe(text);
    expect(all("numeric", "1")).toBe(true);
    expect(all("double precision", "1")).toBe(true);
    expect(all("character(3)", "1")).toBe(true);
    expect(all("public.mood", "1")).toBe(true);
    expect(all("extensions.citext", "1")).toBe(true);
    expect(all("integer[]", "1")).toBe(true);
    expect(all("integer", "1")).toBe(false);
    expect(all("integer", "1.00")).toBe(true);
    expect(all("date", "2024-01-01 00:00:00")).toBe(true);
    expect(all("timestamp with time zone", "2024-01-01 00:00:00+02")).toBe(true);
    expect(all("text", "1  ")).toBe(true);
    expect(all("bytea", "\\\\x0f")).toBe(false);
    expect(all("bytea", "\\\\x")).toBe(false);
    for (const value of ["\\\\x0", "\\\\x0f0", "\\\\x0F", "\\\\xzz", "0f", "\\\\"]) {
      expect(all("bytea", value), value).toBe(true);
    }
    expect(decoded(filterRows(text, [column("a"), column("b")], [{ columns: ["gone"], values: new Set(["1"]) }])))
      .toBe("1\tx\n2\ty\n");
  });

  it("are found by a value of bytea of 40 MB", () => {
    const value = `\\\\x${"0f".repeat(20_000_000)}`;
    const text = utf8.encode(`\\\\x00\n${value}\n`);
    const found = filterRows(text, [column("a", "bytea")], [{ columns: ["a"], values: new Set([value]) }]);
    expect(found.length).toBe(value.length + 1);
  });

  it("are narrowed by the columns that tell, where another of the same condition does not", () => {
    const text = utf8.encode("1\t1.0\n2\t1\n1\t2\n");
    const columns = [column("a", "integer"), column("b", "numeric")];
    expect(decoded(filterRows(text, columns, [{ columns: ["b", "a"], values: new Set(["1\t1"]) }])))
      .toBe("1\t1.0\n1\t2\n");
  });

  it("are found by values whose signs the caller left unescaped where the server escapes them", () => {
    const text = utf8.encode("a\\bb\nc\\vd\n");
    expect(decoded(filterRows(text, [column("a")], [{ columns: ["a"], values: new Set(["a\bb", "x"]) }])))
      .toBe("a\\bb\n");
  });

  it("come out of a text that is cut, or too narrow, as object_damaged", () => {
    const filter = [{ columns: ["b"], values: new Set(["x", "y"]) }];
    const columns = [column("a"), column("b")];
    expect(() => filterRows(utf8.encode("1\tx\n2\ty"), columns, filter)).toThrowError(
      expect.objectContaining({ code: "object_damaged" }),
    );
    expect(() => filterRows(utf8.encode("1\tx\n2\n"), columns, filter)).toThrowError(
      expect.objectContaining({ code: "object_damaged" }),
    );
  });
});

describe("fields in another order", () => {
  it("are the same values, as often and in any order as asked, on random rows", () => {
    for (let round = 0; round < 200; round++) {
      const seed = randomInt(1e9);
      const { below, pick } = generator(seed);
      const fields = 1 + below(5);
      const rows = Array.from(
        { length: below(20) },
        () =>
          Array.from(
            { length: fields },
            () => escaped(below(6) === 0 ? null : Array.from({ length: below(60) }, () => pick(pieces)).join("")),
          ),
      );
      const order = Array.from({ length: fields }, (_, at) => at).sort(() => below(3) - 1).slice(0, 1 + below(fields));
      const lines = (of: readonly (readonly string[])[]) => of.map((row) => `${row.join("\t")}\n`).join("");
      const got = decoded(orderCopyFields(utf8.encode(lines(rows)), fields, order));
      expect(got, `seed ${seed}`).toBe(lines(rows.map((row) => order.map((at) => row[at] ?? ""))));
    }
  });

  it("of rows without columns are empty rows, and rows of another width are object_damaged", () => {
    expect(decoded(orderCopyFields(utf8.encode("\n\n"), 0, []))).toBe("\n\n");
    for (const text of ["a\tb\n", "a\tb\tc\td\n", "a\tb\tc"]) {
      expect(() => orderCopyFields(utf8.encode(text), 3, [2, 1, 0])).toThrowError(
        expect.objectContaining({ code: "object_damaged" }),
      );
    }
  });
});
