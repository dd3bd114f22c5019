/**
 * `npm run demo`: a project is backed up by its own schedule, lost, and restored into a new one, in front of your eyes.
 * With `--all` a person is erased at the end, from the request to the certificate. Exit 0 only if all of it held.
 */
import process from "node:process";
import type pg from "pg";
import { z } from "zod";
import { loadSampleApp } from "../../tests/support/sample_app/load.ts";
import { startSecondProvider } from "./demo/second_provider.ts";
import { signedFormat } from "../shared/drills/evidence.ts";
import { reportOf } from "../shared/drills/report.ts";
import { clientConfig, endClient, openClient } from "./client.ts";
import { compareProjects } from "./demo/compare.ts";
import { disaster, liveOn, rowHashes } from "./demo/disaster.ts";
import { forgetSomebody } from "./demo/forget.ts";
import { holdfast } from "./demo/holdfast.ts";
import { entryCommands, isAsBefore, loseAndFind, signInBoth } from "./demo/one_entry.ts";
import { ownData } from "./demo/own_data.ts";
import { megabytes, Screen, seconds } from "./demo/screen.ts";
import { untilDone } from "./demo/until_done.ts";
import { areAsBefore, loseAndHear } from "./demo/voice_notes.ts";
import { isWhole, scheduleNextMinute, type Trace, traceOf } from "./demo/trace.ts";
import type { IsolateRecord } from "./gateway/isolate.ts";
import { startCluster } from "./postgres.ts";
import { startStack } from "./stack.ts";

interface Created {
  readonly status: string;
  readonly rows: number;
  readonly raw_bytes: number;
  readonly stored_bytes: number;
  readonly wall_seconds: number;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

const screen = new Screen();
const isAll = process.argv.includes("--all");
const ends: (() => Promise<unknown>)[] = [];
let interrupted = false;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.addSignalListener(signal, () => {
    interrupted = true;
  });
}

