import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { databaseOf, restoreDeps } from "../integration/restore_fixture.ts";
import { type Cluster, clusterMs, startTestCluster, withClient } from "../support/cluster.ts";
import { compatKeys } from "./keys.ts";
import { lookAtShop } from "./look.ts";

const folder = fileURLToPath(new URL("./v1/", import.meta.url));
const expected = JSON.parse(readFileSync(`${folder}expected.json`, "utf8"));

for (const version of [15, 17] as const) {
  describe(`a store of format 1, on PostgreSQL ${version}`, () => {
    let cluster: Cluster;

    beforeAll(async () => {
      cluster = await startTestCluster({ version, platform: false });
    }, clusterMs);

    afterAll(async () => {
      await cluster?.destroy();
    }, clusterMs);

    const deps = async () =>
      await restoreDeps(createFileStore(`${folder}store`), parseKeyRing(compatKeys), databaseOf(cluster));

    it("is sound", async () => {
      expect(await verifyBackup(await deps(), "latest")).toMatchObject({ ok: true, problems: [] });
    });

    it("is restored, row by row and definition by definition", async () => {
      const result = await restoreBackup(await deps(), "latest");
      expect(result).toMatchObject({ ok: true, skipped: [], held: [] });
      expect(result.inserted).toBeGreaterThan(250);
      const found = await withClient(
        cluster.plainUrl(),
        (client) => lookAtShop(async (text) => (await client.query(text)).rows),
      );
      expect(Object.keys(expected).length).toBeGreaterThan(15);
      expect(found).toEqual(expected);
    });
  });
}
