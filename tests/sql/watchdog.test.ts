import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

/** A run that was started at the dashboard, with its first leg in the queue. */
async function startedRun(): Promise<string> {
  await fillVault(postgres);
  return await scalar(postgres, "select run from backup.start_backup()") ?? "";
}

async function calls(run: string): Promise<string[]> {
  const { rows } = await postgres.query("select status from backup.calls where run_id = $1 order by made_at", [run]);
  return rows.map((row) => row.status);
}

async function answer(run: string, columns: string, values: string): Promise<void> {
  await postgres.query(
    `insert into net._http_response (id, created, ${columns}) select request_id, made_at, ${values} from backup.calls where run_id = $1`,
    [run],
  );
}

async function tick(): Promise<Record<string, unknown>> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const outcome = JSON.parse(await scalar(postgres, "select backup.tick()") ?? "null");
    // pg_cron's own tick is at work in this cluster, each full minute for some milliseconds
    if (outcome.skipped !== true || performance.now() > deadline) return outcome;
  }
}

async function openAlert(kind: string): Promise<string | null> {
  return await scalar(postgres, "select max(message) from backup.alerts where kind = $1 and status = 'open'", [kind]);
}

/** Puts the run's call into the function, as the function does when it takes it. */
async function begin(run: string): Promise<string> {
  const nonce = await scalar(postgres, "select nonce from backup.calls where run_id = $1 and status = 'sent' limit 1", [
    run,
  ]);
  await postgres.query("select backup.accept_call($1, 'backup', now() + interval '5 minutes')", [nonce]);
  return nonce ?? "";
}

