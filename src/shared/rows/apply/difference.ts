/**
 * What differs between rows as they were and the live ones, as SQL. Pure.
 *
 * A pair has two tables of work in its side schema: `delta`, which row is to be inserted, updated or deleted, by its key (or,
 * where rows have none, by its text and number), and `before`, live rows as they were before anything was done to them.
 * Aliases: `s` side, `l` live, `d` delta, `b` before.
 */
import { HoldfastError } from "../../errors.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import type { Fit, FitColumn } from "../beside/fit.ts";
import type { SideTable } from "../beside/side_tables.ts";
import { withoutLoneMove } from "./lone_move.ts";

/** `missing` inserts what is gone, `merge` also puts back what differs, `replace` also deletes what was not there. */
export const restoreModes = ["missing", "merge", "replace"] as const;
export type RestoreMode = (typeof restoreModes)[number];

/** One table in both of its forms. */
export interface Pair {
  readonly fit: Fit;
  readonly side: SideTable;
  /** Of the pair among those of the side schema, from 1: part of the names of its tables of work. */
  readonly place: number;
  /** Quoted names of the tables of work. */
  readonly delta: string;
  readonly before: string;
  /** Live columns that a row which is there keeps, such as a password. */
  readonly keep: ReadonlySet<string>;
  /** Condition on live rows `l` that `replace` may delete; null: all of them. */
  readonly scope: string | null;
  /**
   * Which rows of then go in: `comes`, a condition that holds for rows that are gone, asked with every difference; where not
   * `changes`, those that are there stay as they are.
   */
  readonly guard?: { readonly comes: string; readonly changes: boolean };
  /**
   * Keys of live rows, under their names, that were the user's alone and are another user's now, or also. `taken`: they were
   * asked for.
   */
  readonly theirs?: {
    readonly sql: string;
    readonly taken: boolean;
    /** On live rows `l`: the same, asked at another time. */
    readonly condition: string;
  };
}

/** Names of a pair's tables of work, in the side schema; those of an earlier try have ` of try <n>` behind them. */
export const workNames = {
  delta: (place: number) => `holdfast delta ${place}`,
  before: (place: number) => `holdfast before ${place}`,
} as const;

export function liveName({ fit }: Pair): string {
  return quoteQualified(fit.live.schema, fit.live.name);
}

/** Rows of the table itself, without those of tables that inherit from it. */
export function liveRelation(pair: Pair): string {
  return pair.fit.live.partitioned ? liveName(pair) : `only ${liveName(pair)}`;
}

/** A side row's value in the type that the live column has. */
export function sideValue({ side }: Pair, column: FitColumn, alias = "s"): string {
  const type = side.columns.find(({ name }) => name === column.past)?.type;
  const value = `${alias}.${quoteIdent(column.past)}`;
  return type === column.liveType ? value : `${value}::text::${column.liveType}`;
}

/** The column that a live name is fitted to. */
export function fitted({ fit }: Pair, live: string): FitColumn {
  const column = fit.columns.find((one) => one.live === live);
  if (column === undefined) throw new HoldfastError("internal", `no row of then has column ${live}`);
  return column;
}

/** `l` and `s` have the same key. */
export function sameKey(pair: Pair): string {
  return (pair.fit.key ?? []).map(({ name, equals }) =>
    `l.${quoteIdent(name)} ${equals} ${sideValue(pair, fitted(pair, name))}`
  ).join(" and ");
}

/** Columns of the key in `delta`, whatever the table calls them: its own may be called as ours are. */
function deltaKey(pair: Pair): string[] {
  return (pair.fit.key ?? []).map((_, at) => `"key ${at + 1}"`);
}

/** The row with this alias, of the live table's columns, has the key of a row of `delta`. */
export function keyOfDelta(pair: Pair, alias: string, delta = "d"): string {
  const own = deltaKey(pair);
  return (pair.fit.key ?? []).map(({ name, equals }, at) =>
    `${alias}.${quoteIdent(name)} ${equals} ${delta}.${own[at] ?? ""}`
  ).join(" and ");
}

/** The side row's key is the one in `d`. */
export function sideKeyOfDelta(pair: Pair): string {
  const own = deltaKey(pair);
  return (pair.fit.key ?? []).map(({ name, equals }, at) =>
    `${sideValue(pair, fitted(pair, name))} ${equals} d.${own[at] ?? ""}`
  ).join(" and ");
}

