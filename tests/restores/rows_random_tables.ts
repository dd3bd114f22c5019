/** Random tables with keys between them, and random changes of rows and columns. */
import { quoteIdent, quoteLiteral, quoteQualified } from "../../src/shared/schema/quote.ts";
import type { Seeded } from "../support/sample_app/words.ts";

export interface RandomColumn {
  /** Name in the past; changes when the column is renamed are in `now`. */
  readonly name: string;
  /** What it is called; null: it was dropped. */
  now: string | null;
  readonly type: string;
  /** SQL literals. */
  readonly values: readonly string[];
  /** Two values are equal if and only if their texts are. */
  readonly exact: boolean;
  /** Keys need it: it stays. */
  readonly bound: boolean;
  readonly extra: string;
}

export interface RandomReference {
  readonly columns: readonly string[];
  readonly to: string;
  readonly toColumns: readonly string[];
}

export interface RandomTable {
  readonly schema: string;
  /** Name in the past. */
  readonly was: string;
  now: string;
  readonly columns: RandomColumn[];
  /** Columns that came since, and the text of their default. */
  readonly added: { readonly name: string; readonly value: string }[];
  readonly key: readonly string[] | null;
  readonly uniques: readonly (readonly string[])[];
  readonly references: readonly RandomReference[];
  /** Names of partitions by column `part`, one a value from 1 on. */
  readonly partitions: readonly string[];
  readonly tail: string;
}

export function pick<T>(random: Seeded, items: readonly T[]): T {
  const item = items[random.integer(items.length)];
  if (item === undefined) throw new Error("nothing to pick from");
  return item;
}

const numbers = Array.from({ length: 12 }, (_, at) => String(at));
const words = [
  "''",
  "'a'",
  "'A'",
  "'ü'",
  "'a b'",
  "E'a\\tb\\\\'",
  "E'x\\ny'",
  "'\"q\"'",
  "'null'",
  "'(1,2)'",
  "'\\N'",
  "'\\.'",
];
const payloads: readonly Pick<RandomColumn, "type" | "values" | "exact">[] = [
  { type: "integer", values: ["null", ...numbers], exact: true },
  { type: "text", values: ["null", ...words], exact: true },
  { type: "numeric", values: ["null", "1", "1.0", "1.00", "'NaN'", "123456789.5"], exact: false },
  { type: "double precision", values: ["0", "'-0'", "'NaN'", "1e300", "0.1", "'-Infinity'"], exact: false },
  { type: "jsonb", values: ["null", "'null'", `'{"a": 1, "b": [1.0]}'`, "'[]'", "'1.00'", `'"x\\\\y"'`], exact: false },
  { type: "json", values: ["null", `'{"a": 1,  "a": 2}'`, `'{"a":1}'`, "'null'"], exact: false },
  { type: "integer[]", values: ["null", "'{}'", "'{1,null}'", "'[2:3]={1,2}'", "'{{1},{2}}'"], exact: false },
  { type: "text[]", values: ["null", `'{"a,b",NULL,"NULL"}'`, `'{""}'`], exact: false },
  { type: "boolean", values: ["null", "true", "false"], exact: true },
  { type: "bytea", values: ["null", "'\\x'", "'\\x0009ff5c'"], exact: true },
  {
    type: "timestamp with time zone",
    values: ["null", "'infinity'", "'2024-01-01 12:00:00.000001+02'", "'0044-03-15 BC'"],
    exact: true,
  },
  { type: "character(3)", values: ["null", "''", "'a'", "'abc'"], exact: false },
  { type: "character varying(4)", values: ["null", "''", "'abcd'", "'ü'"], exact: true },
  { type: "int4range", values: ["null", "'empty'", "'[1,4)'", "'(,3]'"], exact: false },
  { type: "interval", values: ["null", "'1 mon'", "'30 days'", "'-1 day 2 hours'"], exact: false },
  {
    type: "uuid",
    values: ["null", "'11111111-1111-4111-8111-111111111111'", "'22222222-2222-4222-8222-222222222222'"],
    exact: true,
  },
];
const oddNames = [
  "action",
  "done",
  "step",
  "row",
  "copies",
  "l",
  "s",
  "d",
  "b",
  "c",
  "o",
  "p",
  "w",
  "x",
  "key 1",
  "Groß",
  'q"t',
  "place",
];

