import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster } from "../../src/local/postgres.ts";
import { eventually } from "../support/stack.ts";
import { installedCluster, rolledBack, scalar, session } from "./cluster.ts";

let cluster: Cluster;
let postgres: pg.Client;
/** Keeps the cluster's own watchdog from chaining and from writing rows of its own meanwhile. */
let quiet: pg.Client;

beforeAll(async () => {
  cluster = await installedCluster();
  postgres = await session(cluster);
  quiet = await session(cluster);
  await quiet.query("select pg_advisory_lock(hashtextextended('holdfast:tick', 0))");
});
afterAll(async () => {
  await quiet?.end();
  await postgres?.end();
});

const chain = (client = postgres) => scalar(client, "select backup.chain_audit(100000)");
const audit = (client: pg.Client, subject: string) =>
  scalar(client, "select backup.audit('test.act', $1, '{\"n\": 1.50, \"ü\": [null, true]}')", [subject]);

/** Up to that row: no row is chained before the transactions that were open beside it have ended, the watchdog's for one. */
async function chainUpTo(id: string | null, client = postgres): Promise<void> {
  await eventually(`row ${id} is in the chain`, async () => {
    await chain(client);
    return await scalar(client, "select place from backup.audit_chain where entry_id = $1", [id]);
  });
}

interface Link {
  readonly place: string;
  readonly hash: string;
  readonly id: string;
  readonly micros: string;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly detail: string;
}

/** The chain with its rows. The hashes are computed here, from what the rows say. */
async function links(client = postgres): Promise<{ readonly link: Link; readonly computed: string }[]> {
  const { rows } = await client.query<Link>(
    `select c.place, encode(c.hash, 'hex') as hash, l.id, trunc(extract(epoch from l.recorded_at) * 1000000)::bigint as micros,
       l.actor, l.action, l.subject, l.detail
     from backup.audit_chain as c join backup.audit_log as l on l.id = c.entry_id order by c.place`,
  );
  let before = Buffer.alloc(0);
  return rows.map((link) => {
    const { place, id, micros, actor, action, subject, detail } = link;
    const words = [actor, action, subject].map((one) => JSON.stringify(one)).join(", ");
    before = createHash("sha256").update(before).update(`[1, ${place}, ${id}, ${micros}, ${words}, ${detail}]`)
      .digest();
    return { link, computed: before.toString("hex") };
  });
}

