/** What stores hold, as listed: each object's turn within 30 days, what is missing, what damage takes with it. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkTools, type Lease, nameOf, object } from "./checks_fixture.ts";
import { installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

let postgres: pg.Client;
const { begun, openAlerts, backup, enter } = checkTools(() => postgres);

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

describe("an object's turn", () => {
  const daysOf = (n: number) => `2027-01-${String(n + 1).padStart(2, "0")}`;

  /** One day's opening of `first` by what the database says; how many objects were opened. */
  async function oneDay(moment: string, listed: readonly string[]): Promise<number> {
    await setClock(postgres, moment);
    const lease = await begun("daily");
    await enter(lease, "v1/objects/", listed);
    const share = Number(
      await scalar(postgres, "select share from backup.sample_share($1, $2, 'first')", [lease.task, lease.token]),
    );
    let opened = 0;
    while (opened < share) {
      const { rows } = await postgres.query("select name from backup.next_objects($1, $2, 'first', false, 100, $3)", [
        lease.task,
        lease.token,
        Math.min(7, share - opened),
      ]);
      if (rows.length === 0) break;
      // A moment later: nothing comes twice in a run.
      await postgres.query("select backup.record_opened($1, $2, 'first', $3)", [
        lease.task,
        lease.token,
        rows.map(({ name }) => name),
      ]);
      opened += rows.length;
    }
    await postgres.query("select backup.cancel_run($1)", [lease.run]);
    return opened;
  }

  it("comes within 30 days, with new and removed objects, and days on which nothing was verified", async () => {
    await rolledBack(postgres, async () => {
      const there = new Set(Array.from({ length: 200 }, (_, n) => object(n)));
      const firstSeen = new Map([...there].map((name) => [name, 0]));
      let made = there.size;
      let oldest = 0;
      const counts: number[] = [];
      for (let today = 0; today < 95; today++) {
        const moment = new Date(Date.UTC(2027, 0, 1 + today, 4, 23)).toISOString();
        // Five new ones a day, a large import on day 20, and three of the oldest go.
        for (let n = 0; n < (today === 20 ? 150 : 5); n++) {
          const name = object(made++);
          there.add(name);
          firstSeen.set(name, today);
        }
        for (const name of [...there].slice(0, 3)) there.delete(name);
        if (today === 40 || today === 41 || today === 60) continue;
        counts.push(await oneDay(moment, [...there]));
        const { rows } = await postgres.query(
          "select name, extract(epoch from $1::timestamptz - opened_at) / 86400 as age from backup.inventory where store = 'first'",
          [moment],
        );
        expect(rows.length).toBe(there.size);
        for (const { name, age } of rows) {
          const days = age === null ? today - (firstSeen.get(name) ?? 0) : Number(age);
          oldest = Math.max(oldest, days);
        }
      }
      expect(oldest).toBeLessThanOrEqual(30);
      // An even share, not all at once.
      expect(Math.max(...counts.slice(0, 25))).toBeLessThanOrEqual(20);
    });
  }, 240_000);

  it("comes at once after the clock was moved back, for what was damaged, and for what has another size", async () => {
    await rolledBack(postgres, async () => {
      const names = Array.from({ length: 140 }, (_, n) => object(n));
      await oneDay(`${daysOf(20)} 04:00+00`, names);
      // Back by ten days: what was listed and opened since then is of the future.
      await setClock(postgres, `${daysOf(10)} 04:00+00`);
      const lease = await begun("daily");
      await postgres.query("select backup.sample_share($1, $2, 'first')", [lease.task, lease.token]);
      expect(await scalar(postgres, "select count(*) from backup.inventory where looked_at > backup.clock_now()")).toBe(
        "0",
      );
      const first = async () =>
        (await postgres.query("select name from backup.next_objects($1, $2, 'first', false, 100, 1)", [
          lease.task,
          lease.token,
        ]))
          .rows[0]?.name;
      await postgres.query("update backup.inventory set looked_at = backup.clock_now() - interval '1 day'");
      await postgres.query(`update backup.inventory set damage = '{"code": "object_damaged"}' where name = $1`, [
        names[77],
      ]);
      await postgres.query("select backup.sample_share($1, $2, 'first')", [lease.task, lease.token]);
      expect(await first()).toBe(names[77]);
      await postgres.query("select backup.record_opened($1, $2, 'first', $3)", [lease.task, lease.token, [names[77]]]);
      await postgres.query("select backup.enter_listed($1, $2, 'first', false, $3, $4)", [
        lease.task,
        lease.token,
        names[30],
        JSON.stringify([{ name: names[30], bytes: 11 }]),
      ]);
      expect(await first()).toBe(names[30]);
    });
  });

  it("is nobody's while a sweep is about to remove it, and where it is too large for who asks", async () => {
    await rolledBack(postgres, async () => {
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1), object(2)]);
      await postgres.query("update backup.inventory set looked_at = '-infinity'");
      await postgres.query("insert into backup.condemned (store, name, run_id) values ('first', $1, $2)", [
        object(1),
        lease.run,
      ]);
      const names = async (most: number) =>
        (await postgres.query("select name from backup.next_objects($1, $2, 'first', false, $3, 9)", [
          lease.task,
          lease.token,
          most,
        ]))
          .rows.map(({ name }) => name);
      expect(await names(10)).toEqual([object(2)]);
      expect(await names(9)).toEqual([]);
    });
  });

  it("that is too large for who asks is named, and calls for somebody with more room once half of its days are over", async () => {
    await rolledBack(postgres, async () => {
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1), object(2), object(3)]);
      await postgres.query("update backup.inventory set bytes = 11 where name <> $1", [object(3)]);
      const standing = async (most: number) =>
        JSON.parse(
          (await scalar(postgres, "select backup.opened_standing('first', false, $1)::text", [most])) ?? "{}",
        );
      const aged = (hours: number) =>
        postgres.query(
          "update backup.inventory set looked_at = backup.clock_now() - $1 * interval '1 hour' where name = $2",
          [hours, object(2)],
        );
      await aged(15 * 24 - 1);
      expect(await standing(10)).toMatchObject({
        objects: 3,
        tooLarge: 2,
        tooLargeWaiting: 0,
        tooLargeFirst: [object(2), object(1)],
        overdue: 0,
      });
      await aged(15 * 24 + 1);
      expect(await standing(10)).toMatchObject({ tooLarge: 2, tooLargeWaiting: 1, overdue: 0 });
      expect(await standing(11)).toMatchObject({ tooLarge: 0, tooLargeWaiting: 0, tooLargeFirst: [] });
      await aged(30 * 24 + 1);
      expect(await standing(10)).toMatchObject({ tooLargeWaiting: 1, overdue: 1 });
      await postgres.query("insert into backup.condemned (store, name, run_id) values ('first', $1, $2)", [
        object(2),
        lease.run,
      ]);
      expect(await standing(10)).toMatchObject({ tooLargeWaiting: 0, overdue: 0 });
    });
  });
});

