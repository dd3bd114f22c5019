/** What the function `restore` works with: rows into place, and whole backups into databases of their own. */
import { outlineFiles, runFilesLeg } from "../files/files_leg.ts";
import { readRestore } from "../jobs/restore_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { type FullLegDeps, outlineFull, runFullLeg } from "../restore/legs.ts";
import { runRowsLeg } from "../rows/leg.ts";
import type { RestoreDoorDeps } from "./door.ts";
import { projectStorage } from "./environment.ts";
import { databaseOf, type IsolateRuntime } from "./front.ts";
import { readLegRequest } from "./restore_request.ts";
import { worksOf } from "./works.ts";

/** Once an isolate. Throws nothing. */
export function restoreDoorDeps(runtime: IsolateRuntime): RestoreDoorDeps {
  const { environment } = runtime;
  const { front, outside, budget, openFor, requireStored } = worksOf(runtime);
  const { clock, random, log } = front;
  const fullDeps = (connection: Connection, backup: string): FullLegDeps => ({
    database: databaseOf(environment),
    inDatabase: (name) => databaseOf(environment, name),
    clock,
    log,
    open: () => openFor(connection, backup),
  });
  return {
    ...front,
    requireStored,
    outlineFull: async (connection, backup) => await outlineFull(fullDeps(connection, backup), connection, backup),
    outlineFiles: async (connection, backup) =>
      await outlineFiles(await openFor(connection, backup), connection, backup),
    restore: async (connection, restore, worker) => {
      const leg = { worker, budget: budget.next() };
      const { scope, sourceBackup } = await readRestore(connection, restore);
      if (scope === "full") return await runFullLeg(fullDeps(connection, sourceBackup), connection, restore, leg);
      const open = () => openFor(connection, sourceBackup);
      const storage = projectStorage(environment);
      const project = storage === null ? null : { ...storage, fetch: outside.fetch };
      if (scope === "files") {
        const deps = { database: databaseOf(environment), project, clock, log, open };
        return await runFilesLeg(deps, connection, restore, leg);
      }
      const rowsDeps = { database: databaseOf(environment), clock, random, log, open, project };
      await runRowsLeg(rowsDeps, connection, restore, leg, async (schema) => await readLegRequest(connection, schema));
    },
  };
}
