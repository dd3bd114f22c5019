/** Retention as the database keeps it: policies that agree, orders that are checked once more, objects that are rescued, who asks when. */
import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const policies = async () =>
  (await postgres.query("select tier, keep::text from backup.policies order by tier")).rows.map(({ tier, keep }) =>
    `${tier} ${keep}`
  );

describe("a policy", () => {
  it.each<readonly [string, readonly string[]]>([
    ["standard", ["daily 30 days", "hourly 24:00:00", "manual 90 days", "safety 30 days", "weekly 90 days"]],
    ["short", ["daily 7 days", "hourly 24:00:00", "manual 30 days", "safety 7 days", "weekly 30 days"]],
    ["gfs", [
      "daily 7 days",
      "hourly 24:00:00",
      "manual 90 days",
      "monthly 366 days",
      "safety 30 days",
      "weekly 35 days",
    ]],
  ])("is set by its preset %s, and audited", async (preset, expected) => {
    await rolledBack(postgres, async () => {
      await postgres.query("select backup.set_retention('gfs')");
      await postgres.query("select backup.set_retention($1)", [preset]);
      await postgres.query("set constraints all immediate");
      expect(await policies()).toEqual(expected);
      expect(await scalar(postgres, "select count(*) from backup.audit_log where action = 'retention.set'")).toBe("2");
    });
  });

  it("is the standard one where nobody has set another", async () => {
    expect(await policies()).toContain("daily 30 days");
    expect(await policies()).toContain("weekly 90 days");
  });

  it.each<readonly [string, string]>([
    ["removes dailies before the next one is there", "select backup.set_tier('daily', '1 day')"],
    ["removes weeklies before the next one is there", "select backup.set_tier('weekly', '8 days')"],
    ["lets dailies outlive weeklies", "select backup.set_tier('daily', '91 days')"],
    ["lets hourlies outlive dailies", "select backup.set_tier('daily', '2 days'), backup.set_tier('hourly', '3 days')"],
    ["lets weeklies outlive monthlies", "select backup.set_tier('monthly', '62 days')"],
    ["keeps yearlies no longer than a year", "select backup.set_tier('yearly', '366 days')"],
    ["leaves a tier out", "delete from backup.policies where tier = 'safety'"],
  ])("that %s is refused", async (_, change) => {
    await rolledBack(postgres, async () => {
      await postgres.query(change);
      expect(await sqlstate(postgres, "set constraints all immediate")).toBe("HF421");
    });
  });

  it("takes another name of a preset or tier for a mistake", async () => {
    await rolledBack(postgres, async () => {
      expect(await sqlstate(postgres, "select backup.set_retention('all')")).toBe("HF003");
      expect(await sqlstate(postgres, "select backup.set_tier('hour', '2 days')")).toBe("HF003");
      expect(await sqlstate(postgres, "select backup.set_tier('daily', '0')")).toBe("HF003");
    });
  });
});

interface World {
  readonly old: string;
  readonly newest: string;
  readonly task: string;
  readonly token: string;
}

const nameOf = (id: string, stamp: string) => `v1/backups/${stamp}-daily-${id}/manifest`;
const segment = (start: number) =>
  `v1/changes/c1/${start.toString(16).padStart(16, "0")}-${(start + 16).toString(16).padStart(16, "0")}`;
const object = (letter: string) => `v1/objects/${letter.repeat(2)}/${letter.repeat(64)}`;

