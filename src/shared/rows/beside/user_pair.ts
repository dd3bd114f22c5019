/** A user's rows beside the live ones, and what of those is not the user's to take any more. */
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { triesOf } from "../apply/done_counts.ts";
import { liveRelation, type Pair, sameKey, workNames } from "../apply/difference.ts";
import { treatmentOf } from "../ownership/auth_map.ts";
import { usersTable } from "../ownership/ownership.ts";
import { userIdColumns } from "../ownership/user_id_columns.ts";
import { nameOf } from "../past/fold_partitions.ts";
import { type Beside, type PairDeps, pairUp } from "./beside.ts";
import { fitTable, isUnfit } from "./fit.ts";
import type { Laid } from "./laid.ts";
import type { UserChoice } from "./lay_user.ts";
import { readLiveTables } from "./live_tables.ts";
import { isNewcomer } from "./newcomers.ts";
import { closeTable, deletable } from "./side_tables.ts";
import { withoutParentless } from "./user_parentless.ts";
import { othersNow, readUserId, readUserNow, userIsThere, type UserNow } from "./user_now.ts";

/**
 * Next to the live tables; `replace` looks at the rows that are the user's alone now, and were there for nobody then. Rows that
 * are another user's by now are looked up, for the plan. Errors: those of `pairUp`.
 */
export async function pairUser(deps: PairDeps, { tables }: Laid, choice: UserChoice): Promise<Beside> {
  const { connection } = deps;
  const live = await readLiveTables(connection, tables.map(({ side }) => side.past));
  const user = await readUserId(connection, choice.as ?? choice.user);
  const now = await readUserNow(connection, user, choice.map);
  const beside = await pairUp(deps, tables, live, ({ side, newcomers }) => {
    const meant = now.owned(side.past);
    if (newcomers === undefined || newcomers === null || meant === "false") return "false";
    const fit = fitTable(side.past, live, deps.sameDatabase);
    return isUnfit(fit) ? "false" : `(${meant}) and ${isNewcomer(newcomers, fit)}`;
  });
  const whole = await withoutParentless(deps, beside.pairs, beside.keys);
  const pairs = choice.credentials ? whole : await guarded(deps, whole, user);
  return { ...beside, pairs: await withTheirs(deps, pairs, now, choice, user) };
}

/**
 * What lets somebody in comes with the account that the restore brings. Into one that is there, or that somebody has made again
 * by the time it would go in, it does not; and second factors that are there stay as they are.
 */
async function guarded({ connection, schema }: PairDeps, pairs: readonly Pair[], user: string): Promise<Pair[]> {
  const account = pairs.find(({ fit }) => nameOf(fit.past) === nameOf(usersTable));
  const deltas = account === undefined ? [] : await triesOf(connection, schema, workNames.delta(account.place));
  const brought = deltas.map((name) => {
    const sql = quoteQualified(schema, name);
    const done = sql === account?.delta ? "" : ` and d."done"`;
    return `exists (select from ${sql} as d where d."action" = 'insert'${done})`;
  });
  // Asked again with every difference, under the locks too.
  const comes = brought.length === 0 ? "false" : brought.join(" or ");
  const [now] = await connection.query(`select (${comes}) as brought`);
  const isThere = await userIsThere(connection, user) && now?.["brought"] !== "t";
  const found: Pair[] = [];
  for (const pair of pairs) {
    const { fit, side, scope } = pair;
    const { restore, letsIn } = treatmentOf(fit.past);
    const isFactor = restore === "credentials";
    if (!isFactor && letsIn !== true) {
      found.push(pair);
      continue;
    }
    const [gone] = await connection.query(
      `select count(*) as n from ${side.sql} as s where not exists (select from ${liveRelation(pair)} as l where ${
        fit.key === null ? "false" : sameKey(pair)
      })`,
    );
    const rows = Number(gone?.["n"]);
    const note = `${rows === 1 ? "1 row" : `${rows} rows`} of ${
      nameOf(fit.live)
    } that are gone stay out: the account is there, and they need --credentials`;
    found.push({
      ...pair,
      guard: { comes, changes: !isFactor },
      scope: isFactor ? `(${comes}) and (${scope ?? "true"})` : scope,
      fit: isThere && rows > 0 ? { ...fit, notes: [...fit.notes, note] } : fit,
    });
  }
  return found;
}

/** With the keys of live rows that were the user's alone and are another user's now, or also. */
async function withTheirs(
  deps: PairDeps,
  pairs: readonly Pair[],
  now: UserNow,
  choice: UserChoice,
  user: string,
): Promise<Pair[]> {
  const { connection } = deps;
  const was = choice.as === null
    ? null
    : { id: await readUserId(connection, choice.user), idColumns: userIdColumns(now.graph, choice.map) };
  const staked = new Map<string, string>();
  for (const pair of pairs) {
    await connection.execute(`drop table if exists ${theirsTable(deps, pair)}`);
    if (pair.fit.key === null || nameOf(pair.fit.past) === nameOf(usersTable)) continue;
    const isThere = `exists (select from ${pair.side.sql} as s where ${sameKey(pair)})`;
    const [row] = await connection.query(
      `select exists (select from ${liveRelation(pair)} as l where ${isThere}) as yes`,
    );
    if (row?.["yes"] === "t") staked.set(nameOf(pair.fit.live), isThere);
  }
  if (staked.size === 0) return [...pairs];
  const conditionOf = othersNow(now, user, staked, was);
  const found: Pair[] = [];
  for (const pair of pairs) {
    const condition = conditionOf(pair.fit.live);
    const sql = theirsTable(deps, pair);
    if (condition === null) {
      found.push(pair);
      continue;
    }
    const key = (pair.fit.key ?? []).map(({ name }) => `l.${quoteIdent(name)}`).join(", ");
    await connection.execute(
      `create table ${sql} as select ${key} from ${liveRelation(pair)} as l where ${condition}; ${deletable(sql)}`,
    );
    await closeTable(connection, sql);
    found.push({ ...pair, theirs: { sql, taken: choice.shared, condition } });
  }
  return found;
}

const theirsTable = ({ schema }: PairDeps, { place }: Pair) => quoteQualified(schema, `holdfast theirs ${place}`);
