/** Words of `pg_identify_object` and of our kinds in COMMENT, SECURITY LABEL, GRANT and DEPENDS ON EXTENSION. Pure. */
import type { CatalogObject } from "./inventory.ts";

/** `table public.x` as COMMENT ON and SECURITY LABEL ON take it; null when the object takes none. */
export function commentTarget(object: CatalogObject): string | null {
  if (object.type === null || object.identity === null) return null;
  switch (object.type) {
    case "table constraint":
      return `constraint ${object.identity}`;
    case "domain constraint":
      return `constraint ${object.identity.replace(/ on (?=[^"]*(?:"[^"]*"[^"]*)*$)/, " on domain ")}`;
    case "statistics object":
      return `statistics ${object.identity}`;
    case "foreign-data wrapper":
      return `foreign data wrapper ${object.identity}`;
    case "aggregate":
      return `routine ${object.identity}`;
    case "composite type":
      return `type ${object.identity}`;
    case "default value":
    case "default acl":
    case "user mapping":
    case "publication relation":
    case "publication namespace":
    case "parameter ACL":
    case "database":
      return null;
    default:
      return `${object.type} ${object.identity}`;
  }
}

/** `table public.x` as GRANT takes it; null when nothing can be granted on it. */
export function grantTarget(object: CatalogObject): string | null {
  const identity = object.identity ?? object.name;
  switch (object.catalog) {
    case "pg_class":
      return object.sub === "S" ? `sequence ${identity}` : `table ${identity}`;
    case "pg_proc":
      return `routine ${identity}`;
    case "pg_namespace":
      return `schema ${identity}`;
    case "pg_type":
      return object.sub === "d" ? `domain ${identity}` : `type ${identity}`;
    case "pg_foreign_data_wrapper":
      return `foreign data wrapper ${identity}`;
    case "pg_foreign_server":
      return `foreign server ${identity}`;
    case "pg_language":
      return `language ${identity}`;
    case "pg_parameter_acl":
      return `parameter ${object.name}`;
    default:
      return null;
  }
}
