/** What a drill works with in a function. */
import { type KeyRing, parseKeyRing } from "../crypto/key_ring.ts";
import type { BesideWorker, DrillDeps, DrillServer } from "../drills/deps.ts";
import { HoldfastError } from "../errors.ts";
import { beginRestore, launchRestore } from "../jobs/restore_queries.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import type { Database } from "../postgres/connection.ts";
import { openDatabase } from "../postgres/pg_connection.ts";
import { inDatabase } from "../restore/new_database.ts";
import { makeSideSchema } from "../rows/beside/side_tables.ts";
import { quoteQualified } from "../schema/quote.ts";
import { type Environment, optional, variables } from "./environment.ts";
import { keepRequest } from "./restore_request.ts";
import { unwaitedClose } from "./unwaited_close.ts";

/** That of BACKUP_DRILL_DB_URL, else the project's own. `own`: a database of the project's server, by its name. */
export function drillServer(environment: Environment, own: (name?: string) => Database): DrillServer {
  const url = optional(environment, variables.drillDatabaseUrl);
  if (url === undefined) return { database: own(), inDatabase: own, isOwn: true };
  const caPem = optional(environment, variables.drillDatabaseAuthority);
  const options = { url, ...(caPem === undefined ? {} : { caPem }) };
  return {
    database: unwaitedClose(openDatabase(options)),
    inDatabase: (name) => unwaitedClose(openDatabase(inDatabase(options, name))),
    isOwn: false,
  };
}

/** The function `restore` lays rows beside, in legs of its own. `label`: of the database, for the record. */
export function besideByFunction(label: string): BesideWorker {
  return {
    begin: async (connection, { scope, backup, table, where }) => {
      const id = await inTransaction(connection, async () => {
        const { id: begun, sideSchema } = await beginRestore(connection, {
          scope,
          mode: "beside",
          sourceBackup: backup,
          pointAt: null,
          targetLabel: label,
          targetIsHere: true,
          userId: null,
          worker: "drill",
          leaseSeconds: 1,
          byFunction: true,
        });
        if (sideSchema === null) throw new HoldfastError("internal", "the restore has no side schema");
        await makeSideSchema(connection, sideSchema, "holdfast: rows of a backup, laid by a drill");
        await keepRequest(connection, sideSchema, {
          action: "plan",
          scope,
          backup,
          table: quoteQualified(table.schema, table.name),
          ...(scope === "record" ? { where: where.map(({ column, value }) => ({ column, value })) } : {}),
        });
        return begun;
      });
      await launchRestore(connection, id);
      return id;
    },
    work: () => Promise.resolve(),
  };
}

/** The ring of one leg: what opened something is told of it. */
export function ringOnce(environment: Environment): () => Promise<KeyRing> {
  let ring: KeyRing | undefined;
  // A malformed key is the drill's failure, not the caller's.
  return () => new Promise((resolve) => resolve(ring ??= parseKeyRing(environment[variables.keys])));
}

/** Errors: `usage` for a drill that needs what no function has. */
export function refuseByPerson(drill: Parameters<DrillDeps["open"]>[0]): void {
  if (drill.drill !== "disaster" && drill.drill !== "complete") return;
  throw new HoldfastError("usage", `${drill.title} needs what is kept offline`, {
    hint: `A person does it at the CLI: holdfast drills run ${drill.drill}`,
  });
}
