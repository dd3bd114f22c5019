/** Which row a drill takes: in turn, out of COPY text, named by its key. */
import { describe, expect, it } from "vitest";
import { type Candidate, conditionsOf, fieldsOf, inTurn, rowAt } from "../../src/shared/drills/choose_rows.ts";
import { unexpected } from "../../src/shared/drills/expected_absences.ts";
import { microsOf } from "../../src/shared/drills/recover.ts";
import { changedBy, together } from "../../src/shared/restore/prove_steps.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const candidate = (name: string) => ({ shape: { schema: "public", name } }) as Candidate;
const names = (candidates: readonly Candidate[]) => candidates.map(({ shape }) => shape.name);

describe("the table that is taken", () => {
  it("was never tried, else is the one that was tried longest ago", () => {
    const all = ["c", "a", "b"].map(candidate);
    expect(names(inTurn(all, new Map()))).toEqual(["a", "b", "c"]);
    expect(names(inTurn(all, new Map([["public.a", "2026-01-01"]])))).toEqual(["b", "c", "a"]);
    const tried = new Map([["public.a", "2026-03-01"], ["public.b", "2026-01-01"], ["public.c", "2026-02-01"]]);
    expect(names(inTurn(all, tried))).toEqual(["b", "c", "a"]);
  });

  it("comes round to every table before any comes twice", () => {
    const all = ["a", "b", "c", "d"].map(candidate);
    const tried = new Map<string, string>();
    const taken = Array.from({ length: 8 }, (_, month) => {
      const [first] = names(inTurn(all, tried));
      tried.set(`public.${first}`, `2026-${String(month + 1).padStart(2, "0")}`);
      return first;
    });
    expect(taken).toEqual(["a", "b", "c", "d", "a", "b", "c", "d"]);
  });
});

describe("a row of COPY text", () => {
  const text = bytes("1\ta\\tb\\n\\\\c\t\\N\n2\t\t\\\\N\n");

  it("is found by its place, with the end of its line", () => {
    expect(new TextDecoder().decode(rowAt(text, 0))).toBe("1\ta\\tb\\n\\\\c\t\\N\n");
    expect(new TextDecoder().decode(rowAt(text, 1))).toBe("2\t\t\\\\N\n");
    expect(() => rowAt(text, 2)).toThrow("fewer rows");
  });

  it("gives the values as the server wrote them, NULL apart from the text that looks like it", () => {
    expect(fieldsOf(rowAt(text, 0))).toEqual(["1", "a\tb\n\\c", null]);
    expect(fieldsOf(rowAt(text, 1))).toEqual(["2", "", "\\N"]);
  });

  it("is named by its key, and by no key that has no value", () => {
    expect(conditionsOf(["id", "v", "w"], rowAt(text, 0), ["v", "id"])).toEqual([
      { column: "v", value: "a\tb\n\\c" },
      { column: "id", value: "1" },
    ]);
    expect(conditionsOf(["id", "v", "w"], rowAt(text, 0), ["w"])).toBeNull();
    expect(conditionsOf(["id", "v", "w"], rowAt(text, 0), ["id", "w"]), "half a key names other rows").toBeNull();
    expect(conditionsOf(["id", "v", "w"], rowAt(text, 0), [])).toBeNull();
  });
});

describe("what a second database on a server cannot have", () => {
  it.each([
    ["extension pg_cron", "can only create extension in database postgres"],
    ["cron job 1", "needs extension pg_cron"],
    ["default privileges 1", "postgres may not set default privileges for supabase_admin"],
    ["publication p", "postgres may not publish all tables"],
    ["event trigger e", "it does the platform's work, on a project only"],
    ["rows of table cron.job", "the target does not have the table"],
  ])("is expected: %s", (identity, reason) => {
    expect(unexpected([{ identity, reason }])).toEqual([]);
  });

  it.each([
    ["extension postgis", "the server does not have it"],
    ["table public.places", "needs extension postgis"],
    ["rows of table public.places", "postgres may not write to the table"],
    ["function public.f()", "syntax error"],
  ])("is no excuse for anything else: %s", (identity, reason) => {
    expect(unexpected([{ identity, reason }])).toEqual([{ identity, reason }]);
  });
});

it("moments keep their microseconds", () => {
  expect(microsOf("2026-11-22T03:46:58.123456Z")).toBe(1_795_319_218_123_456n);
  expect(microsOf("2026-11-22T03:46:58Z")).toBe(1_795_319_218_000_000n);
  expect(microsOf("2026-11-22T03:46:58.12Z")).toBe(1_795_319_218_120_000n);
});

it("hashes of parts are together the hash of the whole, whatever the parts", () => {
  const part = (n: number) => ({
    rows: "1",
    sum: String(BigInt(n) * -7_777_777_777_777_777n),
    xor: String(BigInt(n) * -3_333_333_333_333n),
  });
  const one = together(together(part(1), part(2)), part(3));
  expect(one).toEqual(together(part(1), together(part(3), part(2))));
  expect(one.rows).toBe("3");
  expect(BigInt(one.xor)).toBe(BigInt(part(1).xor) ^ BigInt(part(2).xor) ^ BigInt(part(3).xor));
});

it("a difference is the log's where it names the object, what is part of it, or what hangs on it, and no other's", () => {
  const changed = { definitions: ["public.people", "public.f(integer)"], unnamed: false };
  const isChanged = changedBy(changed, [
    { identity: "index public.by_name", table: "table public.people", dependsOn: [] },
    { identity: "view public.v", table: null, dependsOn: ["table public.people"] },
    { identity: "view public.w", table: null, dependsOn: ["table public.peoples"] },
  ]);
  const of = (kind: "definition" | "sequence" | "rows" | "privileges", name: string) =>
    isChanged({ kind, name, detail: "" });
  expect(of("definition", "table public.people")).toBe(true);
  expect(of("definition", "constraint c on public.people")).toBe(true);
  expect(of("definition", "function public.f(integer)")).toBe(true);
  expect(of("definition", "index public.by_name")).toBe(true);
  expect(of("definition", "view public.v")).toBe(true);
  expect(of("definition", "view public.w")).toBe(false);
  expect(of("definition", "table public.peoples")).toBe(false);
  expect(of("definition", "table not_public.people")).toBe(false);
  expect(of("sequence", "sequence public.people_id_seq")).toBe(false);
  expect(of("rows", "table public.people")).toBe(false);
  expect(of("privileges", "table public.other")).toBe(false);
  expect(changedBy({ ...changed, unnamed: true }, [])({ kind: "privileges", name: "table public.other", detail: "" }))
    .toBe(true);
});
