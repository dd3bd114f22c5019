/** Rows as they were at a moment: out of a restore to it, into a database that is thrown away. */
import { openSession } from "../../backup/session.ts";
import { leftOutSchemas } from "../../backup/tables.ts";
import { momentOf } from "../../changes/decode/moment.ts";
import type { Point } from "../../changes/replay/replay.ts";
import { planPoint, type PointOptions, type PointPlan, restorePoint } from "../../changes/replay/restore_point.ts";
import { unsettledWarnings } from "../../changes/segments/coverage.ts";
import { ChangeHistory } from "../../changes/segments/timeline.ts";
import { knownEntries } from "../../erase/erase_queries.ts";
import { readLedger } from "../../erase/ledger.ts";
import { keepErased } from "../../erase/reapply.ts";
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import type { BackupContents } from "../../restore/contents.ts";
import { beginSide } from "../../restore/prove.ts";
import { readContents } from "../../restore/read_contents.ts";
import type { SchemaCapture } from "../../schema/capture_format.ts";
import { serviceOf, type TableName } from "../../restore/project_rows.ts";
import type { RestoreDeps } from "../../restore/run.ts";
import { captureGraph } from "./capture_graph.ts";
import { nameOf } from "./fold_partitions.ts";
import type { Graph } from "./graph.ts";
import { liveGraph } from "../ownership/live_graph.ts";
import { planWithoutRows } from "./moment_plan.ts";
import { readMoment } from "./moment_read.ts";
import { makeScratch, type Scratch, type ScratchDeps, type ScratchServer } from "./moment_scratch.ts";
import { type MomentTable, readMomentTables } from "./moment_tables.ts";
import type { PastPiece, PastRows } from "./past.ts";
import type { ReadDeps } from "../../verify/find_backup.ts";

export interface MomentOptions extends Pick<PointOptions, "parallel" | "signal" | "onProgress" | "onReplay"> {
  /** Ids of quarantined full backups that may be used. */
  readonly accepted?: readonly string[];
}

export interface MomentRows extends PastRows {
  /** What nobody can know of these tables: changes right before the point that may not have been counted. */
  readonly warnings: readonly string[];
}

/**
 * The rows of these tables (null: of all) at the point. A partitioned table brings its leaves; a name that was none of a
 * table's then is not listed. The database is made on `server` and dropped by `close()`, or when this fails; on another
 * server than the source's, roles that the restore makes stay behind, without login.
 *
 * Only the rows of these tables are loaded, as long as no definition was changed between the full backup and the point:
 * tables can change names and partitions, and their rows can be computed from other tables. Else all are.
 * Errors: those of `planPoint` and `restorePoint`; a table of which changes are missing is in nobody's way who does not want it.
 */
