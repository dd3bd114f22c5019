/** An erasure that is broken off, that meets others at work, and what its ledger says, worked out by hand from docs/format.md. */
import { Buffer } from "node:buffer";
import { createHmac, hkdfSync } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import { decodeEpochFile } from "../../src/shared/crypto/epoch_file.ts";
import { isLedgerEpoch, listEpochs } from "../../src/shared/crypto/epochs.ts";
import { carryOut, type ErasureResult } from "../../src/shared/erase/carry_out.ts";
import { readLedger } from "../../src/shared/erase/ledger.ts";
import { epochName } from "../../src/shared/format/layout.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { createLog, silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { type World, world } from "../integration/backup_fixture.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { failureOf } from "../unit/format_fixture.ts";

const cluster = useCluster();
let here: World;
let people = 0;

const idOf = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;

/** Somebody with a row at the end of a chain of three, whose key has two columns. */
async function somebody(): Promise<string> {
  const id = idOf(++people);
  await query(
    here.url,
    `insert into auth.users (id, email) values ('${id}', 'p${people}@example.org');
     insert into public.entries (id, user_id) values (${people}, '${id}');
     insert into public.lines (entry_id, number, said) values (${people}, 7, 'Wörter mit ünï');`,
  );
  return id;
}

/** Ends, as a process that is killed, where `at` is reached. */
async function erase(user: string, at: string | null = null, capBytes = 1 << 30): Promise<ErasureResult> {
  const database = openDatabase({ url: here.url });
  const connection = await openSession(database, "holdfast:erase");
  const again = await openSession(database, "holdfast:erase again");
  try {
    const { store, clock, random } = here.deps;
    const repository = await openOrCreateRepository({ store, clock, random });
    return await carryOut(
      {
        ...here.deps,
        connection,
        again,
        repositoryId: repository.id,
        removeFiles: null,
        capBytes,
        log: at === null ? silentLog : createLog(({ event }) => {
          if (event === `step:${at}`) throw new Error("killed");
        }, "debug"),
      },
      user,
      emptyMap,
    );
  } finally {
    await Promise.all([connection.close(), again.close()]);
  }
}

const left = async (user: string) => {
  const [row] = await query(
    here.url,
    `select (select count(*) from auth.users where id = '${user}')::int as users,
            (select count(*) from public.entries where user_id = '${user}')::int as entries`,
  );
  return row;
};

const status = async (user: string) =>
  (await query(here.url, `select status from backup.erasures where person = backup.person_hash('${user}')`))[0]
    ?.["status"];

beforeAll(async () => {
  here = await world(cluster());
  await query(
    here.url,
    `create table public.entries (id int primary key, user_id uuid not null references auth.users on delete cascade);
     create table public.lines (entry_id int references public.entries on delete cascade, number int, said text, primary key (number, entry_id));
     create table public.samples (user_id uuid references auth.users on delete cascade, n int)`,
  );
}, clusterMs);

describe("an erasure", () => {
  it("that is killed at any step is not done, and goes on", async () => {
    for (const step of ["erase.begun", "erase.recorded", "erase.emptying", "erase.emptied", "erase.files"]) {
      const user = await somebody();
      await expect(erase(user, step), step).rejects.toThrow("killed");
      expect(["begun", "recorded", "emptied"], step).toContain(await status(user));
      // Nothing is gone that the ledger does not hold.
      if ((await left(user))?.["users"] === 0) expect((await readLedger(here.deps)).entries.length).toBeGreaterThan(0);
      const { status: ended } = await erase(user);
      expect(ended, step).toBe("done");
      expect(await left(user), step).toEqual({ users: 0, entries: 0 });
      expect(await failureOf(() => erase(user))).toMatchObject({ code: "user_erased" });
    }
  }, 60_000);

  it("of a store that is away begins nothing", async () => {
    const user = await somebody();
    const { create } = here.deps.store;
    here.deps.store.create = () => Promise.reject(new Error("away"));
    await expect(erase(user)).rejects.toThrow("away");
    here.deps.store.create = create;
    expect(await left(user)).toEqual({ users: 1, entries: 1 });
    expect((await erase(user)).status).toBe("done");
  });

  it("takes what is large in steps", async () => {
    const user = await somebody();
    await query(here.url, `insert into public.samples select '${user}', n from generate_series(1, 3000) as n`);
    const { status: ended } = await erase(user, null, 200_000);
    expect(ended).toBe("done");
    expect(await query(here.url, "select count(*)::int as n from public.samples")).toEqual([{ n: 0 }]);
  });

  it("goes on beside a backup that holds its tables", async () => {
    const user = await somebody();
    await withClient(here.url, async (client) => {
      await client.query(
        "begin isolation level repeatable read; lock table public.entries, public.lines in access share mode; select 1",
      );
      expect((await erase(user)).status).toBe("done");
      // What the backup reads holds the person: that is what the ledger is for.
      expect((await client.query(`select from auth.users where id = '${user}'`)).rowCount).toBe(1);
      await client.query("rollback");
    });
  });

  it("and a restore into the same database wait for each other", async () => {
    const user = await somebody();
    const facts = JSON.stringify({ scope: "table", mode: "missing", source_backup: idOf(1), target_label: "here" });
    const [begun] = await query(here.url, "select id, token from backup.begin_restore($1::jsonb)", [facts]);
    expect(await failureOf(() => erase(user))).toMatchObject({ code: "run_state" });
    await query(here.url, 'select backup.fail_restore($1, $2, \'{"code": "cancelled", "message": "enough"}\')', [
      begun?.["id"],
      begun?.["token"],
    ]);
    await withClient(here.url, async (client) => {
      await client.query("select backup.lock_erasures()");
      await expect(query(here.url, "select backup.begin_restore($1::jsonb)", [facts])).rejects.toMatchObject({
        code: "HF415",
      });
      expect(await failureOf(() => erase(user))).toMatchObject({ code: "run_state" });
    });
    expect(await left(user)).toEqual({ users: 1, entries: 1 });
    expect((await erase(user)).status).toBe("done");
  });

  it("is done once the second store has the ledger", async () => {
    const user = await somebody();
    await query(here.url, "select backup.tell_stores('first', 'second')");
    expect((await erase(user)).status).toBe("searched");
    expect(await query(here.url, "select backup.watch_erasures() as open")).toEqual([{ open: 1 }]);
    await query(
      here.url,
      `insert into backup.copies (store, name, kind, status, first_bytes, first_hash, noticed_at, copied_at, second_bytes, second_hash)
       select 'second', n.name, 'erasure', 'stored', 1, repeat('0', 64), now(), now(), 1, repeat('0', 64)
         from backup.erasures as e, unnest(e.entries) as n (name) where e.status = 'searched'`,
    );
    expect(await query(here.url, "select backup.watch_erasures() as open")).toEqual([{ open: 0 }]);
    expect(await status(user)).toBe("done");
    await query(here.url, "select backup.tell_stores(null, null)");
  });
});

