/** A full backup of tier `safety`, before anything is changed in place. */
import { z } from "zod";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { readDatabaseUrl } from "../shared/postgres/database_url.ts";
import type { Context } from "./context.ts";
import { createBackup } from "./create_backup.ts";
import { installedSession } from "./installed.ts";

export interface SafetyOptions {
  /** Value of --skip-safety-backup: the name of the database that is to be changed; undefined: not given. */
  readonly skip: string | undefined;
  /** Called every 20 s while the backup runs, to renew a lease. What it throws cancels the backup and is thrown. */
  readonly keepAlive?: () => Promise<void>;
}

const keepAliveMs = 20_000;
/** A backup that was under way may show a state from before this restore was asked for; each is waited for. */
const mostJoined = 5;

const createdFormat = z.object({
  id: z.string(),
  status: z.enum(["succeeded", "quarantined"]),
  joined: z.boolean(),
  quarantineReason: z.string().nullable(),
});

/**
 * Backs up the database of --db-url and waits for the end. Returns the id of the run, which began after this call; null when
 * it was skipped by name. A quarantined one serves: what is wrong with the database may be why it is restored. Nothing may be
 * changed when this throws. Errors: `confirmation_wrong` for another name; `run_state` while other backups keep going; `usage`
 * for a project that backs up another database; those of the backup, which say that nothing was changed.
 */
export async function takeSafetyBackup(context: Context, options: SafetyOptions): Promise<string | null> {
  const name = readDatabaseUrl(context.settings.need("db-url")).database;
  if (isSkipped(options.skip, name)) {
    context.note(`warning: no safety backup is taken of ${name}: what the restore replaces there cannot be had back`);
    return null;
  }
  context.note(`a safety backup of ${name} comes first`);
  try {
    return await keptAlive(context, options.keepAlive, async (kept) => {
      const created = await ownBackup(kept);
      await requireHere(kept, created.id);
      if (created.status === "quarantined") {
        context.note(`warning: the safety backup ${created.id} is quarantined: ${created.quarantineReason}`);
      }
      return created.id;
    });
  } catch (error) {
    const failure = asHoldfastError(error);
    if (failure.code === "cancelled") throw failure;
    throw new HoldfastError(failure.code, `nothing was changed, as there is no safety backup: ${failure.message}`, {
      hint: `${failure.hint} To restore without one: --skip-safety-backup ${name}.`,
      cause: failure,
    });
  }
}

/** Pure. Errors: `confirmation_wrong` when another database is named than the one that is to be changed. */
export function isSkipped(skip: string | undefined, database: string): boolean {
  if (skip === undefined) return false;
  if (skip === database) return true;
  throw new HoldfastError("confirmation_wrong", "--skip-safety-backup names another database", {
    hint: `The database that is to be changed is ${database}.`,
  });
}

async function ownBackup(context: Context): Promise<z.infer<typeof createdFormat>> {
  for (let joined = 0; joined < mostJoined; joined++) {
    const created = createdFormat.parse((await createBackup(context, "safety", true)).document);
    if (!created.joined) return created;
    context.note("notice: that backup had begun earlier; another one is taken now");
  }
  throw new HoldfastError("run_state", "other backups kept going all the time", {
    hint: "Wait until the schedules are through, then run the same command again.",
  });
}

/** A project that is set may be that of another database. */
async function requireHere(context: Context, run: string): Promise<void> {
  const session = await installedSession(context, "holdfast:safety");
  try {
    const [row] = await session.query(
      "select status in ('succeeded', 'quarantined') as done from backup.runs where id = $1::uuid",
      [run],
    );
    if (row?.["done"] === "t") return;
  } finally {
    await session.close();
  }
  throw new HoldfastError("usage", "the project of --project-url backs up another database than that of --db-url", {
    hint: "Name the database and the project that belong together.",
  });
}

/** `work` with a context that ends with the caller's signal, or as soon as `keepAlive` throws. */
async function keptAlive<T>(
  context: Context,
  keepAlive: (() => Promise<void>) | undefined,
  work: (context: Context) => Promise<T>,
): Promise<T> {
  if (keepAlive === undefined) return await work(context);
  const [over, lost] = [new AbortController(), new AbortController()];
  const beat = async () => {
    while (!over.signal.aborted) {
      await context.clock.sleep(keepAliveMs, over.signal).catch(() => {});
      if (!over.signal.aborted) await keepAlive();
    }
  };
  const beating = beat().catch((error: unknown) => lost.abort(asHoldfastError(error)));
  try {
    return await work({ ...context, signal: AbortSignal.any([context.signal, lost.signal]) });
  } catch (error) {
    throw lost.signal.aborted ? lost.signal.reason : error;
  } finally {
    over.abort();
    await beating;
  }
}