describe("the audit's chain", () => {
  it("covers every row by a hash that anybody can compute from the rows", async () => {
    let last: string | null = null;
    for (const subject of ["a", 'b "quoted" \\ and\nlines', "ünïcode 🔒"]) last = await audit(postgres, subject);
    await chainUpTo(last);
    const all = await links();
    expect(all.map(({ computed }) => computed)).toEqual(all.map(({ link }) => link.hash));
    expect(all.map(({ link }) => link.place)).toEqual(all.map((_, index) => String(index + 1)));
    const rows = "select count(*) from backup.audit_log where id <= $1";
    expect(await scalar(postgres, rows, [last])).toBe(
      String(all.filter(({ link }) => Number(link.id) <= Number(last)).length),
    );
    expect(await scalar(postgres, "select count(*) from backup.audit_breaks()")).toBe("0");
  });

  it("misses no row of a transaction that ends late, also behind others that came after it", async () => {
    const late = await session(cluster);
    try {
      await chain();
      await late.query("begin");
      const first = await audit(late, "late");
      const second = await audit(postgres, "meanwhile");
      await chain();
      await late.query("commit");
      await chainUpTo(await audit(postgres, "after"));
      const { rows } = await postgres.query("select entry_id from backup.audit_chain where entry_id >= $1", [first]);
      expect(rows.map((row) => row.entry_id)).toEqual(expect.arrayContaining([first, second]));
      expect(await scalar(postgres, "select count(*) from backup.audit_breaks()")).toBe("0");
    } finally {
      await late.end();
    }
  });

  it("is made by one chainer at a time, while acts go on", async () => {
    const other = await session(cluster);
    try {
      await audit(postgres, "one");
      await other.query("begin");
      await eventually("the row is chained", async () => Number(await chain(other)) > 0 ? true : null);
      const two = await audit(postgres, "two");
      expect(await chain()).toBe("0");
      await other.query("commit");
      await chainUpTo(two);
    } finally {
      await other.end();
    }
  });

  it("goes on in another life of the database, where transactions are numbered anew", async () => {
    // As a restored copy has it: rows and state of a server whose transactions had higher numbers.
    await postgres.query(
      "insert into backup.audit_log (transaction_id, actor, action, subject) values ('99999999', 'role:x', 'test.act', 'then')",
    );
    await postgres.query(
      "update backup.audit_chainer set life = 'another/1', done_before = '99999999', rows_after = 0",
    );
    const late = await session(cluster);
    try {
      await late.query("begin");
      const beginning = await audit(late, "at the beginning");
      await chain();
      expect((await links()).at(-1)?.link.subject).toBe("then");
      await late.query("commit");
      await chainUpTo(beginning);
      expect((await links()).at(-1)?.link.subject).toBe("at the beginning");
      await chainUpTo(await audit(postgres, "now"));
      expect((await links()).at(-1)?.link.subject).toBe("now");
      expect(await scalar(postgres, "select count(*) from backup.audit_breaks()")).toBe("0");
    } finally {
      await late.end();
    }
  });

  it("misses no row of a transaction that was open when the beginning of a life was over", async () => {
    await chain();
    await postgres.query("update backup.audit_chainer set life = 'another/2', done_before = '0', rows_after = 0");
    const [late, old] = [await session(cluster), await session(cluster)];
    try {
      await old.query("begin; select pg_current_xact_id()");
      await audit(postgres, "ended since");
      await chain();
      await late.query("begin");
      const first = await audit(late, "open meanwhile");
      await audit(postgres, "behind it");
      await old.query("commit");
      // Whatever ran when this life began has ended by now, and a later row than the open one is chained.
      await chain();
      await late.query("commit");
      await chainUpTo(await audit(postgres, "after"));
      const { rows } = await postgres.query("select place from backup.audit_chain where entry_id = $1", [first]);
      expect(rows).toHaveLength(1);
      expect(await scalar(postgres, "select count(*) from backup.audit_breaks()")).toBe("0");
    } finally {
      await late.end();
      await old.end();
    }
  });

  it("is changed by nobody, the owner and a replica's session included", async () => {
    await audit(postgres, "fixed");
    await chain();
    const admin = await session(cluster, "supabase_admin");
    try {
      for (const client of [postgres, admin]) {
        for (const table of ["backup.audit_chain", "backup.audit_log"]) {
          for (
            const statement of [
              `delete from ${table}`,
              `truncate ${table} cascade`,
              `update ${table} set ${table === "backup.audit_log" ? "actor = 'x'" : "hash = hash"}`,
            ]
          ) {
            if (client === admin) await client.query("set session_replication_role = replica");
            await expect(client.query(statement), statement).rejects.toMatchObject({ code: "HF007" });
          }
        }
      }
    } finally {
      await admin.end();
    }
  });
});

describe("audit_breaks, where somebody took the triggers away,", () => {
  const tampered: readonly (readonly [string, string, string])[] = [
    ["changed a row", "update backup.audit_log set detail = '{}' where id = $1", "the row or the chain was changed"],
    [
      "changed a row's time by a microsecond",
      "update backup.audit_log set recorded_at = recorded_at + interval '1 microsecond' where id = $1",
      "the row or the chain was changed",
    ],
    ["removed a row", "delete from backup.audit_log where id = $1", "the row is gone"],
    [
      "removed a row and its hash",
      "with gone as (delete from backup.audit_chain where entry_id = $1) delete from backup.audit_log where id = $1",
      "positions before it are missing",
    ],
    [
      "removed a row from the chain, and closed it again",
      "with gone as (delete from backup.audit_chain where entry_id = $1 returning place) select 1 from gone",
      "positions before it are missing",
    ],
    [
      "swapped two rows",
      "update backup.audit_log as l set subject = case l.id when $1 then 'three' else 'two' end where l.id in ($1, $1 + 1)",
      "the row or the chain was changed",
    ],
    [
      "put a row in between",
      "with added as (insert into backup.audit_log (id, transaction_id, actor, action, subject) overriding system value values (-$1, '3', 'role:x', 'test.act', 'forged')) select 1",
      "the row is not in the chain",
    ],
    [
      "put a row of a transaction to come behind",
      "with added as (insert into backup.audit_log (transaction_id, actor, action, subject) values ('99999999999', 'role:x', 'test.act', 'forged $1')) select 1",
      "the row is not in the chain",
    ],
  ];

  it.each(tampered)("and %s, says so", async (_what, statement, said) => {
    const own = await session(cluster);
    try {
      const [, two, three] = [await audit(own, "one"), await audit(own, "two"), await audit(own, "three")];
      await chainUpTo(three, own);
      expect(await scalar(own, "select count(*) from backup.audit_breaks()")).toBe("0");
      await rolledBack(own, async () => {
        await own.query(
          "alter table backup.audit_log disable trigger all; alter table backup.audit_chain disable trigger all",
        );
        await own.query(statement.replaceAll("$1", String(two)));
        const { rows } = await own.query("select what from backup.audit_breaks()");
        expect(rows.map((row) => row.what)).toContain(said);
      });
    } finally {
      await own.end();
    }
  });
});
