/** Two databases and what the schema tests do with them. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { applySettings } from "../../src/shared/schema/apply_settings.ts";
import type { Definition, SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import { quoteIdent } from "../../src/shared/schema/quote.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { loadCorpus } from "../corpus/load.ts";
import { type Cluster, freshDatabase, query } from "../support/cluster.ts";

/** A session, ended whatever happens. */
export async function withSession<T>(
  cluster: Cluster,
  role: string,
  database: string,
  use: (connection: Connection) => Promise<T>,
): Promise<T> {
  const connection = await openDatabase({ url: cluster.plainUrl(role, database) }).connect("schema-test");
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}

/** A database without the platform's schemas, owned by `postgres` as on a hosted project. */
export async function plainDatabase(cluster: Cluster): Promise<string> {
  const name = await freshDatabase(cluster, { platform: false });
  if (cluster.platform) {
    await query(cluster.plainUrl(cluster.superuser), `alter database ${quoteIdent(name)} owner to postgres`);
  }
  return name;
}

export async function fillWithCorpus(
  cluster: Cluster,
  database: string,
  wanted?: (name: string) => boolean,
): Promise<string[]> {
  return await withSession(
    cluster,
    "postgres",
    database,
    (postgres) =>
      withSession(cluster, cluster.superuser, database, (superuser) => loadCorpus({ postgres, superuser }, wanted)),
  );
}

export function capture(
  cluster: Cluster,
  database: string,
  leaveOutSchemas: readonly string[] = [],
): Promise<SchemaCapture> {
  return withSession(cluster, "postgres", database, (connection) => captureSchema(connection, { leaveOutSchemas }));
}

export interface ApplyOptions {
  /** Statements run as this role. */
  readonly role: string;
  /** Definitions to leave out. */
  readonly skip?: (definition: Definition) => boolean;
  /** Switch held objects on at the end. Default true, so that source and copy can be compared. */
  readonly release?: boolean;
}

/** Runs a capture's statements in the documented order on an empty database. Returns what failed, as `identity: message`. */
export async function apply(
  cluster: Cluster,
  database: string,
  schema: SchemaCapture,
  options: ApplyOptions,
): Promise<string[]> {
  const wanted = schema.definitions.filter((definition) => !(options.skip?.(definition) ?? false));
  const failures: string[] = [];
  await withSession(cluster, options.role, database, async (connection) => {
    for (const setting of applySettings) await connection.execute(setting);
    const run = async (definition: Definition, statements: readonly string[]) => {
      for (const statement of statements) {
        try {
          await connection.execute(statement);
        } catch (error) {
          failures.push(`${definition.identity}: ${error instanceof Error ? error.message : String(error)}`);
        }
      }
    };
    const before = wanted.filter((definition) => definition.section !== "last");
    const last = wanted.filter((definition) => definition.section === "last");
    for (const definition of before) {
      const early = definition.kind === "schema" ? definition.privileges : [];
      await run(definition, [...definition.statements, ...definition.ownership, ...early]);
    }
    for (const definition of wanted) {
      if (definition.kind !== "schema") await run(definition, definition.privileges);
    }
    for (const definition of last) await run(definition, [...definition.statements, ...definition.ownership]);
    if (options.release ?? true) {
      for (const definition of wanted) await run(definition, definition.release);
    }
  });
  return failures;
}

/** Roles are the server's: where source and copy share it, they are there already. */
export const isSharedRole = (definition: Definition): boolean =>
  ["role", "login", "membership", "parameter"].includes(definition.kind);

/** `pg_dump --schema-only` as lines, without comments, empty lines and the session tokens of newer versions. */
export function dumpLines(cluster: Cluster, database: string): string[] {
  const text = execFileSync(join(cluster.bin, "pg_dump"), ["--schema-only"], {
    env: { ...process.env, ...cluster.environment(cluster.superuser, database) },
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("--") && !/^\\(un)?restrict /.test(line));
}
