/** Which views CREATE OR REPLACE would make what they were: the server itself says which columns a query has. */
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import type { Definition, SchemaCapture } from "../../schema/capture_format.ts";
import { relationName } from "./texts/identity_names.ts";
import { isRemark } from "./texts/remark_changes.ts";

/** Longest wait for a table that a view reads, in ms. */
const lockTimeoutMs = 2_000;

/**
 * Identities of views that differ and have now the first columns of those that they had: same names, types and collations.
 * The query of the backup is tried as a temporary view in a transaction that is rolled back; where it cannot be made yet,
 * the view is not among them. Errors: those of the connection, `lock_timeout`.
 */
export async function findReplaceableViews(
  connection: Connection,
  was: SchemaCapture,
  is: SchemaCapture,
): Promise<ReadonlySet<string>> {
  const found = new Set<string>();
  const views = differingViews(was, is);
  if (views.length === 0) return found;
  await connection.execute(`begin; set local lock_timeout = ${lockTimeoutMs}`);
  try {
    for (const view of views) {
      await connection.execute("savepoint trial");
      if (await hasColumnsOfThen(connection, view)) found.add(view.identity);
      await connection.execute("rollback to savepoint trial");
    }
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
  return found;
}

interface DifferingView {
  readonly identity: string;
  /** `schema.name`, quoted. */
  readonly name: string;
  /** That made it. */
  readonly statements: readonly string[];
}

function differingViews(was: SchemaCapture, is: SchemaCapture): DifferingView[] {
  const [former, present] = [byIdentity(was), byIdentity(is)];
  return was.definitions.flatMap(({ identity, kind, platform }) => {
    if (kind !== "view" || platform !== null || identity.startsWith("body of ")) return [];
    const [then, now] = [former, present].map((all) => all.get(`body of ${identity}`) ?? all.get(identity));
    if (then === undefined || now?.kind !== "view" || mainText(then) === mainText(now)) return [];
    return [{ identity, name: relationName(identity), statements: mainStatements(then) }];
  });
}

const byIdentity = (capture: SchemaCapture) => new Map(capture.definitions.map((one) => [one.identity, one]));
const mainStatements = (one: Definition) => one.statements.filter((text) => !isRemark(text));
const mainText = (one: Definition) => mainStatements(one).join(";\n");

async function hasColumnsOfThen(connection: Connection, { name, statements }: DifferingView): Promise<boolean> {
  const head = `create or replace view ${name}`;
  if (!statements.some((text) => text.startsWith(head))) return false;
  try {
    for (const text of statements) {
      await connection.execute(
        text.startsWith(head) ? `create temporary view holdfast_trial${text.slice(head.length)}` : text,
      );
    }
    const [row] = await connection.query(
      `select not exists (
         select from pg_catalog.pg_attribute as p
          where p.attrelid = pg_catalog.to_regclass($1) and p.attnum > 0 and not exists (
            select from pg_catalog.pg_attribute as t
             where t.attrelid = 'pg_temp.holdfast_trial'::pg_catalog.regclass and t.attnum = p.attnum
               and (t.attname, t.atttypid, t.atttypmod, t.attcollation)
                 = (p.attname, p.atttypid, p.atttypmod, p.attcollation))
       ) as fits`,
      [name],
    );
    return row?.["fits"] === "t";
  } catch (error) {
    if (isOfTheQuery(error)) return false;
    throw error;
  }
}

/** Not a lost connection, a lock that was not given, a cancelled statement. */
function isOfTheQuery(error: unknown): boolean {
  const sqlstate = sqlstateOf(error);
  return sqlstate !== null && !/^(?:08|40|53|55|57)/.test(sqlstate);
}
