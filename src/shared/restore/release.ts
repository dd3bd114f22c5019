/** Turns on what a restore brought back switched off. */
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { applySettings } from "../schema/apply_settings.ts";
import { quoteLiteral } from "../schema/quote.ts";
import {
  type HeldObject,
  isReplaying,
  readHeld,
  readRestoreRecord,
  releaseRestoreLock,
  takeRestoreLock,
  transaction,
} from "./state.ts";
import { stateSchema } from "./target.ts";

export interface ReleaseResult {
  /** Identities that are on now. */
  readonly released: readonly string[];
  /** Still held, each with the reason. */
  readonly left: readonly { readonly identity: string; readonly kind: HeldObject["kind"]; readonly reason: string }[];
}

/** What the restore into this database still holds. Changes nothing. */
export async function listHeld(target: Database): Promise<HeldObject[]> {
  const connection = await target.connect("holdfast:release");
  try {
    return await readHeld(connection);
  } finally {
    await connection.close();
  }
}

/**
 * Releases what `wanted` names: `all`, kinds (`cron`, `webhook`, `subscription`, `login`) or identities as the restore
 * listed them. One transaction each, so that one that fails does not keep the others back; safe to repeat. Once nothing is
 * held, the schema `holdfast` goes. Errors: `not_found` for a name that is not held; `run_state` while a restore is unfinished.
 */
export async function releaseHeld(target: Database, wanted: readonly string[]): Promise<ReleaseResult> {
  const connection = await target.connect("holdfast:release");
  try {
    await takeRestoreLock(connection);
    const record = await readRestoreRecord(connection);
    if (record !== null && record.finishedAt === null) {
      throw new HoldfastError(
        "run_state",
        `the restore of backup ${record.backupId} into this database is unfinished`,
        {
          hint: "Run the restore again first; it goes on where it ended.",
        },
      );
    }
    if (await isReplaying(connection)) {
      throw new HoldfastError("run_state", "the restore of this database to a moment is unfinished", {
        hint: "Run `holdfast restore-point` with the same moment again first; it goes on where it ended.",
      });
    }
    const held = await readHeld(connection);
    const unknown = wanted.find((name) => name !== "all" && !held.some((one) => isWanted(one, name)));
    if (unknown !== undefined) throw new HoldfastError("not_found", `nothing of the name ${unknown} is held`);
    await connection.execute(applySettings.join(";\n"));
    const released: string[] = [];
    const left: { identity: string; kind: HeldObject["kind"]; reason: string }[] = [];
    for (const one of held) {
      const { identity, kind } = one;
      if (!wanted.some((name) => isWanted(one, name))) left.push({ identity, kind, reason: "not asked for" });
      else {
        const reason = await release(connection, one);
        if (reason === null) released.push(identity);
        else left.push({ identity, kind, reason });
      }
    }
    if (record !== null && left.length === 0) await connection.execute(`drop schema ${stateSchema} cascade`);
    return { released, left };
  } finally {
    await releaseRestoreLock(connection);
    await connection.close();
  }
}

function isWanted(held: HeldObject, name: string): boolean {
  return name === "all" || name === held.kind || name === held.identity;
}

/** Null once it is on, else why it is not. */
async function release(connection: Connection, held: HeldObject): Promise<string | null> {
  if (held.release.length === 0) {
    return "the backup does not hold what it needs, such as a password: switch it on by hand";
  }
  const forget = `delete from ${stateSchema}.held where identity = ${quoteLiteral(held.identity)}`;
  try {
    await transaction(connection, [...held.release, forget]);
    return null;
  } catch (error) {
    return asHoldfastError(error).message;
  }
}
