/** Databases with nothing in them are backed up and come back as nothing, and it is said. */
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { freshDatabase, query, useCluster } from "../support/cluster.ts";
import { backup, installedDatabase, manifestOf, world } from "./backup_fixture.ts";

const cluster = useCluster({ platform: false });

async function backUpAndRestore(definitions: string) {
  const { deps, url } = await world(cluster(), { url: await installedDatabase(cluster()) });
  await query(url, definitions);
  const row = await backup(deps);
  const manifest = await manifestOf(deps, row);
  const read = { ...deps, clock: systemClock, log: silentLog };
  expect(await verifyBackup(read, row.id)).toMatchObject({ ok: true, rows: 0 });
  const target = cluster().plainUrl("postgres", await freshDatabase(cluster()));
  const result = await restoreBackup({ ...read, target: openDatabase({ url: target }) }, row.id);
  return { row, manifest, target, result };
}

describe("a backup", () => {
  it("of zero tables succeeds with a warning, and restores to zero tables", async () => {
    const { row, manifest, target, result } = await backUpAndRestore("select 1");
    expect(row).toMatchObject({ status: "succeeded", tables: 0, rows: 0 });
    expect(row.warnings.map((warning) => warning.code)).toContain("no_tables");
    expect(manifest.tables).toEqual([]);
    expect(result).toMatchObject({ ok: true, inserted: 0 });
    expect(await query(target, "select 1 from pg_tables where schemaname = 'public'")).toEqual([]);
  });

  it("of tables with zero rows succeeds without that warning, and restores them", async () => {
    const { row, manifest, target, result } = await backUpAndRestore(
      "create table nothing (i int primary key, t text); create table less (); create view seen as select * from nothing",
    );
    expect(row).toMatchObject({ status: "succeeded", tables: 2, rows: 0 });
    expect(row.warnings.map((warning) => warning.code)).not.toContain("no_tables");
    expect(manifest.tables.map((table) => [table.name, table.rows, table.chunks])).toEqual([["nothing", 0, []], [
      "less",
      0,
      [],
    ]]);
    expect(result).toMatchObject({ ok: true, inserted: 0 });
    expect(await query(target, "select count(*)::int as n from seen")).toEqual([{ n: 0 }]);
    expect(await query(target, "select count(*)::int as n from less")).toEqual([{ n: 0 }]);
  });
});
