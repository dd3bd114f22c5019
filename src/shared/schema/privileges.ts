/** Access lists as GRANT and REVOKE. Pure. */
import type { Grant } from "./inventory.ts";
import { quoteGrantee, quoteIdent } from "./quote.ts";

export interface AccessList {
  readonly owner: string | null;
  /** Null: the default. */
  readonly actual: readonly Grant[] | null;
  /** What the object has when nothing was granted or revoked. */
  readonly base: readonly Grant[];
  /** Column name for a grant on a column, else null. */
  readonly column: string | null;
}

/** How a grant is written on an object: `grant select on table x to y`, or wrapped for the database. */
export type GrantText = (verb: "grant" | "revoke", privileges: string, tail: string) => string;

export const grantOn = (target: string): GrantText => (verb, privileges, tail) =>
  `${verb} ${privileges} on ${target} ${tail}`;

/**
 * Statements that lead from `base` to `actual`. Grants made by somebody else than the owner are made as that role, with `set role`
 * and `reset role` around them.
 */
export function accessStatements(list: AccessList, text: GrantText): string[] {
  if (list.actual === null) return [];
  const key = (grant: Grant) => JSON.stringify([grant.grantor, grant.grantee, grant.privilege, grant.grantable]);
  const actual = new Set(list.actual.map(key));
  const base = new Set(list.base.map(key));
  const column = list.column === null ? "" : ` (${quoteIdent(list.column)})`;
  const statements: string[] = [];
  for (const [grantee, grants] of byGrantee(list.base.filter((grant) => !actual.has(key(grant))))) {
    const privileges = grants.map((grant) => grant.privilege.toLowerCase() + column).join(", ");
    statements.push(text("revoke", privileges, `from ${quoteGrantee(grantee)}`));
  }
  const added = list.actual.filter((grant) => !base.has(key(grant)));
  const own = added.filter((grant) => grant.grantor === list.owner || list.owner === null);
  statements.push(...grantStatements(own, column, text));
  const others = added.filter((grant) => !own.includes(grant));
  for (const grantor of [...new Set(others.map((grant) => grant.grantor))].sort()) {
    const theirs = grantStatements(others.filter((grant) => grant.grantor === grantor), column, text);
    statements.push(`set role ${quoteIdent(grantor)}`, ...theirs, "reset role");
  }
  return statements;
}

function grantStatements(grants: readonly Grant[], column: string, text: GrantText): string[] {
  return byGrantee(grants).flatMap(([grantee, theirs]) =>
    [false, true].flatMap((grantable) => {
      const privileges = theirs.filter((grant) => grant.grantable === grantable).map((grant) => grant.privilege);
      if (privileges.length === 0) return [];
      const list = privileges.map((privilege) => privilege.toLowerCase() + column).join(", ");
      return [text("grant", list, `to ${quoteGrantee(grantee)}${grantable ? " with grant option" : ""}`)];
    })
  );
}

/** In the order of the access list, so that the restored list has the same one. */
function byGrantee(grants: readonly Grant[]): [string | null, Grant[]][] {
  const groups = new Map<string | null, Grant[]>();
  for (const grant of grants) groups.set(grant.grantee, [...(groups.get(grant.grantee) ?? []), grant]);
  return [...groups];
}