/** In the caller's transaction: an old and a new backup, a chain of four segments, and the lease of a prune. */
async function world(): Promise<World> {
  const [old, newest] = [randomUUID(), randomUUID()];
  for (const [id, days, stamp] of [[old, 100, "20260101T000000Z"], [newest, 0, "20260411T000000Z"]] as const) {
    await postgres.query(
      `insert into backup.runs (id, kind, tiers, status, origin, created_at, started_at, finished_at, consistent_at, snapshot, wal_lsn,
         manifest_name, manifest_hash, verified_at, chain_id)
       select $1, 'full', '{daily}', 'succeeded', 'schedule', m, m, m, m, '100:100:', '0/30', $2, 'h', m, 'c1'
       from (select backup.clock_now() - $3 * interval '1 day' as m) as x`,
      [id, nameOf(id, stamp), days],
    );
    await postgres.query(
      `insert into backup.chunks (run_id, attempt, table_oid, schema_name, table_name, relfilenode, fingerprint, from_block, rows,
         raw_bytes, stored_bytes, object, hash, stored_hash) values ($1, 0, 1, 's', 't', 1, 'f', 0, 1, 1, 1, $2, 'h', 'h')`,
      [id, object(id === old ? "a" : "b")],
    );
  }
  await postgres.query(
    `insert into backup.chains (id, slot_name, publications, start_lsn, system_identifier, database_name)
     values ('c1', 's', '{p}', '0/10', '1', 'postgres')`,
  );
  for (const start of [16, 32, 48, 64]) {
    const run = randomUUID();
    await postgres.query(
      "insert into backup.runs (id, kind, status, origin, started_at, finished_at) values ($1, 'incremental', 'succeeded', 'schedule', now(), now())",
      [run],
    );
    await postgres.query(
      `insert into backup.segments (chain_id, start_lsn, end_lsn, run_id, name, raw_bytes, stored_bytes, hash, stored_hash, epoch,
         transactions, changes, ddl, taken_at, ends_in_transaction)
       values ('c1', '0/0'::pg_lsn + $1, '0/0'::pg_lsn + $2, $3, $4, 1, 1, 'h', 'h', 'e', 1, 1, 0, now(), false)`,
      [start, start + 16, run, segment(start)],
    );
  }
  const { rows: [requested] } = await postgres.query("select run from backup.request_prune('http')");
  const { rows: [task] } = await postgres.query(
    "select id, token from backup.claim_task($1, 'tester', '180 seconds')",
    [
      requested.run,
    ],
  );
  return { old, newest, task: task.id, token: task.token };
}

const removal = (object: string, backup: string | null = null) => ({ object, backup, reason: "old" });

async function order({ task, token }: World, plan: readonly unknown[], guard?: string | null): Promise<string> {
  const word = guard ?? await scalar(postgres, "select backup.retention_guard()");
  const call = "select backup.order_removals($1, $2, $3, $4)";
  const values = [task, token, word, JSON.stringify(plan)];
  await postgres.query("savepoint ordering");
  try {
    return (await scalar(postgres, call, values)) ?? "";
  } catch (error) {
    await postgres.query("rollback to savepoint ordering");
    return error instanceof Error && "code" in error ? String(error.code) : "unknown";
  }
}

const statusOf = (id: string) => scalar(postgres, "select status from backup.runs where id = $1", [id]);

describe("an order", () => {
  it("takes a backup and segments out of the catalogue, and stands in the audit", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      const gone = [
        removal(nameOf(here.old, "20260101T000000Z"), here.old),
        removal(segment(16)),
        removal(segment(32)),
      ];
      expect(await order(here, gone)).toBe("ordered");
      expect(await statusOf(here.old)).toBe("pruned");
      expect(await statusOf(here.newest)).toBe("succeeded");
      expect(await scalar(postgres, "select count(*) from backup.chunks where run_id = $1", [here.old])).toBe("0");
      expect(await scalar(postgres, "select count(*) from backup.segments")).toBe("2");
      expect(
        await scalar(postgres, "select count(*) from backup.runs where kind = 'incremental' and status = 'pruned'"),
      )
        .toBe("2");
      const { rows } = await postgres.query("select name from backup.next_removals($1, $2, 10)", [
        here.task,
        here.token,
      ]);
      expect(rows.map(({ name }) => name)).toEqual(gone.map(({ object }) => object));
      expect(await scalar(postgres, "select detail ->> 'reason' from backup.audit_log where action = 'backup.pruned'"))
        .toBe("old");
    });
  });

  it.each<readonly [string, string]>([
    ["a hold", "select backup.hold_backup($1, 'why', now() + interval '1 day')"],
    [
      "a restore",
      "select backup.begin_restore(jsonb_build_object('scope', 'full', 'mode', 'beside', 'source_backup', $1::uuid, 'target_label', 'x'))",
    ],
    ["a verification", "select backup.request_verification($1, 'http')"],
    ["a change of its verification", "select backup.record_verification($1, '[{}]')"],
    ["another policy", "select backup.set_tier('daily', '31 days') where $1::uuid is not null"],
  ])("is stale after %s", async (_, change) => {
    await rolledBack(postgres, async () => {
      const here = await world();
      const guard = await scalar(postgres, "select backup.retention_guard()");
      await postgres.query(change, [here.old]);
      expect(await order(here, [removal(nameOf(here.old, "20260101T000000Z"), here.old)], guard)).toBe("stale");
      expect(await statusOf(here.old)).toBe("succeeded");
    });
  });

  it("is refused for what must never go, whatever the plan says", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      expect(await order(here, [removal(nameOf(here.newest, "20260411T000000Z"), here.newest)])).toBe("HF415");
      expect(await order(here, [removal(segment(32))])).toBe("HF415");
      expect(await order(here, [16, 32, 48, 64].map((start) => removal(segment(start))))).toBe("HF415");
      await postgres.query("select backup.hold_backup($1, 'why', now() + interval '1 day')", [here.old]);
      expect(await order(here, [removal(nameOf(here.old, "20260101T000000Z"), here.old)])).toBe("HF415");
      await postgres.query("select backup.release_hold($1)", [here.old]);
      await postgres.query("select backup.record_verification($1, '[{}]')", [here.newest]);
      // Now the old one is the newest that is verified.
      expect(await order(here, [removal(nameOf(here.old, "20260101T000000Z"), here.old)])).toBe("HF415");
    });
  });

  it("is refused with an old token, and in a copy of the database", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      const plan = [removal(nameOf(here.old, "20260101T000000Z"), here.old)];
      expect(await order({ ...here, token: String(Number(here.token) - 1) }, plan)).toBe("HF413");
      await postgres.query("select backup.become_copy('', 'a test')");
      expect(await order(here, plan)).toBe("HF415");
      expect(await scalar(postgres, "select run from backup.request_prune('http')")).toBeNull();
    });
  });
});

