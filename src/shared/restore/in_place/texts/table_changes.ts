/** A table that is there into the table that was, as ALTERs. Pure. */
import { splitOption } from "../../../schema/options.ts";
import { quoteLiteral, unquoteIdent } from "../../../schema/quote.ts";
import { remarkChanges } from "./remark_changes.ts";
import { mentions } from "./sql_text.ts";
import { type ColumnText, columnText, type TableText } from "./table_text.ts";

/** A statement; `recursive`: an ALTER of the parent does the same to its partitions, under the same word. */
export interface TableStatement {
  readonly text: string;
  readonly recursive: string | null;
}

export interface TableChanges {
  /** Before the rows: columns gone, made, of another type; defaults, settings. */
  readonly before: readonly TableStatement[];
  /** Changes of types: they convert the values that are there, which may not fit. */
  readonly convert: readonly TableStatement[];
  /** Once the rows are back: NOT NULL, checks. */
  readonly after: readonly TableStatement[];
  /** Names of columns whose type changes, and of those that are dropped and made again: what uses them must go before. */
  readonly retyped: ReadonlySet<string>;
  readonly remade: ReadonlySet<string>;
  /** Names of columns that came after the backup. */
  readonly dropped: ReadonlySet<string>;
  /** What differs and stays so, for people. */
  readonly keeps: readonly string[];
  /** Why ALTER does not lead there; then the table is made anew or refused. */
  readonly stuck: string | null;
}

/** `family`: tables inherit from it, and have its defaults. */
export function tableChanges(was: TableText, is: TableText, family: boolean): TableChanges {
  const before: TableStatement[] = [];
  const convert: TableStatement[] = [];
  const computed: TableStatement[] = [];
  const after: TableStatement[] = [];
  const retyped = new Set<string>();
  const keeps: string[] = [];
  const alter = `alter table ${was.name}`;
  const only = `alter table only ${was.name}`;
  const own = family ? alter : only;
  const add = (list: TableStatement[], text: string, recursive: string | null = null) => list.push({ text, recursive });
  const wanted = new Map(was.columns.map((column) => [column.name, column]));
  const present = new Map(is.columns.map((column) => [column.name, column]));
  const changed = [...wanted.values()].filter((column) => {
    const other = present.get(column.name);
    return other !== undefined && (other.type !== column.type || other.collation !== column.collation);
  });
  const changedNames = new Set(changed.map((column) => column.name));
  const remade = remadeColumns(was, is, changedNames);
  const stuck = stuckOf(was, is, [...changedNames, ...remade]);

  const checks = new Map(was.checks.map((check) => [check.name, check.text]));
  const there = new Map(is.checks.map((check) => [check.name, check.text]));
  for (const [name, text] of there) {
    // One that uses a column that is made again goes with it.
    const needed = [...remade].some((column) => mentions(text, column));
    if (checks.get(name) !== text || needed) {
      add(before, `${alter} drop constraint if exists ${name}`, `check ${name}`);
    }
  }
  const going = [...present.values()].filter(({ name }) => !wanted.has(name) || remade.has(name));
  // What is computed from others goes before them.
  for (const computes of [true, false]) {
    for (const { name, generated } of going) {
      if ((generated !== null) === computes) add(before, `${alter} drop column ${name}`, `drop ${name}`);
    }
  }
  for (const column of was.columns) {
    const other = present.get(column.name);
    if (other === undefined || remade.has(column.name)) {
      // What it is computed from has to be of its type before.
      const list = [...changedNames].some((name) => mentions(column.generated ?? "", name)) ? computed : before;
      add(list, `${alter} add column ${columnText(column)}`, `add ${column.name}`);
      if (column.notNull) add(after, `${alter} alter column ${column.name} set not null`, `not null ${column.name}`);
      continue;
    }
    const target = `alter column ${column.name}`;
    const isRetyped = column.type !== other.type || column.collation !== other.collation;
    if (isRetyped) {
      retyped.add(column.name);
      if (other.default !== null) add(convert, `${own} ${target} drop default`);
      const collation = column.collation === null ? "" : ` collate ${column.collation}`;
      const using = bareType(column.type) === bareType(other.type) ? "" : ` using ${column.name}::text::${column.type}`;
      add(convert, `${alter} ${target} type ${column.type}${collation}${using}`, `type ${column.name}`);
    }
    if (column.default !== null && (isRetyped || column.default !== other.default)) {
      add(isRetyped ? convert : before, `${own} ${target} set default ${column.default}`);
    } else if (column.default === null && other.default !== null && !isRetyped) {
      add(before, `${own} ${target} drop default`);
    }
    if (column.notNull && !other.notNull) add(after, `${alter} ${target} set not null`, `not null ${column.name}`);
    if (!column.notNull && other.notNull) add(before, `${alter} ${target} drop not null`, `null ${column.name}`);
  }
  for (const [name, text] of checks) {
    if (there.get(name) !== text || [...remade].some((column) => mentions(text, column))) {
      add(after, `${alter} add constraint ${name} ${text}`, `check ${name}`);
    }
  }
  for (const text of overrides(was)) {
    if (!overrides(is).includes(text)) add(text.endsWith(" set not null") ? after : before, text);
  }
  for (const text of overrides(is)) {
    if (overrides(was).some((other) => other === text) || / default(?: |$)/.test(text)) continue;
    if (text.endsWith(" drop not null")) add(after, text.replace(/drop not null$/, "set not null"));
    // Where the parent's column gets NOT NULL again, it is as it was.
    else keeps.push(`inherited column ${columnStatement.exec(text)?.[1] ?? ""} keeps NOT NULL`);
  }
  convert.push(...computed);
  for (const text of storageChanges(alter, was, is)) add(before, text);
  const rest = restChanges(was, is, only, remade);
  for (const text of rest) add(before, text);
  const moved = movedColumns(was, is, remade);
  if (moved.length > 0 && stuck === null) {
    const only = moved.length === 1;
    keeps.push(
      `${only ? "column" : "columns"} ${moved.join(", ")} ${only ? "comes" : "come"} last: none can be put between`,
    );
  }
  const dropped = new Set([...present.keys()].filter((name) => !wanted.has(name)));
  return { before, convert, after, retyped, remade, dropped, keeps, stuck };
}

