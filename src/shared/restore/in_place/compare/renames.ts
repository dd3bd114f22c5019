/** Tables and columns that only have another name now, told by object ids and column numbers. Pure. */
import type { Definition, SchemaCapture, TableShape } from "../../../schema/capture_format.ts";
import { quoteIdent, quoteQualified, splitQualified, unquoteIdent } from "../../../schema/quote.ts";
import { renamedConstraints } from "./constraint_renames.ts";
import { viewsInTheWay } from "./views_in_the_way.ts";
import { relationName } from "../texts/identity_names.ts";
import { replaceColumn, replaceName, replaceOwner, replaceQualified } from "../texts/sql_text.ts";

export interface Rename {
  readonly identity: string;
  readonly statements: readonly string[];
  readonly reason: string;
  readonly table: string;
}

export interface PlannedRenames {
  /** What goes before, in this order, since a name is needed; it is not in `is`. */
  readonly drops: readonly Definition[];
  readonly renames: readonly Rename[];
  readonly is: SchemaCapture;
}

/** A capture as it is once the renames are done, as far as texts tell; `renames` in their order. */
export function planRenames(was: SchemaCapture, is: SchemaCapture): PlannedRenames {
  const renames: Rename[] = [];
  const drops: Definition[] = [];
  const present = new Map(is.tables.map((table) => [table.oid, table]));
  const taken = new Set(is.definitions.map((one) => one.identity));
  const pending: { identity: string; name: string; columns: ColumnRename[] }[] = [];
  let after = is;
  for (const table of was.tables) {
    const found = present.get(table.oid);
    if (found === undefined || table.dataOwner !== "user" || found.dataOwner !== "user") continue;
    if (found.identity !== table.identity) {
      // Another table has taken the name: then the two are compared by their names.
      if (
        taken.has(table.identity) || !is.definitions.some((one) => one.name === table.schema && one.kind === "schema")
      ) {
        continue;
      }
      const going = viewsInTheWay(was, after, table.identity);
      drops.push(...going);
      after = { ...after, definitions: after.definitions.filter((one) => !going.includes(one)) };
      renames.push(renamed(nameOf(table), nameOf(found)));
      after = renamedTable(after, [found.schema, found.name], [table.schema, table.name]);
    }
    const columns = renameColumns(table, found);
    if (columns.length > 0) pending.push({ identity: table.identity, name: nameOf(table), columns });
  }
  for (const { from, to } of renamedParents(was, after)) {
    const [before, now] = [relationName(to), relationName(from)];
    renames.push(renamed(before, now));
    after = renamedTable(after, plainParts(now), plainParts(before));
  }
  const schemas = new Set(after.definitions.flatMap(({ schema }) => schema === null ? [] : [quoteIdent(schema)]));
  const byTable = new Map(pending.map((one) => [one.identity, one.columns]));
  for (const one of pending) {
    const parents = parentsOf(after, one.identity);
    const byParent = (column: ColumnRename) =>
      parents.some((parent) => byTable.get(parent)?.some((other) => other.to === column.to) === true);
    // A parent's column takes those of its children along; one that keeps its name holds them back.
    const moved = one.columns.filter((column) =>
      byParent(column) || !parents.some((parent) => hasColumn(is, parent, column.from))
    );
    const columns = moved.filter((column) => !byParent(column));
    // Only the topmost one takes it: the others have the column from there.
    const root = parents.findLast((parent) => !byTable.has(parent) && isPartitioned(after, parent));
    const { name, identity } = root === undefined ? one : { name: relationName(root), identity: root };
    const statements = columns.map(({ from, to }) => `alter table ${name} rename column ${from} to ${to}`);
    if (statements.length > 0 && !renames.some((other) => other.statements.join() === statements.join())) {
      const names = columns.map(({ from, to }) => `${to} is called ${from}`).join(", ");
      renames.push({ identity, statements, reason: `columns have other names: ${names}`, table: name });
    }
    const touched = root === undefined
      ? [one.identity]
      : [one.identity, ...parents.slice(0, parents.indexOf(root) + 1)];
    after = {
      ...after,
      definitions: after.definitions.map((each) =>
        touched.some((table) => isOf(each, table)) ? renamedIn(each, moved, schemas) : each
      ),
    };
  }
  for (const { rename, identity } of renamedConstraints(was, after)) {
    renames.push(rename);
    after = renamedConstraint(after, rename.identity, identity);
  }
  return { drops, renames, is: after };
}

