import { HoldfastError } from "../errors.ts";
import type { Connection, Row } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { neutralDefaultPrivileges } from "../schema/collect_default_privileges.ts";
import { arrayText, quoteIdent, quoteQualified } from "../schema/quote.ts";
import {
  maxObstacleNames,
  ownSchema,
  platformSchemas,
  stateSchema,
  type TargetFacts,
  type TargetNeeds,
} from "./target.ts";

const leastServerVersion = 150000;

/**
 * Reads what a plan needs of the target. Changes nothing that lasts: whether an extension or an event trigger may be made
 * is tried in a transaction that is rolled back. Errors: `server_unsupported`, those of the connection.
 */
export async function readTargetFacts(connection: Connection, needs: TargetNeeds): Promise<TargetFacts> {
  if (connection.serverVersion < leastServerVersion) {
    throw new HoldfastError("server_unsupported", `the target runs PostgreSQL ${connection.serverVersion}`);
  }
  const [here] = await connection.query(hereSql);
  if (here === undefined) throw new HoldfastError("internal", "the target did not say who it is");
  const kind = here["is_project"] === "t" ? "project" : "bare";
  const platform = kind === "project" ? platformSchemas : [];
  const platformList = arrayText(platform);
  const installed = names(await connection.query("select extname as name from pg_catalog.pg_extension order by 1"));
  return {
    kind,
    serverVersion: connection.serverVersion,
    systemIdentifier: textOf(here, "system_identifier"),
    database: textOf(here, "database"),
    databaseOid: textOf(here, "database_oid"),
    encoding: textOf(here, "encoding"),
    user: textOf(here, "current_user"),
    superuser: here["superuser"] === "t",
    roles: (await connection.query(rolesSql)).map((row) => ({
      name: textOf(row, "name"),
      superuser: row["superuser"] === "t",
      reachable: row["reachable"] === "t",
    })),
    schemas: names(await connection.query("select nspname as name from pg_catalog.pg_namespace order by 1")),
    extensions: {
      installed,
      refused: await refusedExtensions(connection, needs.extensions.filter((one) => !installed.includes(one.name))),
    },
    publications: (await connection.query(publicationsSql)).map((row) => ({
      name: textOf(row, "name"),
      ours: row["ours"] === "t",
      empty: row["empty"] === "t",
    })),
    eventTriggers: names(await connection.query("select evtname as name from pg_catalog.pg_event_trigger order by 1")),
    eventTriggersAllowed: !needs.eventTriggers || (await eventTriggersAllowed(connection)),
    subscriptionsAllowed: here["superuser"] === "t" || here["may_subscribe"] === "t",
    allTablesAllowed: !needs.allTables || (await tryOut(connection, allTablesTrial)) === null,
    refusedSettings: here["superuser"] === "t" ? [] : await refusedSettings(connection, needs.settings),
    neutralDefaults: await neutralDefaultPrivileges(connection, textOf(here, "current_user")),
    sequences: (await connection.query(sequencesSql, [platformList])).map((row) => ({
      schema: textOf(row, "schema"),
      name: textOf(row, "name"),
      writable: row["writable"] === "t",
    })),
    tables: groupTables(await connection.query(tablesSql, [platformList])),
    obstacles: await readObstacles(connection, platform, kind === "project" ? needs.rowsInto : []),
  };
}

async function refusedExtensions(
  connection: Connection,
  wanted: TargetNeeds["extensions"],
): Promise<TargetFacts["extensions"]["refused"]> {
  const available = new Set(names(await connection.query("select name from pg_catalog.pg_available_extensions")));
  const refused: { name: string; reason: string }[] = [];
  for (const { name, schema } of wanted) {
    const reason = available.has(name)
      ? await tryOut(connection, [
        `create schema if not exists ${quoteIdent(schema)}`,
        `create extension ${quoteIdent(name)} with schema ${quoteIdent(schema)} cascade`,
      ])
      : "the target's server does not have it";
    if (reason !== null) refused.push({ name, reason });
  }
  return refused;
}