/** Without the length or precision, by which a change needs no conversion. */
function bareType(type: string): string {
  return type.replace(/\([0-9,]+\)/, "");
}

/** `converted`: names of columns whose type changes, or that are made again. */
function stuckOf(was: TableText, is: TableText, converted: readonly string[]): string | null {
  if (was.partitionBy !== is.partitionBy) return "it is partitioned in another way";
  const key = converted.find((column) => mentions(was.partitionBy, column));
  if (key !== undefined) return `column ${key}, by which it is partitioned, is of another type`;
  if (parentsOf(was) !== parentsOf(is)) return "it inherits from other tables";
  const isDefault = (text: string) => / default(?: |$)/.test(text);
  if (overrides(is).some((text) => isDefault(text) && !overrides(was).includes(text))) {
    return "its inherited columns have other defaults";
  }
  return null;
}

function parentsOf(table: TableText): string {
  return [table.inherits, ...table.rest.filter((text) => / inherit /.test(text))].join();
}

const columnStatement = /^alter table only [\s\S]+? alter column ("(?:[^"]|"")+"|\S+) ([\s\S]+)$/;

/** What a table with parents says of columns that it did not print. */
function overrides(table: TableText): string[] {
  return table.rest.filter((text) => /^(?:set|drop) (?:default|not null)/.test(columnStatement.exec(text)?.[2] ?? ""));
}

/** Generated columns whose expression changed, that were or became generated, or that use what changes. */
function remadeColumns(was: TableText, is: TableText, changed: ReadonlySet<string>): ReadonlySet<string> {
  const present = new Map(is.columns.map((column) => [column.name, column]));
  const isRemade = (column: ColumnText): boolean => {
    const other = present.get(column.name);
    if (other === undefined || (column.generated === null && other.generated === null)) return false;
    if (column.generated !== other.generated || changed.has(column.name)) return true;
    return [...changed].some((name) => mentions(column.generated ?? "", name));
  };
  return new Set(was.columns.filter(isRemade).map((column) => column.name));
}

/** Columns that stand behind others that they stood before. */
function movedColumns(was: TableText, is: TableText, remade: ReadonlySet<string>): string[] {
  const wanted = was.columns.map((column) => column.name);
  const stays = is.columns.map((column) => column.name).filter((name) => wanted.includes(name) && !remade.has(name));
  const added = wanted.filter((name) => !stays.includes(name));
  if ([...stays, ...added].join() === wanted.join()) return [];
  const kept = wanted.filter((name) => stays.includes(name));
  if (kept.join() !== stays.join()) return wanted;
  const last = Math.max(...kept.map((name) => wanted.indexOf(name)));
  return added.filter((name) => wanted.indexOf(name) < last);
}

