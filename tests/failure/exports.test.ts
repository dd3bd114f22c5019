/** Exports while isolates are killed, the bucket is removed, people are deleted and files change. */
import { Buffer } from "node:buffer";
import { describe, expect, it } from "vitest";
import { exportDocument } from "../../src/shared/export/document_format.ts";
import { useExportWorld } from "../access/exports_world.ts";
import { query } from "../support/cluster.ts";
import { eventually, setClock } from "../support/stack.ts";

const { project, people, bucket, ask, person, upload, call, made, linked, fetched, proven, objectsOf, forget } =
  useExportWorld();

describe("what happens meanwhile", () => {
  it.each(["export.laid", "export.copied", "export.put"])(
    "a kill at %s: another leg goes on, and all of it is right",
    async (line) => {
      await forget(people.anna);
      const kill = await project().killAt(`step:${line}`, 1, "export");
      const begun = call(people.anna, { action: "request" });
      const { export: id } = await begun;
      await kill.fired();
      const done = await made(people.anna, { action: "request" }, true);
      expect(done.id).toBe(id);
      await proven(await linked(people.anna, done.id));
    },
    120_000,
  );

  it("the bucket is removed: what is gone is put again", async () => {
    await forget(people.anna);
    const kill = await project().killAt("step:export.copied", 1, "export");
    await call(people.anna, { action: "request" });
    await kill.fired();
    const { url, serviceRoleKey } = project().stack.gateway;
    const headers = { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}` };
    for (const what of ["bucket/data-exports/empty", "bucket/data-exports"]) {
      const method = what.endsWith("empty") ? "POST" : "DELETE";
      expect((await fetch(`${url}/storage/v1/${what}`, { method, headers })).status).toBe(200);
    }
    await proven(await linked(people.anna, (await made(people.anna, { action: "request" }, true)).id));
  }, 120_000);

  it("the person is deleted: it fails, and nothing is left of it", async () => {
    const gone = await person();
    const kill = await project().killAt("step:export.laid", 1, "export");
    const { export: id } = await call(gone, { action: "request" });
    await kill.fired();
    await query(project().stack.cluster.plainUrl("supabase_admin"), "delete from auth.users where id = $1", [
      gone.userId,
    ]);
    await setClock(project(), 200);
    try {
      await eventually("it has failed and is removed", async () => {
        await ask("select backup.tick()");
        const [row] = await ask("select status, error_code from backup.exports where id = $1", [id]);
        return row?.["status"] === "removed" && row["error_code"] === "user_not_found" ? true : null;
      }, 60_000);
    } finally {
      await setClock(project(), 0);
    }
    expect(await objectsOf(String(id))).toEqual([]);
    expect(await ask("select from backup.export_pieces")).toEqual([]);
  }, 90_000);

  it("a file that goes, and one that changes: told, or as it is then", async () => {
    const carl = await person();
    await upload(carl, "goes.webm", Buffer.from("goes"));
    await upload(carl, "changes.webm", Buffer.from("before"));
    const kill = await project().killAt("step:export.laid", 1, "export");
    await call(carl, { action: "request" });
    await kill.fired();
    const { url, serviceRoleKey } = project().stack.gateway;
    const headers = { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}` };
    await fetch(`${url}/storage/v1/object/${bucket}/${carl.userId}/goes.webm`, { method: "DELETE", headers });
    await fetch(`${url}/storage/v1/object/${bucket}/${carl.userId}/changes.webm`, {
      method: "POST",
      headers: { ...headers, "x-upsert": "true", "content-type": "audio/webm" },
      body: "after, and longer",
    });
    const link = await linked(carl, (await made(carl, { action: "request" }, true)).id);
    const document = exportDocument.parse(JSON.parse((await fetched(link.document)).toString()));
    expect(document.files.map(({ name, state, why }) => [name.split("/")[1], state, why])).toEqual([
      ["changes.webm", "copied", null],
      ["goes.webm", "missing", "it was removed while the export was made"],
    ]);
    expect((await fetched(link.files)).toString()).toBe("after, and longer");
  }, 120_000);
});
