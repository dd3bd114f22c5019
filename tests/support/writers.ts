/** People who use a project while it is backed up: small transactions in several tables, one after the other. */
import type pg from "pg";
import { withClient } from "./cluster.ts";

/** Committed transactions of each kind; `gaveUp` counts TRUNCATEs that did not get their lock in time. */
export interface Done {
  updated: number;
  moved: number;
  inserted: number;
  deleted: number;
  gaveUp: number;
}

export interface Writers {
  readonly done: Done;
  /** Throws what a writer met that none of them expects. */
  stop(): Promise<void>;
}

/** Between two transactions of one writer, so that they do not use all of the machine. */
const pauseSeconds = 0.01;

/** Tables as `under_writers.test.ts` makes them. */
export function startWriters(url: string): Writers {
  const done: Done = { updated: 0, moved: 0, inserted: 0, deleted: 0, gaveUp: 0 };
  let stopped = false;
  const loop = (kind: keyof Done, step: (client: pg.Client, turn: number) => Promise<unknown>) =>
    withClient(url, async (client) => {
      for (let turn = 0; !stopped && turn < 100_000; turn++) {
        await step(client, turn);
        done[kind]++;
        await client.query("select pg_sleep($1)", [pauseSeconds]);
      }
    });
  const all = Promise.all([
    loop(
      "updated",
      (client, turn) =>
        client.query("update pages set version = version + 1, body = reverse(body) where id % 9973 = $1", [
          turn % 9973,
        ]),
    ),
    // Both tables in one transaction: whoever sees one moment sees the same amounts in both. Another amount each time, so that no
    // state comes back.
    loop("moved", (client, turn) =>
      client.query(
        ["accounts", "mirror"].map((table) =>
          `update ${table} set amount = amount + case id when ${turn % 500 + 1} then ${turn + 1} else -${turn + 1} end
           where id in (${turn % 500 + 1}, ${(turn + 250) % 500 + 1})`
        ).join("; "),
      )),
    loop("inserted", (client, turn) => client.query("insert into inbox (body) values ($1)", [`letter ${turn}`])),
    loop("deleted", (client) => client.query("delete from inbox where id = (select min(id) from inbox)")),
    loop("gaveUp", async (client) => {
      await client.query("set lock_timeout = '100ms'");
      await client.query("truncate scratch").then(
        () => client.query("insert into scratch values (1, 'after a truncate')"),
        (error: pg.DatabaseError) => {
          if (error.code !== "55P03") throw error;
        },
      );
      await client.query("select pg_sleep(1)");
    }),
  ]);
  // Reported by `stop`.
  all.catch(() => {});
  return {
    done,
    async stop() {
      stopped = true;
      await all;
    },
  };
}
