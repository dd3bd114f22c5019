import { Buffer } from "node:buffer";
import { createHmac } from "node:crypto";
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

describe("the audit log", () => {
  it("refuses update, delete and truncate for its owner, under the replica role too", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.audit('test.written', 'subject', '{}')");
      for (const role of ["origin", "replica"]) {
        await postgres.query(`set local session_replication_role = ${role}`);
        for (
          const change of [
            "update backup.audit_log set subject = 'other'",
            "delete from backup.audit_log",
            "truncate backup.audit_log",
            "delete from backup.audit_log where false",
          ]
        ) expect(await sqlstate(postgres, change), `${change} as ${role}`).toBe("HF007");
      }
      expect(await scalar(postgres, "select count(*) from backup.audit_log where action = 'test.written'")).toBe("1");
    });
  });

  it("names the signed-in caller by a keyed hash only", async () => {
    await rolledBack(postgres, async () => {
      const person = "0b5c1f0e-5f6d-4c4e-9c36-5f1f4a1f7a01";
      await postgres.query("select set_config('request.jwt.claims', $1, true)", [JSON.stringify({ sub: person })]);
      await postgres.query("select backup.audit('test.written', 'subject')");
      const actor = await scalar(postgres, "select actor from backup.audit_log order by id desc limit 1");
      const key = await scalar(postgres, "select encode(key, 'hex') from backup.audit_key");
      const expected = createHmac("sha256", Buffer.from(key ?? "", "hex")).update(person).digest("hex");
      expect(actor).toBe(`person:${expected}`);
    });
  });

  it("names the database role where nobody is signed in, and refuses an action that is not two dotted words", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.audit('test.written', 'subject')");
      expect(await scalar(postgres, "select actor from backup.audit_log order by id desc limit 1")).toBe(
        "role:postgres",
      );
      expect(await sqlstate(postgres, "select backup.audit('Test', 'subject')")).toBe("23514");
    });
  });
});

describe("hmac_sha256", () => {
  it("agrees with node:crypto for keys below, at and above the block size", async () => {
    for (const length of [1, 32, 63, 64, 65, 131]) {
      const key = Buffer.alloc(length, 0xaa);
      const message = Buffer.from(`message for a key of ${length} bytes \u{1f512}`);
      const ours = await scalar(postgres, "select encode(backup.hmac_sha256($1, $2), 'hex')", [message, key]);
      expect(ours).toBe(createHmac("sha256", key).update(message).digest("hex"));
    }
  });
});

describe("alerts", () => {
  it("keep one unresolved row for a kind and a subject, and count how often it was raised", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.raise_alert('test', 'one', 'first')");
      await postgres.query("select backup.raise_alert('test', 'one', 'second')");
      await postgres.query("select backup.raise_alert('test', 'two', 'other')");
      const { rows } = await postgres.query(
        "select subject, times, message from backup.alerts where kind = 'test' order by subject",
      );
      expect(rows).toEqual([
        { subject: "one", times: "2", message: "second" },
        { subject: "two", times: "1", message: "other" },
      ]);
    });
  });

  it("open again after they were resolved, as a new row", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.raise_alert('test', 'one', 'first')");
      expect(await scalar(postgres, "select backup.resolve_alert('test', 'one')")).toBe("t");
      expect(await scalar(postgres, "select backup.resolve_alert('test', 'one')")).toBe("f");
      await postgres.query("select backup.raise_alert('test', 'one', 'again')");
      const statuses = await scalar(
        postgres,
        "select string_agg(status, ',' order by id) from backup.alerts where kind = 'test'",
      );
      expect(statuses).toBe("resolved,open");
    });
  });

  it("stay when a person acknowledges them, under that person's name", async () => {
    await rolledBack(postgres, async () => {
      const id = await scalar(postgres, "select backup.raise_alert('test', 'one', 'first')");
      await postgres.query("select backup.acknowledge_alert($1)", [id]);
      await postgres.query("select backup.raise_alert('test', 'one', 'still')");
      const { rows } = await postgres.query("select status, acknowledged_by, times from backup.alerts where id = $1", [
        id,
      ]);
      expect(rows).toEqual([{ status: "acknowledged", acknowledged_by: "postgres", times: "2" }]);
      expect(await sqlstate(postgres, "select backup.acknowledge_alert($1)", [id])).toBe("HF008");
    });
  });
});
