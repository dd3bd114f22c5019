/** Grants that default privileges give a new object, taken back. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { quoteIdent, quoteLiteral } from "../../../schema/quote.ts";
import { relationName, typeName } from "../texts/identity_names.ts";

/** Turns the object's grants, which default privileges may have given, into those that an object has by itself. */
export function resetAccess(one: Definition): string | null {
  const name = accessName(one);
  if (name === null) return null;
  const { catalog, acl, owner, letter, cast, target } = name;
  const literal = quoteLiteral(target);
  return `do ${
    quoteLiteral(`declare g record; begin
  for g in
    select e.privilege_type as right, e.grantee, true as taken
      from pg_catalog.${catalog} o, pg_catalog.aclexplode(o.${acl}) e
     where o.oid = ${literal}::pg_catalog.${cast} and not exists (select from pg_catalog.aclexplode(
       pg_catalog.acldefault(${
      quoteLiteral(letter)
    }, o.${owner})) d where d.grantee = e.grantee and d.privilege_type = e.privilege_type)
    union all
    select d.privilege_type, d.grantee, false
      from pg_catalog.${catalog} o, pg_catalog.aclexplode(pg_catalog.acldefault(${quoteLiteral(letter)}, o.${owner})) d
     where o.oid = ${literal}::pg_catalog.${cast} and o.${acl} is not null and not exists (select from pg_catalog.aclexplode(o.${acl}) e
       where d.grantee = e.grantee and d.privilege_type = e.privilege_type)
  loop
    execute pg_catalog.format(case when g.taken then 'revoke %s on %s from %s' else 'grant %s on %s to %s' end, g.right,
      ${
      quoteLiteral(name.word + " " + target)
    }, case when g.grantee = 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) end);
  end loop;
end`)
  }`;
}

interface AccessName {
  readonly catalog: string;
  readonly acl: string;
  readonly owner: string;
  /** The object kind letter of `acldefault()`. */
  readonly letter: string;
  readonly cast: string;
  readonly word: string;
  readonly target: string;
}

function accessName({ identity, kind, name }: Definition): AccessName | null {
  const relation = { catalog: "pg_class", acl: "relacl", owner: "relowner", cast: "regclass" };
  switch (kind) {
    case "table":
    case "foreign table":
    case "view":
    case "materialized view":
      return identity.startsWith("body of ")
        ? null
        : { ...relation, letter: "r", word: "table", target: relationName(identity) };
    case "sequence":
    case "identity":
      return { ...relation, letter: "s", word: "sequence", target: relationName(identity) };
    case "function":
    case "procedure":
    case "aggregate":
      return {
        catalog: "pg_proc",
        acl: "proacl",
        owner: "proowner",
        letter: "f",
        cast: "regprocedure",
        word: "routine",
        target: identity.replace(/^\w+ /, ""),
      };
    case "enum":
    case "domain":
    case "range":
    case "composite type":
      return {
        catalog: "pg_type",
        acl: "typacl",
        owner: "typowner",
        letter: "T",
        cast: "regtype",
        word: "type",
        target: typeName(identity),
      };
    case "schema":
      return {
        catalog: "pg_namespace",
        acl: "nspacl",
        owner: "nspowner",
        letter: "n",
        cast: "regnamespace",
        word: "schema",
        target: quoteIdent(name),
      };
    default:
      return null;
  }
}
