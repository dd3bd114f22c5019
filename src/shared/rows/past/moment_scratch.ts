/** A database that is made for one restore and thrown away. */
import { openSession } from "../../backup/session.ts";
import type { Clock } from "../../clock.ts";
import { toHex } from "../../crypto/digest.ts";
import { HoldfastError } from "../../errors.ts";
import { utcStamp } from "../../format/layout.ts";
import type { Manifest } from "../../format/manifest.ts";
import type { Log } from "../../log.ts";
import type { Connection, Database } from "../../postgres/connection.ts";
import type { Random } from "../../random.ts";
import { createDatabase } from "../../restore/create_database.ts";
import { dropDatabase } from "../../restore/drop_database.ts";
import { quoteIdent } from "../../schema/quote.ts";

/** A server with room for the tables that are wanted, and for all of a backup where definitions changed after it. */
export interface ScratchServer {
  /** Any database of it, as a role that may create databases and set `session_replication_role`. */
  readonly database: Database;
  /** Another of its databases, as the same role. */
  inDatabase(name: string): Database;
}

export interface ScratchDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface Scratch {
  readonly database: Database;
  /** Bounded. Never throws: a database that stays is named in the log, as `scratch.left`. */
  drop(): Promise<void>;
}

/** Of every scratch database; its comment says what it is, too. */
export const scratchPrefix = "holdfast_scratch_";

/**
 * With the encoding and locale of the backup's server, closed to everybody but its owner. Those that killed restores left are
 * dropped first, where they can be. Errors: the connection's.
 */
export async function makeScratch(
  { clock, random, log }: ScratchDeps,
  server: ScratchServer,
  like: Manifest["server"],
): Promise<Scratch> {
  await sweepScratches(clock, log, server.database);
  const name = `${scratchPrefix}${utcStamp(clock.now()).toLowerCase()}_${toHex(random(4))}`;
  const maker = await server.database.connect("holdfast:scratch");
  let holder: Connection | null = null;
  const drop = async () => {
    await holder?.close();
    await dropScratch(clock, log, server.database, name);
  };
  try {
    await maker.query("select pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended($1, 0))", [lockPrefix + name]);
    await createDatabase(maker, name, like);
    await maker.execute(
      `comment on database ${quoteIdent(name)} is 'Made by Holdfast for one restore of rows; may be dropped.'`,
    );
    holder = await openSession(server.inDatabase(name), "holdfast:scratch");
  } catch (error) {
    await drop();
    throw error;
  } finally {
    await maker.close();
  }
  return { database: server.inDatabase(name), drop };
}

/** Its lock says that the maker lives until there is a session in the database, which is there as long as the maker is. */
const lockPrefix = "holdfast:scratch:";
/** For a maker that lost its sessions for a while; by its own clock. */
const leastAgeMs = 3_600_000;
const mostSwept = 10;

/**
 * Names of those whose maker is gone: an hour old, nobody in them, nobody making them, and this role's to drop. Only a look: a
 * DROP without FORCE is refused while somebody is in one.
 */
export async function leftScratches(session: Connection, now: Date): Promise<string[]> {
  const rows = await session.query(
    `select d.datname as name
       from pg_catalog.pg_database as d
      where d.datname ~ ('^' || $1 || '[0-9]{8}t[0-9]{6}z_[0-9a-f]{8}$') and d.datname collate "C" < $1 || $2
        and pg_catalog.pg_has_role(d.datdba, 'usage')
        and not exists (select from pg_catalog.pg_stat_activity as a where a.datname = d.datname)
        and not exists (
          select from pg_catalog.pg_locks as l
           where l.locktype = 'advisory' and l.objsubid = 1
             and (l.classid::bigint << 32) | l.objid::bigint = pg_catalog.hashtextextended($3 || d.datname, 0)
        )
      order by 1`,
    [scratchPrefix, utcStamp(new Date(now.getTime() - leastAgeMs)).toLowerCase(), lockPrefix],
  );
  return rows.map((row) => row["name"] ?? "");
}

/** Bounded. Never throws: what stays is for the next one. */
async function sweepScratches(clock: Clock, log: Log, database: Database): Promise<void> {
  for (const name of await listLeft(clock, log, database)) {
    try {
      await dropDatabase(clock, database, name, { force: false });
      log.info("scratch.swept", { database: name });
    } catch (error) {
      log.warn("scratch.unswept", { database: name, code: codeOf(error) });
    }
  }
}

async function listLeft(clock: Clock, log: Log, database: Database): Promise<readonly string[]> {
  let session: Connection | null = null;
  try {
    session = await database.connect("holdfast:scratch");
    return (await leftScratches(session, clock.now())).slice(0, mostSwept);
  } catch (error) {
    log.warn("scratch.unswept", { code: codeOf(error) });
    return [];
  } finally {
    await session?.close();
  }
}

const codeOf = (error: unknown): string => error instanceof HoldfastError ? error.code : "internal";

const tries = 3;

async function dropScratch(clock: Clock, log: Log, database: Database, name: string): Promise<void> {
  for (let left = tries; left > 0; left--) {
    try {
      await dropDatabase(clock, database, name, { force: true });
      return;
    } catch (error) {
      log.warn("scratch.left", { database: name, code: codeOf(error), triesLeft: left - 1 });
    }
  }
}
