import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Cluster } from "../src/local/postgres.ts";
import { denoPath } from "../src/local/setup.mjs";
import { type Command, measure } from "./measure.ts";
import type { Setting } from "./programs.ts";
import type { Report } from "./report.ts";

/** Of `bench.journal`, some 60 % of the database. */
const largest = { schema: "bench", name: "journal" };

/**
 * How long does it take to get one record, all records of one person, and every row of the largest table out of a full
 * backup? Reading alone, each in a process of its own; beside it `pg_restore -t` of the same table into an empty database.
 */
export async function rowsOut(
  setting: Setting,
  target: Cluster,
  from: { readonly dump: string; readonly store: string },
  some: { readonly id: string; readonly user: string },
  rounds: number,
  report: Report,
  execute: (sql: string, database?: string) => Promise<void>,
): Promise<void> {
  let tableBytes = 0;
  const read = async (name: string, leastRows: number, ...condition: string[]) => {
    const { schema, name: table } = largest;
    const run = await measure(reader(setting, [from.store, schema, table, ...condition]));
    const found = JSON.parse(run.stdout) as { rows: number; tableBytes: number };
    if (found.rows < leastRows) throw new Error(`${name}: ${found.rows} rows were found`);
    tableBytes = found.tableBytes;
    report.run(name, run.wallMs, run.peakBytes);
  };
  for (let round = 0; round < rounds; round++) {
    await execute("create database theirs");
    // With -t the schema of a table is not made.
    await execute(`create schema ${largest.schema}`, "theirs");
    const theirs = await measure(restoreTable(target, from.dump));
    report.run("pg_restore -t journal", theirs.wallMs, theirs.peakBytes);
    await execute("drop database theirs with (force)");
    await read("one record out of it", 1, "id", some.id);
    await read("one person's records out of it", 2, "user_id", some.user);
    await read("every row of it", 3);
  }
  report.find("the largest table (COPY text)", tableBytes / 1e6, "MB");
  report.find("pg_restore -t of it", report.seconds("pg_restore -t journal"), "s");
  // The goal is for a table of 1 GB.
  const record = report.seconds("one record out of it");
  report.find("one record read out of a backup of it", record, "s", 15 * Math.max(1, tableBytes / 1e9));
  report.find("one person's records read out of it", report.seconds("one person's records out of it"), "s");
  report.find("every row of it read", report.seconds("every row of it"), "s");
  const peak = Math.max(...(report.runs["one record out of it"]?.peakBytes ?? []));
  report.find("peak memory of reading one record", peak / 1e6, "MB");
}

function reader(setting: Setting, args: readonly string[]): Command {
  const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));
  return {
    program: denoPath(),
    args: ["run", "--quiet", "-A", "--config", file("../deno.json"), file("rows_read.ts"), ...args],
    env: { BACKUP_KEYS: setting.keys },
  };
}

function restoreTable(cluster: Cluster, dump: string): Command {
  return {
    program: join(cluster.bin, "pg_restore"),
    args: ["--no-owner", "--no-privileges", "-n", largest.schema, "-t", largest.name, "-d", "theirs", dump],
    env: cluster.environment(cluster.superuser, "theirs"),
  };
}