export async function openMomentRows(
  deps: ReadDeps & ScratchDeps,
  point: Point,
  tables: readonly TableName[] | null,
  server: ScratchServer,
  options: MomentOptions = {},
): Promise<MomentRows> {
  const wanted = tables === null ? null : new Set(tables.map(nameOf));
  const { plan, contents, without } = await planMoment({ ...deps, target: server.database }, point, wanted, options);
  const { scratch, reachedAt } = await restoreInto(deps, plan, without, server, options);
  const open = new Set<Connection>();
  const session = async () => {
    const connection = await openSession(scratch.database, "holdfast:rows");
    open.add(connection);
    return connection;
  };
  const close = async () => {
    await Promise.all([...open].map((connection) => connection.close()));
    await scratch.drop();
  };
  try {
    const connection = await session();
    const graph = withoutServices(await liveGraph(connection), captureGraph(contents.capture));
    const isWanted = wanted === null ? () => true : namesUnder(graph, wanted);
    const lost = plan.choices.withoutTables.filter(isWanted);
    if (lost.length > 0) {
      throw new HoldfastError(
        "tables_uncovered",
        `changes may be missing of ${lost.join(", ")}, which became a partition`,
      );
    }
    const oids = new Map([...plan.survey.tables].map(([oid, name]) => [name, String(oid)]));
    const found = await readMomentTables(connection, graph, contents.capture, oids, isWanted);
    await connection.close();
    open.delete(connection);
    const byName = new Map(found.map((one) => [nameOf(one.table), one]));
    return {
      backupId: plan.full.manifest.id,
      at: (point.by === "time" ? momentOf(point.at) : null) ?? reachedAt,
      tables: found.map(({ table }) => table),
      graph,
      definitions: async () => await definitionsIn(session, open, plan, contents),
      warnings: unsettledWarnings(plan.survey.unsettled.filter((table) => isWanted(nameOf(table))), []),
      read(table, filter, after = null): AsyncIterable<PastPiece> {
        const known = byName.get(nameOf(table));
        if (known === undefined) throw new HoldfastError("internal", "a table is read that the moment does not list");
        return readIn(session, open, known, filter, after);
      },
      erased: async (database) => await readLedger(deps, await knownEntries(database, deps.store.label)),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Those of the full backup where none was changed since, with the values that sequences have at the point. Else as the restored database
 * has them, in which webhooks are switched off.
 */
async function definitionsIn(
  session: () => Promise<Connection>,
  open: Set<Connection>,
  { survey }: PointPlan,
  { capture }: BackupContents,
): Promise<SchemaCapture> {
  const connection = await session();
  try {
    const now = await beginSide(connection, await leftOutSchemas(connection));
    await connection.execute("rollback");
    if (survey.ddl === 0) return { ...capture, sequences: now.sequences };
    const held = new Map(capture.definitions.filter((one) => one.held !== null).map((one) => [one.identity, one]));
    return { ...now, definitions: now.definitions.map((one) => held.get(one.identity) ?? one) };
  } finally {
    open.delete(connection);
    await connection.close();
  }
}

async function* readIn(
  session: () => Promise<Connection>,
  open: Set<Connection>,
  table: MomentTable,
  filter: Parameters<PastRows["read"]>[1],
  after: string | null,
): AsyncGenerator<PastPiece> {
  const connection = await session();
  try {
    yield* readMoment(connection, table, filter, after);
  } finally {
    open.delete(connection);
    await connection.close();
  }
}

interface MomentPlan {
  readonly plan: PointPlan;
  readonly contents: BackupContents;
  /** Tables, leaves and the partitioned tables over them that stay empty; null: none. */
  readonly without: ReadonlySet<string> | null;
}

async function planMoment(
  deps: RestoreDeps,
  point: Point,
  wanted: ReadonlySet<string> | null,
  { accepted = [] }: MomentOptions,
): Promise<MomentPlan> {
  const planned = async (withoutTables: readonly string[]): Promise<MomentPlan> => {
    const plan = await planPoint(deps, point, { accepted, withoutTables });
    const contents = await readContents(deps, plan.full);
    const isQuiet = plan.survey.ddl === 0;
    const without = wanted === null || !isQuiet ? null : tablesWithout(captureGraph(contents.capture), wanted);
    return { plan, contents, without };
  };
  try {
    return await planned([]);
  } catch (error) {
    if (wanted === null || !(error instanceof HoldfastError) || error.code !== "tables_uncovered") throw error;
    // Which of them are in the way of what is wanted is known once the full backup is.
    const { backups } = await ChangeHistory.read(deps);
    const found = await planned([...new Set(backups.flatMap(({ manifest }) => manifest.tables.map(nameOf)))]);
    const { survey, choices } = found.plan;
    const missing = survey.uncovered.map(nameOf);
    const isWanted = namesUnder(captureGraph(found.contents.capture), wanted);
    const former = new Set(survey.renames.values());
    if (missing.some((name) => wanted.has(name) || isWanted(name) || former.has(name))) throw error;
    return { ...found, plan: { ...found.plan, choices: { ...choices, withoutTables: missing } } };
  }
}

/**
 * Where the restore could not give a service's tables to the service, they look like the user's: those that were none of
 * `full` are left out.
 */
function withoutServices(graph: Graph, full: Graph): Graph {
  const known = new Set(full.tables.map(nameOf));
  const tables = graph.tables.filter((table) => known.has(nameOf(table)) || serviceOf(table) === null);
  const names = new Set(tables.map(nameOf));
  return { tables, edges: graph.edges.filter(({ from, to }) => names.has(nameOf(from)) && names.has(nameOf(to))) };
}

/** What is not under one of the wanted names: tables, leaves and the partitioned tables over them. */
function tablesWithout(graph: Graph, wanted: ReadonlySet<string>): Set<string> {
  const isWanted = namesUnder(graph, wanted);
  return new Set(
    graph.tables.flatMap((table) => [table, ...table.partitions]).map(nameOf).filter((name) => !isWanted(name)),
  );
}

/** A wanted leaf brings its whole table: a foreign key may be made over all of them. */
function namesUnder(graph: Graph, wanted: ReadonlySet<string>): (name: string) => boolean {
  const names = new Set(
    graph.tables.map((table) => [table, ...table.partitions].map(nameOf))
      .filter((family) => family.some((name) => wanted.has(name))).flat(),
  );
  return (name) => names.has(name);
}

interface Restored {
  readonly scratch: Scratch;
  readonly reachedAt: string;
}

/** Where the server refuses something over tables that are empty, once more with all rows. */
async function restoreInto(
  deps: ReadDeps & ScratchDeps,
  plan: PointPlan,
  without: ReadonlySet<string> | null,
  server: ScratchServer,
  options: MomentOptions,
): Promise<Restored> {
  try {
    return await restoreOnce(deps, plan, without, server, options);
  } catch (error) {
    const isRefused = sqlstateOf(error) !== null && error instanceof HoldfastError && refusals.has(error.code);
    if (without === null || !isRefused) throw error;
    deps.log.info("moment.whole", { code: error.code });
    return await restoreOnce(deps, plan, null, server, options);
  }
}

const refusals: ReadonlySet<string> = new Set(["database_failed", "ddl_not_replayable"]);

async function restoreOnce(
  deps: ReadDeps & ScratchDeps,
  plan: PointPlan,
  without: ReadonlySet<string> | null,
  server: ScratchServer,
  { parallel, signal, onProgress, onReplay }: MomentOptions,
): Promise<Restored> {
  const scratch = await makeScratch(deps, server, plan.full.manifest.server);
  try {
    const known = new Set(plan.full.manifest.tables.map(nameOf));
    const withoutTables = without === null
      ? plan.choices.withoutTables
      : [...without].filter((name) => known.has(name));
    const { reachedAt } = await restorePoint(
      // Erased people are taken out of the rows that come from it.
      { ...deps, target: scratch.database, beforeCommit: keepErased },
      { ...plan, choices: { ...plan.choices, withoutTables } },
      {
        ...(parallel === undefined ? {} : { parallel }),
        ...(signal === undefined ? {} : { signal }),
        ...(onProgress === undefined ? {} : { onProgress }),
        ...(onReplay === undefined ? {} : { onReplay }),
        ...(without === null ? {} : { reshape: (prepared) => planWithoutRows(prepared, without) }),
      },
    );
    return { scratch, reachedAt };
  } catch (error) {
    await scratch.drop();
    throw error;
  }
}