describe("a backup below another prefix", () => {
  it("is counted, since nobody looks there from here; one that is gone is not", async () => {
    await rolledBack(postgres, async () => {
      const elsewhere = () => scalar(postgres, "select backup.backups_elsewhere()::text");
      await backup(1);
      expect(await elsewhere()).toBe("[]");
      const ids = [await backup(30), await backup(50), await backup(70)];
      await postgres.query("update backup.runs set store_prefix = 'clone-1' where id = any ($1)", [ids]);
      await postgres.query("update backup.runs set status = 'pruned' where id = $1", [ids[2]]);
      expect(JSON.parse((await elsewhere()) ?? "")).toEqual([{ prefix: "clone-1", backups: 2 }]);
    });
  });
});

describe("a listing", () => {
  it("lacks what a listed manifest, a segment or a copy says, and nothing of a backup that may be elsewhere", async () => {
    await rolledBack(postgres, async () => {
      const id = await backup(5, { objects: [object(1), object(2)] });
      const lease = await begun("daily");
      expect(await enter(lease, "v1/backups/", [])).toEqual([nameOf(id)]);
      // Not before its manifest is known to lie there.
      expect(await enter(lease, "v1/objects/", [object(1)])).toEqual([]);
      expect(await enter(lease, "v1/backups/", [nameOf(id)])).toEqual([]);
      expect(await enter(lease, "v1/objects/", [object(1)])).toEqual([object(2)]);
      expect(await enter(lease, "v1/objects/", [object(1), object(2), object(3)])).toEqual([]);
      expect(await enter(lease, "v1/keys/", [])).toEqual(["v1/keys/e20260101T000000Z-00000000.jwe.json"]);
      await postgres.query("update backup.runs set origin = 'cli' where id = $1", [id]);
      expect(await enter(lease, "v1/backups/", [])).toEqual([]);
      await postgres.query(
        `insert into backup.copies (store, name, kind, status, second_bytes, second_hash, copied_at)
         values ('second', $1, 'object', 'stored', 1, 'h', now() - interval '1 day'), ('second', $2, 'object', 'missing', null, null, null)`,
        [object(1), object(2)],
      );
      expect(await enter(lease, "v1/objects/", [], true)).toEqual([object(1)]);
    });
  });

  it("forgets what is gone and nobody needs; of what retention removed meanwhile nothing is expected", async () => {
    await rolledBack(postgres, async () => {
      const id = await backup(5, { objects: [object(1)] });
      const lease = await begun("daily");
      await enter(lease, "v1/backups/", [nameOf(id)]);
      await enter(lease, "v1/objects/", [object(1), object(2)]);
      expect(await enter(lease, "v1/objects/", [])).toEqual([object(1)]);
      const left = async () =>
        (await postgres.query("select name from backup.inventory where name like 'v1/objects/%' order by 1")).rows.map((
          { name },
        ) => name);
      expect(await left()).toEqual([object(1)]);
      const still = async () =>
        (await postgres.query("select name from backup.still_expected($1, $2, 'first', false, $3) as m (name)", [
          lease.task,
          lease.token,
          [object(1)],
        ])).rows.map(({ name }) => name);
      expect(await still()).toEqual([object(1)]);
      await postgres.query("update backup.runs set status = 'pruned' where id = $1", [id]);
      expect(await still()).toEqual([]);
      expect(await left()).toEqual([]);
    });
  });

  it("of another pair of stores begins anew", async () => {
    await rolledBack(postgres, async () => {
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1)]);
      await postgres.query("select backup.begin_listing($1, $2, '{elsewhere}')", [lease.task, lease.token]);
      expect(await scalar(postgres, "select count(*) from backup.inventory")).toBe("0");
    });
  });
});

