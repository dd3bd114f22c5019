/** What people order stands in the audit, in the transaction of the act, as whoever did it. */
import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

/** Functions that change rows and write no audit row, each with what makes that right. */
const unaudited: Readonly<Record<string, string>> = {
  accept_call: "a call that was let in: what it does is audited where it does it",
  add_tasks: "steps of a run, whose begin and end are audited",
  ask_for_copies: "tells the replication that something is new",
  attach_call: "which run a call works on",
  begin_attempt: "a step of a run",
  begin_listing: "a step of the checks",
  begin_survey: "a step of a replication, whose begin and end are audited",
  chain_audit: "the chain of the audit itself",
  checking: "the lease of the checks",
  claim_delivery: "the lease of whoever brings a notice to a channel; each try is on record",
  claim_drain: "the drainer's lease",
  close_document: "a step of an export, whose request, links and end are audited",
  complete_incrementals: "which hours stand in both stores, as the replication found",
  complete_task: "a step of a run",
  copying: "the lease of the replication",
  count_job_runs: "what pg_cron has recorded of our jobs",
  downloads_stay: "an alert for files that a sweep could not remove",
  drill_database_dropped: "what a drill made and is gone, whose end is audited",
  drilling: "the lease of a drill, whose order and end are audited",
  empty_export: "a step of an export",
  end_call: "the end of a call",
  end_smokes: "the watchdog's: the day after a restore is over",
  end_stalled_sessions: "the watchdog's: which sessions stand still; an ended one is an alert",
  end_survey: "a step of a replication",
  enter_copies: "a step of a replication",
  enter_listed: "a step of the checks: what a store lists",
  enter_lists: "a step of a prune, whose begin, removals and end are audited",
  enter_manifest: "a step of a prune",
  enter_manifests: "a step of a prune, whose begin, removals and end are audited",
  enter_needs: "a step of a replication",
  exports_stay: "an alert for objects that a sweep could not remove",
  erase_for_guardians: "part of begin_erasure, which is audited",
  fail_copy: "a step of a replication, whose end is audited",
  forget_copied_files: "copies that the store has lost: their files are copied again",
  forget_queued_files: "part of end_erasure, which is audited",
  forget_run_files: "notes of a run that is over, whose end is audited",
  give_up_deliveries: "a step of telling; each delivery keeps its tries and why it ended",
  hold_drain: "the drainer's lease",
  holding_export: "the lease of an export",
  intend_advance: "a step of the drain; its segments are the record",
  intend_claim: "before a claim is put; hold_claim and become_copy are the ends",
  intend_copy: "a step of a replication",
  invoke: "a call on its way to a function",
  keep_gone: "what a restore keeps of its side schema, whose end is audited",
  keep_smokes: "part of a restore, whose begin and end are audited",
  leave_chain: "a run that no person ordered otherwise; the backup itself is audited",
  list_rewritten: "a step of a rewriting: the ledger lists it",
  list_files: "a step of a backup: what its snapshot shows",
  log_ddl: "the log of definitions, which is a record of its own and travels in the stream",
  log_owners: "the log of definitions, which is a record of its own and travels in the stream",
  make_publications: "part of begin_chain, which is audited",
  measure_usage: "what lies in the stores, as it was counted",
  next_queued: "a step of the drain: which files come next",
  next_versions: "a step of a backup or of the drain: which files come next",
  note_adopted: "whose place was taken: hold_claim audits it",
  note_clean: "a step of a rewriting: nothing had to be changed",
  note_look: "when the store was compared last",
  note_refusal: "refusals, which the next tick brings into the audit, aggregated",
  note_tick: "when the watchdog went through last",
  note_remains: "a step of a rewriting: what has to go",
  note_rewriting: "a step of a rewriting: what it has found",
  note_rewritten: "part of recording what was rewritten, which is audited by backup",
  note_told: "part of telling alerts, whose begin and end are audited",
  pause_jobs: "part of maintenance_on, which is audited; later calls follow the same order",
  place_fences: "part of the installation and of maintenance_on",
  plan_deliveries: "one row a notice and channel: alerts are audited, and notices where they are sent",
  pruning: "the lease of a prune",
  publish_table: "follows the user's own change of a definition, which the DDL log has",
  publish_tables: "follows the user's own change of a definition, which the DDL log has",
  queue_files: "a step of the drain: files that changed",
  record_download: "parts of a download, whose begin, links and end are audited",
  record_export_files: "a step of an export",
  record_export_part: "a step of an export",
  record_file_list: "a step of the drain: a list of files lies beside its segments",
  record_files: "files of a run, whose end is audited",
  record_erasure: "a step of an erasure, whose begin and end are audited",
  record_hold: "a step of a replication",
  record_holds: "locks that a backup renewed",
  record_laid: "a step of an export",
  record_objects: "objects of a run, whose end is audited",
  record_opened: "a step of the checks: what was opened",
  record_queued_holds: "locks that a drain renewed",
  record_rewritten_list: "a step of a rewriting, whose backups are audited",
  record_rewritten_segment: "a step of a rewriting, whose backups are audited",
  record_removals: "a step of a prune, whose orders are audited",
  record_snapshot: "a step of a run",
  record_swept: "a step of a prune: objects that nothing named",
  record_versions: "a step of a backup or of the drain: files that were copied",
  redo_export: "a step of an export",
  refuse_call: "refusals, which the next tick brings into the audit, aggregated",
  renew_lease: "a lease",
  rescue_objects: "a step of a backup: what it names is condemned no more",
  rest_drill: "the lease of a drill",
  restore_progress: "steps of a restore, whose begin and end are audited",
  sample_share: "a step of the checks: what comes next",
  seal_incrementals: "the watchdog's: an hour is over",
  set_pre_request: "part of maintenance_on and maintenance_off, which are audited",
  settle_remains: "a step of a rewriting: what was looked at",
  settle_attempt: "a step of a backup, whose end is audited",
  spool_transaction: "a step of the drain",
  stand: "how backups stand, written down for the dashboard",
  still_expected: "a step of the checks: what is gone is forgotten",
  sweep_prefix: "a step of a prune: objects that nothing names are condemned",
  take_heartbeat: "when the outside watcher was told last",
  tell_alert: "a message about an alert, which is audited",
  tell_fact: "what a function or the CLI saw; who used a key is audited where it was used",
  tell_many: "a message about alerts, which are audited",
  tend_smokes: "the watchdog's",
  try_smoke: "a query of the day after a restore; what it shows is an alert",
  void_tasks: "part of begin_attempt and of the ends of runs",
  watch_page: "the watchdog's call of a function; where the page was put is audited",
  write_probe: "the write of a probe, which record_maintenance_proof audits",
};

