import { readStanding } from "../../shared/identity/identity_queries.ts";
import { readUncovered, uncoveredFindings } from "../../shared/monitor/uncovered.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { leftScratches } from "../../shared/rows/past/moment_scratch.ts";
import type { Context } from "../context.ts";
import { identityLine } from "../commands/status.ts";
import { isInstalled } from "../installed.ts";
import { missingMigrations, readMigrations } from "../migrations.ts";
import { sourceDatabase } from "../open.ts";
import { type Check, fail, failed, ok, warn } from "./check.ts";

const oldestServer = 150_000;
const newestTried = 180_000;
/** A signed call is valid for five minutes; half of that leaves room. */
const skewSeconds = 120;

/** Reachable, version, primary, the role's rights, the schema, what Supabase adds, clocks. */
export async function* checkDatabase(context: Context): AsyncIterable<Check> {
  if (context.settings.get("db-url") === undefined) {
    yield warn("database", "not set; restores, verify and list work from the store alone", "Set BACKUP_DB_URL.");
    return;
  }
  let session: Connection;
  try {
    const database = await sourceDatabase(context);
    session = await database.connect("holdfast:doctor");
    yield ok("database", database.label);
  } catch (error) {
    yield failed("database", error);
    return;
  }
  try {
    for (const check of [checkServer, checkRole, checkStream, checkSchema, checkPlatform, checkClock]) {
      yield* check(session);
    }
    yield* checkLeftOver(session, context.clock.now());
  } catch (error) {
    yield failed("database", error);
  } finally {
    await session.close();
  }
}

async function* checkServer(session: Connection): AsyncIterable<Check> {
  const [row] = await session.query(
    "select pg_catalog.pg_is_in_recovery() as standby, pg_catalog.version() as version",
  );
  const version = (row?.["version"] ?? "").split(" ").slice(0, 2).join(" ");
  if (session.serverVersion < oldestServer) yield fail("server", version, "Holdfast needs PostgreSQL 15 or newer.");
  else if (session.serverVersion >= newestTried) yield warn("server", version, "Tried with 15 and 17 only.");
  else yield ok("server", version);
  if (row?.["standby"] === "t") yield fail("primary", "this is a standby", "Back up the primary.");
}

/** Can the server have a change stream, and who may read it? */
async function* checkStream(session: Connection): AsyncIterable<Check> {
  const [row] = await session.query(
    `select pg_catalog.current_setting('wal_level') as level,
       pg_catalog.current_setting('max_replication_slots')::int - (select count(*) from pg_catalog.pg_replication_slots) as free,
       exists (select from pg_catalog.pg_replication_slots as s
         where s.database = pg_catalog.current_database() and s.slot_name like 'holdfast\\_%') as ours,
       (select r.rolsuper or r.rolreplication from pg_catalog.pg_roles as r where r.rolname = current_user) as may`,
  );
  if (row?.["level"] !== "logical") {
    yield warn(
      "change stream",
      `wal_level is ${row?.["level"]}: only full backups can be restored`,
      "Set wal_level to logical.",
    );
  } else if (row["may"] !== "t") {
    yield warn("change stream", "this role may not make a replication slot", "alter role … replication");
  } else if (row["ours"] !== "t" && Number(row["free"]) < 1) {
    yield warn("change stream", "every replication slot is taken", "Raise max_replication_slots, or drop one.");
  } else yield ok("change stream", row["ours"] === "t" ? "its slot is there" : "can begin");
}

