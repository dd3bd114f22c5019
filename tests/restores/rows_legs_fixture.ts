/** Restores of rows in legs that a test takes one by one, and kills where it likes. */
import { unlimited } from "../../src/shared/backup/budget.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { beginRestore, orderApply, readRestore } from "../../src/shared/jobs/restore_queries.ts";
import type { RestoreRow } from "../../src/shared/jobs/restore_row.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";
import type { RestoreMode } from "../../src/shared/rows/apply/difference.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { type RowsLegDeps, runRowsLeg } from "../../src/shared/rows/leg.ts";
import { query } from "../support/cluster.ts";
import type { World } from "../integration/backup_fixture.ts";

/** Nobody is called: the test takes the legs. */
export const uncalled = `create or replace function backup.invoke(function_name text, body jsonb) returns bigint
  language sql set search_path = '' as 'select 0::bigint'`;

/** What the watchdog waits for. */
const leaseIsOver =
  "update backup.restores set lease_until = backup.clock_now() - interval '1 s', legs_begun = 0 where id = $1 and finished_at is null";

/** A leg may do one piece, and no more. */
const spent = { spendText: () => {}, spendCalls: () => {}, spent: () => true };

export interface LegOptions {
  /** The next leg is killed before its statement of that number; null: it is not. */
  readonly killedAfter?: () => number | null;
  readonly deps?: Partial<RowsLegDeps>;
  readonly worker?: string;
  /** A leg does all that is left. */
  readonly atOnce?: boolean;
}

export function legsOf(w: World, full: string) {
  const withSession = async <T>(use: (session: Connection) => Promise<T>): Promise<T> => {
    const session = await w.deps.database.connect("test");
    try {
      return await use(session);
    } finally {
      await session.close();
    }
  };
  const row = async (id: string): Promise<RestoreRow> => await withSession((session) => readRestore(session, id));
  const letGo = async (id: string) => void await query(w.url, leaseIsOver, [id]);

  const plan = async (asked: RowsAsked): Promise<string> =>
    await withSession(async (session) =>
      (await beginRestore(session, {
        scope: asked.scope,
        mode: "beside",
        sourceBackup: full,
        pointAt: null,
        targetLabel: "test",
        targetIsHere: true,
        userId: asked.scope === "user" ? asked.choice.user : null,
        worker: "test",
        leaseSeconds: 1,
        byFunction: true,
      })).id
    );

  const apply = async (
    id: string,
    mode: RestoreMode,
    options: { readonly safety: boolean; readonly fireTriggers?: boolean } = { safety: false },
  ) =>
    await withSession(async (session) => {
      const [here] = await session.query("select current_database() as name");
      await orderApply(session, id, { mode, target: here?.["name"] ?? "", options });
    });

  const leg = async (id: string, asked: RowsAsked, { deps = {}, worker = "test", atOnce = false }: LegOptions = {}) =>
    await withSession((session) =>
      runRowsLeg(
        { ...w.deps, open: () => Promise.resolve(w.deps), ...deps },
        session,
        id,
        { worker, budget: atOnce ? unlimited : spent, capBytes: 60_000 },
        () => Promise.resolve({ asked, all: true, mode: "merge" }),
      )
    );

  /** Takes legs until the restore has ended. */
  const work = async (id: string, asked: RowsAsked, options: LegOptions = {}) => {
    let [legs, kills] = [0, 0];
    for (;;) {
      const now = await row(id);
      if (now.finishedAt !== null) return { row: now, legs, kills };
      legs++;
      const statements = options.killedAfter?.() ?? null;
      const database = statements === null ? w.deps.database : mortal(w.deps.database, statements);
      try {
        await leg(id, asked, { ...options, deps: { database, ...options.deps } });
      } catch (error) {
        if (error instanceof HoldfastError && error.cause instanceof Killed) kills++;
      }
      await letGo(id);
    }
  };

  return { plan, apply, leg, work, row, letGo, withSession };
}

class Killed extends Error {}

/** As the database, until the statement with that number: then every session of it is gone, as of a process that is killed. */
function mortal(database: Database, statements: number): Database {
  let left = statements;
  const open: Connection[] = [];
  const spend = async () => {
    if (left-- > 0) return;
    await Promise.all(open.splice(0).map((each) => each.close()));
    throw new HoldfastError("database_unreachable", "killed", { cause: new Killed() });
  };
  return watched(database, { onConnect: (connection) => open.push(connection), before: spend });
}

/** As the database, with `before` called ahead of each statement. */
export function watched(
  database: Database,
  { onConnect, before }: {
    readonly onConnect?: (connection: Connection) => void;
    readonly before: (text: string) => Promise<void>;
  },
): Database {
  return {
    label: database.label,
    connect: async (name) => {
      await before("");
      const connection = await database.connect(name);
      onConnect?.(connection);
      return {
        processId: connection.processId,
        serverVersion: connection.serverVersion,
        query: async (text, values) => {
          await before(text);
          return await connection.query(text, values);
        },
        execute: async (text) => {
          await before(text);
          await connection.execute(text);
        },
        copyOut: (text, onData) => connection.copyOut(text, onData),
        copyIn: async (text, source) => {
          await before(text);
          return await connection.copyIn(text, source);
        },
        close: () => connection.close(),
      };
    },
  };
}
