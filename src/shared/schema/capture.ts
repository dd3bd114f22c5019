/** The catalog reader: everything a database is made of, except its rows. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { captureSettings } from "./apply_settings.ts";
import { captureFormatVersion, type CaptureOptions, type NotCaptured, type SchemaCapture } from "./capture_format.ts";
import { collectCronJobs } from "./collect_cron.ts";
import { collectDefaultPrivileges } from "./collect_default_privileges.ts";
import { collectExtensionPrivileges } from "./collect_extension_privileges.ts";
import { collectForeign } from "./collect_foreign.ts";
import { collectIndexes } from "./collect_indexes.ts";
import { collectOperators } from "./collect_operators.ts";
import { collectReplication } from "./collect_replication.ts";
import { collectRoles } from "./collect_roles.ts";
import { collectRoutines } from "./collect_routines.ts";
import { collectDatabase, collectExtensions, collectSchemas } from "./collect_schemas.ts";
import { sequenceCollector } from "./collect_sequences.ts";
import { tableCollector } from "./collect_tables.ts";
import { collectText } from "./collect_text.ts";
import { collectTriggers } from "./collect_triggers.ts";
import { typeCollector } from "./collect_types.ts";
import { viewCollector } from "./collect_views.ts";
import type { CollectorContext } from "./collector.ts";
import { readEdges, readHiddenOperators } from "./dependencies.ts";
import type { Draft } from "./draft.ts";
import { finish } from "./finish.ts";
import { objectKeyOf, readInventory, readLeftOut } from "./inventory.ts";
import { identitiesOf } from "./identities.ts";
import { notCapturedOf, splitPossible, undefinedKeys } from "./not_captured.ts";
import { orderDrafts } from "./order.ts";
import { readRelations } from "./relations.ts";
import { readRemarks } from "./remarks.ts";
import { readRows } from "./read_rows.ts";
import { readSequences } from "./sequences.ts";
import { readShapes } from "./shapes.ts";

const oldestServer = 150000;
const firstUnknownServer = 180000;

/**
 * Captures the definitions as the caller's snapshot shows them, except for what PostgreSQL's own pg_get_…def functions read from the
 * newest catalog: compare `catalogFingerprint` from before and after. Leaves the session with `captureSettings`.
 *
 * Errors: `server_unsupported`; the connection's own. Memory: the whole capture, some kilobytes an object.
 */
export async function captureSchema(connection: Connection, options: CaptureOptions): Promise<SchemaCapture> {
  if (connection.serverVersion < oldestServer) {
    throw new HoldfastError("server_unsupported", `the server's version is ${connection.serverVersion}`);
  }
  await connection.execute(captureSettings.join("; "));
  const inventory = await readInventory(connection, options.leaveOutSchemas);
  const relations = await readRelations(connection);
  const sequences = await readSequences(connection);
  const notCaptured: NotCaptured[] = [];
  const warnings: string[] = [];
  if (connection.serverVersion >= firstUnknownServer) {
    warnings.push(`the server is newer than every version this was tested with; what is new in it may be missing`);
  }
  const { leaveOutSchemas } = options;
  const context: CollectorContext = { connection, leaveOutSchemas, objects: inventory.objects, notCaptured, warnings };

  const drafts: Draft[] = [];
  for (
    const collect of [
      collectRoles,
      collectSchemas,
      collectExtensions,
      typeCollector(relations),
      collectRoutines,
      collectOperators,
      collectText,
      collectForeign,
      sequenceCollector(sequences),
      tableCollector(relations),
      viewCollector(relations),
      collectIndexes,
      collectTriggers,
      collectReplication,
      collectDefaultPrivileges,
      collectExtensionPrivileges,
      collectDatabase,
      collectCronJobs,
    ]
  ) drafts.push(...(await collect(context)));

  const { named, identities } = identitiesOf(drafts, inventory.objects);
  const missing = undefinedKeys(named, inventory);
  const unavailable = new Set([...missing, ...await readLeftOut(connection, options.leaveOutSchemas)]);
  const edges = await readEdges(connection, named, unavailable);
  const possible = splitPossible(named, edges, unavailable);
  const order = orderDrafts(possible.drafts, edges);
  const hiddenOperators = await readHiddenOperators(connection);
  const remarks = await readRemarks(connection);
  for (const node of order.nodes) identities.set(node.draft.key, node.draft.identity ?? node.draft.key);
  const definitions = order.nodes.map((node) =>
    finish(node, { objects: inventory.objects, remarks, hiddenOperators, identities })
  );
  const shapes = await readShapes(connection, options, relations);
  const impossible = new Set(possible.impossible.map(({ draft }) => draft.key));
  const impossibleNames = new Set(possible.impossible.map(({ draft }) => draft.identity));
  return {
    format: captureFormatVersion,
    server: await readServer(connection),
    definitions,
    tables: shapes.tables.filter((table) => !impossible.has(objectKeyOf("pg_class", table.oid))),
    sequences: shapes.sequences.filter((sequence) => !impossibleNames.has(sequence.identity)),
    extensions: shapes.extensions,
    notCaptured: [...notCaptured, ...shapes.notCaptured, ...notCapturedOf(missing, possible.impossible, inventory)],
    warnings: [...warnings, ...order.warnings],
  };
}

async function readServer(connection: Connection): Promise<SchemaCapture["server"]> {
  const locale = connection.serverVersion >= 170000 ? "d.datlocale" : "d.daticulocale";
  const rows = await readRows(
    connection,
    "database",
    z.object({
      encoding: z.string(),
      collate: z.string(),
      ctype: z.string(),
      localeProvider: z.string(),
      icuLocale: z.string().nullable(),
      database: z.string(),
    }),
    `select pg_catalog.pg_encoding_to_char(d.encoding) as encoding, d.datcollate as collate, d.datctype as ctype,
            d.datlocprovider as "localeProvider", ${locale} as "icuLocale", d.datname as database
       from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`,
  );
  const row = rows[0];
  if (row === undefined) throw new HoldfastError("internal", "the catalog does not know the current database");
  return { versionNum: connection.serverVersion, ...row };
}
