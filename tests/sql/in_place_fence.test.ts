/** Whose maintenance mode is at the end of a full restore in place. */
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { Context } from "../../src/cli/context.ts";
import { InPlaceFence } from "../../src/cli/in_place_fence.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { beginRestore } from "../../src/shared/jobs/restore_queries.ts";
import { silentLog } from "../../src/shared/log.ts";
import { readMaintenance } from "../../src/shared/maintenance/state.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { installedCluster } from "./cluster.ts";

let database: Database;
let session: Connection;
const notes: string[] = [];
const context = { settings: { get: () => undefined }, note: (text: string) => notes.push(text) } as unknown as Context;

beforeAll(async () => {
  database = openDatabase({ url: (await installedCluster()).plainUrl("postgres") });
  session = await database.connect("fence");
});
afterEach(async () => {
  notes.length = 0;
  await session.execute(
    `select backup.maintenance_off(); delete from backup.restores; update backup.maintenance set announcement = null;
     delete from backup.announcements`,
  );
});
afterAll(() => session?.close());

async function closed(): Promise<InPlaceFence> {
  const lease = await beginRestore(session, {
    ...{ scope: "full", mode: "replace", sourceBackup: randomUUID(), pointAt: null, userId: null },
    ...{ targetLabel: "here", targetIsHere: true, worker: "cli", leaseSeconds: 90 },
  });
  const deps = { database, project: null, ownBuckets: [], clock: systemClock, random: webCryptoRandom, log: silentLog };
  return await InPlaceFence.close(context, deps, session, lease);
}
const takenOver = () => session.query("select backup.maintenance_on('I am checking', null, 'anna')");
const now = async () => {
  const { closed, message, by } = await readMaintenance(session);
  const [row] = await session.query("select status from backup.restores");
  return [closed, message, by, row?.["status"]];
};

it("a project that a person closes anew while a restore runs stays closed at the restore's end", async () => {
  const fence = await closed();
  await takenOver();
  expect(await fence.openAndFinish([], 1)).toMatchObject({ keptFor: "anna" });
  expect(await now()).toEqual([true, "I am checking", "anna", "succeeded"]);
});

it("a project that a person closes anew stays closed where the restore could not begin", async () => {
  const fence = await closed();
  await takenOver();
  await fence.takeBack();
  expect(await now()).toEqual([true, "I am checking", "anna", "planned"]);
  expect(notes.join("\n")).toMatch(/stays on, as anna had turned it on/);
});

it("a project that a restore closed is opened at its end, and where it could not begin", async () => {
  await (await closed()).takeBack();
  expect((await now())[0]).toBe(false);
  await session.execute("delete from backup.restores");
  expect(await (await closed()).openAndFinish([], 1)).toMatchObject({ keptFor: null });
  expect(await now()).toEqual([false, null, null, "succeeded"]);
});
