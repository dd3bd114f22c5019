/** The status page by the function `incident`: in public Storage within a tick of what it tells of, also while the project is closed. */
import { describe, expect, it } from "vitest";
import { eventually, useProject } from "../support/stack.ts";

const project = useProject({ environment: { BACKUP_STATUS_PAGE: "supabase://holdfast-status" } });

/** As anybody reads it, without a key. */
async function shown(): Promise<{ state: string; message: string | null } | null> {
  const { url } = project().stack.gateway;
  const answer = await fetch(`${url}/storage/v1/object/public/holdfast-status/status.json`);
  return answer.ok ? await answer.json() as { state: string; message: string | null } : null;
}

async function untilShown(state: string, message: string | null): Promise<void> {
  await eventually(`the page says ${state}`, async () => {
    // A call is made once a minute.
    await project().query("update backup.page set called_at = null");
    await project().query("select backup.tick()");
    const page = await shown();
    return page?.state === state && page.message === message ? page : null;
  });
}

describe("the function incident", () => {
  it("keeps the page at what the database says: an incident, an update, maintenance, the end", async () => {
    const { query } = project();
    expect(await shown()).toBeNull();
    const [opened] = await query("select incident from backup.open_incident('a test', 'Something is wrong.')");
    await untilShown("incident", "Something is wrong.");
    // The page is there before the function has said so.
    const noted = await eventually("it is noted where the page is", async () => {
      const [page] = await query("select place, failures from backup.page");
      return page?.["place"] == null ? null : page;
    });
    expect(noted).toEqual({ place: expect.stringContaining("supabase://holdfast-status"), failures: 0 });
    // From here on Storage takes no writes but ours.
    await query("select backup.maintenance_on('Back soon.')");
    await query("select backup.tell_incident($1, 'Nearly done.')", [opened?.["incident"]]);
    await untilShown("incident", "Nearly done.");
    await query("select backup.close_incident($1, 'done')", [opened?.["incident"]]);
    await untilShown("maintenance", "Back soon.");
    await query("select backup.maintenance_off()");
    await untilShown("operational", null);
    expect(await query("select kind from backup.alerts where kind in ('call_failed', 'status_page_failed')")).toEqual(
      [],
    );
    const html = await fetch(`${project().stack.gateway.url}/storage/v1/object/public/holdfast-status/status.html`);
    expect(html.ok).toBe(false);
  }, 120_000);

  it("needs little of what a leg may use", async () => {
    const uses = (await project().isolates()).filter((one) => one.function === "incident").flatMap((one) => one.uses);
    expect(uses.length).toBeGreaterThan(0);
    expect(Math.max(...uses.map(({ cpuMs }) => cpuMs))).toBeLessThan(600);
  });
});
