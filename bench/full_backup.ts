import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { measure } from "./measure.ts";
import { ours, pgDumpCustom, pgDumpDirectory, plainCopy, type Setting, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";

export interface Table {
  readonly name: string;
  readonly pages: number;
}

/** How long does a first full backup by CLI take, beside `pg_dump` and beside reading alone? Interleaved, `rounds` times. */
export async function fullBackup(setting: Setting, tables: readonly Table[], rounds: number, report: Report) {
  const folder = temporaryFolder("full");
  try {
    for (let round = 0; round < rounds; round++) {
      const copied = await measure(...plainCopy(setting, tables));
      report.run("COPY to nowhere, 2 connections", copied.wallMs, copied.peakBytes);

      const custom = join(folder.path, "custom.dump");
      const dumped = await measure(pgDumpCustom(setting, custom));
      report.run("pg_dump -Fc", dumped.wallMs, dumped.peakBytes);
      if (round < rounds - 1) rmSync(custom);

      const directory = join(folder.path, "directory.dump");
      const parallel = await measure(pgDumpDirectory(setting, directory));
      report.run("pg_dump -Fd -j2 -Z1", parallel.wallMs, parallel.peakBytes);
      rmSync(directory, { recursive: true, force: true });

      // A store of its own each time, so that nothing can be taken over from an earlier round.
      const store = join(folder.path, `store-${round}`);
      mkdirSync(store);
      const backup = await measure(ours(setting, ["create", "--tier", "manual", "--wait"], store));
      report.run("holdfast create, file store", backup.wallMs, backup.peakBytes);
      if (round === 0) {
        const document = JSON.parse(backup.stdout) as { rawBytes: number; storedBytes: number; status: string };
        if (document.status !== "succeeded") throw new Error(`the backup ended as ${document.status}`);
        report.find("raw bytes (COPY text)", document.rawBytes / 1e6, "MB");
        report.find("stored bytes, sealed", document.storedBytes / 1e6, "MB");
      }
      if (existsSync(store) && round < rounds - 1) rmSync(store, { recursive: true });
    }
    const mine = report.seconds("holdfast create, file store");
    for (const name of ["COPY to nowhere, 2 connections", "pg_dump -Fc", "pg_dump -Fd -j2 -Z1"]) {
      report.find(name, report.seconds(name), "s");
    }
    report.find("stored bytes of pg_dump -Fc", statSync(join(folder.path, "custom.dump")).size / 1e6, "MB");
    report.find("full by CLI", mine, "s");
    report.find(
      "full by CLI / COPY to nowhere with 2 connections",
      mine / report.seconds("COPY to nowhere, 2 connections"),
      "ratio",
      2.5,
    );
    report.find("full by CLI / pg_dump -Fc", mine / report.seconds("pg_dump -Fc"), "ratio", 0.35);
    report.find("full by CLI / pg_dump -Fd -j2 -Z1", mine / report.seconds("pg_dump -Fd -j2 -Z1"), "ratio", 0.9);
    const peak = Math.max(...(report.runs["holdfast create, file store"]?.peakBytes ?? []));
    report.find("peak memory of a full by CLI (all its processes)", peak / 1e6, "MB");
    return {
      dump: join(folder.path, "custom.dump"),
      store: join(folder.path, `store-${rounds - 1}`),
      remove: folder.remove,
    };
  } catch (error) {
    folder.remove();
    throw error;
  }
}
