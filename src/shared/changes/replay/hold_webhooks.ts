/** Webhooks that changes of definitions brought or switched on: a copy calls nobody until `release`. */
import type { Connection } from "../../postgres/connection.ts";
import { type HeldObject, readHeld } from "../../restore/state.ts";
import { ownSchema, stateSchema } from "../../restore/target.ts";
import { captureSchema } from "../../schema/capture.ts";
import { quoteLiteral } from "../../schema/quote.ts";

/**
 * In the caller's transaction. Switches off what calls out, and forgets what was held and is not there any more.
 * Errors: those of `captureSchema`.
 */
export async function holdWebhooks(connection: Connection): Promise<void> {
  const { definitions } = await captureSchema(connection, { leaveOutSchemas: [ownSchema, stateSchema] });
  const there = new Set(definitions.map((definition) => definition.identity));
  for (const { identity } of await readHooks(connection)) {
    if (!there.has(identity)) await connection.execute(`${forget} ${quoteLiteral(identity)}`);
  }
  for (const { identity, held, platform, release } of definitions) {
    if (held !== "webhook" || platform !== null) continue;
    for (const statement of release) {
      await connection.execute(statement.replace(/ enable (?:always |replica )?trigger /, " disable trigger "));
    }
    const values = [identity, held, JSON.stringify(release)].map(quoteLiteral).join(", ");
    await connection.execute(
      `${forget} ${quoteLiteral(identity)}; insert into ${stateSchema}.held values (${values})`,
    );
  }
}

const forget = `delete from ${stateSchema}.held where identity =`;

async function readHooks(connection: Connection): Promise<HeldObject[]> {
  return (await readHeld(connection)).filter(({ kind }) => kind === "webhook");
}