async function refusedSettings(connection: Connection, settings: TargetNeeds["settings"]): Promise<string[]> {
  const roles = new Set(names(await connection.query("select rolname as name from pg_catalog.pg_roles")));
  const refused: string[] = [];
  for (const { statement, role } of settings) {
    const make = role === null || roles.has(role) ? [] : [`create role ${quoteIdent(role)}`];
    if ((await tryOut(connection, [...make, statement])) !== null) refused.push(statement);
  }
  return refused;
}

/** Event triggers are tried with a function that is there: making one first is more than a restore does at that place. */
async function eventTriggersAllowed(connection: Connection): Promise<boolean> {
  const [found] = await connection.query(
    `select n.nspname as schema, p.proname as name
       from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
      where p.prorettype = 'pg_catalog.event_trigger'::pg_catalog.regtype and p.pronargs = 0
      order by p.oid limit 1`,
  );
  const own = "create function pg_temp.holdfast_trial() returns event_trigger language plpgsql as 'begin end'";
  const [name, make] = found === undefined
    ? ["pg_temp.holdfast_trial", [own]]
    : [quoteQualified(textOf(found, "schema"), textOf(found, "name")), []];
  const trial = `create event trigger holdfast_trial on ddl_command_end execute function ${name}()`;
  return (await tryOut(connection, [...make, trial])) === null;
}

const allTablesTrial = ["create publication holdfast_trial for all tables"];

/** Null when the statements would work, else the server's reason. Rolled back either way. */
async function tryOut(connection: Connection, statements: readonly string[]): Promise<string | null> {
  try {
    await connection.execute(["begin", ...statements].join(";\n"));
    return null;
  } catch (error) {
    if (!(error instanceof HoldfastError) || sqlstateOf(error) === null) throw error;
    return error.message;
  } finally {
    await connection.execute("rollback");
  }
}

/** What is in the way of a restore into an empty database, in a fixed order. */
async function readObstacles(
  connection: Connection,
  platform: readonly string[],
  rowsInto: TargetNeeds["rowsInto"],
): Promise<TargetFacts["obstacles"]> {
  const ignored = arrayText([...platform, ownSchema, stateSchema, "information_schema"]);
  const found = names(await connection.query(objectsSql, [ignored]));
  for (const { schema, name } of rowsInto) {
    const table = quoteQualified(schema, name);
    const [exists] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [table]);
    if (exists?.["yes"] !== "t") continue;
    const [row] = await connection.query(`select exists (select from ${table}) as yes`);
    if (row?.["yes"] === "t") found.push(`rows in ${table}`);
  }
  return { count: found.length, names: found.slice(0, maxObstacleNames) };
}

const hereSql = `
  select (select system_identifier::text from pg_catalog.pg_control_system()) as system_identifier,
         d.datname as database,
         d.oid::text as database_oid,
         pg_catalog.pg_encoding_to_char(d.encoding) as encoding,
         current_user::text as current_user,
         r.rolsuper as superuser,
         exists (select from pg_catalog.pg_roles s where s.rolname = 'pg_create_subscription'
                   and pg_catalog.pg_has_role(current_user, s.oid, 'USAGE')) as may_subscribe,
         pg_catalog.to_regclass('auth.users') is not null
           and pg_catalog.to_regclass('storage.buckets') is not null as is_project
    from pg_catalog.pg_database d, pg_catalog.pg_roles r
   where d.datname = pg_catalog.current_database() and r.rolname = current_user`;

/** CREATEROLE gives membership in any role but superusers up to 15, in those it may administer from 16 on. */
const rolesSql = `
  select r.rolname as name,
         r.rolsuper as superuser,
         pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER')
           or (me.rolcreaterole and not r.rolsuper
               and (pg_catalog.current_setting('server_version_num')::int < 160000
                    or pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION'))) as reachable
    from pg_catalog.pg_roles r, pg_catalog.pg_roles me
   where me.rolname = current_user and r.rolname !~ '^pg_'
   order by 1`;

const publicationsSql = `
  select p.pubname as name,
         pg_catalog.pg_has_role(current_user, p.pubowner, 'MEMBER') as ours,
         not p.puballtables
           and not exists (select from pg_catalog.pg_publication_rel r where r.prpubid = p.oid)
           and not exists (select from pg_catalog.pg_publication_namespace n where n.pnpubid = p.oid) as empty
    from pg_catalog.pg_publication p
   order by 1`;

