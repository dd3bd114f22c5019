/** Random tables, keys, rows and decisions, and whose rows they are by looking at every row. It knows nothing of the planner. */
import type { BackupMap } from "../../src/shared/rows/ownership/map_file.ts";
import { quoteIdent, quoteLiteral } from "../../src/shared/schema/quote.ts";
import { seeded } from "../support/sample_app/words.ts";

export interface WorldUser {
  readonly id: string;
  readonly email: string;
}

/** A row's values are the server's texts, by column; `n` numbers the rows of a table. */
export type Values = Readonly<Record<string, string | null>>;

interface Way {
  readonly columns: readonly string[];
  /** Place of the table, or one of the two columns of auth.users. */
  readonly to: number | "id" | "email";
  readonly onDelete: string;
  /** False for a column that is no foreign key and holds a user's id. */
  readonly isKey: boolean;
  readonly followed: boolean;
}

export interface WorldTable {
  readonly name: string;
  readonly key: readonly string[] | null;
  readonly partitioned: boolean;
  readonly rule: "reach" | "owned" | "shared" | "never";
  readonly ways: readonly Way[];
  readonly rows: readonly Values[];
}

export interface World {
  readonly schema: string;
  readonly users: readonly WorldUser[];
  readonly tables: readonly WorldTable[];
  readonly map: BackupMap;
  /** Makes tables, rows and keys, in this order. */
  readonly sql: string;
}

const keyTypes = { uuid: ["uuid"], bigint: ["bigint"], pair: ["integer", "text"], none: [] } as const;

const onDeletes = ["cascade", "cascade", "no action", "restrict", "set null", "set default"];

interface Draft {
  readonly name: string;
  readonly kind: keyof typeof keyTypes;
  readonly key: readonly string[];
  readonly partitioned: boolean;
  readonly rule: WorldTable["rule"];
  readonly rowCount: number;
}

