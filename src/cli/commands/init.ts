import { HoldfastError } from "../../shared/errors.ts";
import { readUncovered, uncoveredReasons } from "../../shared/monitor/uncovered.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { ownBucketOf } from "../../shared/store/open_store.ts";
import type { Context } from "../context.ts";
import { applyMigrations, readMigrations } from "../migrations.ts";
import { sourceDatabase } from "../open.ts";
import { prepareStores } from "../open_store.ts";
import type { Outcome } from "../output.ts";

/** The document: `{applied[], schedules: [{schedule, outcome}], store, notices[]}`. */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  const notices: string[] = [];
  const database = await sourceDatabase(context);
  const session = await database.connect("holdfast:init");
  let applied: string[];
  let schedules: { schedule: string; outcome: string }[];
  try {
    await checkServer(session);
    applied = await applyMigrations(session, await readMigrations(), ({ version, name }) => {
      context.note(`applying ${version}_${name}`);
    });
    notices.push(...await whatIsAbsent(session));
    notices.push(...uncoveredReasons(await readUncovered(session)));
    schedules = await applySchedules(session);
    notices.push(...await guardBuckets(session, settings.get("store")));
  } finally {
    await session.close();
  }
  const store = settings.get("store");
  if (store === undefined) notices.push("no store is set: its bucket or folder was not made");
  await prepareStores(context);
  for (const notice of notices) context.note(`notice: ${notice}`);
  return {
    exit: 0,
    document: { applied, schedules, store: store ?? null, notices },
    lines: [
      applied.length === 0
        ? `${database.label} has every migration already.`
        : `${database.label}: ${applied.length} migrations applied.`,
      ...schedules.map(({ schedule, outcome }) => `schedule ${schedule}: ${outcome}`),
      ...(store === undefined ? [] : [`The store is ready: ${store.replace(/\?.*$/, "")}`]),
    ],
  };
}

async function checkServer(session: Connection): Promise<void> {
  if (session.serverVersion < 150_000) {
    throw new HoldfastError("server_unsupported", `the server is version ${session.serverVersion}`);
  }
  const [row] = await session.query("select pg_catalog.pg_is_in_recovery() as standby");
  if (row?.["standby"] === "t") throw new HoldfastError("standby_refused", "the server is a standby");
}

async function whatIsAbsent(session: Connection): Promise<string[]> {
  const [row] = await session.query(
    `select pg_catalog.to_regclass('cron.job') is null as cron,
       not exists (
         select from pg_catalog.pg_proc
         where pronamespace = pg_catalog.to_regnamespace('net') and proname = 'http_post'
       ) as net,
       pg_catalog.to_regclass('vault.decrypted_secrets') is null as vault`,
  );
  const notices: string[] = [];
  if (row?.["cron"] === "t") {
    notices.push(
      "pg_cron is absent: schedules are skipped; start backups from a scheduler of your own. Once the change stream is begun, `holdfast incremental` or `select backup.guard_slot()` has to run each minute: nothing else keeps its slot from filling the disk",
    );
  }
  if (row?.["net"] === "t" || row?.["vault"] === "t") {
    notices.push("pg_net or Vault is absent: the database cannot call the functions; use the CLI");
  }
  return notices;
}

/** The store's bucket is one of ours from now on, and no policy of the project opens it. What could not be done, in sentences. */
async function guardBuckets(session: Connection, store: string | undefined): Promise<string[]> {
  const bucket = store === undefined ? null : ownBucketOf(store);
  if (bucket !== null) await session.query("select backup.use_bucket($1)", [bucket]);
  await session.query("select backup.guard_buckets()");
  const open = await session.query(
    `select t.name from pg_catalog.unnest(array['storage.objects', 'storage.buckets']) as t (name)
     where backup.bucket_guard_of(t.name) = 'missing'`,
  );
  return open.map((row) =>
    `the policy holdfast_buckets could not be made on ${
      row["name"] ?? ""
    }: a policy of the project that opens every bucket opens ours too; run \`init\` again`
  );
}

async function applySchedules(session: Connection): Promise<{ schedule: string; outcome: string }[]> {
  const rows = await session.query("select schedule, outcome from backup.apply_schedules()");
  return rows.map((row) => ({ schedule: row["schedule"] ?? "", outcome: row["outcome"] ?? "" }));
}
