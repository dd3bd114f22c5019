/** Restores of rows whose session ends at any statement, and restores while others write. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { RestoreMode } from "../../src/shared/rows/apply/difference.ts";
import { planRows } from "../../src/shared/rows/apply/plan_rows.ts";
import { putBack } from "../../src/shared/rows/apply/put_back.ts";
import { query, useCluster, withClient } from "../support/cluster.ts";
import { seeded } from "../support/sample_app/words.ts";
import { besideOf, type Past, pastOf, patient, rowsOf } from "./rows_fixture.ts";

const cluster = useCluster();
let past: Past;

const people = (schema: string) =>
  `create schema ${schema};
   create table ${schema}.p (id int primary key, code text unique, x text);
   create table ${schema}.t (id int primary key, p int references ${schema}.p, owner int, x text, s serial);
   insert into ${schema}.p select i, 'c' || i, 'x' from generate_series(1, 40) as i;
   insert into ${schema}.t select i, 1 + i % 40, i % 4, 'x' from generate_series(1, 200) as i`;

beforeAll(async () => {
  past = await pastOf(
    cluster(),
    [
      ...["killed", "table_", "record", "parent", "leaving", "snapshot"].map(people),
      `create schema bag; create table bag.t (a int, x text); insert into bag.t select i % 20, 'x' from generate_series(1, 100) as i`,
    ].join(";\n"),
  );
}, 120_000);
afterAll(() => past?.connection.close());

/** As the connection, until statement number `at`, before which its backend is ended from outside. */
function ending(connection: Connection, at: number): Connection & { readonly statements: () => number } {
  let statements = 0;
  const count = async () => {
    if (statements++ !== at) return;
    await query(past.url, "select pg_terminate_backend($1, 5000)", [connection.processId]);
  };
  return {
    processId: connection.processId,
    serverVersion: connection.serverVersion,
    query: async (text, values) => {
      await count();
      return await connection.query(text, values);
    },
    execute: async (text) => {
      await count();
      await connection.execute(text);
    },
    copyOut: (text, onData) => connection.copyOut(text, onData),
    copyIn: (text, source) => connection.copyIn(text, source),
    close: () => connection.close(),
    statements: () => statements,
  };
}

describe("a session that ends", () => {
  it("at any statement leaves everything as it was, or everything done, and a restore again completes it", async () => {
    const was = await rowsOf(past.url, "killed.t");
    await query(
      past.url,
      "delete from killed.t where id <= 20; update killed.t set x = 'now' where id between 30 and 40; insert into killed.t values (900, 1, 1, 'new')",
    );
    const now = await rowsOf(past.url, "killed.t");
    const beside = await besideOf(past, "killed", "t");
    await planRows(past.connection, beside.pairs, beside.keys, "replace");
    let ended = 0;
    for (let at = 0;; at++) {
      const session = ending(await openSession(openDatabase({ url: past.url }), "holdfast:restore"), at);
      const done = await putBack(session, beside.pairs, beside.keys, { ...patient, mode: "replace" }).catch((error) =>
        error
      );
      await session.close();
      const rows = await rowsOf(past.url, "killed.t");
      if (session.statements() <= at) {
        // Nothing was in its way this time.
        expect(done).toMatchObject({ inserted: 20, updated: 11, deleted: 1 });
        expect(rows).toEqual(was);
        break;
      }
      ended++;
      expect(done, `statement ${at}`).toMatchObject({ code: "database_unreachable" });
      expect(rows, `statement ${at}`).toEqual(now);
    }
    expect(ended).toBeGreaterThan(15);
  }, 120_000);

  it("while its COMMIT is under way leaves all or nothing", async () => {
    const was = await rowsOf(past.url, "killed.t");
    const seen = { all: 0, nothing: 0 };
    for (let round = 0; round < 6; round++) {
      await query(
        past.url,
        "update killed.t set x = 'now' where id between 30 and 40; delete from killed.t where id = 7",
      );
      const now = await rowsOf(past.url, "killed.t");
      const beside = await besideOf(past, "killed", "t");
      await planRows(past.connection, beside.pairs, beside.keys, "replace");
      const connection = await openSession(openDatabase({ url: past.url }), "holdfast:restore");
      await withClient(past.url, async (killer) => {
        const session: Connection = {
          ...ending(connection, -1),
          execute: async (text) => {
            const sent = connection.execute(text);
            // The session may be gone before the killer has heard that it is: that is what is tried here.
            sent.catch(() => {});
            if (text === "commit") await killer.query("select pg_terminate_backend($1)", [connection.processId]);
            await sent;
          },
        };
        await putBack(session, beside.pairs, beside.keys, { ...patient, mode: "replace" }).catch(() => {});
        await session.close();
      });
      const rows = await rowsOf(past.url, "killed.t");
      if (JSON.stringify(rows) === JSON.stringify(was)) seen.all++;
      else {
        expect(rows).toEqual(now);
        seen.nothing++;
      }
    }
    expect(seen.all + seen.nothing).toBe(6);
  }, 120_000);
});

