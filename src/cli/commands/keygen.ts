import { generateKey } from "../../shared/crypto/key_ring.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";

export function run(context: Context): Promise<Outcome> {
  const { id, entry } = generateKey(context.random);
  context.note("Keep this key outside of the project. Whoever has it can open every backup; without it nobody can.");
  return Promise.resolve({ exit: 0, document: { id, keys: entry }, lines: [`BACKUP_KEYS=${entry}`] });
}
