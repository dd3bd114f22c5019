/** Makes a scratch database, says its name, and stays until it is killed. */
import process from "node:process";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { makeScratch } from "../../src/shared/rows/past/moment_scratch.ts";
import { like, serverAt } from "./scratch_fixture.ts";

const deps = { clock: systemClock, random: webCryptoRandom, log: silentLog };
const { database } = await makeScratch(deps, serverAt(process.env["TEST_DATABASE_URL"] ?? ""), like);
console.log(database.label.split("/").at(-1));
await systemClock.sleep(120_000);