const nameOf = (table: TableShape): string => quoteQualified(table.schema, table.name);

function renamedConstraint(capture: SchemaCapture, from: string, to: string): SchemaCapture {
  const one = capture.definitions.find((each) => each.identity === from);
  const name = unquoteIdent(
    /^(?:table constraint|index (?:(?:"(?:[^"]|"")+"|[^\s".]+)\.)?) ?("(?:[^"]|"")+"|\S+)/.exec(to)?.[1] ?? "",
  );
  if (one === undefined) return capture;
  const schema = one.schema ?? "";
  const changed = {
    ...capture,
    definitions: capture.definitions.map((each) =>
      each.identity === from
        ? {
          ...each,
          identity: to,
          name,
          statements: each.statements.map((text) => replaceName(text, quoteIdent(one.name), quoteIdent(name))),
        }
        : { ...each, dependsOn: each.dependsOn.map((need) => need === from ? to : need) }
    ),
  };
  // Of an index, or the index of a constraint: what is attached to it names it with its schema.
  return mapCapture(
    changed,
    (text) => replaceQualified(text, quoteQualified(schema, one.name), quoteQualified(schema, name)),
  );
}

/** Partitioned tables that have another name now: those of a partition that is the same. */
function renamedParents(was: SchemaCapture, is: SchemaCapture): { from: string; to: string }[] {
  const parents = (capture: SchemaCapture) =>
    new Map(
      capture.definitions.filter((one) => one.kind === "partition").map((one) => [
        one.table ?? "",
        one.dependsOn.find((need) => need !== one.table && /^table /.test(need)) ?? "",
      ]),
    );
  const [former, present] = [parents(was), parents(is)];
  const [had, has] = [was, is].map((capture) => new Set(capture.definitions.map((one) => one.identity)));
  const found = new Map<string, string>();
  for (const [child, to] of former) {
    const from = present.get(child);
    if (from !== undefined && from !== to && !has?.has(to) && !had?.has(from)) found.set(to, from);
  }
  return [...found].map(([to, from]) => ({ from, to }));
}

/** Kinds that other texts call by their schema and name. */
const named = new Set(["index", "identity", "sequence", "primary key", "unique constraint", "exclusion constraint"]);

function plainParts(name: string): [string, string] {
  const [schema, bare] = splitQualified(name) ?? ["", ""];
  return [unquoteIdent(schema), unquoteIdent(bare)];
}

/** Into another schema its indexes and its columns' sequences go along. */
function renamedTable(capture: SchemaCapture, from: [string, string], to: [string, string]): SchemaCapture {
  const [now, before] = [quoteQualified(...from), quoteQualified(...to)];
  const table = `table ${now}`;
  const pairs: [string, string][] = [[now, before]];
  const moved = new Set([table]);
  if (from[0] !== to[0]) {
    const owned = new Set(
      capture.definitions.filter((one) => one.kind === "sequence ownership" && one.table === table)
        .flatMap((one) => one.dependsOn.filter((need) => need.startsWith("sequence "))),
    );
    for (const one of capture.definitions) {
      const goes = (one.table === table && one.schema === from[0] && one.kind !== "statistics") ||
        owned.has(one.identity);
      if (!goes) continue;
      moved.add(one.identity);
      if (named.has(one.kind)) {
        pairs.push([quoteQualified(from[0], one.name), quoteQualified(to[0], one.name)]);
      }
    }
  }
  const bare = [quoteIdent(from[1]), quoteIdent(to[1])] as const;
  const changed = {
    ...capture,
    definitions: capture.definitions.map((each) => {
      // A query that gives the table no other name calls its columns by the table's.
      const statements = each.statements.map((text) => replaceOwner(text, ...bare));
      const one = isOf(each, table) && each.identity !== table ? { ...each, statements } : each;
      if (!moved.has(one.identity)) return one;
      return one.identity === table ? { ...one, schema: to[0], name: to[1] } : { ...one, schema: to[0] };
    }),
  };
  return mapCapture(changed, (text) => pairs.reduce((so, [old, fresh]) => replaceQualified(so, old, fresh), text));
}