export function randomWorld(seed: number, users: readonly WorldUser[]): World {
  const random = seeded(seed);
  const chance = (part: number) => random.number() < part;
  const pick = <T>(items: readonly T[]): T => {
    const item = items[random.integer(items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  };
  const schema = `world_${seed}`;
  const drafts = Array.from({ length: 2 + random.integer(6) }, (_, place): Draft => {
    const kind = pick(["uuid", "uuid", "bigint", "bigint", "pair", "none"] as const);
    return {
      name: chance(0.2) ? `T "${place}"` : `t${place}`,
      kind,
      key: keyTypes[kind].map((_type, index) => (index === 0 ? "id" : "Part 2")),
      partitioned: chance(0.2),
      rule: chance(0.1) ? "owned" : chance(0.1) ? "shared" : chance(0.05) ? "never" : "reach",
      rowCount: random.integer(30),
    };
  });
  const keys = drafts.map((draft) =>
    Array.from(
      { length: draft.rowCount },
      (_, n) =>
        draft.kind === "uuid"
          ? [random.uuid()]
          : draft.kind === "bigint"
          ? [String(n * 3 + 1)]
          : draft.kind === "pair"
          ? [String(n % 5), `p\t${n}'`]
          : [],
    )
  );
  const isOut = (to: Way["to"]) => typeof to === "number" && drafts[to]?.rule === "never";
  const map = {
    version: 1 as const,
    keys: [] as BackupMap["keys"],
    users: [] as BackupMap["users"],
    tables: drafts.flatMap(({ name, rule }) => rule === "reach" ? [] : [{ table: { schema, name }, rows: rule }]),
  };
  const tables = drafts.map((draft, place): WorldTable => {
    const ways: Way[] = [];
    const add = (to: Way["to"], columns: readonly string[], isKey: boolean) => {
      const onDelete = isKey ? pick(seed % 2 === 0 ? ["cascade"] : onDeletes) : "";
      const decided = isKey && chance(to === place ? 0.7 : 0.2) ? chance(0.8) : null;
      if (decided !== null) {
        map.keys.push({ table: { schema, name: draft.name }, columns: [...columns], follow: decided });
      }
      if (!isKey) map.users.push({ table: { schema, name: draft.name }, column: columns[0] ?? "" });
      const byDefault = !isKey || (to !== place && !onDelete.startsWith("set"));
      ways.push({
        columns,
        to,
        onDelete,
        isKey,
        followed: draft.rule !== "never" && !isOut(to) && (decided ?? byDefault),
      });
    };
    for (let count = random.integer(5); count > 0; count--) {
      const n = ways.length;
      if (chance(0.35)) add(chance(0.8) ? "id" : "email", [`user ${n}`], true);
      else if (chance(0.2)) add("id", [`holder_${n}`], false);
      else {
        // Upwards for long ways; the rest makes cycles, in every second world many.
        const to = chance(seed % 2 === 0 ? 0.1 : 0.75)
          ? random.integer(Math.max(place, 1))
          : random.integer(drafts.length);
        const target = drafts[to];
        if (target !== undefined && target.key.length > 0) {
          add(to, target.key.map((_column, index) => `ref_${n}_${index}`), true);
        }
      }
    }
    const rows = Array.from({ length: draft.rowCount }, (_, n) => {
      const values: Record<string, string | null> = { n: String(n) };
      draft.key.forEach((column, index) => values[column] = keys[place]?.[n]?.[index] ?? null);
      for (const way of ways) {
        const candidates = typeof way.to === "number"
          ? keys[way.to] ?? []
          : users.map((user) => [way.to === "id" ? user.id : user.email]);
        const chosen = chance(0.25) || candidates.length === 0 ? null : pick(candidates);
        way.columns.forEach((column, index) => values[column] = chosen?.[index] ?? null);
        // A part of a key that is null refers to nothing.
        if (way.columns.length > 1 && chance(0.1)) values[way.columns[0] ?? ""] = null;
        if (!way.isKey && isTextColumn(seed, way.columns[0] ?? "") && chance(0.1)) {
          values[way.columns[0] ?? ""] = "nobody";
        }
      }
      return values;
    });
    return {
      name: draft.name,
      key: draft.key.length === 0 ? null : draft.key,
      partitioned: draft.partitioned,
      rule: draft.rule,
      ways,
      rows,
    };
  });
  return { schema, users, tables, map, sql: sqlOf(seed, schema, tables, drafts) };
}

/** Columns that hold users without being keys are uuid or text. */
const isTextColumn = (seed: number, column: string): boolean => (seed + column.length + column.charCodeAt(7)) % 2 === 0;

function sqlOf(seed: number, schema: string, tables: readonly WorldTable[], drafts: readonly Draft[]): string {
  const nameOf = (name: string) => `${schema}.${quoteIdent(name)}`;
  const list = (columns: readonly string[]) => columns.map(quoteIdent).join(", ");
  const statements = [`create schema ${schema}`, "set session_replication_role = replica"];
  tables.forEach((table, place) => {
    const kind = drafts[place]?.kind ?? "none";
    const columns = [
      "n integer not null",
      ...(table.key ?? []).map((column, index) => `${quoteIdent(column)} ${keyTypes[kind][index]}`),
      ...table.ways.flatMap((way) =>
        way.columns.map((column, index) => {
          const type = way.to === "email"
            ? "text"
            : way.to === "id"
            ? way.isKey || !isTextColumn(seed, column) ? "uuid" : "text"
            : keyTypes[drafts[way.to]?.kind ?? "none"][index];
          return `${quoteIdent(column)} ${type}`;
        })
      ),
      ...(table.key === null ? [] : [`primary key (${list(table.key)})`]),
    ];
    const split = quoteIdent(table.key?.[0] ?? "n");
    statements.push(
      `create table ${nameOf(table.name)} (${columns.join(", ")})${
        table.partitioned ? ` partition by hash (${split})` : ""
      }`,
    );
    if (table.partitioned) {
      for (const part of [0, 1]) {
        statements.push(
          `create table ${nameOf(`${table.name} leaf ${part}`)} partition of ${
            nameOf(table.name)
          } for values with (modulus 2, remainder ${part})`,
        );
      }
    }
    for (const row of table.rows) {
      const names = Object.keys(row);
      const values = names.map((name) => row[name] === null ? "null" : quoteLiteral(row[name] ?? ""));
      statements.push(`insert into ${nameOf(table.name)} (${list(names)}) values (${values.join(", ")})`);
    }
  });
  tables.forEach((table) =>
    table.ways.filter((way) => way.isKey).forEach((way) => {
      const target = typeof way.to === "number"
        ? `${nameOf(tables[way.to]?.name ?? "")} (${list(tables[way.to]?.key ?? [])})`
        : `auth.users (${way.to})`;
      statements.push(
        `alter table ${nameOf(table.name)} add foreign key (${
          list(way.columns)
        }) references ${target} on delete ${way.onDelete}`,
      );
    })
  );
  return [...statements, "reset session_replication_role"].join(";\n");
}

/** `owned`, `shared`, or null for a row that does not reach the user; by place of the table and number of the row. */
export type Verdicts = readonly (readonly ("owned" | "shared" | null)[])[];

/** Whose rows they are: each row followed by recursion, then judged until nothing changes any more. */
export function judge(world: World, user: string): Verdicts {
  const { tables, users } = world;
  const parentsOf = (row: Values, way: Way): { place: number; n: number }[] => {
    const values = way.columns.map((column) => row[column] ?? null);
    if (typeof way.to !== "number" || values.includes(null)) return [];
    const place = way.to;
    const target = tables[place];
    const n =
      target?.rows.findIndex((one) => (target.key ?? []).every((column, index) => one[column] === values[index])) ?? -1;
    return n < 0 ? [] : [{ place, n }];
  };
  const userOf = (row: Values, way: Way): string | null => {
    const value = row[way.columns[0] ?? ""] ?? null;
    return way.to === "id" ? value : way.to === "email" ? users.find((one) => one.email === value)?.id ?? null : null;
  };
  const reached = (place: number, n: number, seen: Set<string>): Set<string> => {
    const row = tables[place]?.rows[n];
    const found = new Set<string>();
    if (row === undefined || seen.has(`${place}/${n}`)) return found;
    seen.add(`${place}/${n}`);
    for (const way of tables[place]?.ways ?? []) {
      if (!way.followed) continue;
      const id = userOf(row, way);
      if (id !== null) found.add(id);
      for (const parent of parentsOf(row, way)) for (const one of reached(parent.place, parent.n, seen)) found.add(one);
    }
    return found;
  };
  const mine = tables.map((table, place) => table.rows.map((_, n) => reached(place, n, new Set()).has(user)));
  const others = tables.map((table) => table.rows.map(() => false));
  for (let changed = true; changed;) {
    changed = false;
    tables.forEach((table, place) =>
      table.rows.forEach((row, n) => {
        const list = others[place];
        if (list === undefined || list[n] === true) return;
        const isMine = mine[place]?.[n] === true;
        const leads = table.ways.some((way) => {
          if (!way.followed) return false;
          const id = userOf(row, way);
          return (id !== null && id !== user) || parentsOf(row, way).some((parent) => others[parent.place]?.[parent.n]);
        });
        if (isMine ? table.rule === "shared" || (leads && table.rule !== "owned") : leads) {
          list[n] = true;
          changed = true;
        }
      })
    );
  }
  return tables.map((table, place) =>
    table.rows.map((_, n) => mine[place]?.[n] !== true ? null : others[place]?.[n] === true ? "shared" : "owned")
  );
}
