/** The runbook of erasures, followed command by command: somebody is gone from the project and from what is kept, and it is certified. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { Followed, preparePlace, shell } from "./runbook_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-runbook-erasure-"));
const [person, other] = ["5b0d6a3e-0000-4000-8000-00000000000a", "5b0d6a3e-0000-4000-8000-00000000000b"];
let settings: Record<string, string> = {};

const live = (text: string) => query(cluster().plainUrl("postgres"), text);
const notes = async () => (await live("select t from public.notes order by id")).map(({ t }) => t);

beforeAll(async () => {
  preparePlace(folder);
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
    PERSON: person,
  };
  await live(
    `insert into auth.users (id, email) values ('${person}', 'anna@example.org'), ('${other}', 'otto@example.org');
     create table public.notes (id int primary key, user_id uuid references auth.users on delete cascade, t text);
     insert into public.notes values (1, '${person}', 'of anna'), (2, '${other}', 'of otto')`,
  );
  for (const command of ["init", "incremental", "create"]) {
    const { exit, stderr } = await shell({ folder }, `npm run -s backup:${command}`, settings);
    expect(exit, stderr).toBe(0);
  }
  await live("select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await live(`update public.notes set t = 'of anna, later' where id = 1`);
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the runbook erase-a-person", () => {
  it("takes somebody out of the project and out of what is kept, and proves it", async () => {
    const page = new Followed({ folder, sql: live }, "erase-a-person.md", settings);
    expect(await page.follow("Decide")).toContain("may be erased again");
    expect(await page.follow("Look")).toMatch(/erase {3}public\.notes: 1 row/);
    expect(await notes()).toEqual(["of anna, later", "of otto"]);
    expect(await page.follow("Do")).toMatch(/gone, and were looked for once more/);
    expect(await notes()).toEqual(["of otto"]);
    const rewritten = await page.follow("What is kept", 1);
    expect(rewritten).toMatch(/1 backups lost 2 rows/);
    await page.follow("What is kept", 1);
    await live("update backup.condemned set condemned_at = condemned_at - interval '3 days'");
    expect(await page.follow("What is kept")).toContain("Nothing that is kept holds anybody who was erased");
    page.settings["ERASURE"] = String((await live("select id from backup.erasures"))[0]?.["id"]);
    const certificate = await page.follow("Check");
    expect(certificate).toContain(`Certificate of erasure ${page.settings["ERASURE"]}`);
    expect(certificate).toContain("nothing was found");
    expect(certificate).not.toContain(person);
    page.end();
  }, 180_000);
});
