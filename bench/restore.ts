import type { Cluster } from "../src/local/postgres.ts";
import { measure } from "./measure.ts";
import { ours, pgRestore, type Setting } from "./programs.ts";
import type { Report } from "./report.ts";

/**
 * How long does a restore into an empty database take, beside `pg_restore -j2` of the same data? The target is a plain
 * PostgreSQL of the same version; both write to a database of their own, made just before. Theirs holds schema `bench`
 * only, ours what the project holds beside it as well.
 */
export async function restore(
  setting: Setting,
  target: Cluster,
  from: { readonly dump: string; readonly store: string },
  rounds: number,
  report: Report,
  execute: (sql: string) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    await execute("create database theirs");
    const theirs = await measure(pgRestore(target, "theirs", from.dump));
    report.run("pg_restore -j2", theirs.wallMs, theirs.peakBytes);
    await execute("drop database theirs with (force)");

    await execute("create database ours");
    const mine = await measure(
      ours(setting, ["restore-full", "latest", "--yes"], from.store, target.url(target.superuser, "ours")),
    );
    report.run("holdfast restore-full", mine.wallMs, mine.peakBytes);
    await execute("drop database ours with (force)");
  }
  const seconds = report.seconds("holdfast restore-full");
  report.find("pg_restore -j2", report.seconds("pg_restore -j2"), "s");
  report.find("restore by CLI", seconds, "s");
  report.find("restore by CLI / pg_restore -j2", seconds / report.seconds("pg_restore -j2"), "ratio", 1.1);
  const peak = Math.max(...(report.runs["holdfast restore-full"]?.peakBytes ?? []));
  report.find("peak memory of a restore by CLI", peak / 1e6, "MB");
}
