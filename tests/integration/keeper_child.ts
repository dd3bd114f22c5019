/** Opens a keeper, holds it, says what it holds, and stays until it is killed. */
import process from "node:process";
import { defaultKeeperOptions, openKeeper } from "../../src/shared/backup/keeper.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";

const database = openDatabase({ url: process.env["TEST_DATABASE_URL"] ?? "" });
const keeper = await openKeeper({ database, clock: systemClock, log: silentLog }, defaultKeeperOptions);
keeper.hold("11111111-1111-4111-8111-111111111111", 1);
console.log(JSON.stringify(keeper.facts));
await systemClock.sleep(120_000);
