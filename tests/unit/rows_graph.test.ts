import { describe, expect, it } from "vitest";
import {
  readForeignKey,
  readPartition,
  readPartitioned,
  readPrimaryKey,
} from "../../src/shared/rows/past/read_definitions.ts";
import { groupsInOrder } from "../../src/shared/rows/ownership/link_groups.ts";

describe("a foreign key's statement", () => {
  const head =
    `alter table only public.a add constraint "a ""REFERENCES"" b" FOREIGN KEY (x, "ON DELETE") REFERENCES "B".b(i, j)`;

  it("is read with quoted names and both lists of columns", () => {
    expect(readForeignKey(head)).toEqual({
      constraint: 'a "REFERENCES" b',
      from: { schema: "public", name: "a" },
      columns: ["x", "ON DELETE"],
      to: { schema: "B", name: "b" },
      toColumns: ["i", "j"],
      onDelete: "no action",
    });
    expect(readForeignKey(head.replace("table only", "table")).from).toEqual({ schema: "public", name: "a" });
  });

  for (
    const [tail, onDelete] of [
      [" ON DELETE CASCADE", "cascade"],
      [" MATCH FULL ON UPDATE SET NULL ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED", "restrict"],
      [" ON UPDATE CASCADE", "no action"],
      [` ON UPDATE CASCADE ON DELETE SET NULL ("ON DELETE") NOT VALID`, "set null"],
      [" ON DELETE SET DEFAULT (x) DEFERRABLE", "set default"],
    ] as const
  ) {
    it(`ending in${tail} deletes with ${onDelete}`, () => {
      expect(readForeignKey(head + tail).onDelete).toBe(onDelete);
    });
  }

  it("of another form is refused, not guessed", () => {
    for (const odd of ["FOREIGN KEY x", "PRIMARY KEY (x)", "FOREIGN KEY (x) REFERENCES b(i)"]) {
      expect(() => readForeignKey(`alter table public.a add constraint c ${odd}`)).toThrowError(
        expect.objectContaining({ code: "internal" }),
      );
    }
  });
});

describe("other statements", () => {
  it("of primary keys give their columns without those that are included", () => {
    expect(
      readPrimaryKey("alter table only public.a add constraint k PRIMARY KEY (b, a) INCLUDE (c) with (fillfactor=8)"),
    )
      .toEqual({ table: { schema: "public", name: "a" }, columns: ["b", "a"] });
  });

  it("of partitions give parent and child", () => {
    expect(readPartition(`alter table only public.p attach partition "C".c FOR VALUES IN ('x, y')`)).toEqual({
      parent: { schema: "public", name: "p" },
      child: { schema: "C", name: "c" },
    });
  });

  it("of tables give columns where the table is partitioned, and nothing else", () => {
    expect(readPartitioned("create table public.a (\n    x integer\n)")).toBeNull();
    expect(readPartitioned("create table public.a ()")).toBeNull();
    expect(
      readPartitioned("create unlogged table public.a (\n    x integer default 1 not null\n) partition by HASH (x)"),
    )
      .toEqual([{ name: "x", type: "integer", notNull: true }]);
    expect(readPartitioned("alter table public.a add column x integer")).toBeNull();
  });
});

describe("groups in order", () => {
  it("come after what they lead to, cycles together, whatever the order of the items", () => {
    const leadsTo: Record<string, string[]> = { a: ["b"], b: ["c", "d"], c: ["a"], d: [], e: ["c", "f"], f: ["f"] };
    for (
      const items of [["a", "b", "c", "d", "e", "f"], ["f", "e", "d", "c", "b", "a"], ["e", "a", "d", "f", "c", "b"]]
    ) {
      const groups = groupsInOrder(items, (item) => leadsTo[item] ?? []);
      const place = (item: string) => groups.findIndex((group) => group.includes(item));
      expect(groups.map((group) => group.toSorted().join("")).toSorted()).toEqual(["abc", "d", "e", "f"]);
      expect(place("d")).toBeLessThan(place("a"));
      expect(place("a")).toBeLessThan(place("e"));
      expect(place("f")).toBeLessThan(place("e"));
    }
  });
});
