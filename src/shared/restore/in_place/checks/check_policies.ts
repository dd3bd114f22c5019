/** Row-level security as the backup's definitions have it: switched on, and with the same policies. */
import type { Connection } from "../../../postgres/connection.ts";
import { captureSchema } from "../../../schema/capture.ts";
import type { SchemaCapture, TableShape } from "../../../schema/capture_format.ts";
import { failed, type Found, listed, well } from "./check_result.ts";
import type { CheckChoice } from "./checks.ts";

/** Of the tables that the backup holds; others are not looked at. Errors: those of `captureSchema`. */
export async function checkPolicies(
  connection: Connection,
  { was, leaveOutSchemas }: Pick<CheckChoice, "was" | "leaveOutSchemas">,
): Promise<Found> {
  await connection.execute("begin isolation level repeatable read read only");
  let now: SchemaCapture;
  try {
    now = await captureSchema(connection, { leaveOutSchemas });
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
  const wrong = [...switches(was, now), ...texts(was, now)];
  if (wrong.length > 0) return failed(listed(wrong));
  const enabled = was.tables.filter(({ rowSecurity }) => rowSecurity.enabled).length;
  return well(`${enabled} tables under row level security, ${policiesOf(was).size} policies`);
}

function switches(was: SchemaCapture, now: SchemaCapture): string[] {
  const present = new Map(now.tables.map((table) => [table.identity, table]));
  return was.tables.flatMap((table) => {
    const other = present.get(table.identity);
    if (other === undefined) return table.rowSecurity.enabled ? [`${table.identity} is not there`] : [];
    return stateOf(table) === stateOf(other)
      ? []
      : [`row level security of ${table.identity} is ${stateOf(other)}, not ${stateOf(table)}`];
  });
}

const stateOf = ({ rowSecurity: { enabled, forced } }: TableShape): string =>
  (enabled ? "on" : "off") + (forced ? ", forced" : "");

function texts(was: SchemaCapture, now: SchemaCapture): string[] {
  const [before, present] = [policiesOf(was), policiesOf(now)];
  const known = new Set(was.tables.map(({ identity }) => identity));
  const wrong: string[] = [];
  for (const [identity, { text }] of before) {
    const other = present.get(identity);
    if (other === undefined) wrong.push(`${identity} is gone`);
    else if (other.text !== text) wrong.push(`${identity} says something else`);
  }
  for (const [identity, { table }] of present) {
    if (!before.has(identity) && table !== null && known.has(table)) wrong.push(`${identity} is not in the backup`);
  }
  return wrong;
}

function policiesOf(
  { definitions }: SchemaCapture,
): ReadonlyMap<string, { readonly text: string; readonly table: string | null }> {
  return new Map(
    definitions.filter(({ kind }) => kind === "policy").map(({ identity, statements, table }) => [
      identity,
      { text: JSON.stringify(statements), table },
    ]),
  );
}
