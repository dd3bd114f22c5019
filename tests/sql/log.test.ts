/** The maintenance log: it grows, by the system and by people, and nobody rewrites it. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const add = "select backup.log_maintenance('test', ' a-person ', 'Success', 'six minutes')";

describe("the maintenance log", () => {
  it("has date, type, action, result and notes of each row, and who wrote it; the audit has it without the notes", async () => {
    await rolledBack(postgres, async () => {
      const id = await scalar(postgres, add);
      const { rows } = await postgres.query(
        `select recorded_at = now() or recorded_at > now() as dated, kind, action, result, notes, recorded_by
           from public.backup_maintenance_log where id = $1`,
        [id],
      );
      expect(rows).toEqual([
        {
          dated: "t",
          kind: "test",
          action: "a-person",
          result: "Success",
          notes: "six minutes",
          recorded_by: "role:postgres",
        },
      ]);
      const audited = await postgres.query("select subject, detail from backup.audit_log order by id desc limit 1");
      expect(audited.rows.map(({ subject, detail }) => [subject, JSON.parse(detail)])).toEqual([
        [`log:${id}`, { kind: "test", action: "a-person", result: "Success" }],
      ]);
    });
  });

  it.each([
    ["update backup.maintenance_log set result = 'Failure'"],
    ["delete from backup.maintenance_log"],
    ["truncate backup.maintenance_log"],
    ["set local session_replication_role = replica; delete from backup.maintenance_log"],
  ])("is changed by nobody: %s", async (statement) => {
    await rolledBack(postgres, async () => {
      await postgres.query(add);
      expect(await sqlstate(postgres, statement)).toBe("HF007");
    });
  });

  it.each([
    ["Test", "a", "Success", ""],
    ["test", "", "Success", ""],
    ["test", "two\nlines", "Success", ""],
    ["test", "a", "x".repeat(201), ""],
    ["test", "a", "Success", "x".repeat(4_001)],
  ])("refuses a row that nobody could read: %j %j", async (kind, action, result, notes) => {
    await rolledBack(postgres, async () => {
      expect(await sqlstate(postgres, "select backup.log_maintenance($1, $2, $3, $4)", [kind, action, result, notes]))
        .toBe(
          "HF003",
        );
    });
  });
});
