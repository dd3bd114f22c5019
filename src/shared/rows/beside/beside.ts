/** Rows as they were in a side schema, next to the live tables that they fit. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { bucketColumnOf, notOfOwnBuckets } from "../../schema/own_objects.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { fitted, type Pair, sideValue, workNames } from "../apply/difference.ts";
import { type ForeignKey, readForeignKeys } from "../apply/keys.ts";
import { refused } from "../apply/put_back.ts";
import { makeWork } from "../apply/work_tables.ts";
import { type FitColumn, fitTable, isUnfit, type Unfit } from "./fit.ts";
import type { LaidTable } from "./laid.ts";
import type { LiveTable } from "./live_tables.ts";
import type { SideTable } from "./side_tables.ts";

export interface PairDeps {
  /** A session with pinned settings (`openSession`), in no transaction. */
  readonly connection: Connection;
  /** The database that the rows are from, so that oids mean the same. */
  readonly sameDatabase: boolean;
  /** `restore_` and eight hex digits. */
  readonly schema: string;
}

/** Rows beside the live ones. */
export interface Beside {
  readonly schema: string;
  readonly sides: readonly { readonly side: SideTable; readonly rows: number }[];
  /** Tables that rows can go back into. */
  readonly pairs: readonly Pair[];
  /** Tables that are beside only. */
  readonly unfit: readonly Unfit[];
  /** Foreign keys on both ends of the tables. */
  readonly keys: readonly ForeignKey[];
}

/** Condition on live rows `l` that `replace` may delete; null: all of them. */
export type Scope = string | null;

/** Indexes the side tables by the live keys and makes the tables of work; anew where they were made for a plan. */
export async function pairUp(
  deps: PairDeps,
  laid: readonly LaidTable[],
  live: readonly LiveTable[],
  scopeOf: (table: LaidTable) => Scope | Promise<Scope>,
): Promise<Beside> {
  const { connection, schema } = deps;
  const pairs: Pair[] = [];
  const unfit: Unfit[] = [];
  for (const [index, table] of laid.entries()) {
    const { side, keep } = table;
    const fit = fitTable(side.past, live, deps.sameDatabase);
    if (isUnfit(fit)) {
      unfit.push(fit);
      continue;
    }
    const pair: Pair = {
      fit,
      side,
      place: index + 1,
      delta: quoteQualified(schema, workNames.delta(index + 1)),
      before: quoteQualified(schema, workNames.before(index + 1)),
      keep: new Set(keep),
      scope: withoutOwnRows(fit.live, await scopeOf(table)),
    };
    await indexSide(connection, pair);
    await makeWork(connection, pair);
    pairs.push(pair);
  }
  const keys = await readForeignKeys(connection, pairs.map((pair) => pair.fit.live.oid));
  return { schema, sides: laid.map(({ side, rows }) => ({ side, rows })), pairs, unfit, keys };
}

/** Of our own buckets no backup holds a row: that there was none then is no reason to delete those of now. */
function withoutOwnRows(live: LiveTable, scope: Scope): Scope {
  const bucket = bucketColumnOf(live);
  if (bucket === null || live.columns.every(({ name }) => name !== bucket)) return scope;
  const theirs = notOfOwnBuckets(`l.${quoteIdent(bucket)}`);
  return scope === null ? theirs : `(${scope}) and (${theirs})`;
}

/** Errors: `rows_conflict` where rows of then have the same key under the primary key of now, or none. */
async function indexSide(connection: Connection, pair: Pair): Promise<void> {
  const { fit, side } = pair;
  if (fit.key !== null) {
    const columns = fit.key.map(({ name }) => sideValue(pair, fitted(pair, name)));
    const [twice] = await connection.query(
      `select exists (
         select from ${side.sql} as s group by ${columns.join(", ")}
         having count(*) > 1 or ${columns.map((column) => `${column} is not distinct from null`).join(" or ")}
       ) as yes`,
    ).catch((error: unknown) => {
      throw refused(error);
    });
    if (twice?.["yes"] === "t") {
      const table = quoteQualified(fit.live.schema, fit.live.name);
      throw new HoldfastError(
        "rows_conflict",
        `the primary key that ${table} has now does not tell its rows of then apart`,
        {
          hint: "Restore beside, without --apply.",
        },
      );
    }
    const plain = fit.key.map(({ name }) => fitted(pair, name)).filter((column) => isPlain(pair, column));
    // A value that passes through its text is no part of an index: how it is read hangs on settings.
    if (plain.length === fit.key.length) {
      await connection.execute(
        `create unique index if not exists ${quoteIdent(`holdfast key ${pair.place}`)} on ${side.sql} (${
          plain.map((column) => quoteIdent(column.past)).join(", ")
        })`,
      );
    }
  }
  await connection.execute(`analyze ${side.sql}`);
}

function isPlain({ side }: Pair, column: FitColumn): boolean {
  return side.columns.find(({ name }) => name === column.past)?.type === column.liveType;
}
