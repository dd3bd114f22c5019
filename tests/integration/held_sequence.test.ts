/** A capture does not wait for ever for a sequence or a view that somebody's open transaction drops. */
import { describe, expect, it } from "vitest";
import { inSnapshot, openSession } from "../../src/shared/backup/session.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import { freshDatabase, useCluster, withClient } from "../support/cluster.ts";

const cluster = useCluster();

describe("a capture of definitions", () => {
  it.each([
    ["a sequence", "drop sequence app.numbers", "a sequence is locked by another session"],
    ["a view", "drop view app.seen cascade", "lock timeout"],
  ])(
    "ends with lock_timeout where a transaction holds %s, and waits no longer than its bound",
    async (_, drops, why) => {
      const url = cluster().plainUrl(cluster().superuser, await freshDatabase(cluster(), { platform: false }));
      await withClient(url, async (client) => {
        await client.query(
          `create schema app; create sequence app.numbers; create view app.seen as select 1 as x;
         create view app.above as select * from app.seen`,
        );
        const [row] = (await client.query(
          "begin isolation level repeatable read; select pg_export_snapshot() as name",
        ) as unknown as { rows: { name: string }[] }[])[1]?.rows ?? [];
        await withClient(url, async (other) => {
          await other.query(`begin; ${drops}`);
          const reader = await openSession(openDatabase({ url }), "holdfast:test");
          try {
            const begun = performance.now();
            await expect(inSnapshot(reader, row?.name ?? "", [], () => captureSchema(reader, { leaveOutSchemas: [] })))
              .rejects.toMatchObject({ code: "lock_timeout", message: expect.stringContaining(why) as string });
            expect(performance.now() - begun).toBeLessThan(30_000);
          } finally {
            await reader.close();
          }
        });
      });
    },
    60_000,
  );
});
