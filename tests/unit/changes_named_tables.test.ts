import { describe, expect, it } from "vitest";
import type { Relation } from "../../src/shared/changes/decode/messages.ts";
import { type DdlRow, DdlTransaction, readDdlRow } from "../../src/shared/changes/definitions/ddl_replay.ts";
import { asNamed, followNames } from "../../src/shared/changes/plan/follow_names.ts";
import { meantTables, schemaRename, TableNames } from "../../src/shared/changes/plan/named_tables.ts";

const full = [
  { oid: 1, schema: "app", name: "notes" },
  { oid: 2, schema: "app", name: "people" },
  { oid: 3, schema: "app", name: "gone" },
];

function named(...steps: ((names: TableNames) => unknown)[]): TableNames {
  const names = new TableNames(full);
  for (const step of steps) step(names);
  return names;
}

const meant = (names: TableNames, ...asked: string[]) => {
  const found = meantTables(names, asked);
  return { oids: [...found.oids].sort(), names: found.names, unknown: found.unknown };
};

describe("a name", () => {
  it("means the table that has it at the point, else the one that had it", () => {
    const names = named((n) => n.named(1, "app.entries"), (n) => n.named(1, "app.texts"));
    for (const name of ["app.notes", "app.entries", "app.texts"]) {
      expect(meant(names, name)).toEqual({ oids: [1], names: ["app.texts"], unknown: [] });
    }
    expect(meant(names, "app.notes", "app.texts").names).toEqual(["app.texts"]);
  });

  it("that was exchanged means who has it now, and never both", () => {
    const names = named((n) => n.named(1, "app.old"), (n) => n.named(2, "app.notes"));
    expect(meant(names, "app.notes")).toEqual({ oids: [2], names: ["app.notes"], unknown: [] });
    expect(meant(names, "app.people")).toEqual({ oids: [2], names: ["app.notes"], unknown: [] });
    expect(meant(names, "app.old").oids).toEqual([1]);
  });

  it("of a table that was dropped means that one and its successor", () => {
    const names = named((n) => n.dropped(3), (n) => n.named(9, "app.gone"));
    expect(meant(names, "app.gone")).toEqual({ oids: [3, 9], names: ["app.gone"], unknown: [] });
    expect(meant(named((n) => n.dropped(3)), "app.gone")).toEqual({ oids: [3], names: ["app.gone"], unknown: [] });
  });

  it("of nothing stays as it is", () => {
    expect(meant(named(), "app.none")).toEqual({ oids: [], names: ["app.none"], unknown: ["app.none"] });
  });

  it("in a segment's list may be of any table at the point that had it, has it, or gets it", () => {
    const names = named(
      (n) => n.named(1, "app.old"),
      (n) => n.named(2, "app.notes"),
      (n) => n.laterNamed(3, "app.notes"),
      (n) => n.laterNamed(3, "app.left"),
    );
    expect(names.everNamed("app.notes").sort()).toEqual(["app.gone", "app.notes", "app.old"]);
    expect(names.everNamed("app.left")).toEqual(["app.gone"]);
    expect(names.everNamed("app.none")).toEqual(["app.none"]);
  });

  it("in a segment's list is that of the table with its oid, where the log knows it", () => {
    const names = named((n) => n.named(1, "app.old"), (n) => n.dropped(3), (n) => n.laterMade(8));
    const listed = (oid: number | undefined) => names.listedAs({ oid, schema: "app", name: "notes" });
    expect(listed(1)).toEqual(["app.old"]);
    expect(listed(3), "dropped").toEqual([]);
    expect(listed(8), "made behind the point").toEqual([]);
    expect(listed(77), "nobody logged it").toEqual(["app.old"]);
    expect(listed(undefined)).toEqual(["app.old"]);
  });

  it("goes with its schema", () => {
    const names = named((n) => n.named(1, "other.notes"), (n) => n.renamedSchema("app", "My app"));
    expect([...names.tables.values()]).toEqual(["other.notes", '"My app".people', '"My app".gone']);
    expect(meant(names, "app.people").names).toEqual(['"My app".people']);
  });
});

describe("a relation of the stream", () => {
  const relation: Relation = { oid: 1, schema: "app", name: "notes", identity: "default", columns: [] };
  const later = { type: "schema", identity: "later", schema: null };
  const row = (what: string, tag: string, objects: readonly object[] = [later]): DdlRow =>
    readDdlRow(
      new Map(Object.entries({
        id: "1",
        what,
        tag,
        objects: JSON.stringify(objects),
        query: "alter schema app rename to later",
        role_name: "postgres",
        search_path: "",
        settings: "{}",
      })),
    );
  const follow = (names: TableNames, given: DdlRow) => followNames(names, given, new DdlTransaction().next(given));

  it("has its table's name, also where only the schema was renamed since it was told", () => {
    const names = named();
    expect(asNamed(names, relation)).toBe(relation);
    expect(follow(names, row("command", "ALTER SCHEMA"))).toBeNull();
    expect(asNamed(names, relation)).toEqual({ ...relation, schema: "later" });
    expect(asNamed(names, { ...relation, oid: 99 })).toMatchObject({ schema: "app" });
  });

  it("follows commands, and no row that only tells of them", () => {
    const names = named();
    const objects = [{ type: "table", identity: 'app."My notes"', oid: 1 }];
    expect(follow(names, row("uncovered", "ALTER TABLE", objects))).toBeNull();
    expect(asNamed(names, relation)).toBe(relation);
    expect(follow(names, row("command", "ALTER TABLE", objects))).toBe("app.notes");
    expect(asNamed(names, relation)).toMatchObject({ schema: "app", name: "My notes" });
    follow(names, row("drop", "DROP TABLE", objects));
    expect(names.isDropped(1)).toBe(true);
  });
});

it("a renaming of a schema is read as the server reads it, or not at all", () => {
  expect(schemaRename("alter schema App rename to app2")).toEqual({ former: "app", now: "app2" });
  expect(schemaRename('ALTER  SCHEMA "A ""b"""\n RENAME TO "C";')).toEqual({ former: 'A "b"', now: "C" });
  for (
    const other of [
      "alter schema app owner to me",
      'alter schema u&"a" rename to b',
      "alter schema /* a */ b rename to c",
    ]
  ) {
    expect(schemaRename(other), other).toBeNull();
  }
});