async function* checkRole(session: Connection): AsyncIterable<Check> {
  const [row] = await session.query(
    `select current_user as name, r.rolsuper or r.rolbypassrls as sees_all,
       r.rolsuper or pg_catalog.pg_has_role(r.oid, 'pg_read_all_data', 'usage') as reads_all
     from pg_catalog.pg_roles as r where r.rolname = current_user`,
  );
  const role = row?.["name"] ?? "";
  if (row?.["sees_all"] === "t") yield ok("row security", `${role} sees every row`);
  else {
    yield fail(
      "row security",
      `${role} sees only the rows that policies show it`,
      `alter role ${role} bypassrls, or take backups as the role postgres`,
    );
  }
  const unreadable = await session.query(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name
     from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.relkind in ('r', 'p') and n.nspname not like 'pg\\_%' and n.nspname not in ('information_schema')
       and not (pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage'))
     order by 1 limit 6`,
  );
  if (unreadable.length === 0) yield ok("tables", "all can be read");
  else {
    const names = unreadable.slice(0, 5).map((each) => each["name"]).join(", ");
    yield warn(
      "tables",
      `cannot be read: ${names}${unreadable.length > 5 ? ", …" : ""}`,
      `grant pg_read_all_data to ${role}`,
    );
  }
}

async function* checkSchema(session: Connection): AsyncIterable<Check> {
  if (!(await isInstalled(session))) {
    yield fail("schema backup", "not installed", "Run `holdfast init`, or `supabase db push`.");
    return;
  }
  const missing = await missingMigrations(session, await readMigrations());
  if (missing.length > 0) {
    yield fail("schema backup", `${missing.length} migrations are missing`, "Run `holdfast init`.");
    return;
  }
  yield ok("schema backup", "installed, all migrations");
  yield await checkIdentity(session);
  yield* checkTables(session);
}

async function checkIdentity(session: Connection): Promise<Check> {
  const identity = await readStanding(session);
  const line = identityLine(identity).replace(/^identity: /, "");
  if (identity.standing === "copy") {
    return warn("identity", `${line}: ${identity.because}`, "Say `holdfast adopt`, or `holdfast adopt --keep-prefix`.");
  }
  if (identity.isOriginal) return ok("identity", line);
  return warn("identity", `${line}; the server or database is another one`, "The next backup finds out what it is.");
}

/** Tables whose changes a restore to a moment could not bring. */
async function* checkTables(session: Connection): AsyncIterable<Check> {
  for (const { found, remedy } of uncoveredFindings(await readUncovered(session))) yield warn("changes", found, remedy);
}

async function* checkPlatform(session: Connection): AsyncIterable<Check> {
  const rows = await session.query(
    "select extname from pg_catalog.pg_extension where extname in ('pg_cron', 'pg_net', 'supabase_vault') order by 1",
  );
  const net = await session.query(
    "select from pg_catalog.pg_proc where pronamespace = pg_catalog.to_regnamespace('net') and proname = 'http_post'",
  );
  const vault = await session.query("select where pg_catalog.to_regclass('vault.decrypted_secrets') is not null");
  const there = new Set(rows.map((row) => row["extname"]));
  if (net.length > 0) there.add("pg_net");
  if (vault.length > 0) there.add("supabase_vault");
  const absent = ["pg_cron", "pg_net", "supabase_vault"].filter((name) => !there.has(name));
  if (absent.length === 0) yield ok("schedules", "pg_cron, pg_net and Vault are there");
  else {
    yield warn(
      "schedules",
      `${absent.join(", ")} absent: nothing runs by itself`,
      "Start backups with `holdfast create` from a scheduler of your own.",
    );
    return;
  }
  if (!(await isInstalled(session))) return;
  for (const name of ["holdfast_project_url", "holdfast_worker_secret"]) {
    const set = await session.query("select from vault.secrets where name = $1", [name]);
    if (set.length > 0) yield ok("Vault", `${name} is set`);
    else yield fail("Vault", `${name} is not set`, `select vault.create_secret('<value>', '${name}');`);
  }
}

/** Databases of restores that were killed. */
async function* checkLeftOver(session: Connection, now: Date): AsyncIterable<Check> {
  const names = await leftScratches(session, now);
  if (names.length === 0) return;
  yield warn(
    "left over",
    `of restores that were killed: ${names.join(", ")}`,
    "The next restore of rows with --at drops them; DROP DATABASE does at once.",
  );
}

async function* checkClock(session: Connection): AsyncIterable<Check> {
  const before = Date.now();
  const [row] = await session.query("select extract(epoch from pg_catalog.clock_timestamp()) * 1000 as ms");
  const here = (before + Date.now()) / 2;
  const skew = Math.round((Number(row?.["ms"]) - here) / 1000);
  if (Math.abs(skew) <= skewSeconds) yield ok("clock", `within ${Math.abs(skew)} s of the database's`);
  else {
    yield fail(
      "clock",
      `this machine and the database are ${Math.abs(skew)} s apart`,
      "Set the clock by NTP; signed calls are valid for five minutes.",
    );
  }
}
