/** Which functions call out over HTTP. Pure. */

export interface RoutineBody {
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly body: string;
}

const direct =
  /\bnet\s*\.\s*"?http_\w+|\bsupabase_functions\s*\.\s*"?http_request\b|\bhttp_(get|post|put|patch|delete|head)\s*\(|\b(extensions|http)\s*\.\s*"?http\s*\(/i;

/** At most this many levels of calls are followed. */
const maxDepth = 16;

/**
 * Oids of the functions that send HTTP requests themselves, or call by name a function that does. Judged by their text, so a name
 * put together at run time is missed, and a mention in a comment counts.
 */
export function webhookRoutines(routines: readonly RoutineBody[]): ReadonlySet<string> {
  const found = new Map<string, RoutineBody>();
  for (const routine of routines) {
    const isSender = (routine.schema === "net" && routine.name.startsWith("http_")) ||
      (routine.schema === "supabase_functions" && routine.name === "http_request");
    if (isSender || direct.test(routine.body)) found.set(routine.oid, routine);
  }
  for (let depth = 0; depth < maxDepth; depth++) {
    const names = [...new Set([...found.values()].map((routine) => routine.name))];
    if (names.length === 0) break;
    const mention = new RegExp(`(?:^|[^\\w$])"?(?:${names.map(escapeRegExp).join("|")})"?\\s*\\(`);
    const more = routines.filter((routine) => !found.has(routine.oid) && mention.test(routine.body));
    if (more.length === 0) break;
    for (const routine of more) found.set(routine.oid, routine);
  }
  return new Set(found.keys());
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