/** Writers that go on until `stop`; each change is a transaction. What a constraint or a lock refuses is not counted. */
async function withWriters<T>(
  statements: (number: (below: number) => number) => string,
  work: () => Promise<T>,
): Promise<T> {
  let stop = false;
  const wrote: Promise<number>[] = [1, 2].map((seed) =>
    withClient(past.url, async (client) => {
      const random = seeded(seed);
      let count = 0;
      await client.query("set lock_timeout = '5s'");
      while (!stop) {
        await client.query(statements((below) => random.integer(below))).then(() => count++, () =>
          client.query("rollback"));
      }
      return count;
    })
  );
  try {
    return await work();
  } finally {
    stop = true;
    const counts = await Promise.all(wrote);
    expect(Math.min(...counts)).toBeGreaterThan(0);
  }
}

const changes = (schema: string) => (number: (below: number) => number): string => {
  const id = 1 + number(260);
  return [
    `insert into ${schema}.t values (${id}, ${1 + number(40)}, ${number(4)}, 'w')`,
    `update ${schema}.t set x = 'w${number(1000)}', owner = ${number(4)} where id = ${id}`,
    `delete from ${schema}.t where id = ${id}`,
    // Seldom one that rows of then refer to.
    `delete from ${schema}.p where id = ${number(100) === 0 ? 1 + number(40) : 41 + number(4)}`,
    `insert into ${schema}.p values (${41 + number(4)}, 'c${41 + number(4)}', 'w')`,
    `update ${schema}.t set p = ${41 + number(4)} where id = ${id}`,
  ][number(6)] ?? "";
};

const orphans = async (schema: string) => {
  const [row] = await query(
    past.url,
    `select count(*)::int as n from ${schema}.t where p is not null and p not in (select id from ${schema}.p)`,
  );
  return row?.["n"];
};

/** Tries `mode` again and again while others write; says how often it went through. */
async function tries(
  schema: string,
  table: string,
  where: readonly string[],
  mode: RestoreMode,
  rounds: number,
  beforeCommit?: (connection: Connection) => Promise<void>,
): Promise<{ done: number; refused: string[] }> {
  const found = { done: 0, refused: [] as string[] };
  for (let round = 0; round < rounds; round++) {
    const beside = await besideOf(past, schema, table, where);
    await planRows(past.connection, beside.pairs, beside.keys, mode);
    await putBack(past.connection, beside.pairs, beside.keys, {
      ...patient,
      mode,
      wholeTables: where.length === 0,
      ...(beforeCommit === undefined ? {} : { beforeCommit }),
    }).then(() => found.done++, (error: { code: string }) => found.refused.push(error.code));
  }
  return found;
}

