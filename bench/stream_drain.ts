import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import { endClient, openClient } from "../src/local/client.ts";
import type { Cluster } from "../src/local/postgres.ts";
import { measure } from "./measure.ts";
import { ours, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";
import { endStream, fill, isThere, type Streamed, waitFor } from "./stream.ts";

/** Each changes three rows and inserts one. */
const transactions = 125_000;

const nativeSlot = "bench_native";
const nativeTables = "pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history";

/**
 * How many changes a second does an incremental store, and a restore to a moment apply? Beside it a native logical
 * subscription that applies the same changes to the same server, into tables of the same size.
 */
export async function drainAndReplay(
  project: Streamed,
  target: Cluster,
  scale: number,
  report: Report,
): Promise<void> {
  const { setting, client } = project;
  const folder = temporaryFolder("drain");
  const store = join(folder.path, "store");
  mkdirSync(store);
  const onTarget = await openClient(target, target.superuser);
  let native: Native | null = null;
  try {
    await measure(ours(setting, ["incremental"], store));
    const full = JSON.parse((await measure(ours(setting, ["create", "--tier", "manual"], store))).stdout) as {
      id: string;
      status: string;
    };
    if (full.status !== "succeeded") throw new Error(`the full backup ended as ${full.status}`);
    native = await subscribe(project, target, onTarget, scale);
    await makeBacklog(client, scale);

    const drained = await measure(ours(setting, ["incremental"], store));
    report.run("holdfast incremental, backlog", drained.wallMs, drained.peakBytes);
    const { changes, storedBytes } = JSON.parse(drained.stdout) as { changes: number; storedBytes: number };
    if (changes < 4 * transactions) throw new Error(`only ${changes} changes were stored`);

    const sums: string[] = [];
    const into = async (name: string, args: readonly string[]) => {
      await onTarget.query("create database ours");
      const run = await measure(ours(setting, [...args, "--yes"], store, target.url(target.superuser, "ours")));
      report.run(name, run.wallMs, run.peakBytes);
      sums.push(await sumsOf(target, "ours"));
      await onTarget.query("drop database ours with (force)");
      return run.wallMs / 1000;
    };
    const fullSeconds = await into("holdfast restore-full, pgbench", ["restore-full", full.id]);
    const pointSeconds = await into("holdfast restore-point latest, pgbench", ["restore-point", "latest"]);
    const wanted = await sumsOf(setting.cluster, "postgres");
    if (sums[0] === wanted || sums[1] !== wanted) {
      throw new Error("the replay did not bring back what the source holds");
    }
    const nativeSeconds = await native.catchUp();
    report.note(`native subscription: ${nativeSeconds.toFixed(2)} s`);

    const ourRate = changes / (pointSeconds - fullSeconds);
    report.find(`drain of ${changes} changes by CLI`, changes * 1000 / drained.wallMs, "a second");
    report.find("stored bytes of it", storedBytes / 1e6, "MB");
    report.find("peak memory of it", drained.peakBytes / 1e6, "MB");
    report.findAtLeast("replay of it (restore to a moment less that of its full)", ourRate, "a second", 30_000);
    report.find("native subscription, the same changes", changes / nativeSeconds, "a second");
    report.find("replay / native subscription", ourRate * nativeSeconds / changes, "ratio");
  } finally {
    await native?.remove();
    await endStream(client);
    await endClient(onTarget);
    folder.remove();
  }
}

/** What every transaction changes, in one line. */
async function sumsOf(cluster: Cluster, database: string): Promise<string> {
  const client = await openClient(cluster, cluster.superuser, database);
  try {
    const { rows: [row] } = await client.query(
      `select concat_ws(' ',
         (select sum(abalance * aid::numeric) from public.pgbench_accounts),
         (select sum(tbalance * tid::numeric) from public.pgbench_tellers),
         (select sum(bbalance * bid::numeric) from public.pgbench_branches),
         (select sum(delta * id::numeric) from public.pgbench_history)) as sums`,
    );
    return (row as { sums: string }).sums;
  } finally {
    await endClient(client);
  }
}

/** pgbench's transactions, made inside the server: it is the backlog that counts, not how it came about. */
async function makeBacklog(client: pg.Client, scale: number): Promise<void> {
  await client.query("set synchronous_commit = off");
  await client.query(`
    do $$
    declare
      account integer;
      teller integer;
      branch integer;
      delta integer;
    begin
      for i in 1..${transactions} loop
        account := 1 + floor(random() * ${scale * 100_000});
        teller := 1 + floor(random() * ${scale * 10});
        branch := 1 + floor(random() * ${scale});
        delta := floor(random() * 10001) - 5000;
        update pgbench_accounts set abalance = abalance + delta where aid = account;
        update pgbench_tellers set tbalance = tbalance + delta where tid = teller;
        update pgbench_branches set bbalance = bbalance + delta where bid = branch;
        insert into pgbench_history (tid, bid, aid, delta, mtime) values (teller, branch, account, delta, now());
        commit;
      end loop;
    end $$`);
  await client.query("reset synchronous_commit");
}

interface Native {
  /** Applies all that has been committed until now. Seconds that it took. */
  catchUp(): Promise<number>;
  remove(): Promise<void>;
}

/** A subscription to what is committed from now on; nothing is applied yet. */
async function subscribe(
  { setting, client }: Streamed,
  target: Cluster,
  server: pg.Client,
  scale: number,
): Promise<Native> {
  await server.query("create database native");
  const session = await openClient(target, target.superuser, "native");
  await fill(target, session, target.superuser, "native", scale);
  await client.query(`create publication ${nativeSlot} for table ${nativeTables}`);
  const source = setting.cluster.environment(setting.role);
  // The server asks as its own user, for whom the home folder of whoever started it may be closed: no certificate there.
  const address = [
    `host=${source["PGHOST"]} port=${source["PGPORT"]} user=${source["PGUSER"]} password=${source["PGPASSWORD"]}`,
    `dbname=${source["PGDATABASE"]} sslmode=verify-full sslrootcert=${setting.cluster.caFile}`,
    `sslcert=${target.dataDirectory}/none.crt`,
  ].join(" ");
  await session.query(
    `create subscription ${nativeSlot} connection '${address}' publication ${nativeSlot}
       with (copy_data = false, enabled = false)`,
  );
  return {
    async catchUp() {
      const { rows: [row] } = await client.query("select pg_current_wal_insert_lsn()::text as lsn");
      // The commit behind that place: once it is applied, so is all before it.
      await client.query("update pgbench_branches set filler = 'last' where bid = 1");
      const began = performance.now();
      await session.query(`alter subscription ${nativeSlot} enable`);
      await waitFor("the native subscription", 300, () =>
        isThere(
          session,
          `select from pg_subscription as s
           where pg_replication_origin_progress('pg_' || s.oid, false) > $1::pg_lsn`,
          [String((row as { lsn: string }).lsn)],
        ));
      return (performance.now() - began) / 1000;
    },
    async remove() {
      await session.query(`drop subscription ${nativeSlot}`);
      await endClient(session);
      await server.query("drop database native with (force)");
      await client.query(`drop publication ${nativeSlot}`);
    },
  };
}
