import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Cluster } from "../src/local/postgres.ts";
import { type Command, measure } from "./measure.ts";
import { ours, type Setting, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";

/** Some 58 % of the database, and a table of large values. */
const largest = "bench.journal";
const medium = "attachments";
/** One of the 5,000 people whose entries are in the journal; to be in auth.users before the backup. */
export const person = "md5('user1')::uuid";

/** What the goals are for, in MB. A database of `rowsTargetMb` has tables of these sizes. */
const goalMb = { largest: 1000, medium: 100 } as const;
export const rowsTargetMb = 1600;

/**
 * How long does it take to bring back one record of the largest table, a person, and a table beside the live one? By CLI, from
 * the start of the process to its end; a record also with the safety backup that the command takes unless it is told not to.
 * Beside it `pg_restore -t` into an empty database.
 */
export async function rows(
  setting: Setting,
  target: Cluster,
  from: { readonly dump: string; readonly store: string },
  rounds: number,
  report: Report,
  execute: (sql: string) => Promise<string>,
  onTarget: (sql: string, database?: string) => Promise<void>,
): Promise<void> {
  const folder = temporaryFolder("rows");
  const map = join(folder.path, "map.json");
  writeFileSync(map, JSON.stringify({ version: 1, users: [{ table: largest, column: "user_id" }] }));
  const withSafety = ["--apply", "missing", "--yes"];
  const apply = [...withSafety, "--skip-safety-backup", "postgres"];
  const restore = async (name: string, args: readonly string[], least: number) => {
    const run = await measure(ours(setting, args, from.store));
    const found = JSON.parse(run.stdout) as { inserted: number; restore: string; tables?: { rows: number }[] };
    const came = found.inserted + (found.tables ?? []).reduce((sum, table) => sum + table.rows, 0);
    if (came < least) throw new Error(`${name}: ${came} rows came back`);
    report.run(name, run.wallMs, run.peakBytes);
    await execute(`select backup.drop_side('${found.restore}')`);
  };
  try {
    const user = (await execute(`select ${person}`)).trim();
    for (let round = 0; round < rounds; round++) {
      await onTarget("create database theirs");
      await onTarget("create schema bench", "theirs");
      const theirs = await measure(restoreTable(target, from.dump));
      report.run("pg_restore -t attachments", theirs.wallMs, theirs.peakBytes);
      await onTarget("drop database theirs with (force)");

      const id = 1000 + round;
      await execute(`delete from ${largest} where id = ${id}`);
      await restore("restore-record", ["restore-record", largest, "latest", "--where", `id=${id}`, ...apply], 1);
      await execute(`delete from ${largest} where user_id = ${person}`);
      await restore("restore-user", ["restore-user", user, "latest", "--map", map, ...apply], 2);
      await restore("restore-table", ["restore-table", `bench.${medium}`, "latest"], 3);
      await execute(`delete from ${largest} where id = ${id}`);
      const record = ["restore-record", largest, "latest", "--where", `id=${id}`, ...withSafety];
      await restore("restore-record, safety backup first", record, 1);
    }
  } finally {
    folder.remove();
  }
  const bytes = async (table: string) =>
    Number(await execute(`select sum(pg_column_size(t.*)) from ${table} as t`)) / 1e6;
  const [largestMb, mediumMb] = [await bytes(largest), await bytes(`bench.${medium}`)];
  report.findAtLeast("rows of the largest table, of a record and a person", largestMb, "MB", goalMb.largest);
  for (
    const [question, run, goal] of [
      ["one record of it, back in place, no safety backup", "restore-record", 15],
      ["the same with a safety backup first", "restore-record, safety backup first", 15],
      ["one person of it, back in place, no safety backup", "restore-user", 60],
    ] as const
  ) report.find(question, report.seconds(run), "s", goal);
  report.findAtLeast("rows of a table of large values", mediumMb, "MB", goalMb.medium);
  report.find("that table, beside the live one", report.seconds("restore-table"), "s", 30);
  report.find("pg_restore -t of that table", report.seconds("pg_restore -t attachments"), "s");
}

function restoreTable(cluster: Cluster, dump: string): Command {
  return {
    program: join(cluster.bin, "pg_restore"),
    args: ["--no-owner", "--no-privileges", "-n", "bench", "-t", medium, "-d", "theirs", dump],
    env: cluster.environment(cluster.superuser, "theirs"),
  };
}
