import { HoldfastError } from "../../shared/errors.ts";
import { nameOfProject } from "../../shared/format/project.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { adopt, readStanding, recognise, type Standing } from "../../shared/identity/identity_queries.ts";
import { lastClaim, type PlaceDeps, settlePlace } from "../../shared/identity/settle_place.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { projectOfAddress, readDatabaseUrl } from "../../shared/postgres/database_url.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { duration } from "../progress.ts";
import { identityLine } from "./status.ts";

/** A living database claims its place once an hour. */
const aliveMs = 2 * 3600 * 1000;

/**
 * The document: `{done, keepPrefix, identity, lastClaim}`, `lastClaim` being `{number, at, ref, database, systemIdentifier}` or null:
 * who wrote to the original's place last; with `error` where it was not confirmed. Errors: `run_state` where there is nothing
 * to adopt, or the store could not be taken over.
 */
export async function run(context: Context): Promise<Outcome> {
  const keepPrefix = context.settings.has("keep-prefix");
  const session = await installedSession(context, "holdfast:adopt");
  try {
    await recognise(session, projectOfAddress(readDatabaseUrl(context.settings.need("db-url"))));
    const before = await readStanding(session);
    if (before.standing === "original") {
      throw new HoldfastError("run_state", "this database is no copy: there is nothing to adopt", {
        hint: "`holdfast status` shows who it is and where it writes.",
      });
    }
    const deps = keepPrefix ? null : await placeDeps(context);
    const last = deps === null ? null : await lastClaim(deps);
    const plan = deps === null ? keepLines(before) : adoptLines(before, deps, last, context.clock.now());
    const facts = { keepPrefix, lastClaim: lastDocument(last) };
    if (context.settings.has("dry-run")) {
      return { exit: 0, document: { done: false, ...facts, identity: before }, lines: plan };
    }
    if (!context.settings.has("yes")) {
      context.note(plan.join("\n"));
      const question = keepPrefix ? "It stays apart for good." : "It takes the original's place.";
      if (!(await context.confirm(question, before.prefix))) return notConfirmed(before, facts);
    }
    await adopt(session, before.prefix, keepPrefix);
    if (deps !== null) await takePlace(deps, session);
    const identity = await readStanding(session);
    return { exit: 0, document: { done: true, ...facts, identity }, lines: [identityLine(identity)] };
  } finally {
    await session.close();
  }
}

async function placeDeps(context: Context): Promise<PlaceDeps> {
  const { clock, random, log } = context;
  const [store, ring] = [await openStore(context), await keyRing(context.settings)];
  return { store, ring, compressor: await loadZstd(), clock, random, log };
}

async function takePlace(deps: PlaceDeps, session: Connection): Promise<void> {
  if ((await settlePlace(deps, session)).prefix === "") return;
  const [row] = await session.query(
    `select a.message from backup.alerts as a
     where a.kind = 'identity_changed' and a.subject = 'adoption' and a.status <> 'resolved'`,
  );
  throw new HoldfastError("run_state", row?.["message"] ?? "another database has claimed the place meanwhile", {
    hint: "Nothing was changed: the copy writes where it wrote. Check keys and --store, then say it again.",
  });
}

type Last = Awaited<ReturnType<typeof lastClaim>>;

function adoptLines(identity: Standing, { store }: PlaceDeps, last: Last, now: Date): string[] {
  const claim = last?.claim ?? null;
  const age = claim === null ? null : now.getTime() - Date.parse(claim.at);
  return [
    identityLine(identity),
    `because: ${identity.because} (since ${identity.since})`,
    claim === null
      ? last === null ? `nobody has claimed ${store.label}` : `the last claim on ${store.label} does not open`
      : `${store.label} was last claimed by ${nameOfProject(claim)}, ${duration(Math.max(age ?? 0, 0))} ago`,
    ...(age !== null && age < aliveMs
      ? ["It is perhaps alive: it writes to a place of its own then, with an alert."]
      : []),
    "This database goes on there: another chain of changes begins, and a full backup is due.",
    `What it has written so far stays below ${identity.prefix}/, and is restored by that address.`,
  ];
}

function keepLines(identity: Standing): string[] {
  return [
    identityLine(identity),
    `because: ${identity.because} (since ${identity.since})`,
    "It stays there for good, and prunes and mails as an original does. Nobody else is touched.",
  ];
}

function lastDocument(last: Last) {
  if (last === null) return null;
  const { at = null, ref = null, database = null, systemIdentifier = null } = last.claim ?? {};
  return { number: last.number, at, ref, database, systemIdentifier };
}

function notConfirmed(identity: Standing, facts: object): Outcome {
  const missing = new HoldfastError("confirmation_missing", "nothing was adopted");
  return {
    exit: missing.exit,
    document: { done: false, ...facts, identity, ...missing.toDocument() },
    lines: [`Nothing was adopted. ${missing.hint}`],
  };
}
