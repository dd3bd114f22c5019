import { checkDatabase } from "../checks/database.ts";
import { checkBackups } from "../checks/backups.ts";
import { checkChannels } from "../checks/channels.ts";
import { type Check, passed } from "../checks/check.ts";
import { checkKeys } from "../checks/keys.ts";
import { checkProject } from "../checks/project.ts";
import { checkSecondStore } from "../checks/second_store.ts";
import { checkStore } from "../checks/store.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";

/** The document: `{ok, checks: [{name, state, message, hint}]}`. Exit 1 when a check fails. */
export async function run(context: Context): Promise<Outcome> {
  const checks: Check[] = [];
  for (
    const group of [checkDatabase, checkStore, checkBackups, checkSecondStore, checkKeys, checkChannels, checkProject]
  ) {
    for await (const check of group(context)) checks.push(check);
  }
  const ok = checks.every(passed);
  return {
    exit: ok ? 0 : 1,
    document: { ok, checks },
    lines: checks.map(({ state, name, message, hint }) =>
      `${state.padEnd(4)}  ${name}: ${message}${state === "ok" || hint === "" ? "" : ` (${hint})`}`
    ),
  };
}
