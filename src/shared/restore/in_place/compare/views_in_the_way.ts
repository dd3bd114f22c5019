/** Views that came after the backup under the name that a table had: they go before it gets its name again. Pure. */
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";

/** With what stands on them, users first; empty where something else stands on one: then the name stays taken. */
export function viewsInTheWay(was: SchemaCapture, is: SchemaCapture, table: string): readonly Definition[] {
  const name = table.replace(/^table /, "");
  const had = new Set(was.definitions.map((one) => one.identity));
  const view = is.definitions.find((one) => !had.has(one.identity) && isView(one) && one.identity.endsWith(` ${name}`));
  if (view === undefined) return [];
  const going = [view];
  for (const one of going) {
    for (const user of is.definitions) {
      if (user.table !== one.identity && !user.dependsOn.includes(one.identity)) continue;
      // What hangs on another object, such as a policy, calls that by the name that it has now.
      if (!isView(user) && !going.some(({ identity }) => identity === user.table)) return [];
      if (!going.includes(user)) going.push(user);
    }
  }
  return is.definitions.filter((one) => going.includes(one)).reverse();
}

const isView = ({ kind, platform }: Definition): boolean =>
  platform === null && (kind === "view" || kind === "materialized view");
