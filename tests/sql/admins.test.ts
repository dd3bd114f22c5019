import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, sqlstate } from "./cluster.ts";

let postgres: pg.Client;
let auth: pg.Client;
const [anna, ben] = [randomUUID(), randomUUID()];

beforeAll(async () => {
  postgres = await session(await installedCluster());
  auth = await session(await installedCluster(), "supabase_auth_admin");
  await auth.query(
    "insert into auth.users (id, email) values ($1, 'Anna@admins.example'), ($2, 'ben@admins.example')",
    [
      anna,
      ben,
    ],
  );
});
afterAll(async () => {
  await postgres?.query("delete from auth.users where id = any ($1)", [[anna, ben]]);
  await auth?.end();
  await postgres?.end();
});

const add = (who: string) => scalar(postgres, "select backup.add_admin($1, 'a note')", [who]);
const remove = (who: string) => scalar(postgres, "select backup.remove_admin($1)", [who]);
const there = async () =>
  (await postgres.query("select user_id from backup.admins order by added_at, user_id")).rows.map((row) => row.user_id);

describe("administrators", () => {
  it("are users, added by id or by address, once", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("alter table backup.admins disable trigger all; delete from backup.admins;");
      expect(await add(anna)).toBe("t");
      expect(await add("anna@ADMINS.example ")).toBe("f");
      expect(await add("ben@admins.example")).toBe("t");
      expect((await there()).sort()).toEqual([anna, ben].sort());
      for (const nobody of [randomUUID(), "nobody@admins.example", "", "%", "anna' or true --"]) {
        expect(await sqlstate(postgres, "select backup.add_admin($1)", [nobody]), nobody).toBe("HF510");
      }
    });
  });

  it("are removed, but for the last one, whatever way is tried, by the owner and as a replica too", async () => {
    await rolledBack(postgres, async () => {
      await add(anna);
      await add(ben);
      await postgres.query("delete from backup.admins where user_id <> all ($1)", [[anna, ben]]);
      expect(await remove("ben@admins.example")).toBe("t");
      expect(await remove(ben)).toBe("f");
      for (
        const statement of [
          `select backup.remove_admin('${anna}')`,
          "delete from backup.admins",
          "truncate backup.admins",
        ]
      ) expect(await sqlstate(postgres, statement), statement).toBe("HF007");
      expect(await there()).toEqual([anna]);
    });
  });

  it("cannot take each other away at the same time", async () => {
    const cluster = await installedCluster();
    const other = await session(cluster);
    const before = await there();
    try {
      await add(anna);
      await add(ben);
      await postgres.query("delete from backup.admins where user_id <> all ($1)", [[anna, ben]]);
      await postgres.query("begin");
      await remove(anna);
      const second = other.query("select backup.remove_admin($1)", [ben]).then(() => "none", (error) => error.code);
      await expect.poll(() =>
        scalar(postgres, "select count(*) from pg_locks where locktype = 'advisory' and not granted")
      ).toBe("1");
      await postgres.query("commit");
      expect(await second).toBe("HF007");
      expect(await there()).toEqual([ben]);
      expect(await sqlstate2(other)).toBe("HF007");
    } finally {
      await postgres.query("rollback");
      for (const one of before) await postgres.query("insert into backup.admins (user_id) values ($1)", [one]);
      if (before.length > 0) await postgres.query("delete from backup.admins where user_id = any ($1)", [[anna, ben]]);
      await other.end();
    }
  });

  it("stand in the audit with every change, as keyed hashes, however it was made", async () => {
    await rolledBack(postgres, async () => {
      await add(anna);
      await add(ben);
      const from = await scalar(postgres, "select max(id) from backup.audit_log");
      await remove(anna);
      await postgres.query("insert into backup.admins (user_id) values ($1)", [anna]);
      await postgres.query("update backup.admins set note = 'another' where user_id = $1", [anna]);
      const stranger = randomUUID();
      await postgres.query("update backup.admins set user_id = $2 where user_id = $1", [anna, stranger]);
      const { rows } = await postgres.query(
        `select action, case subject when backup.person_hash($2) then 'anna' when backup.person_hash($3) then 'a stranger' end as whose,
           actor from backup.audit_log where id > $1 order by id`,
        [from, anna, stranger],
      );
      expect(rows).toEqual([
        { action: "admin.removed", whose: "anna", actor: "role:postgres" },
        { action: "admin.added", whose: "anna", actor: "role:postgres" },
        { action: "admin.removed", whose: "anna", actor: "role:postgres" },
        { action: "admin.added", whose: "a stranger", actor: "role:postgres" },
      ]);
    });
  });

  it("are listed with what they still lack", async () => {
    await rolledBack(postgres, async () => {
      await add(anna);
      await add(ben);
      await postgres.query("delete from auth.users where id = $1", [ben]);
      const { rows } = await postgres.query(
        "select user_id, email, second_factor from backup.list_admins() where user_id = any ($1) order by email nulls last",
        [[anna, ben]],
      );
      expect(rows).toEqual([
        { user_id: anna, email: "Anna@admins.example", second_factor: "f" },
        { user_id: ben, email: null, second_factor: "f" },
      ]);
    });
  });
});

/** A transaction that would not see what others did meanwhile changes nobody. */
async function sqlstate2(client: pg.Client): Promise<string> {
  await client.query("begin isolation level repeatable read");
  try {
    return await sqlstate(client, "update backup.admins set note = 'x'");
  } finally {
    await client.query("rollback");
  }
}
