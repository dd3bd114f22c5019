/** A database that is made for one restore and thrown away. */
import type { Clock } from "../../clock.ts";
import { toHex } from "../../crypto/digest.ts";
import { HoldfastError } from "../../errors.ts";
import { utcStamp } from "../../format/layout.ts";
import type { Manifest } from "../../format/manifest.ts";
import type { Log } from "../../log.ts";
import type { Connection, Database } from "../../postgres/connection.ts";
import type { Random } from "../../random.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";

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

/** With the encoding and locale of the backup's server, closed to everybody but its owner. Errors: the connection's. */
export async function makeScratch(
  { clock, random, log }: ScratchDeps,
  server: ScratchServer,
  like: Manifest["server"],
): Promise<Scratch> {
  const name = `${scratchPrefix}${utcStamp(clock.now()).toLowerCase()}_${toHex(random(4))}`;
  const drop = () => dropScratch(clock, log, server.database, name);
  const [encoding, collate, ctype] = [like.encoding, like.collate, like.ctype].map(quoteLiteral);
  const session = await server.database.connect("holdfast:scratch");
  try {
    await session.execute(
      `create database ${
        quoteIdent(name)
      } template template0 encoding ${encoding} lc_collate ${collate} lc_ctype ${ctype}`,
    );
    await session.execute(
      `revoke connect, temporary on database ${quoteIdent(name)} from public;
       comment on database ${quoteIdent(name)} is 'Made by Holdfast for one restore of rows; may be dropped.'`,
    );
  } catch (error) {
    await drop();
    throw error;
  } finally {
    await session.close();
  }
  return { database: server.inDatabase(name), drop };
}

const tries = 3;
const statementMs = 15_000;

async function dropScratch(clock: Clock, log: Log, database: Database, name: string): Promise<void> {
  for (let left = tries; left > 0; left--) {
    try {
      await bounded(clock, database, [
        `set statement_timeout = ${statementMs}`,
        `drop database if exists ${quoteIdent(name)} with (force)`,
      ]);
      return;
    } catch (error) {
      const code = error instanceof HoldfastError ? error.code : "internal";
      log.warn("scratch.left", { database: name, code, triesLeft: left - 1 });
    }
  }
}

/** DROP DATABASE stands alone, each statement by itself. A server that says nothing is not waited for. */
async function bounded(clock: Clock, database: Database, statements: readonly string[]): Promise<void> {
  const over = new AbortController();
  let session: Connection | null = null;
  const work = (async () => {
    session = await database.connect("holdfast:scratch");
    for (const statement of statements) await session.execute(statement);
  })();
  work.catch(() => {});
  try {
    await Promise.race([
      work,
      clock.sleep(2 * statementMs, over.signal).then(() => {
        throw new HoldfastError("database_unreachable", "the server does not answer");
      }),
    ]);
  } finally {
    over.abort();
    await (session as Connection | null)?.close();
  }
}
