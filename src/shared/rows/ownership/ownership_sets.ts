/** Sets of rows over all tables of an ownership plan, as common table expressions. Pure. */
import { nameOf } from "../past/fold_partitions.ts";
import type { Equalities } from "./equalities.ts";
import { type OwnedTable, ownedTables, type OwnershipPlan, usersTable } from "./ownership.ts";

/** A table with the columns that its rows carry through all sets, there named `c0`, `c1` … */
export interface Carried {
  readonly table: OwnedTable;
  readonly isUsers: boolean;
  /** Columns that tell its rows apart. */
  readonly identity: readonly string[];
  /** `identity`, what leads upward, what others lead to. */
  readonly columns: readonly string[];
  /** In the order of `columns`. */
  readonly types: readonly string[];
}

/** One way into a table's set; without `condition` and `via` all rows of `source` are in it. */
export interface Arm {
  /** Behind FROM, with the alias `t` and the columns `c0`, `c1` … */
  readonly source: string;
  readonly condition: string | null;
  /** Rows whose columns `own` equal the columns `theirs` of a row in the set of the table at `place`. */
  readonly via: Via | null;
}

export interface Via {
  readonly place: number;
  readonly theirs: readonly string[];
  readonly own: readonly string[];
  /** Equality of each pair. */
  readonly equals: readonly string[];
}

export function carriedTables(plan: OwnershipPlan): Carried[] {
  const tables = ownedTables(plan);
  return tables.map((table) => {
    const isUsers = nameOf(table) === nameOf(usersTable);
    const identity = table.key ?? ["tableoid", "ctid"];
    const named = tables.flatMap((other) =>
      other.upward.filter((link) => nameOf(link.to) === nameOf(table)).flatMap((link) => link.toColumns)
    );
    const columns = [
      ...new Set([
        ...identity,
        ...(isUsers ? ["id"] : []),
        ...table.upward.flatMap((link) => link.columns),
        ...named,
      ]),
    ];
    const typeOf = (column: string) =>
      table.types.get(column) ?? (column === "tableoid" ? "oid" : column === "ctid" ? "tid" : "text");
    return { table, isUsers, identity, columns, types: columns.map(typeOf) };
  });
}

/** Rows of `own` whose columns equal columns of rows of `theirs`, in their order. */
export function viaOf(
  own: Carried,
  columns: readonly string[],
  place: number,
  theirs: Carried,
  theirColumns: readonly string[],
  equals: Equalities,
): Via {
  const typeIn = (carried: Carried, column: string | undefined) =>
    carried.types[carried.columns.indexOf(column ?? "")] ?? "";
  return {
    place,
    theirs: theirColumns.map((column) => fieldOf(theirs, column)),
    own: columns.map((column) => fieldOf(own, column)),
    equals: columns.map((column, index) => equals(typeIn(own, column), typeIn(theirs, theirColumns[index]))),
  };
}

export const fieldOf = (carried: Carried, column: string): string => `c${carried.columns.indexOf(column)}`;

/**
 * One expression `<name><place>` for each table, groups in their order; in a group of several tables, or with a way from a
 * table to itself, rows are added until there are no more.
 */
export function setsOf(
  name: string,
  groups: readonly (readonly number[])[],
  tables: readonly Carried[],
  armsOf: (place: number) => readonly Arm[],
): string[] {
  return groups.flatMap((group) => {
    const arms = group.map((place) => ({ place, arms: armsOf(place) }));
    const turning = arms.some((one) => one.arms.some(({ via }) => via !== null && group.includes(via.place)));
    return turning
      ? turningSets(name, group, tables, arms)
      : arms.map((one) =>
        `${name}${one.place} as (\n  ${
          one.arms.map((arm) => selectOf(name, arm, tables[one.place])).join("\n  union ")
        }\n)`
      );
  });
}

const fields = (carried: Carried | undefined): string[] => (carried?.columns ?? []).map((_, index) => `c${index}`);

function selectOf(name: string, arm: Arm, carried: Carried | undefined): string {
  const { source, condition, via } = arm;
  const wanted = [
    ...(condition === null ? [] : [condition]),
    ...(via === null ? [] : [equalsRow(via, `${name}${via.place}`)]),
  ];
  return `select ${fields(carried).map((field) => `t.${field}`).join(", ")} from ${source}` +
    (wanted.length === 0 ? "" : ` where ${wanted.join(" and ")}`);
}

function equalsRow({ theirs, own, equals }: Via, set: string): string {
  const pairs = own.map((field, index) => `t.${field} ${equals[index]} s.${theirs[index]}`);
  return equals.every((operator) => operator === "=")
    ? `(${own.map((field) => `t.${field}`).join(", ")}) in (select ${
      theirs.map((field) => `s.${field}`).join(", ")
    } from ${set} s)`
    : `exists (select from ${set} s where ${pairs.join(" and ")})`;
}

interface PlacedArms {
  readonly place: number;
  readonly arms: readonly Arm[];
}

/**
 * The tables of a cycle in one recursive expression: a row is the place of its table and the texts of its columns. Each
 * round joins the newest rows by texts with all ways within the cycle; `planOwnership` lets only types in whose texts tell
 * whether values are equal.
 */
function turningSets(
  name: string,
  group: readonly number[],
  tables: readonly Carried[],
  placed: readonly PlacedArms[],
): string[] {
  const turn = `${name}_of_${group.join("_")}`;
  const starts: string[] = [];
  const keys: string[] = [];
  const steps: string[] = [];
  for (const { place, arms } of placed) {
    const texts = `array[${fields(tables[place]).map((field) => `t.${field}::text`).join(", ")}]`;
    for (const arm of arms) {
      if (arm.via === null || !group.includes(arm.via.place)) {
        starts.push(`select ${place} as place, ${texts} as texts from (${selectOf(name, arm, tables[place])}) t`);
        continue;
      }
      const step = steps.length;
      const theirs = arm.via.theirs.map((field) => `g.texts[${Number(field.slice(1)) + 1}]`);
      const own = arm.via.own.map((field) => `t.${field}`);
      keys.push(`(${step}, ${arm.via.place}, array[${theirs.join(", ")}])`);
      steps.push(
        `select ${step} as step, array[${own.map((field) => `${field}::text`).join(", ")}] as key, ${place} as place,
           ${texts} as texts from ${arm.source} where ${
          [...own.map((field) => `${field} is not null`), ...(arm.condition === null ? [] : [arm.condition])]
            .join(" and ")
        }`,
      );
    }
  }
  return [
    `${turn} (place, texts) as (
  (${starts.join("\n  union all ")})
  union
  (select n.place, n.texts
     from ${turn} g
     cross join lateral (values ${keys.join(", ")}) k (step, place, key)
     join (${steps.join("\n      union all ")}) n on n.step = k.step and n.key = k.key
    where k.place = g.place)
)`,
    ...group.map((place) =>
      `${name}${place} as (select ${
        (tables[place]?.types ?? []).map((type, index) => `g.texts[${index + 1}]::${type} as c${index}`).join(", ")
      } from ${turn} g where g.place = ${place})`
    ),
  ];
}