/** Columns of which the values decide whether a row differs. */
export function compared(pair: Pair): FitColumn[] {
  return pair.fit.columns.filter((one) => !pair.keep.has(one.live));
}

/** The images of both rows differ: exact for every type, those without an equality too. */
function differs(pair: Pair): string {
  const columns = compared(pair);
  if (columns.length === 0) return "false";
  const live = columns.map((one) => `l.${quoteIdent(one.live)}`).join(", ");
  const side = columns.map((one) => sideValue(pair, one)).join(", ");
  return `pg_catalog.record_image_ne(row(${live}), row(${side}))`;
}

/** The row cannot be changed where it stands: it is deleted and inserted. */
function moves(pair: Pair): string {
  const { live } = pair.fit;
  const pinned = new Set(live.pinned);
  if (live.columns.some(({ name, generated }) => generated && pinned.has(name))) return "true";
  const columns = compared(pair).filter((one) => pinned.has(one.live));
  if (columns.length === 0) return "false";
  const now = columns.map((one) => `l.${quoteIdent(one.live)}`).join(", ");
  const then = columns.map((one) => sideValue(pair, one)).join(", ");
  return `pg_catalog.record_image_ne(row(${now}), row(${then}))`;
}

/** The text of a whole row, for tables without a key. */
function rowText(pair: Pair, of: "l" | "s"): string {
  const values = pair.fit.columns.map((one) => of === "l" ? `l.${quoteIdent(one.live)}` : sideValue(pair, one));
  return `row(${values.join(", ")})::text collate "C"`;
}

/** The statements that make both tables of work. */
export function workStatements(pair: Pair): string[] {
  const { fit, delta, before } = pair;
  const own = deltaKey(pair);
  const key = (fit.key ?? []).map(({ name }, at) => `${own[at] ?? ""} ${fitted(pair, name).liveType}`);
  const names = own.join(", ");
  const columns = fit.key === null
    ? `"row" text collate "C" not null, copies bigint not null`
    : `${key.join(", ")}, primary key (${names})`;
  return [
    `create table ${delta} (${columns}, "action" text not null, "moves" boolean not null default false,
       "done" boolean not null default false, "step" smallint not null default 0)`,
    // Published by somebody FOR ALL TABLES, it would refuse deletes without a key.
    ...(fit.key === null ? [`alter table ${delta} replica identity full`] : []),
    `create table ${before} (like ${liveName(pair)})`,
  ];
}

/** Fills `delta` with what is to be done, beside what is marked as done. */
export function differenceStatements(pair: Pair, mode: RestoreMode): string[] {
  const { delta } = pair;
  const forget = `delete from ${delta} where not "done"`;
  const statements = pair.fit.key === null ? keylessDifference(pair, mode) : keyedDifference(pair, mode);
  return [forget, ...statements, `analyze ${delta}`];
}

function keyedDifference(pair: Pair, mode: RestoreMode): string[] {
  const { fit, side, delta, scope } = pair;
  const names = (fit.key ?? []).map(({ name }) => quoteIdent(name));
  const list = deltaKey(pair).join(", ");
  const keys = (fit.key ?? []).map(({ name }) => sideValue(pair, fitted(pair, name))).join(", ");
  const gone = "l.tableoid is null";
  const comes = pair.guard === undefined ? gone : `${gone} and (${pair.guard.comes})`;
  const changes = mode === "missing" || pair.guard?.changes === false ? "" : ` or not (${gone}) and ${differs(pair)}`;
  const statements = [
    `insert into ${delta} (${list}, "action", "moves")
     select ${keys}, case when ${gone} then 'insert' else 'update' end, not (${gone}) and ${moves(pair)}
       from ${side.sql} as s left join ${liveRelation(pair)} as l on ${sameKey(pair)}
      where ${comes}${changes}
         on conflict do nothing`,
  ];
  if (mode === "replace") {
    statements.push(
      `insert into ${delta} (${list}, "action")
       select ${names.map((name) => `l.${name}`).join(", ")}, 'delete'
         from ${liveRelation(pair)} as l
        where not exists (select from ${side.sql} as s where ${sameKey(pair)})${scope === null ? "" : ` and (${scope})`}
           on conflict do nothing`,
    );
  }
  return mode === "missing" ? statements : [...statements, ...withoutLoneMove(pair)];
}