function renamed(before: string, now: string): Rename {
  const [was, is] = [splitQualified(before), splitQualified(now)];
  const [schema = "", name = ""] = was ?? [];
  const [otherSchema = "", otherName = ""] = is ?? [];
  return {
    identity: `table ${before}`,
    statements: [
      ...(schema === otherSchema ? [] : [`alter table ${now} set schema ${schema}`]),
      ...(name === otherName ? [] : [`alter table ${schema}.${otherName} rename to ${name}`]),
    ],
    reason: `it is called ${now} now`,
    table: now,
  };
}

interface ColumnRename {
  /** Quoted. */
  readonly from: string;
  readonly to: string;
}

/** In their order. A column that has taken another's name makes way first: it came after the backup, or is renamed itself. */
function renameColumns(table: TableShape, found: TableShape): ColumnRename[] {
  const former = new Map(table.columns.map((column) => [column.attnum, column.name]));
  const moving = found.columns.filter((column) => {
    const name = former.get(column.attnum);
    return name !== undefined && name !== column.name;
  });
  const needed = new Set(moving.map((column) => former.get(column.attnum)));
  const inTheWay = found.columns.filter((column) => needed.has(column.name));
  const aside = (attnum: number) => `holdfast_aside_${attnum}`;
  return [
    ...inTheWay.map((column) => ({ from: quoteIdent(column.name), to: aside(column.attnum) })),
    ...moving.map((column) => ({
      from: inTheWay.includes(column) ? aside(column.attnum) : quoteIdent(column.name),
      to: quoteIdent(former.get(column.attnum) ?? column.name),
    })),
  ];
}

/** Tables that it is a partition of or inherits from, nearest first. */
function parentsOf(capture: SchemaCapture, table: string): string[] {
  const parents: string[] = [];
  for (let at: string | undefined = table; at !== undefined;) {
    const child: string = at;
    const above = capture.definitions.filter((one) =>
      (one.kind === "partition" && one.table === child) || (one.kind === "table" && one.identity === child)
    ).flatMap((one) =>
      one.dependsOn.filter((need) => /^table /.test(need) && need !== child && !parents.includes(need))
    );
    parents.push(...above);
    at = above[0];
  }
  return parents;
}

function hasColumn(capture: SchemaCapture, table: string, column: string): boolean {
  const shape = capture.tables.find(({ identity }) => identity === table);
  return shape?.columns.some(({ name }) => quoteIdent(name) === column) === true;
}

function isPartitioned(capture: SchemaCapture, table: string): boolean {
  return !capture.tables.some((shape) => shape.identity === table);
}

function isOf(one: Definition, table: string): boolean {
  return one.identity === table || one.table === table || one.dependsOn.includes(table);
}

function renamedIn(one: Definition, pairs: readonly ColumnRename[], schemas: ReadonlySet<string>): Definition {
  const inText = (text: string) => pairs.reduce((so, { from, to }) => replaceColumn(so, from, to, schemas), text);
  const isDefault = one.kind === "default" || one.kind === "sequence ownership";
  return {
    ...one,
    identity: isDefault ? inText(one.identity) : one.identity,
    statements: one.statements.map(inText),
    privileges: one.privileges.map(inText),
  };
}

function mapCapture(capture: SchemaCapture, change: (text: string) => string): SchemaCapture {
  const all = (texts: readonly string[]) => texts.map(change);
  return {
    ...capture,
    definitions: capture.definitions.map((one) => ({
      ...one,
      identity: change(one.identity),
      statements: all(one.statements),
      ownership: all(one.ownership),
      privileges: all(one.privileges),
      dependsOn: all(one.dependsOn),
      release: all(one.release),
      table: one.table === null ? null : change(one.table),
    })),
  };
}
