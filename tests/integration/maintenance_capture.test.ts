/** A backup that is taken under maintenance mode holds the project as it is without it. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";

const cluster = useCluster({ prepared: "installed" });
let session: Connection;

beforeAll(async () => {
  session = await openDatabase({ url: cluster().plainUrl() }).connect("holdfast:test");
}, clusterMs);
afterAll(async () => {
  await session?.close();
});

async function captured() {
  const { definitions, notCaptured, warnings } = await captureSchema(session, { leaveOutSchemas: ["backup"] });
  return { definitions, notCaptured, warnings };
}

describe.each([
  ["a pre-request function of its own", "alter role authenticator set pgrst.db_pre_request = 'public.check_request'"],
  ["none", "alter role authenticator reset pgrst.db_pre_request"],
])("a capture of a project with %s", (_, prepare) => {
  it("is the same under maintenance mode, jobs that are paused among it", async () => {
    await session.execute(
      `${prepare}; select cron.schedule('app-busy', '0 0 1 1 *', 'select 1'), cron.schedule('app-idle', '0 0 1 1 *', 'select 1');
       select cron.alter_job(jobid, active => false) from cron.job where jobname = 'app-idle'`,
    );
    const open = await captured();
    await session.query("select backup.maintenance_on('Back at noon')");
    const closed = await captured();
    await session.query("select backup.maintenance_off()");
    expect(closed).toEqual(open);
    expect(await captured()).toEqual(open);
    const busy = open.definitions.find(({ identity }) => identity.includes("app-busy"));
    expect(busy?.release).toHaveLength(1);
  });

  it("names nothing of ours", async () => {
    expect(JSON.stringify(await captured())).not.toMatch(
      /holdfast_maintenance|backup_before_request|backup_probe|backup_announcements/,
    );
  });
});