/** Bags: a row that was there three times and is there once is inserted twice. */
function keylessDifference(pair: Pair, mode: RestoreMode): string[] {
  const { side, delta, scope } = pair;
  const rows = `select ${rowText(pair, "l")} as "row", count(*) as n from ${liveRelation(pair)} as l`;
  const was = `select ${rowText(pair, "s")} as "row", count(*) as n from ${side.sql} as s group by 1`;
  const is = `${rows}${scope === null ? "" : ` where (${scope})`} group by 1`;
  const comes = pair.guard === undefined ? "" : ` and (${pair.guard.comes})`;
  // What is there is there, whether or not `replace` may delete it.
  const statements = [
    `insert into ${delta} ("row", copies, "action")
     select was."row", was.n - coalesce(present.n, 0), 'insert'
       from (${was}) as was left join (${rows} group by 1) as present on present."row" = was."row"
      where was.n > coalesce(present.n, 0)${comes}`,
  ];
  if (mode === "replace") {
    statements.push(
      `insert into ${delta} ("row", copies, "action")
       select present."row", present.n - coalesce(was.n, 0), 'delete'
         from (${is}) as present left join (${was}) as was on was."row" = present."row"
        where present.n > coalesce(was.n, 0)`,
    );
  }
  return statements;
}

/** Rows of `delta` that are to be done now; \`alias\` is that of delta. */
export type Part = (alias: string) => string;

/** All that is not done. */
export const openRows: Part = (alias) => `not ${alias}."done"`;

/** Those of steps that went before as well. */
export const allRows: Part = () => "true";

/** Locks the live rows that will be deleted or put back; null: none can be named. */
export function lockRowsStatement(pair: Pair, part: Part): string | null {
  if (pair.fit.key === null) return null;
  return `select count(*) from (
    select from ${liveRelation(pair)} as l join ${pair.delta} as d on ${keyOfDelta(pair, "l")} where ${
    part("d")
  } for update of l
  ) as locked`;
}

/** Rows of then, as `s`, that are to come: what stands behind FROM. */
export function comingRows(pair: Pair, part: Part): string {
  const { fit, side, delta } = pair;
  return fit.key === null
    ? `${side.sql} as s where exists (select from ${delta} as d where d."action" = 'insert' and d."row" = ${
      rowText(pair, "s")
    } and ${part("d")})`
    : `${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)} where d."action" <> 'delete' and ${part("d")}`;
}

/** Which live rows go, as a condition on `l`. */
function goes(pair: Pair, part: Part): string {
  if (pair.fit.key !== null) {
    return `exists (select from ${pair.delta} as d where ${keyOfDelta(pair, "l")}
      and (d."action" = 'delete' or d."moves") and ${part("d")})`;
  }
  return `(l.tableoid, l.ctid) in (
    select numbered.tableoid, numbered.ctid
      from (
        select l.tableoid, l.ctid, ${rowText(pair, "l")} as "row",
               pg_catalog.row_number() over (partition by ${rowText(pair, "l")}) as n
          from ${liveRelation(pair)} as l${pair.scope === null ? "" : ` where (${pair.scope})`}
      ) as numbered
      join ${pair.delta} as d on d."row" = numbered."row" and d."action" = 'delete' and numbered.n <= d.copies
       and ${part("d")}
  )`;
}

/** What goes is kept in `before`, in one statement, so that it is exactly what went; the rows that went, as `n`. */
export function takeOutStatement(pair: Pair, part: Part): string {
  const deleted = `delete from ${liveRelation(pair)} as l where ${goes(pair, part)} returning`;
  // Rows without columns cannot be handed on, and are all the same.
  if (pair.fit.live.columns.length === 0) return `with gone as (${deleted} 1) select count(*) as n from gone`;
  return `with gone as (${deleted} l.*), kept as (insert into ${pair.before} select * from gone returning 1)
    select count(*) as n from kept`;
}