try {
  const differences = await demo();
  process.exitCode = differences === 0 ? 0 : 1;
} catch (error) {
  console.error(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = interrupted ? 130 : 1;
} finally {
  for (const end of ends.reverse()) {
    await end().catch((error: unknown) => console.error(`  cleaning up: ${String(error)}`));
  }
}
process.exit();

async function demo(): Promise<number> {
  screen.step("1  A Supabase project, on this machine");
  const s3 = await startSecondProvider();
  ends.push(() => s3.stop());
  const { credentials } = s3;
  const stack = await startStack({
    environment: { ...credentials, BACKUP_STORE: s3.store },
    log: (line) => screen.fact(line),
  });
  ends.push(() => stack.destroy());
  screen.done(`PostgreSQL with pg_cron, Storage, Auth and Edge Functions at ${stack.gateway.url}`);

  screen.step("2  A journal app with 50 people");
  const source = stack.cluster;
  const client = await openClient(source, "postgres");
  ends.push(() => endClient(client));
  const app = await loadSampleApp({
    owner: clientConfig(source, "postgres"),
    admin: clientConfig(source, "supabase_admin"),
    gateway: { url: stack.gateway.url, anonKey: stack.gateway.anonKey },
  });
  const rows = Object.values(app.rows).reduce((sum, count) => sum + count, 0);
  screen.done(`${rows.toLocaleString("en")} rows, ${app.voiceNotes.length} voice notes`);

  const [{ email: one } = { email: "" }, { email: two } = { email: "" }] = app.people;
  // Before the backup, which is compared with the original later on: signing in writes rows of its own.
  const people = await signInBoth(stack.gateway, [one, two]);

  screen.step("3  A person asks for all that the app holds of them");
  const beganExport = performance.now();
  const own = await ownData(people.owner, stack.keys, app.people.slice(1).flatMap(({ id, email }) => [id, email]));
  const exportMs = performance.now() - beganExport;
  screen.done(`${own.rows} rows of ${own.tables} tables and ${own.files} voice notes, signed; nothing of another's`);

  screen.step("4  The change stream begins, with a full backup of its own");
  await beginStream(client);
  screen.done("every commit from now on is in it");

  screen.step("5  pg_cron starts a full backup");
  const { trace, created } = await backUp(client);
  screen.fact(`cron.job_run_details ${trace.cronRun} (${trace.cronJob}, ${trace.cronStatus})`);
  screen.fact(`  → net.http_post request ${trace.requestId}, answered ${trace.answerStatus}`);
  screen.fact(`  → function backup → run ${trace.run}`);
  for (const warning of created.warnings) screen.fact(`note: ${warning.message}`);
  const isolates = await figures(stack.gateway.url);
  screen.done(
    `${created.rows.toLocaleString("en")} rows, ${megabytes(created.raw_bytes)} → ${
      megabytes(created.stored_bytes)
    } sealed`,
  );

  screen.step("6  Verify: every object read, opened, hashed and counted");
  const keys = { BACKUP_STORE: s3.store, BACKUP_KEYS: stack.keys, ...credentials };
  const verified = await holdfast(["verify", trace.run], keys);
  if (verified["ok"] !== true) throw new Error(`verify found problems: ${JSON.stringify(verified["problems"])}`);
  screen.done(`${verified["objects"]} objects are sound`);

  screen.step("7  A person deletes an entry by mistake");
  const beganEntry = performance.now();
  const entry = await loseAndFind(people, async (id) => {
    for (const { shown, args } of entryCommands(trace.run, id)) {
      screen.fact(`holdfast ${shown}`);
      await holdfast(args, { ...keys, BACKUP_DB_URL: source.url("postgres") }, (line) => screen.live(line));
    }
  });
  const entryMs = performance.now() - beganEntry;
  if (!isAsBefore(entry)) {
    throw new Error(`the entry is not back as it was: ${JSON.stringify(entry)}`);
  }
  // What was laid beside would go by itself after a week.
  await client.query("select backup.drop_side(r.id) from backup.restores as r");
  screen.done("its owner reads it again through /rest/v1, every value as before; another person does not");

  screen.fact("then all of their recordings");
  const beganNotes = performance.now();
  const notes = await loseAndHear(people, async () => {
    screen.fact("holdfast restore-file voice-notes/ … --apply missing");
    const settings = {
      ...keys,
      BACKUP_DB_URL: source.url("postgres"),
      SUPABASE_URL: stack.gateway.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.gateway.serviceRoleKey,
    };
    const args = ["restore-file", "voice-notes/", trace.run, "--apply", "missing", "--yes"];
    await holdfast(args, settings, (line) => screen.live(line));
  });
  const notesMs = performance.now() - beganNotes;
  if (!areAsBefore(notes)) throw new Error(`the recordings are not back as they were: ${JSON.stringify(notes)}`);
  screen.done(`${notes.notes} recordings are back, byte for byte, for their owner alone`);

  screen.step("8  The project is lost");
  await endClient(client);
  await stack.stop();
  screen.done("its database and its Storage are gone; what is left is the bucket at another provider and the key");

  screen.step("9  Restore into a new project, from the store and the key alone");
  const target = await startCluster({ version: 15, platform: true });
  ends.push(() => target.destroy());
  const began = performance.now();
  const restored = await holdfast(["restore-full", "latest", "--yes"], {
    ...keys,
    BACKUP_TARGET_DB_URL: target.url("postgres"),
  }, (line) => screen.live(line));
  const restoreMs = performance.now() - began;
  const held = (restored["held"] ?? []) as { identity: string; kind: string }[];
  const inserted = Number(restored["inserted"]);
  const files = Number(restored["filesNotRestored"] ?? 0);
  screen.done(`${inserted.toLocaleString("en")} rows are back`);
  for (const one of held) screen.fact(`held until you say release: ${one.identity}`);

  screen.step("10 The old database is started once more, only to compare");
  await source.start();
  const comparison = await compareProjects(source, target, {
    held: held.map((one) => one.identity),
    skipped: (restored["skipped"] ?? []) as { identity: string }[],
    rolesCreated: (restored["rolesCreated"] ?? []) as string[],
    ownersKept: (restored["ownersKept"] ?? []) as string[],
    settingsLost: (restored["settingsLost"] ?? []) as string[],
  });
  for (const difference of comparison.differences.slice(0, 20)) screen.fact(`DIFFERENT: ${difference}`);
  screen.done(
    comparison.differences.length === 0
      ? `nothing differs: ${comparison.definitions} definitions with owners, grants and policies, ${comparison.tables} tables by row hashes, ${comparison.sequences} sequences, pg_dump of both`
      : `${comparison.differences.length} differences`,
  );

  screen.step("11 Life goes on in the old database, then something terrible happens");
  const life = await openClient(source, "postgres");
  ends.push(() => endClient(life));
  const changed = await liveOn(life);
  const before = await rowHashes(life);
  const moment = await disaster(life);
  screen.fact("delete from journal_entries; drop table goals, mood_samples");
  const drained = await holdfast(["incremental"], { ...keys, BACKUP_DB_URL: source.url("postgres") });
  screen.done(`${changed.toLocaleString("en")} rows had changed since the backup; the stream is stored`);

  screen.step("12 Restore to one second before");
  const database = await target.createDatabase("moment", { platform: false });
  const beganPoint = performance.now();
  const point = await holdfast(["restore-point", moment, "--yes"], {
    ...keys,
    BACKUP_TARGET_DB_URL: target.url(target.superuser, database),
  }, (line) => screen.live(line));
  const pointMs = performance.now() - beganPoint;
  const copy = await openClient(target, target.superuser, database);
  ends.push(() => endClient(copy));
  const after = await rowHashes(copy);
  const wrong = [...before].filter(([table, hash]) => after.get(table) !== hash).map(([table]) => table);
  for (const table of wrong) screen.fact(`DIFFERENT: the rows of ${table}`);
  screen.done(
    wrong.length === 0
      ? `as it was at ${moment}: ${before.size} tables by row hashes, ${point["transactions"]} transactions replayed`
      : `${wrong.length} tables differ`,
  );

  screen.step("13 A drill: the newest backup and the stream, proven in a database of their own");
  await life.query("update backup.settings set value = '100000' where name = 'disk_mb'");
  const withSource = { ...keys, BACKUP_DB_URL: source.url("postgres") };
  const drill = await testRecovery(withSource);
  screen.done(`recovered in ${drill.rtoSeconds} s and dropped again; signed with key ${drill.key}`);

  screen.step("14 Status");
  const status = await holdfast(["status"], withSource, () => {}, [0, 3]);
  for (const one of (status["alerts"] ?? []) as { severity: string; message: string }[]) {
    screen.fact(`${one.severity}: ${one.message}`);
  }
  screen.done(`${status["verdict"]}; last backup ${status["lastBackupAt"]}`);

  const forgotten = isAll ? await forgetSomebody(screen, app, life, withSource) : [];

  const different = comparison.differences.length + wrong.length + drill.differences;
  screen.summary(different === 0 ? "Lost, and back." : "Lost, and NOT wholly back.", [
    [
      "backed up",
      `${created.rows.toLocaleString("en")} rows in ${
        created.wall_seconds.toFixed(1)
      } s, through ${isolates.count} isolates`,
    ],
    ["largest isolate", `${isolates.cpuMs.toFixed(0)} ms CPU of 2,000, ${megabytes(isolates.peakBytes)} of 256 MB`],
    ["stored", `${megabytes(created.stored_bytes)} sealed with AES-256 from ${megabytes(created.raw_bytes)}`],
    [
      "restored",
      `${inserted.toLocaleString("en")} rows in ${seconds(restoreMs)}, into an empty project`,
    ],
    ["one entry", `deleted, brought back and read by its owner in ${seconds(entryMs)}`],
    ["one's own data", `${own.rows} rows and ${own.files} files, ordered, signed and fetched in ${seconds(exportMs)}`],
    ["held back", `${held.length} (cron jobs, webhooks) until \`holdfast release\``],
    ["recordings", `${notes.notes} deleted, brought back and heard by their owner in ${seconds(notesMs)}`],
    ["files", `${files} are in the backup for the new project's Storage: \`holdfast restore-file all\``],
    [
      "the project's own",
      `${created.rows - inserted - files} rows of its bookkeeping are not brought from the old one`,
    ],
    [
      "compared",
      `${comparison.tables} tables, ${comparison.definitions} definitions: ${comparison.differences.length} differences`,
    ],
    [
      "to the second",
      `${point["transactions"]} transactions after the backup, ${
        drained["changes"]
      } changes in the last drain, back in ${seconds(pointMs)}: ${wrong.length} differences`,
    ],
    [
      "drill",
      `${
        drill.rows.toLocaleString("en")
      } rows in ${drill.tables} tables proven in ${drill.rtoSeconds} s, ${drill.rpoSeconds} s would be lost`,
    ],
    ...forgotten,
    ["all of it", screen.elapsed],
  ]);
  return different;
}

/** `npm run backup:test-recovery`, with its evidence on the screen. */
async function testRecovery(settings: Readonly<Record<string, string>>) {
  const told = await holdfast(["test-recovery"], settings, (line) => screen.live(line), [0, 3]);
  const { rtoSeconds, rpoSeconds, evidence } = z.object({
    rtoSeconds: z.number(),
    rpoSeconds: z.number(),
    evidence: signedFormat,
  }).parse(told);
  for (const line of reportOf(evidence, evidence.signature.key)) {
    if (line !== "" && !line.startsWith("| ---")) screen.fact(line);
  }
  const { tables = 0, rows = 0, differencesTotal = 1 } = evidence.proof ?? {};
  return { rtoSeconds, rpoSeconds, tables, rows, differences: differencesTotal, key: evidence.signature.key };
}

/** What the cron job `holdfast-changes` does each minute, at once; then waits for the full backup that it orders. */
async function beginStream(client: pg.Client): Promise<void> {
  await client.query("select backup.call_drain()");
  await untilDone("the stream's first full backup", 120_000, async () => {
    const { rows: [run] } = await client.query<{ status: string; done: string; total: string; error: string | null }>(
      `select r.status, r.bytes_done as done, coalesce(r.bytes_total, 0) as total, r.error_code as error
       from backup.runs as r where r.kind = 'full' order by r.created_at limit 1`,
    );
    if (run?.status === "succeeded") return true;
    if (run?.status === "failed") throw new Error(`the run failed: ${run.error}`);
    const share = run !== undefined && Number(run.total) > 0 ? Number(run.done) / Number(run.total) : 0;
    screen.live(`${screen.bar(share)}  ${run?.status ?? "the stream begins"}`);
    return null;
  });
}

/** Waits until pg_cron has started the backup and the functions have ended it, with a bar. */
async function backUp(client: pg.Client): Promise<{ trace: Trace; created: Created }> {
  const due = await scheduleNextMinute(client);
  const trace = await untilDone("the chain from pg_cron to the run", 120_000, async () => {
    const found = await traceOf(client, due);
    if (isWhole(found)) return found;
    const wait = Math.max(0, Math.ceil((due.getTime() - Date.now()) / 1000));
    screen.live(wait > 0 ? `pg_cron's next minute comes in ${wait} s` : "pg_cron has started it");
    return null;
  });
  const created = await untilDone("the backup", 120_000, async () => {
    const { rows } = await client.query<Created & { done: string; total: string; error: string | null }>(
      `select status, rows::float8, raw_bytes::float8, stored_bytes::float8, warnings,
         bytes_done as done, coalesce(bytes_total, 0) as total,
         extract(epoch from finished_at - started_at)::float8 as wall_seconds,
         error_code || ': ' || error_message as error
       from backup.runs where id = $1`,
      [trace.run],
    );
    const [run] = rows;
    if (run === undefined) throw new Error(`run ${trace.run} is gone`);
    if (run.status === "succeeded") return run;
    if (["failed", "cancelled", "quarantined"].includes(run.status)) {
      throw new Error(`the run is ${run.status}: ${run.error}`);
    }
    const share = Number(run.total) > 0 ? Number(run.done) / Number(run.total) : 0;
    screen.live(`${screen.bar(share)}  ${run.status}, ${megabytes(Number(run.done))}`);
    return null;
  });
  return { trace, created };
}

/** What the isolates of the backup used, as the gateway read it from the kernel. */
async function figures(gatewayUrl: string): Promise<{ count: number; cpuMs: number; peakBytes: number }> {
  const answer = await fetch(`${gatewayUrl}/__metrics`);
  const { ended, running } = await answer.json() as { ended: IsolateRecord[]; running: IsolateRecord[] };
  const used = [...ended, ...running].filter((isolate) => isolate.function === "backup" && isolate.requests > 0);
  return {
    count: used.length,
    cpuMs: Math.max(0, ...used.map((isolate) => isolate.cpuMs)),
    peakBytes: Math.max(0, ...used.map((isolate) => isolate.peakBytes)),
  };
}