/** `people`, `notes` of people and of notes, `parts` of people by another column, a bag, and what refers to the parts. */
export function randomTables(random: Seeded, schema: string): RandomTable[] {
  const column = (name: string, type: string, values: readonly string[], extra = ""): RandomColumn => ({
    name,
    now: name,
    type,
    values,
    exact: true,
    bound: true,
    extra,
  });
  const more = (): RandomColumn[] => {
    const names = oddNames.filter(() => random.integer(5) === 0).slice(0, 5);
    return names.map((name) => ({ ...column(name, "", []), ...pick(random, payloads), bound: false }));
  };
  const ids = (name: string) =>
    random.integer(2) === 0 ? column(name, "integer", numbers) : column(name, "text", words);
  const nullable = (name: string, of: RandomColumn) => ({ ...column(name, of.type, ["null", ...of.values]) });
  const id = ids(pick(random, ["id", "action", "done"]));
  const code = nullable("code", ids("code"));
  const deferrable = () => pick(random, ["", " deferrable", " deferrable initially deferred"]);
  const onDelete = () => pick(random, ["", " on delete cascade", " on delete set null"]);
  const table = (
    was: string,
    parts: Pick<RandomTable, "columns" | "key" | "uniques" | "references" | "tail">,
  ): RandomTable => ({
    schema,
    was,
    now: was,
    added: [],
    partitions: [],
    ...parts,
    columns: distinct([...parts.columns, ...more()]),
  });
  const reference = (columns: readonly string[], to: string, toColumns: readonly string[]): RandomReference => ({
    columns,
    to,
    toColumns,
  });
  const name = (of: string) => quoteQualified(schema, of);
  const foreign = ({ columns, to, toColumns }: RandomReference) =>
    `foreign key (${list(columns)}) references ${name(to)} (${list(toColumns)})`;
  const people = table("people", {
    columns: [id, code],
    key: [id.name],
    uniques: [["code"]],
    references: [],
    tail: "unique (code)",
  });
  const toPeople = reference(["owner"], "people", [id.name]);
  const toNotes = reference(["above"], "notes", ["id"]);
  const notes = table("notes", {
    columns: [
      column("id", "integer", numbers, random.integer(2) === 0 ? " generated always as identity" : ""),
      nullable("owner", id),
      nullable("above", column("id", "integer", numbers)),
      nullable("slot", column("slot", "integer", numbers.slice(0, 4))),
    ],
    key: ["id"],
    uniques: [["owner", "slot"]],
    references: [toPeople, toNotes],
    tail: `unique (owner, slot)${deferrable()}, ${foreign(toPeople)}${onDelete()}, ${foreign(toNotes)}${deferrable()}`,
  });
  const toCode = reference(["code"], "people", ["code"]);
  const parts: RandomTable = {
    ...table("parts", {
      columns: [ids("n"), column("part", "integer", ["1", "2", "3"]), nullable("code", code)],
      key: random.integer(2) === 0 ? ["n", "part"] : ["part", "n"],
      uniques: [],
      references: [toCode],
      tail: `${foreign(toCode)}${onDelete()}`,
    }),
    partitions: ["parts_1", "parts_2", "parts_3"],
  };
  const n = parts.columns.find((one) => one.name === "n") ?? id;
  const toParts = reference(["n", "part"], "parts", ["n", "part"]);
  const leaves = table("leaves", {
    columns: [column("id", "integer", numbers), nullable("n", n), column("part", "integer", ["null", "1", "2", "3"])],
    key: ["id"],
    uniques: [],
    references: [toParts],
    tail: `${foreign(toParts)}${pick(random, ["", " on delete cascade"])}`,
  });
  const bag = table("bag", {
    columns: [nullable("owner", id), column("v", "integer", ["null", "1", "2"])],
    key: null,
    uniques: [],
    references: [toPeople],
    tail: foreign(toPeople),
  });
  return [people, notes, parts, leaves, bag];
}

function distinct(columns: readonly RandomColumn[]): RandomColumn[] {
  return [...new Map(columns.toReversed().map((one) => [one.name, one])).values()].toReversed();
}