describe("an object", () => {
  const sweep = async ({ task, token }: World, listed: readonly string[], prefix = "v1/objects/") =>
    (await postgres.query("select name from backup.sweep_prefix($1, $2, 'first', $3, $4)", [
      task,
      token,
      prefix,
      listed,
    ])).rows
      .map(({ name }) => name);
  /** As if an earlier run had condemned everything that is, three days ago. */
  const earlier = () =>
    postgres.query(
      "update backup.condemned set run_id = gen_random_uuid(), condemned_at = condemned_at - interval '3 days'",
    );
  const open = ({ task, token }: World) =>
    postgres.query("select backup.enter_manifests($1, $2, '{m}'), backup.enter_manifest($1, $2, 'm', $3, true)", [
      task,
      token,
      [object("c")],
    ]);

  it("goes only once two runs, two days apart, found that nothing names it", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      const all = ["a", "b", "c", "d"].map(object);
      expect(
        await sqlstate(postgres, "select backup.sweep_prefix($1, $2, 'first', 'v1/', '{}')", [here.task, here.token]),
      )
        .toBe("HF415");
      await open(here);
      expect(await sweep(here, all)).toEqual([]);
      const { rows } = await postgres.query("select name from backup.condemned");
      expect(rows).toEqual([{ name: object("d") }]);
      await postgres.query("update backup.condemned set condemned_at = condemned_at - interval '3 days'");
      expect(await sweep(here, all)).toEqual([]);
      await postgres.query(
        "update backup.condemned set run_id = gen_random_uuid(), condemned_at = now() - interval '47 hours'",
      );
      expect(await sweep(here, all)).toEqual([]);
      await earlier();
      await postgres.query("select backup.request_run('full', '{manual}', 'http', null)");
      expect(await sweep(here, all)).toEqual([]);
      await postgres.query("select backup.cancel_run(id) from backup.runs where kind = 'full' and status = 'queued'");
      expect(await sweep(here, all)).toEqual([object("d")]);
      await postgres.query("select backup.record_swept($1, $2, 'first', $3, '[]')", [here.task, here.token, [
        object("d"),
      ]]);
      expect(await scalar(postgres, "select count(*) from backup.condemned")).toBe("0");
    });
  });

  it("that a chunk or the schema of any run names, which may still be a backup, is never condemned", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      await open(here);
      await postgres.query(
        "update backup.runs set status = 'failed', error_code = 'x', error_message = 'x' where id = $1",
        [
          here.old,
        ],
      );
      await postgres.query("insert into backup.tasks (run_id, kind, detail) values ($1, 'manifest', $2)", [
        here.newest,
        { schemaObject: { record: { name: object("e") } } },
      ]);
      await sweep(here, ["a", "b", "c", "e"].map(object));
      // What a failed run left behind belongs to nobody.
      expect((await postgres.query("select name from backup.condemned")).rows).toEqual([{ name: object("a") }]);
    });
  });

  it("is rescued while it is condemned, and refused to a backup while it is being removed", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      await open(here);
      await sweep(here, [object("d"), object("f")]);
      await postgres.query("select backup.rescue_objects($1)", [[object("f")]]);
      await earlier();
      expect(await sweep(here, [object("d"), object("f")])).toEqual([object("d")]);
      expect(await sqlstate(postgres, "select backup.rescue_objects($1)", [[object("d"), object("f")]])).toBe("HF422");
      // A store that keeps it: it can be taken over again.
      await postgres.query("select backup.record_swept($1, $2, 'first', '{}', $3)", [
        here.task,
        here.token,
        JSON.stringify([{ name: object("d"), why: "locked" }]),
      ]);
      expect(await sqlstate(postgres, "select backup.rescue_objects($1)", [[object("d")]])).toBe("none");
    });
  });
});