interface Routine {
  readonly name: string;
  readonly source: string;
}

/** Functions of schema backup, overloads as one. */
async function routines(): Promise<Routine[]> {
  const { rows } = await postgres.query<Routine>(
    `select proname as name, string_agg(prosrc || coalesce(pg_get_function_sqlbody(oid), ''), E'\\n') as source
     from pg_proc where pronamespace = 'backup'::regnamespace group by 1 order by 1`,
  );
  return rows;
}

const changes = /\b(insert into|update|delete from|truncate|merge into)\s+(only\s+)?(backup|cron|public)\./i;
const reachesOutside =
  /\bcron\.(schedule|unschedule|alter_job)\b|\bexecute\s+(pg_catalog\.format|')\s*\(?\s*'?(alter|create|drop|grant|revoke|insert|update|delete)/i;
const callsIn = (source: string) => [...source.matchAll(/\bbackup\.([a-z_]+)\s*\(/g)].map(([, name]) => name ?? "");

describe("every function that changes something", () => {
  it("writes an audit row, itself or by what it calls, or stands in the list with its reason", async () => {
    const all = await routines();
    const bySource = new Map(all.map(({ name, source }) => [name, source]));
    const { rows: watched } = await postgres.query<{ table: string; calls: string }>(
      `select c.relname as table, p.proname as calls from pg_trigger as t join pg_class as c on c.oid = t.tgrelid
         join pg_proc as p on p.oid = t.tgfoid where not t.tgisinternal and c.relnamespace = 'backup'::regnamespace and t.tgenabled = 'A'`,
    );
    const reach = (name: string, seen = new Set<string>()): boolean => {
      if (name === "audit") return true;
      if (seen.has(name)) return false;
      seen.add(name);
      const source = bySource.get(name) ?? "";
      const triggered = watched.filter(({ table }) =>
        new RegExp(`(insert into|update|delete from) backup\\.${table}\\b`).test(source)
      );
      return [...callsIn(source), ...triggered.map(({ calls }) => calls)].some((called) => reach(called, seen));
    };
    const changing = all.filter(({ name, source }) =>
      name !== "audit" && (changes.test(source) || reachesOutside.test(source))
    );
    expect(changing.length).toBeGreaterThan(60);
    const silent = changing.filter(({ name }) => !reach(name)).map(({ name }) => name);
    expect(silent).toEqual(Object.keys(unaudited).sort());
  });
});

interface Act {
  readonly what: string;
  readonly sql: string;
  /** Actions in the audit that it has to leave, each with its subject. */
  readonly leaves: readonly (readonly [string, string | RegExp])[];
}

const run = "6f1c8c7e-4444-4c4e-9c36-5f1f4a1f7a01";
const restore = "6f1c8c7e-5555-4c4e-9c36-5f1f4a1f7a01";
const user = randomUUID();
const ofRun = `run:${run}`;
const ofRestore = `restore:${restore}`;

/** What people call or change by hand: at the dashboard, or by a command of the CLI that does the same. */
const acts: readonly Act[] = [
  { what: "a backup", sql: "select backup.start_backup()", leaves: [["run.requested", /^run:/]] },
  { what: "a verification", sql: `select backup.verify_backup('${run}')`, leaves: [["run.requested", /^run:/]] },
  {
    what: "a hold",
    sql: `select backup.hold_backup('${run}', 'why', now() + interval '1 day')`,
    leaves: [["backup.held", ofRun]],
  },
  {
    what: "the end of a hold",
    sql: `select backup.hold_backup('${run}', 'why', now() + interval '1 day'); select backup.release_hold('${run}')`,
    leaves: [["backup.held", ofRun], ["backup.released", ofRun]],
  },
  {
    what: "an accepted backup",
    sql: `update backup.runs set status = 'quarantined', quarantine_reason = 'x' where id = '${run}';
      select backup.accept_run('${run}', 'why')`,
    leaves: [["run.accepted", ofRun]],
  },
  {
    what: "a cancelled run",
    sql: "select backup.cancel_run((select run from backup.request_run('full', '{manual}', 'dashboard', null)))",
    leaves: [["run.requested", /^run:/], ["run.cancelled", /^run:/]],
  },
  {
    what: "an alert that was seen",
    sql: "select backup.acknowledge_alert(backup.raise_alert('test', 'subject', 'message'))",
    leaves: [["alert.raised", "test:subject"], ["alert.acknowledged", "test:subject"]],
  },
  {
    what: "a row of the maintenance log",
    sql: "select backup.log_maintenance('test', 'a-person', 'Success')",
    leaves: [["log.added", /^log:\d+$/]],
  },
  {
    what: "a drill, and its end",
    sql: "select backup.cancel_run((select run from backup.request_drill('recovery', 'dashboard')))",
    leaves: [["drill.ordered", /^drill:/], ["log.added", /^log:/], ["drill.ended", /^drill:/], [
      "run.cancelled",
      /^run:/,
    ]],
  },
  {
    what: "a drill that is not to be done any more",
    sql: "update backup.drill_calendar set enabled = false where name = 'table'",
    leaves: [["drill.changed", "drill:table"]],
  },
  {
    what: "an incident from its opening to its end",
    sql: `select backup.open_incident('why'); select backup.note_incident(id, 'n'), backup.tell_incident(id, 'm'),
      backup.close_incident(id, 's') from backup.incidents`,
    leaves: ["opened", "told", "noted", "told", "told", "closed"].map((act) =>
      [`incident.${act}`, /^incident:\d+$/] as const
    ),
  },
  {
    what: "an administrator, made and removed",
    sql: `select backup.add_admin('${user}'); insert into backup.admins (user_id) values (gen_random_uuid());
      select backup.remove_admin('${user}')`,
    leaves: [["admin.added", /^person:/], ["admin.added", /^person:/], ["admin.removed", /^person:/]],
  },
  {
    what: "a setting",
    sql: "update backup.settings set value = '3' where name = 'concurrency'",
    leaves: [["setting.changed", "setting:concurrency"]],
  },
  {
    what: "a bucket that is ours",
    sql: "select backup.use_bucket('more')",
    leaves: [["setting.changed", "setting:buckets"]],
  },
  {
    what: "a policy",
    sql: "update backup.policies set keep = interval '31 days' where tier = 'daily'",
    leaves: [["policy.changed", "policy:daily"]],
  },
  {
    what: "a schedule",
    sql: "update backup.schedules set cron = '5 5 * * *' where name = 'daily'; select * from backup.apply_schedules()",
    leaves: [["schedule.changed", "schedule:daily"], ["schedule.changed", "schedule:daily"]],
  },
  {
    what: "another time for a schedule, its pause, its end, and a run now",
    sql:
      `select backup.set_schedule('daily', '5 5 * * *'); select backup.pause_schedule('daily', now() + interval '1 hour', 'import');
      select backup.resume_schedule('daily'); select backup.run_now('daily')`,
    leaves: [
      ["schedule.changed", "schedule:daily"],
      ["schedule.changed", "schedule:daily"],
      ["schedule.changed", "schedule:daily"],
      ["schedule.removed", "schedule:daily"],
      ["schedule.paused", "schedule:daily"],
      ["schedule.changed", "schedule:daily"],
      ["schedule.added", "schedule:daily"],
      ["schedule.resumed", "schedule:daily"],
      ["schedule.run", "schedule:daily"],
      ["run.requested", /^run:/],
    ],
  },
  {
    what: "a new schedule, and one that goes",
    sql: `insert into backup.schedules (name, kind, tier, cron) values ('noon', 'full', 'daily', '0 12 * * *');
      delete from backup.schedules where name = 'noon'`,
    leaves: [["schedule.changed", "schedule:noon"], ["schedule.changed", "schedule:noon"]],
  },
  {
    what: "an objective",
    sql: "update backup.objectives set seconds = 60 where kind = 'recovery' and scope = 'table'",
    leaves: [["objective.changed", "objective:table"]],
  },
  {
    what: "rows that were emptied",
    sql: "truncate backup.objectives",
    leaves: [["objective.changed", "objective:all"]],
  },
  {
    what: "a setting, as a replica",
    sql:
      "set local session_replication_role = replica; update backup.settings set value = '3' where name = 'concurrency'",
    leaves: [["setting.changed", "setting:concurrency"]],
  },
  {
    what: "an announcement, and its end",
    sql: `select backup.withdraw_announcement(backup.announce('Soon', now() + interval '1 day', null))`,
    leaves: [["maintenance.announced", /^announcement:/], ["maintenance.withdrawn", /^announcement:/]],
  },
  {
    what: "maintenance mode",
    sql: "select backup.maintenance_on('Back soon'); select backup.maintenance_off()",
    leaves: [["maintenance.closed", "project"], ["maintenance.opened", "project"]],
  },
  {
    what: "a restore, and keys that opened it",
    sql: `select backup.keys_used('${ofRestore}', '{k-b,k-a}'); select backup.keys_used('${ofRestore}', '{k-a,k-b}');
      select backup.cancel_restore('${restore}')`,
    leaves: [["key.used", ofRestore], ["restore.cancel_asked", ofRestore]],
  },
  {
    what: "a notice, and a test of the channels",
    sql: "select backup.send_notice('incident_opened', 'incident:1', 'words'); select backup.test_channels()",
    leaves: [["notice.sent", "incident_opened:incident:1"], ["channel.tested", /^notice:/]],
  },
  {
    what: "channels, set up and taken away",
    sql: `select backup.tell_channels('cli', '[{"name": "slack", "target": "hooks.example.org", "problem": null}]');
      select backup.tell_channels('cli', '[]')`,
    leaves: [["channel.set", "channel:slack"], ["channel.gone", "channel:slack"]],
  },
  {
    what: "the record of the installation",
    sql: "select backup.record_install()",
    leaves: [["install.recorded", "install"]],
  },
  { what: "the security audit", sql: "select backup.audit_security()", leaves: [["security.audited", "install"]] },
  {
    what: "a gap in the change stream",
    sql: `insert into backup.chains (id, slot_name, publications, start_lsn, system_identifier, database_name)
        values ('c1', 's', '{}', '0/1', 'x', 'x');
      select backup.end_chain('c1', 'the slot is gone')`,
    leaves: [["chain.ended", "chain:c1"]],
  },
];

describe("what people order", () => {
  it.each(acts)(
    "stands in the audit, as the role that did it, if it is done at all: $what",
    async ({ sql, leaves }) => {
      const last = () => scalar(postgres, "select coalesce(max(id), 0)::text from backup.audit_log");
      const before = await last();
      await rolledBack(postgres, async () => {
        await fillVault(postgres);
        await postgres.query("insert into auth.users (id, email) values ($1, 'c@s.example')", [user]);
        await postgres.query(
          `insert into backup.runs (id, kind, tiers, status, origin, finished_at, manifest_name, manifest_hash)
         values ($1, 'full', '{manual}', 'succeeded', 'cli', now() + interval '1 hour', 'm', 'h')`,
          [run],
        );
        await postgres.query(
          `insert into backup.restores (id, scope, mode, source_backup, target_label, target_is_here, requested_by, lease_until)
         values ($1, 'table', 'missing', $2, 'here', true, 'role:postgres', now() + interval '1 hour')`,
          [restore, run],
        );
        const { rows: [start] } = await postgres.query("select coalesce(max(id), 0) as id from backup.audit_log");
        await postgres.query(sql);
        const { rows } = await postgres.query<{ action: string; subject: string; actor: string; ours: string }>(
          `select action, subject, actor, (transaction_id = pg_current_xact_id())::text as ours from backup.audit_log
          where id > $1 order by id`,
          [start.id],
        );
        const wanted = leaves.map(([action]) => action);
        const found = rows.filter(({ action }) => wanted.includes(action));
        expect(found.map(({ action }) => action)).toEqual(wanted);
        for (const [index, [, subject]] of leaves.entries()) expect(found[index]?.subject).toMatch(subject);
        expect(new Set(rows.map(({ actor, ours }) => `${actor} ${ours}`))).toEqual(new Set(["role:postgres true"]));
      });
      expect(await last(), "what was rolled back was not done").toBe(before);
    },
  );

  it("says what a value was and what it is, and not who wrote a comment on it", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("update backup.settings set value = '3' where name = 'concurrency'");
      await postgres.query("update backup.settings set note = 'other words' where name = 'concurrency'");
      await postgres.query("delete from backup.policies where tier = 'safety'");
      const { rows } = await postgres.query(
        `select subject, detail from backup.audit_log where transaction_id = pg_current_xact_id() and action <> 'alert.raised'
         order by id`,
      );
      expect(rows.map(({ subject, detail }) => [subject, JSON.parse(detail)])).toEqual([
        ["setting:concurrency", {
          from: { name: "concurrency", kind: "integer", value: "2" },
          to: { name: "concurrency", kind: "integer", value: "3" },
        }],
        ["policy:safety", { from: { tier: "safety", keep: "30 days" }, to: null }],
      ]);
    });
  });

  it("shows a person whose token was accepted as a keyed hash", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("select set_config('request.jwt.claims', $1, true)", [JSON.stringify({ sub: user })]);
      await postgres.query("update backup.settings set value = '3' where name = 'concurrency'");
      const actor = await scalar(postgres, "select actor from backup.audit_log order by id desc limit 1");
      expect(actor).toMatch(/^person:[0-9a-f]{64}$/);
      expect(actor).toBe(await scalar(postgres, "select backup.person_hash($1)", [user]));
    });
  });
});
