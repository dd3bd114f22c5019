import { HoldfastError } from "../../shared/errors.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { applyMigrations, readMigrations } from "../migrations.ts";
import { sourceDatabase } from "../open.ts";
import { prepareStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { readUncovered } from "../stream_facts.ts";
import { uncoveredReasons } from "../verdict.ts";

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
  } finally {
    await session.close();
  }
  const store = settings.get("store");
  if (store === undefined) notices.push("no store is set: its bucket or folder was not made");
  else await prepareStore(context);
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

async function applySchedules(session: Connection): Promise<{ schedule: string; outcome: string }[]> {
  const rows = await session.query("select schedule, outcome from backup.apply_schedules()");
  return rows.map((row) => ({ schedule: row["schedule"] ?? "", outcome: row["outcome"] ?? "" }));
}