describe("the watchdog", () => {
  it("sends another leg when the first did not reach its function, and says why it did not", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await answer(run, "error_msg", "'Couldn''t connect to server'");
      expect(await tick()).toMatchObject({ reconcile_calls: 1, revive_runs: 1 });
      expect(await calls(run)).toEqual(["failed", "sent"]);
      expect(await openAlert("call_failed")).toContain("Couldn't connect to server");
    });
  });

  it("points at the secret when the function refuses the signature", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await answer(run, "status_code, content", `401, '{"code":"unauthorised"}'`);
      await tick();
      expect(await openAlert("call_failed")).toMatch(/HTTP 401.*BACKUP_WORKER_SECRET/);
    });
  });

  it("ends the alert of a function once it takes a call again", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await answer(run, "timed_out", "true");
      await tick();
      expect(await openAlert("call_failed")).toContain("no answer in time");
      await begin(run);
      await tick();
      expect(await openAlert("call_failed")).toBeNull();
    });
  });

  it("fails the run of a function that lacks a setting and could not write it down itself", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const content = JSON.stringify({ code: "setting_missing", message: "the function has no SUPABASE_DB_URL" });
      await answer(run, "status_code, content", `500, '${content}'`);
      await tick();
      const { rows } = await postgres.query("select status, error_code from backup.runs where id = $1", [run]);
      expect(rows).toEqual([{ status: "failed", error_code: "setting_missing" }]);
    });
  });

  it("leaves a call alone that was taken, whatever became of its answer", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await begin(run);
      await answer(run, "timed_out", "true");
      expect(await tick()).toMatchObject({ reconcile_calls: 0, revive_runs: 0 });
      expect(await calls(run)).toEqual(["begun"]);
    });
  });

  it("gives up a leg that was ended by the platform, and sends another for the same run", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await begin(run);
      await postgres.query("update backup.calls set begun_at = now() - interval '161 seconds' where run_id = $1", [
        run,
      ]);
      expect(await tick()).toMatchObject({ revive_runs: 1 });
      expect(await calls(run)).toEqual(["lost", "sent"]);
    });
  });

  it("ends the lease that a leg took after it had been given up", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const nonce = await begin(run);
      await postgres.query("update backup.calls set begun_at = now() - interval '161 seconds' where run_id = $1", [
        run,
      ]);
      await postgres.query("update backup.settings set value = '1' where name = 'concurrency'");
      await tick();
      await postgres.query("select backup.claim_task($1, $2, interval '1 hour')", [run, `call:${nonce}`]);
      expect(await scalar(postgres, "select backup.claimable_tasks($1)", [run])).toBe("0");
      await tick();
      expect(await scalar(postgres, "select backup.claimable_tasks($1)", [run])).toBe("1");
    });
  });

  it("fails a run on which nothing has worked for half an hour, with an alert", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await postgres.query("update backup.runs set heartbeat_at = now() - interval '31 minutes' where id = $1", [run]);
      await tick();
      const { rows } = await postgres.query("select status, error_code from backup.runs where id = $1", [run]);
      expect(rows).toEqual([{ status: "failed", error_code: "run_stalled" }]);
      expect(await openAlert("backup_failed")).toContain(run);
    });
  });

  it("does not send functions to a run of the CLI, whose store may be another one, but fails it when it is dead", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      const run = await scalar(postgres, "select run from backup.request_run('full', '{manual}', 'cli', null)") ?? "";
      await tick();
      expect(await calls(run)).toEqual([]);
      await postgres.query("update backup.runs set heartbeat_at = now() - interval '31 minutes' where id = $1", [run]);
      await tick();
      expect(await scalar(postgres, "select status from backup.runs where id = $1", [run])).toBe("failed");
    });
  });

  it("fails a run when Vault has lost its secrets", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      await postgres.query("update backup.calls set status = 'failed', ended_at = now() where run_id = $1", [run]);
      await postgres.query("delete from vault.secrets");
      await tick();
      expect(await scalar(postgres, "select error_code from backup.runs where id = $1", [run])).toBe("setting_missing");
    });
  });

  it("ends the keeper of a run that is over, and leaves that of an active one alone", async () => {
    const keeper = await session(await installedCluster());
    try {
      const gone = new Promise<void>((resolve) => keeper.on("error", () => resolve()));
      await keeper.query("set application_name = 'holdfast:keeper'");
      const { rows } = await keeper.query(
        "select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()",
      );
      await rolledBack(postgres, async () => {
        const run = await startedRun();
        await postgres.query(
          "update backup.runs set keeper_pid = $2, keeper_started_at = $3, keeper_until = now() + interval '1 hour' where id = $1",
          [run, rows[0].pid, rows[0].backend_start],
        );
        expect(await tick()).toMatchObject({ end_orphaned_keepers: 0 });
        await keeper.query("select 1");
        // not by fail_run, which ends the keeper itself
        await postgres.query(
          "update backup.runs set status = 'cancelled', finished_at = clock_timestamp() where id = $1",
          [run],
        );
        expect(await tick()).toMatchObject({ end_orphaned_keepers: 1 });
        await gone;
      });
    } finally {
      await keeper.end().catch(() => {});
    }
  });

  it("goes on with its other steps when one fails, and says which", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(`
        create or replace function backup.revive_runs() returns integer language plpgsql set search_path = ''
        as $$ begin raise exception 'broken for the test'; end $$`);
      expect(await tick()).toMatchObject({ revive_runs: "failed: P0001", watch_schedules: 0, purge_traces: 0 });
      expect(await openAlert("watchdog_failed")).toContain("broken for the test");
    });
  });

  it("does nothing while another one works", async () => {
    const other = await session(await installedCluster());
    try {
      await rolledBack(other, async () => {
        await other.query("select backup.tick()");
        expect(JSON.parse(await scalar(postgres, "select backup.tick()") ?? "")).toEqual({ skipped: true });
      });
    } finally {
      await other.end();
    }
  });

  it("forgets after a week which definitions were changed: replays read them in the stream", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `delete from backup.ddl_log;
         insert into backup.ddl_log (logged_at, what, tag, objects, query, role_name, search_path)
         select now() - days * interval '1 day', 'command', days || '', '[]', '', current_user, '' from unnest(array[6, 8]) as days`,
      );
      expect(await tick()).toMatchObject({ purge_traces: 0 });
      expect((await postgres.query("select tag from backup.ddl_log")).rows).toEqual([{ tag: "6" }]);
    });
  });

  it("forgets after a week how its own cron jobs went, and nobody else's", async () => {
    await rolledBack(postgres, async () => {
      const own = (await postgres.query("select command from cron.job where jobname like 'holdfast-%'")).rows
        .map(({ command }: { command: string }) => command);
      expect(own.length).toBeGreaterThan(3);
      const commands = [...own, "set statement_timeout = 10000; select backup.try_smoke(1, 'x')", "select app.mine()"];
      await postgres.query(
        `insert into cron.job_run_details (jobid, runid, command, username, status, start_time, end_time)
         select 1, 700000 + t.n, t.command, current_user, 'succeeded', now() - interval '8 days', now() - interval '8 days'
           from unnest($1::text[]) with ordinality as t (command, n)`,
        [commands],
      );
      await tick();
      const left = await postgres.query("select command from cron.job_run_details where runid > 700000 order by runid");
      expect(left.rows).toEqual([{ command: "select app.mine()" }]);
    });
  });

  it("forgets calls after a week, and not before: a nonce stays as long as its call could be repeated", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const nonce = await begin(run);
      await postgres.query("select backup.end_call($1, 'done')", [nonce]);
      await postgres.query("select backup.cancel_run($1)", [run]);
      await setClock(postgres, new Date(Date.now() + 6 * 86_400_000).toISOString());
      await tick();
      expect(await calls(run)).toHaveLength(1);
      await setClock(postgres, new Date(Date.now() + 8 * 86_400_000).toISOString());
      await tick();
      expect(await calls(run)).toHaveLength(0);
    });
  });
});