function storageChanges(alter: string, was: TableText, is: TableText): string[] {
  const nameOf = (option: string) => option.slice(0, option.indexOf(" = "));
  const names = new Set(was.options.map(nameOf));
  const gone = is.options.map(nameOf).filter((name) => !names.has(name));
  const set = was.options.filter((option) => !is.options.includes(option));
  return [
    ...(was.unlogged === is.unlogged ? [] : [`${alter} set ${was.unlogged ? "unlogged" : "logged"}`]),
    ...(was.using === is.using ? [] : [`${alter} set access method ${was.using === "" ? "heap" : was.using}`]),
    ...(gone.length === 0 ? [] : [`${alter} reset (${gone.join(", ")})`]),
    ...(set.length === 0 ? [] : [`${alter} set (${set.join(", ")})`]),
  ];
}

/** Back to the storage of the column's type, which no ALTER of PostgreSQL 15 names. Nothing where a parent's took the column along. */
function usualStorage(table: string, column: string): string {
  return `do ${
    quoteLiteral(`begin execute coalesce((
  select ${quoteLiteral(`alter table only ${table} alter column ${column} set storage `)} || case t.typstorage
         when 'm' then 'main' when 'e' then 'external' when 'p' then 'plain' else 'extended' end
    from pg_catalog.pg_attribute as a join pg_catalog.pg_type as t on t.oid = a.atttypid
   where a.attrelid = ${quoteLiteral(table)}::pg_catalog.regclass and a.attname = ${quoteLiteral(unquoteIdent(column))}
), 'select'); end`)
  }`;
}

/** Settings of columns, replica identity, remarks. */
function restChanges(
  was: TableText,
  is: TableText,
  only: string,
  remade: ReadonlySet<string>,
): string[] {
  const statements: string[] = [];
  const settings = (table: TableText) => table.rest.filter((text) => columnStatement.test(text));
  const wanted = settings(was);
  const kept = new Set(wanted.map(settingOf));
  const columns = new Map(was.columns.map((column) => [column.name, column]));
  for (const text of settings(is)) {
    const [, name = "", setting = ""] = columnStatement.exec(text) ?? [];
    const column = columns.get(name);
    const goes = column === undefined && is.columns.some((other) => other.name === name);
    if (goes || remade.has(name) || kept.has(settingOf(text))) continue;
    const target = `${only} alter column ${name}`;
    if (setting.startsWith("set compression ")) statements.push(`${target} set compression default`);
    else if (setting.startsWith("set statistics ")) statements.push(`${target} set statistics -1`);
    else if (setting.startsWith("set storage ")) {
      statements.push(usualStorage(was.name, name));
    } else if (setting.startsWith("set (")) {
      const names = [...setting.matchAll(/[(,] ?(\w+) = /g)].map(([, option]) => option);
      statements.push(`${target} reset (${names.join(", ")})`);
    }
  }
  const present = new Set(settings(is));
  for (const text of wanted) {
    const name = columnStatement.exec(text)?.[1] ?? "";
    const remadeOrNew = remade.has(name) || (columns.has(name) && !is.columns.some((column) => column.name === name));
    if (!present.has(text) || remadeOrNew) statements.push(text);
  }
  const replica = (table: TableText) => table.rest.find((text) => / replica identity (?:full|nothing)$/.test(text));
  if (replica(was) !== replica(is)) statements.push(replica(was) ?? `${only} replica identity default`);
  // Comments of columns that go, go with them.
  const gone = new Set(
    is.columns.map((column) => column.name).filter((name) => !columns.has(name) || remade.has(name)),
  );
  const lives = (text: string) =>
    ![...gone].some((name) => text.startsWith(`comment on column ${was.name}.${name} is `));
  statements.push(...remarkChanges(was.rest, is.rest.filter(lives)));
  return statements;
}

function settingOf(text: string): string {
  const [, name = "", setting = ""] = columnStatement.exec(text) ?? [];
  return `${name} ${
    setting.startsWith("set (") ? splitOption(setting).name : setting.split(" ").slice(0, 2).join(" ")
  }`;
}