/** Rows that are new. Columns that the past did not have get their defaults. */
export function insertStatement(pair: Pair, part: Part): string {
  const { fit, side, delta } = pair;
  const names = fit.columns.map((one) => quoteIdent(one.live)).join(", ");
  const values = fit.columns.map((one) => sideValue(pair, one)).join(", ");
  if (fit.columns.length === 0) {
    return `insert into ${liveName(pair)} select from pg_catalog.generate_series(1, (
      select coalesce(sum(d.copies), 0)::bigint from ${delta} as d where d."action" = 'insert' and ${part("d")}
    ))`;
  }
  const head = `insert into ${liveName(pair)} (${names}) overriding system value`;
  if (fit.key !== null) {
    return `${head} select ${values} from ${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)}
      where d."action" = 'insert' and ${part("d")}`;
  }
  return `${head} select ${values}
    from (
      select s.*, ${rowText(pair, "s")} as "holdfast row",
             pg_catalog.row_number() over (partition by ${rowText(pair, "s")}) as "holdfast number"
        from ${side.sql} as s
    ) as s
    join ${delta} as d on d."row" = s."holdfast row" and s."holdfast number" <= d.copies
   where d."action" = 'insert' and ${part("d")}`;
}

/**
 * Rows that change where they stand, so that whoever waits for one finds it: kept in `before`, then set. Null: no column may
 * be set.
 */
export function changeStatements(pair: Pair, part: Part): { readonly keep: string; readonly set: string } | null {
  const { fit, side, delta, before } = pair;
  if (fit.key === null) return null;
  const always = new Set(fit.live.columns.filter((one) => one.always).map(({ name }) => name));
  const columns = compared(pair).filter((one) => !always.has(one.live));
  if (columns.length === 0) return null;
  const meant = `d."action" = 'update' and not d."moves" and ${part("d")}`;
  const values = columns.map((one) => `${quoteIdent(one.live)} = ${sideValue(pair, one)}`).join(", ");
  return {
    keep: `insert into ${before} select l.* from ${liveRelation(pair)} as l join ${delta} as d on ${
      keyOfDelta(pair, "l")
    } where ${meant}`,
    set: `update ${liveRelation(pair)} as l set ${values} from ${side.sql} as s join ${delta} as d on ${
      sideKeyOfDelta(pair)
    } where ${keyOfDelta(pair, "l")} and ${meant}`,
  };
}

/** Rows that were deleted to be put back: values of then, and what they keep from `before`. */
export function putBackStatement(pair: Pair, part: Part): string | null {
  const { fit, side, delta, before } = pair;
  if (fit.key === null) return null;
  const kept = [...fit.columns.map((one) => one.live).filter((name) => pair.keep.has(name)), ...fit.added];
  const names = [...compared(pair).map((one) => one.live), ...kept].map(quoteIdent).join(", ");
  const values = [
    ...compared(pair).map((one) => sideValue(pair, one)),
    ...kept.map((name) => `b.${quoteIdent(name)}`),
  ].join(", ");
  return `insert into ${liveName(pair)} (${names}) overriding system value
    select ${values} from ${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)}
      join ${before} as b on ${keyOfDelta(pair, "b")}
     where d."action" = 'update' and d."moves" and ${part("d")}`;
}

/** How many of the rows that were to come back are not as they were; 0 is the proof. */
export function unprovenStatement(pair: Pair, part: Part): string | null {
  const { fit, side, delta } = pair;
  if (fit.key === null) return null;
  return `select count(*) as n from ${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)}
      left join ${liveRelation(pair)} as l on ${sameKey(pair)}
     where d."action" <> 'delete' and ${part("d")}
       and (l.tableoid is null or (d."action" = 'update' and ${differs(pair)}) or
            (d."action" = 'insert' and ${differs({ ...pair, keep: new Set() })}))`;
}

/** How many rows of a table that was made equal are not; 0 is the proof. Rows out of the scope stay, whoever made them. */
export function unequalStatement(pair: Pair): string | null {
  if (pair.fit.key === null) return null;
  return `select count(*) as n from ${pair.side.sql} as s full join ${liveRelation(pair)} as l on ${sameKey(pair)}
     where case when s.tableoid is null then (${pair.scope ?? "true"}) else l.tableoid is null or ${differs(pair)} end`;
}
