/** The name of an object, out of the identity that a capture gives it. Pure. */

/** `table public.x` and the like → `public.x`. */
export function relationName(identity: string): string {
  return identity.replace(/^(?:foreign table|materialized view|table|view|index|sequence) /, "");
}

/** `type public.x`, of an enum, a range, a domain or a composite type → `public.x`. */
export function typeName(identity: string): string {
  return identity.replace(/^(?:composite type|type|domain) /, "");
}
