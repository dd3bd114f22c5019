/** Sequences are brought past rows that came back while others draw from them. The oracle: no value is drawn twice. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { raiseSequence } from "../../src/shared/rows/apply/raise_sequence.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { eventually } from "../support/stack.ts";
import { besideOf, bringBack, type Past, pastOf } from "./rows_fixture.ts";

const cluster = useCluster();
let past: Past;

beforeAll(async () => {
  past = await pastOf(
    cluster(),
    `create schema app;
     create table app.near (id serial primary key); insert into app.near values (1), (50);
     create table app.far (id serial primary key); insert into app.far values (1), (5000000);
     create role drawer; grant drawer to current_user;
     grant usage on schema app to drawer`,
  );
}, clusterMs);
afterAll(async () => {
  await past?.connection.close();
});

const number = async (text: string) => Number((await query(past.url, text))[0]?.["value"]);

async function inTransaction<T>(connection: Connection, work: () => Promise<T>): Promise<T> {
  await connection.execute("begin");
  try {
    return await work();
  } finally {
    await connection.execute("commit");
  }
}

describe("a restore of rows that come with numbers of a sequence", () => {
  it.each([
    ["near", 50, 1],
    ["far", 5_000_000, 1],
  ])("hands out none that others drew between its look at the sequence and its move: %s", async (table, last) => {
    const sequence = `app.${table}_id_seq`;
    await query(past.url, `delete from app.${table}`);
    const beside = await besideOf(past, "app", table);
    const drawn = await withClient(past.url, async (other) => {
      // Holds up whoever would draw, or set, and may itself; looking is free.
      await other.query(`begin; alter sequence ${sequence} owned by app.${table}.id`);
      const restored = bringBack(past, beside, "replace");
      await eventually("the restore at the sequence", async () =>
        await number(
            `select count(*) as value from pg_locks as l where l.relation = '${sequence}'::regclass and not l.granted`,
          ) > 0 || null);
      const { rows } = await other.query(
        `select setval('${sequence}', ${last} + 100) as value union all select nextval('${sequence}') from generate_series(1, 20)`,
      );
      await other.query("commit");
      expect((await restored).result.inserted).toBe(2);
      return rows.map(({ value }) => Number(value));
    });
    expect(Math.max(...drawn)).toBe(last + 120);
    expect(await number(`select nextval('${sequence}') as value`)).toBeGreaterThan(last + 120);
  });
});

describe("raising a sequence", () => {
  it("hands out nothing twice while several sessions draw without a pause, and gets there each time", async () => {
    await query(past.url, "create sequence app.busy");
    const drawn: number[] = [];
    let isOver = false;
    const drawing = [1, 2, 3].map(() =>
      withClient(past.url, async (client) => {
        while (!isOver) {
          const { rows } = await client.query("select nextval('app.busy') as value from generate_series(1, 200)");
          for (const { value } of rows) drawn.push(Number(value));
        }
      })
    );
    try {
      const lastValue = async () =>
        Number((await past.connection.query("select last_value from app.busy"))[0]?.["last_value"]);
      for (let round = 0; round < 150; round++) {
        const to = await lastValue() + 1 + (round * 37) % 400;
        await inTransaction(past.connection, () => raiseSequence(past.connection, "app.busy", String(to)));
        expect(await lastValue()).toBeGreaterThanOrEqual(to);
      }
    } finally {
      isOver = true;
      await Promise.all(drawing);
    }
    expect(drawn.length).toBeGreaterThan(1_000);
    expect(new Set(drawn).size).toBe(drawn.length);
  });

  it("keeps nobody from drawing once it is done, though its transaction goes on", async () => {
    await query(past.url, "create sequence app.free");
    for (const to of [100, 9_000_000]) {
      await inTransaction(past.connection, async () => {
        expect(await raiseSequence(past.connection, "app.free", String(to))).toBe(true);
        expect(await number("set lock_timeout = '2s'; select nextval('app.free') as value")).toBe(to + 1);
      });
    }
  });

  it("waits for nobody for long who holds the sequence, and gets there", async () => {
    await query(past.url, "create sequence app.held");
    await withClient(past.url, async (other) => {
      await other.query("begin; select nextval('app.held')");
      const begun = performance.now();
      await inTransaction(past.connection, () => raiseSequence(past.connection, "app.held", "8000000"));
      expect(performance.now() - begun).toBeLessThan(5_000);
      expect(await number("select nextval('app.held') as value")).toBe(8_000_001);
      await other.query("commit");
    });
  });

  it("does it for a role that may set the sequence and does not own it", async () => {
    await query(past.url, "create sequence app.lent; grant select, update on app.lent to drawer");
    const connection = await openSession(openDatabase({ url: past.url }), "holdfast:restore");
    try {
      await connection.execute("set role drawer");
      for (const to of [10, 7_000_000]) {
        await inTransaction(connection, () => raiseSequence(connection, "app.lent", String(to)));
        expect(await number("select nextval('app.lent') as value")).toBe(to + 1);
      }
    } finally {
      await connection.close();
    }
  });

  it.each([
    ["that was never drawn from", "", "1", 2],
    ["in steps, to a value between two", "increment 10", "15", 31],
    ["downwards", "increment -3 maxvalue 100 minvalue -1000 start 100", "-20", -23],
    ["downwards and far", "increment -1 maxvalue 0 minvalue -90000000", "-80000000", -80_000_001],
    ["that sessions draw from in batches", "cache 30", "45", 61],
    ["up to its last value but one", "maxvalue 20", "19", 20],
    ["in steps that lead past its end", "increment 10 minvalue 1 maxvalue 25 cycle", "23", 1],
  ])("%s", async (_, options, to, next) => {
    await query(past.url, `create sequence app.one ${options}`);
    try {
      await inTransaction(past.connection, async () => {
        expect(await raiseSequence(past.connection, "app.one", to)).toBe(true);
        expect(await raiseSequence(past.connection, "app.one", to)).toBe(false);
      });
      expect(await number("select nextval('app.one') as value")).toBe(next);
      const [before] = await query(past.url, "select last_value::text, is_called from app.one");
      expect(await raiseSequence(past.connection, "app.one", String(next))).toBe(false);
      expect(await query(past.url, "select last_value::text, is_called from app.one")).toEqual([before]);
    } finally {
      await query(past.url, "drop sequence app.one");
    }
  });

  it("to its very end leaves nothing to draw", async () => {
    await query(past.url, "create sequence app.short maxvalue 25 increment 10");
    await inTransaction(past.connection, () => raiseSequence(past.connection, "app.short", "25"));
    await expect(query(past.url, "select nextval('app.short')")).rejects.toMatchObject({ code: "2200H" });
  });
});