const sequencesSql = `
  select n.nspname as schema, c.relname as name,
         pg_catalog.has_sequence_privilege(c.oid, 'UPDATE') as writable
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.relkind = 'S' and n.nspname = any ($1::text[])
   order by 1, 2`;

const tablesSql = `
  select n.nspname as schema, c.relname as name, a.attname as column, a.attgenerated <> '' as generated,
         pg_catalog.has_table_privilege(c.oid, 'INSERT') as writable
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
   where c.relkind in ('r', 'p') and n.nspname = any ($1::text[])
   order by 1, 2, a.attnum`;

/** Everything a user can have made, leaving out what extensions own and what another listed object brings along. */
const objectsSql = `
  with scope as (
    select oid, nspname from pg_catalog.pg_namespace
     where nspname !~ '^pg_' and nspname <> all ($1::text[])
  ), member as (
    select classid, objid from pg_catalog.pg_depend where deptype = 'e'
  ), found (classid, objid, name) as (
    select 'pg_namespace'::pg_catalog.regclass::oid, s.oid, 'schema ' || pg_catalog.quote_ident(s.nspname)
      from scope s where s.nspname <> 'public'
    union all
    select 'pg_class'::pg_catalog.regclass, c.oid,
           case c.relkind when 'v' then 'view ' when 'm' then 'materialized view ' when 'S' then 'sequence '
                          when 'f' then 'foreign table ' when 'c' then 'type ' else 'table ' end
             || pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(c.relname)
      from pg_catalog.pg_class c join scope s on s.oid = c.relnamespace
     where c.relkind in ('r', 'p', 'v', 'm', 'f', 'c', 'S')
       and not (s.nspname = 'public' and c.relkind = 'v'
                and c.relname in (
                  'backup_runs', 'backup_audit', 'backup_alerts', 'backup_status', 'backup_announcements', 'backup_restores',
                  'backup_restore_watches', 'backup_findings', 'backup_downloads', 'backup_maintenance_log', 'backup_drills', 'backup_drill_calendar',
                  'backup_checks', 'backup_check_results', 'backup_channels', 'backup_notices', 'backup_deliveries', 'backup_incidents',
                  'backup_incident_events', 'backup_erasures', 'backup_guardians', 'backup_exports', 'backup_imports', 'my_exports'
                ))
    union all
    select 'pg_proc'::pg_catalog.regclass, p.oid,
           'function ' || pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(p.proname)
      from pg_catalog.pg_proc p join scope s on s.oid = p.pronamespace
     where not (s.nspname = 'public' and p.proname in ('backup_before_request', 'backup_probe'))
    union all
    select 'pg_type'::pg_catalog.regclass, t.oid,
           'type ' || pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(t.typname)
      from pg_catalog.pg_type t join scope s on s.oid = t.typnamespace
     where t.typtype in ('d', 'e', 'r') or (t.typtype = 'b' and t.typelem = 0)
  )
  select f.name from found f
   where not exists (select from member m where m.classid = f.classid and m.objid = f.objid)
   order by f.name collate "C"`;

function groupTables(rows: readonly Row[]): TargetFacts["tables"] {
  const tables = new Map<string, { schema: string; name: string; writable: boolean; columns: Column[] }>();
  for (const row of rows) {
    const [schema, name] = [textOf(row, "schema"), textOf(row, "name")];
    const key = JSON.stringify([schema, name]);
    const table = tables.get(key) ?? { schema, name, writable: row["writable"] === "t", columns: [] };
    tables.set(key, table);
    const column = row["column"];
    if (typeof column === "string") table.columns.push({ name: column, generated: row["generated"] === "t" });
  }
  return [...tables.values()];
}

interface Column {
  readonly name: string;
  readonly generated: boolean;
}

function names(rows: readonly Row[]): string[] {
  return rows.map((row) => textOf(row, "name"));
}

function textOf(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== "string") throw new HoldfastError("internal", `the target gave no ${column}`);
  return value;
}
