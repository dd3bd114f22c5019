import { expect, it } from "vitest";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { backup, installedDatabase, query, world } from "../integration/backup_fixture.ts";
import { useCluster } from "../support/cluster.ts";

const cluster = useCluster();

it("a chunk that was cut in the store is never called a success again: it is named, kept, and written anew once it is moved away", async () => {
  const { deps, store, url } = await world(cluster(), { url: await installedDatabase(cluster()) });
  await query(url, "create table letters as select i, md5(i::text) as t from generate_series(1, 500) as i");
  const first = await backup(deps);
  const [row] = await query(
    url,
    "select object from backup.chunks where run_id = $1 and table_name = 'letters' limit 1",
    [first.id],
  );
  const name = String(row?.["object"]);
  const bytes = store.objects.get(name);
  if (bytes === undefined) throw new Error("no object");
  const cut = bytes.slice(0, bytes.length >> 1);
  store.objects.set(name, cut);

  await expect(backup(deps)).rejects.toMatchObject({
    code: "object_damaged",
    message: expect.stringContaining(name),
    hint: expect.stringContaining("move this object out of the store"),
  });
  expect(store.objects.get(name)).toEqual(cut);

  store.objects.delete(name);
  const next = await backup(deps);
  expect(next.status).toBe("succeeded");
  expect(await verifyBackup(deps, next.id)).toMatchObject({ ok: true });
});