describe("a user who was deleted otherwise", () => {
  it("is noticed, told and offered; then erased, or passed over", async () => {
    const [one, other] = [await somebody(), await somebody()];
    await query(here.url, "delete from auth.users where id = any ($1::uuid[])", [[one, other]]);
    expect(await query(here.url, "select user_id from backup.departures order by 1")).toEqual([
      { user_id: one },
      { user_id: other },
    ]);
    expect(
      await query(
        here.url,
        "select severity, count(*)::int as n from backup.alerts where kind = 'user_departed' and status <> 'resolved' group by 1",
      ),
    )
      .toEqual([{ severity: "information", n: 2 }]);
    expect((await erase(one)).status).toBe("done");
    expect(await query(here.url, "select backup.pass_over_departure($1) as passed", [other])).toEqual([{
      passed: true,
    }]);
    expect(await query(here.url, "select user_id from backup.departures")).toEqual([]);
    expect(await query(here.url, "select from backup.alerts where kind = 'user_departed' and status <> 'resolved'"))
      .toEqual([]);
  });
});

describe("the ledger", () => {
  it("says what docs/format.md says, and no id", async () => {
    const user = await somebody();
    const number = people;
    await erase(user);
    const { store, ring } = here.deps;
    const [id = ""] = (await listEpochs(store)).filter(isLedgerEpoch);
    const repository = await openOrCreateRepository(here.deps);
    const file = await store.read(epochName(id));
    const { secret } = await decodeEpochFile(file, { id, repositoryId: repository.id }, ring);
    const nameKey = Buffer.from(hkdfSync("sha256", secret, repository.id, "holdfast/v1/name", 32));
    const key = createHmac("sha256", nameKey).update("holdfast/v1/erasure").digest();
    const hash = (...texts: string[]) =>
      createHmac("sha256", key).update(texts.map((text) => `${[...text].length}:${text},`).join("")).digest("hex")
        .slice(0, 32);
    const { entries } = await readLedger(here.deps);
    const entry = entries.at(-1);
    expect(entry?.number).toBe(entries.length);
    expect([...entry?.hashes ?? []].sort()).toEqual([
      hash("auth", "users", "id", user),
      hash("public", "entries", "id", String(number)),
      hash("public", "lines", "entry_id", String(number), "number", "7"),
    ].sort());
    expect(JSON.stringify(entries)).not.toContain(user);
  });

  it("is refused where an entry is gone, or fewer are there than the database knows", async () => {
    const { store } = here.deps;
    const { entries } = await readLedger(here.deps);
    expect(await failureOf(() => readLedger(here.deps, entries.length + 1))).toMatchObject({
      code: "ledger_unreadable",
    });
    const name = "v1/erasures/000000000000002";
    const bytes = await store.read(name);
    await store.remove([name]);
    expect(await failureOf(() => readLedger(here.deps))).toMatchObject({ code: "ledger_unreadable" });
    await store.create(name, bytes);
    await readLedger(here.deps, entries.length);
  });
});