describe("legs", () => {
  /** Tasks of a run whose plan is done. */
  async function planned(run: string, tasks: number): Promise<void> {
    await postgres.query("update backup.tasks set status = 'done', done_at = now() where run_id = $1", [run]);
    await postgres.query("update backup.runs set status = 'copying', attempt = 1 where id = $1", [run]);
    await postgres.query(
      "insert into backup.tasks (run_id, attempt, kind) select $1, 1, 'chunks' from generate_series(1, $2::integer)",
      [run, tasks],
    );
  }

  it("are as many as the setting says, one while only the plan can be done", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.settings set value = '3' where name = 'concurrency'");
      const run = await startedRun();
      expect(await calls(run)).toEqual(["sent"]);
      const nonce = await begin(run);
      await planned(run, 10);
      expect(await scalar(postgres, "select backup.launch_run($1)", [run])).toBe("2");
      expect(await scalar(postgres, "select backup.launch_run($1)", [run])).toBe("0");
      expect(await scalar(postgres, "select backup.end_leg($1, $2)", [nonce, run])).toBe("1");
      expect((await calls(run)).sort()).toEqual(["ended", "sent", "sent", "sent"]);
    });
  });

  it("are not more than there are tasks to claim", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const nonce = await begin(run);
      await planned(run, 1);
      await postgres.query("select backup.claim_task($1, 'worker', interval '1 minute')", [run]);
      expect(await scalar(postgres, "select backup.end_leg($1, $2)", [nonce, run])).toBe("0");
    });
  });

  it("that could not work raise an alert and are tried again by the watchdog where that may heal it", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const failure = { code: "store_unreachable", message: "no answer", hint: "", retry: "backoff" };
      const end = "select backup.end_leg($1, $2, $3)";
      expect(await scalar(postgres, end, [await begin(run), run, JSON.stringify(failure)])).toBe("0");
      expect(await openAlert("leg_failed")).toContain("store_unreachable");
      expect(await tick()).toMatchObject({ revive_runs: 1 });
      await postgres.query("select backup.end_leg($1, $2)", [await begin(run), run]);
      expect(await openAlert("leg_failed")).toBeNull();
    });
  });

  it("that lack a key fail their run at once", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const failure = { code: "key_missing", message: "BACKUP_KEYS is not set", hint: "Set it.", retry: "after_fix" };
      await postgres.query("select backup.end_leg($1, $2, $3)", [await begin(run), run, JSON.stringify(failure)]);
      const { rows } = await postgres.query("select status, error_code, hint from backup.runs where id = $1", [run]);
      expect(rows).toEqual([{ status: "failed", error_code: "key_missing", hint: "Set it." }]);
    });
  });

  it("wait for a task that was given back, and know for how long", async () => {
    await rolledBack(postgres, async () => {
      const run = await startedRun();
      const seconds = "select round(backup.seconds_until_claimable($1))";
      expect(await scalar(postgres, seconds, [run])).toBeNull();
      const { rows } = await postgres.query(
        "select id, token from backup.claim_task($1, 'worker', interval '1 minute')",
        [run],
      );
      expect(await scalar(postgres, seconds, [run])).toBeNull();
      await postgres.query("select backup.return_task($1, $2, $3)", [
        rows[0].id,
        rows[0].token,
        JSON.stringify({ code: "store_unreachable", message: "x", retry: "backoff" }),
      ]);
      expect(await scalar(postgres, seconds, [run])).toBe("1");
      expect(await scalar(postgres, "select backup.claimable_tasks($1)", [run])).toBe("0");
    });
  });
});

describe("the identity of an install", () => {
  it("is recorded by the first function, and a copy gets a prefix of its own, with an alert", async () => {
    await rolledBack(postgres, async () => {
      const recognise = "select backup.recognise($1)";
      expect(await scalar(postgres, recognise, ["firstproject"])).toBe("recorded");
      expect(await scalar(postgres, recognise, ["firstproject"])).toBe("same");
      expect(await openAlert("identity_changed")).toBeNull();
      expect(await scalar(postgres, recognise, ["otherproject"])).toBe("project");
      expect(await openAlert("identity_changed")).toContain("otherproject");
      const prefix = await scalar(postgres, "select store_prefix from backup.identity", []);
      expect(prefix).toMatch(/^clone-[0-9a-f]{8}$/);
      expect(await scalar(postgres, recognise, ["otherproject"])).toBe("same");
      expect(await scalar(postgres, "select store_prefix from backup.identity", [])).toBe(prefix);
      expect(await scalar(postgres, recognise, ["firstproject"]), "a copy of the copy").toBe("project");
      expect(await scalar(postgres, "select store_prefix from backup.identity", [])).not.toBe(prefix);
    });
  });

  it("is in doubt on another server, until a writer has looked at the store's last claim", async () => {
    await rolledBack(postgres, async () => {
      const original = "select backup.is_original()";
      await postgres.query("select backup.recognise('firstproject')");
      expect(await scalar(postgres, original, [])).toBe("t");
      await postgres.query("update backup.identity set system_identifier = '1'");
      expect(await scalar(postgres, "select backup.recognise('firstproject')", [])).toBe("server");
      expect(await scalar(postgres, original, [])).toBe("f");
      expect(await scalar(postgres, "select backup.may_tell('identity_changed')", [])).toBe("t");
      expect(await scalar(postgres, "select backup.may_tell('run_missed')", [])).toBe("f");
      expect(await openAlert("identity_changed"), "nothing is known yet").toBeNull();
    });
  });
});