describe("damage", () => {
  const tell = ({ task, token }: Lease, second: boolean, name: string, code = "object_damaged") =>
    postgres.query("select backup.record_damage($1, $2, $3, $4, $5)", [
      task,
      token,
      second ? "second" : "first",
      second,
      JSON.stringify([{ object: name, code, message: "it does not open" }]),
    ]);
  const verified = (id: string) =>
    scalar(postgres, "select verified_at is not null from backup.runs where id = $1", [id]);

  it("in the first store takes the word verified from every backup that needs the object, and from no other", async () => {
    await rolledBack(postgres, async () => {
      const [hit, shared, apart] = [
        await backup(50, { objects: [object(1), object(2)] }),
        await backup(26, { objects: [object(2)] }),
        await backup(5, { objects: [object(3)] }),
      ];
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1), object(2), object(3)]);
      await tell(lease, false, object(2));
      expect([await verified(hit), await verified(shared), await verified(apart)]).toEqual(["f", "f", "t"]);
      expect(await openAlerts()).toMatchObject([{ kind: "backup_damaged" }, { kind: "backup_damaged" }]);
      await tell(lease, false, nameOf(apart));
      expect(await verified(apart)).toBe("f");
    });
  });

  it("that is only a key which this process lacks says nothing of a backup", async () => {
    await rolledBack(postgres, async () => {
      const id = await backup(5, { objects: [object(1)] });
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1)]);
      await tell(lease, false, object(1), "key_wrong");
      expect(await verified(id)).toBe("t");
      const standing = JSON.parse(
        (await scalar(postgres, "select backup.opened_standing('first', false, 100)::text")) ?? "{}",
      );
      expect(standing).toMatchObject({ objects: 1, damaged: 1, overdue: 0 });
    });
  });

  it("in the second store makes it missing there, with what was put still known as ours", async () => {
    await rolledBack(postgres, async () => {
      const id = await backup(5, { objects: [object(1)] });
      await postgres.query("update backup.second_store set label = 'second', first_label = 'first'");
      await postgres.query(
        `insert into backup.copies (store, name, kind, status, second_bytes, second_hash, copied_at)
         values ('second', $1, 'object', 'stored', 10, 'put', now()), ('second', $2, 'manifest', 'stored', 10, 'm', now())`,
        [object(1), nameOf(id)],
      );
      const lease = await begun("daily");
      await enter(lease, "v1/objects/", [object(1)], true);
      await tell(lease, true, object(1));
      expect((await postgres.query("select name, status from backup.copies order by name")).rows).toEqual([
        { name: nameOf(id), status: "unopened" },
        { name: object(1), status: "missing" },
      ]);
      expect((await postgres.query("select hash from backup.copy_intents")).rows).toEqual([{ hash: "put" }]);
      expect(await scalar(postgres, "select complete_at from backup.runs where id = $1", [id])).toBeNull();
      expect(await verified(id)).toBe("t");
    });
  });
});