describe("the cron job", () => {
  const calls = () => scalar(postgres, "select count(*) from backup.calls where function_name = 'retention'");

  it("prunes once a day, behind a verification of the newest backup, and not beside a backup", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const here = await world();
      await postgres.query("select backup.cancel_run(run_id) from backup.tasks where id = $1", [here.task]);
      await postgres.query("update backup.runs set verified_at = null where id = $1", [here.newest]);
      await postgres.query("select backup.call_retention()");
      expect(await calls()).toBe("0");
      const verifying = "select count(*) from backup.runs where kind = 'verify' and subject_run = $1";
      expect(await scalar(postgres, verifying, [here.newest])).toBe("1");
      await postgres.query("select backup.call_retention()");
      expect(await scalar(postgres, verifying, [here.newest])).toBe("1");
      await postgres.query("select backup.record_verification($1, '[]')", [here.newest]);
      await postgres.query("select backup.request_run('full', '{manual}', 'http', null)");
      await postgres.query("select backup.call_retention()");
      expect(await calls()).toBe("0");
      await postgres.query("select backup.cancel_run(id) from backup.runs where kind = 'full' and status = 'queued'");
      await postgres.query("select backup.call_retention()");
      expect(await calls()).toBe("1");
      await postgres.query("select backup.end_call(nonce, '') from backup.calls");
      const { rows: [again] } = await postgres.query("select run from backup.request_prune('http')");
      const { rows: [task] } = await postgres.query("select id, token from backup.claim_task($1, 't', '9 s')", [
        again.run,
      ]);
      await postgres.query("select backup.end_pruning($1, $2, '{}')", [task.id, task.token]);
      await postgres.query("select backup.call_retention()");
      expect(await calls()).toBe("1");
      // Not 20 or 21 hours later, which would move through the day and come twice in some.
      const midnight = (Math.floor(Date.now() / 86_400_000) + 1) * 86_400_000;
      await setClock(postgres, new Date(midnight - 500).toISOString());
      await postgres.query("select backup.call_retention()");
      expect(await calls()).toBe("1");
      await setClock(postgres, new Date(midnight + 37 * 60_000).toISOString());
      await postgres.query("select backup.call_retention()");
      expect(await calls()).toBe("2");
    });
  });

  it("without which backups stay too long is an alert, which ends by itself", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      expect(await scalar(postgres, "select backup.watch_retention()")).toBe("1");
      expect(await scalar(postgres, "select message from backup.alerts where kind = 'retention_not_followed'"))
        .toBe("1 backups are older than their tiers keep them; nobody prunes");
      await postgres.query('select backup.end_pruning($1, $2, \'{"refused": "why not"}\')', [here.task, here.token]);
      expect(await scalar(postgres, "select backup.watch_retention()")).toBe("1");
      const { rows: [again] } = await postgres.query("select run from backup.request_prune('http')");
      const { rows: [task] } = await postgres.query("select id, token from backup.claim_task($1, 't', '9 s')", [
        again.run,
      ]);
      await postgres.query("select backup.end_pruning($1, $2, '{}')", [task.id, task.token]);
      expect(await scalar(postgres, "select backup.watch_retention()")).toBe("0");
      expect(
        await scalar(
          postgres,
          "select count(*) from backup.alerts where kind = 'retention_not_followed' and status <> 'resolved'",
        ),
      )
        .toBe("0");
    });
  });
});

describe("what is known of runs", () => {
  it("goes after two years, but for backups that are there and the audit", async () => {
    await rolledBack(postgres, async () => {
      const here = await world();
      const gone = randomUUID();
      await postgres.query(
        `insert into backup.runs (id, kind, tiers, status, origin, created_at, started_at, finished_at, error_code, error_message)
         values ($1, 'full', '{daily}', 'failed', 'schedule', now(), now(), now(), 'x', 'x')`,
        [gone],
      );
      const audited = await scalar(postgres, "select count(*) from backup.audit_log");
      await setClock(postgres, new Date(Date.now() + 700 * 86_400_000).toISOString());
      await postgres.query("select backup.purge_traces()");
      expect(await statusOf(gone)).toBe("failed");
      await setClock(postgres, new Date(Date.now() + 740 * 86_400_000).toISOString());
      await postgres.query("select backup.purge_traces()");
      expect((await postgres.query("select from backup.runs where id = $1", [gone])).rowCount).toBe(0);
      expect(await statusOf(here.old)).toBe("succeeded");
      expect(Number(await scalar(postgres, "select count(*) from backup.audit_log"))).toBeGreaterThanOrEqual(
        Number(audited),
      );
    });
  });
});