describe("while others insert, update and delete", () => {
  it("a replaced table is equal at the commit, and no row is without its parent", async () => {
    const was = await rowsOf(past.url, "table_.t");
    const equal: boolean[] = [];
    const parents =
      `insert into table_.p select i, 'again' || i, 'x' from generate_series(1, 40) as i on conflict do nothing`;
    await withWriters(changes("table_"), async () => {
      let done = 0;
      for (let round = 0; round < 40 && done < 4; round++) {
        await query(past.url, parents);
        const found = await tries("table_", "t", [], "replace", 1, async (connection) => {
          const rows = await connection.query("select whole_row::text as row from table_.t as whole_row order by 1");
          equal.push(JSON.stringify(rows.map(({ row }) => row)) === JSON.stringify(was));
        });
        for (const code of found.refused) expect(["rows_conflict", "lock_timeout", "database_failed"]).toContain(code);
        done += found.done;
        expect(await orphans("table_")).toBe(0);
      }
      expect(done).toBeGreaterThan(0);
    });
    expect(equal.every((one) => one)).toBe(true);
    expect(await orphans("table_")).toBe(0);
  }, 120_000);

  it("replaced records of one owner touch no row of the others", async () => {
    // Writers change rows up to 98. What others own beyond them is touched by nobody.
    const theirs = await query(
      past.url,
      "select id, x, owner from record.t where owner <> 1 and id between 120 and 260 order by id",
    );
    const before = (number: (below: number) => number) =>
      changes("record")((below) => number(below === 260 ? 98 : below));
    await withWriters(before, async () => {
      const found = await tries("record", "t", ["owner=1"], "replace", 8);
      for (const code of found.refused) {
        expect(["rows_conflict", "lock_timeout", "counts_differ", "database_failed"]).toContain(code);
      }
      expect(found.done).toBeGreaterThan(0);
    });
    expect(theirs.length).toBeGreaterThan(50);
    expect(
      await query(
        past.url,
        "select id, x, owner from record.t where owner <> 1 and id between 120 and 260 order by id",
      ),
    )
      .toEqual(theirs);
    expect(await orphans("record")).toBe(0);
  }, 120_000);

  it("a replaced parent table leaves no child without it", async () => {
    await withWriters(changes("parent"), async () => {
      const found = await tries("parent", "p", [], "replace", 8);
      for (const code of found.refused) expect(["rows_conflict", "lock_timeout", "database_failed"]).toContain(code);
    });
    expect(await orphans("parent")).toBe(0);
  }, 120_000);

  it("a row that leaves the scope between the look and the locks is not deleted", async () => {
    await query(past.url, "insert into leaving.t values (903, 1, 1, 'later')");
    const beside = await besideOf(past, "leaving", "t", ["owner=1"]);
    await query(past.url, "update leaving.t set owner = 2 where id = 903");
    await planRows(past.connection, beside.pairs, beside.keys, "replace");
    const happened: string[] = [];
    const once = async (what: string, sql: string) => {
      if (happened.includes(what)) return;
      happened.push(what);
      await query(past.url, sql);
    };
    const session: Connection = {
      ...ending(past.connection, -1),
      query: async (text, values) => {
        const rows = await past.connection.query(text, values);
        if (/ as touched/.test(text)) await once("locked", "update leaving.t set owner = 1 where id = 903");
        return rows;
      },
      execute: async (text) => {
        await past.connection.execute(text);
        if (text.startsWith("analyze")) await once("looked", "update leaving.t set owner = 2 where id = 903");
      },
    };
    const done = putBack(session, beside.pairs, beside.keys, { ...patient, wholeTables: false, mode: "replace" });
    await expect(done).rejects.toMatchObject({ code: "rows_conflict" });
    expect(happened).toEqual(["locked", "looked"]);
    expect(await query(past.url, "select owner, x from leaving.t where id = 903")).toEqual([{ owner: 2, x: "later" }]);
  }, 60_000);

  it("rows without a key are as many as they were, or nothing is changed", async () => {
    await withWriters(
      (number) =>
        [
          `insert into bag.t values (${number(20)}, 'x')`,
          `delete from bag.t where ctid = (select ctid from bag.t limit 1 offset ${number(50)})`,
          `update bag.t set x = 'w${number(3)}' where ctid = (select ctid from bag.t limit 1 offset ${number(50)})`,
        ][number(3)] ?? "",
      async () => {
        const found = await tries("bag", "t", [], "replace", 8);
        for (const code of found.refused) expect(["lock_timeout", "counts_differ", "database_failed"]).toContain(code);
      },
    );
    // Nobody writes: what was refused goes through.
    await tries("bag", "t", [], "replace", 1);
    expect(await query(past.url, "select x, count(*)::int as n from bag.t where a = 7 group by 1")).toEqual([{
      x: "x",
      n: 5,
    }]);
  }, 120_000);

  it("leaves no orphan where the database's transactions see one snapshot by default", async () => {
    const name = new URL(past.url).pathname.slice(1);
    await query(past.url, "insert into snapshot.p values (903, 'late', 'x')");
    await query(past.url, `alter database "${name}" set default_transaction_isolation = 'repeatable read'`);
    try {
      const connection = await openSession(openDatabase({ url: past.url }), "holdfast:restore");
      const beside = await besideOf(past, "snapshot", "p");
      await planRows(connection, beside.pairs, beside.keys, "replace");
      let late: Promise<unknown> | null = null;
      const session: Connection = {
        ...ending(connection, -1),
        execute: async (text) => {
          await connection.execute(text);
          if (!text.startsWith("analyze")) return;
          late ??= query(past.url, "insert into snapshot.t values (903, 903, 1, 'child')").catch((error: unknown) =>
            error
          );
        },
      };
      await putBack(session, beside.pairs, beside.keys, { ...patient, mode: "replace" });
      // It waits for its parent, and finds it gone.
      expect(await late).toMatchObject({ code: "40001" });
      await connection.close();
      expect(await orphans("snapshot")).toBe(0);
    } finally {
      await query(past.url, `alter database "${name}" reset default_transaction_isolation`);
    }
  }, 60_000);
});