const list = (names: readonly string[]) => names.map(quoteIdent).join(", ");

export function createStatements(tables: readonly RandomTable[]): string[] {
  const schemas = new Set(tables.map(({ schema }) => `create schema ${quoteIdent(schema)}`));
  return [
    ...schemas,
    ...tables.flatMap(({ schema, was, columns, key, tail, partitions }) => [
      `create table ${quoteQualified(schema, was)} (${
        columns.map((one) => `${quoteIdent(one.name)} ${one.type}${one.extra}`).join(", ")
      }${key === null ? "" : `, primary key (${list(key)})`}, ${tail})${
        partitions.length > 0 ? " partition by list (part)" : ""
      }`,
      ...partitions.map((name, at) =>
        `create table ${quoteQualified(schema, name)} partition of ${quoteQualified(schema, was)} for values in (${
          at + 1
        })`
      ),
    ]),
  ];
}

export function fillStatements(random: Seeded, table: RandomTable): string[] {
  return Array.from({ length: 20 + random.integer(20) }, () => {
    const insert = insertStatement(random, table);
    // A row that a constraint refuses is not there.
    return `do $fill$ begin ${insert}; set constraints all immediate; exception when integrity_constraint_violation then null; end $fill$`;
  });
}

function insertStatement(random: Seeded, { schema, now, columns }: RandomTable): string {
  const there = columns.filter((one) => one.now !== null);
  return `insert into ${quoteQualified(schema, now)} (${
    list(there.map((one) => one.now ?? ""))
  }) overriding system value values (${there.map((one) => pick(random, one.values)).join(", ")})`;
}

/** Rows that come, change or go. */
export function changeStatement(random: Seeded, table: RandomTable): string {
  const name = quoteQualified(table.schema, table.now);
  const column = pick(random, table.columns.filter((one) => one.now !== null));
  const own = quoteIdent(column.now ?? "");
  const one = `where ctid = (select ctid from ${name} order by pg_catalog.md5(ctid::text || ${
    random.integer(1e6)
  }) limit 1)`;
  const [added] = table.added;
  switch (random.integer(added === undefined ? 4 : 5)) {
    case 0:
      return insertStatement(random, table);
    case 1:
      return `delete from ${name} ${one}`;
    case 2:
      return column.extra === ""
        ? `update ${name} set ${own} = ${pick(random, column.values)} ${one}`
        : insertStatement(random, table);
    case 4:
      return `update ${name} set ${quoteIdent(added?.name ?? "")} = 'by hand' ${one}`;
    default:
      return column.extra === "" && column.type === "integer"
        ? `update ${name} set ${own} = case when ${own} in (1, 2) then 3 - ${own} else ${own} end`
        : insertStatement(random, table);
  }
}

/** A column that is renamed, dropped or added, or a table that is renamed; null: nothing that can be done. */
export function alterStatement(random: Seeded, table: RandomTable): string | null {
  const name = quoteQualified(table.schema, table.now);
  const free = table.columns.filter((one) => !one.bound && one.now !== null);
  switch (random.integer(4)) {
    case 0: {
      if (free.length === 0 || table.partitions.length > 0) return null;
      const column = pick(random, free);
      const before = column.now ?? "";
      column.now = `${column.name} renamed ${random.integer(1000)}`;
      return `alter table ${name} rename ${quoteIdent(before)} to ${quoteIdent(column.now)}`;
    }
    case 1: {
      if (free.length === 0) return null;
      const column = pick(random, free);
      const before = column.now ?? "";
      column.now = null;
      return `alter table ${name} drop ${quoteIdent(before)}`;
    }
    case 2: {
      if (table.added.length > 2) return null;
      const added = { name: `added ${table.added.length}`, value: pick(random, ["x", "", "a b"]) };
      table.added.push(added);
      return `alter table ${name} add ${quoteIdent(added.name)} text default ${quoteLiteral(added.value)}`;
    }
    default:
      if (table.partitions.length > 0) return null;
      table.now = `${table.was} ${random.integer(1000)}`;
      return `alter table ${name} rename to ${quoteIdent(table.now)}`;
  }
}
