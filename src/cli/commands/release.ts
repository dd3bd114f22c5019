import { HoldfastError } from "../../shared/errors.ts";
import { listHeld, releaseHeld } from "../../shared/restore/release.ts";
import type { HeldObject } from "../../shared/restore/state.ts";
import type { Context } from "../context.ts";
import { targetDatabase } from "../open.ts";
import { columns, type Outcome } from "../output.ts";

/** The document: `{released[], left: [{identity, kind, reason}]}`, or `{dryRun: true, held[]}` until it is confirmed. */
export async function run(context: Context): Promise<Outcome> {
  const [what = ""] = context.words;
  const database = await targetDatabase(context);
  if (database === null) context.settings.need("target-db-url");
  const target = database ?? unreachable();
  const held = await listHeld(target);
  const wanted = held.filter((one) => what === "all" || what === one.kind || what === one.identity);
  if (held.length === 0) {
    return { exit: 0, document: { released: [], left: [] }, lines: [`Nothing is held in ${target.label}.`] };
  }
  if (wanted.length === 0) {
    throw new HoldfastError("not_found", `nothing of the name ${what} is held`, {
      hint: `Held: ${held.slice(0, 20).map((one) => one.identity).join(", ")}`,
    });
  }
  const plan = [`To be turned on in ${target.label}:`, ...columns(wanted.map(rowOf)).map((line) => `  ${line}`)];
  if (!context.settings.has("yes")) {
    context.note(plan.join("\n"));
    if (!(await context.confirm("They act on the outside world from then on.", "release"))) return notConfirmed(wanted);
  }
  const { released, left } = await releaseHeld(target, [what]);
  const failed = left.filter((one) => one.reason !== "not asked for");
  return {
    exit: failed.length === 0 ? 0 : 1,
    document: { released, left },
    lines: [
      ...released.map((identity) => `on: ${identity}`),
      ...failed.map(({ identity, reason }) => `still held: ${identity}: ${reason}`),
      `${released.length} turned on, ${left.length} still held.`,
    ],
  };
}

function notConfirmed(held: readonly HeldObject[]): Outcome {
  const missing = new HoldfastError("confirmation_missing", "nothing was turned on");
  const document = {
    dryRun: true,
    held: held.map(({ identity, kind }) => ({ identity, kind })),
    ...missing.toDocument(),
  };
  return { exit: missing.exit, document, lines: [`Nothing was turned on. ${missing.hint}`] };
}

function rowOf({ kind, identity }: HeldObject): string[] {
  return [kind, identity];
}

function unreachable(): never {
  throw new HoldfastError("internal", "a setting that is needed was taken for missing");
}
