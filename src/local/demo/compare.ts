import { join } from "node:path";
import { openDatabase } from "../../shared/postgres/pg_connection.ts";
import { captureSchema } from "../../shared/schema/capture.ts";
import { proveCopy } from "../../shared/restore/prove.ts";
import { runProgram } from "../child.ts";
import type { Cluster } from "../postgres.ts";
import { readFileSync } from "node:fs";

export interface Comparison {
  /** Empty: the copy is what the original is. */
  readonly differences: readonly string[];
  readonly definitions: number;
  readonly tables: number;
  readonly sequences: number;
}

export interface Announced {
  /** Comes back switched off until it is released. */
  readonly held: readonly string[];
  /** Was not restored, and said so. */
  readonly skipped: readonly { readonly identity: string }[];
  readonly rolesCreated: readonly string[];
  readonly ownersKept: readonly string[];
  readonly settingsLost: readonly string[];
}

/**
 * Compares two projects twice: by our own reading of both catalogs with a hash of every row, and by what `pg_dump` says
 * of the schemas that are the user's. What the restore announced is no difference; everything else is.
 */
export async function compareProjects(source: Cluster, target: Cluster, announced: Announced): Promise<Comparison> {
  const [one, other] = await Promise.all(
    [source, target].map((cluster) =>
      openDatabase({ url: cluster.url("postgres"), caPem: readFileSync(cluster.caFile, "utf8") }).connect(
        "holdfast:demo",
      )
    ),
  );
  if (one === undefined || other === undefined) throw new Error("two databases are compared");
  try {
    const found = await proveCopy(one, other, {
      target: "project",
      skipped: announced.skipped,
      rolesCreated: announced.rolesCreated,
      ownersKept: announced.ownersKept,
      settingsLost: announced.settingsLost,
    });
    const capture = await captureSchema(one, { leaveOutSchemas: ["backup"] });
    const dumped = await dumpDifferences(source, target, announced);
    return {
      differences: [
        ...found.filter((each) => !announced.held.includes(each.name)).map((each) =>
          `${each.kind} of ${each.name}: ${each.detail}`
        ),
        ...dumped,
      ],
      definitions: capture.definitions.filter((each) => each.platform === null).length,
      tables: capture.tables.length,
      sequences: capture.sequences.length,
    };
  } finally {
    await Promise.all([one.close(), other.close()]);
  }
}

/** Lines that only one of the two dumps of schema `public` has. Order does not count: rows have none. */
async function dumpDifferences(source: Cluster, target: Cluster, announced: Announced): Promise<string[]> {
  const [one, other] = await Promise.all([dump(source), dump(target)]);
  if (one === undefined || other === undefined || one.length === 0) throw new Error("pg_dump gave nothing to compare");
  const isAnnounced = (line: string) =>
    announced.held.some((identity) => {
      const [, name, table] = /^trigger (\S+) on (\S+)$/.exec(identity) ?? [];
      return name !== undefined && line === `ALTER TABLE ${table} DISABLE TRIGGER ${name};`;
    });
  return [
    ...onlyIn(one, other).map((line) => `pg_dump: only the original has: ${line.slice(0, 160)}`),
    ...onlyIn(other, one).filter((line) => !isAnnounced(line)).map((line) =>
      `pg_dump: only the copy has: ${line.slice(0, 160)}`
    ),
  ];
}

/** Our own views and functions are part of the installation, not of the project; pg_dump can leave out the views. */
async function dump(cluster: Cluster): Promise<string[]> {
  const text = await runProgram(
    join(cluster.bin, "pg_dump"),
    ["--schema=public", "--exclude-table=public.backup_*", "--exclude-table=public.my_exports", "--no-comments"],
    cluster.environment("postgres"),
  );
  const own = /^(?:CREATE|ALTER|REVOKE ALL ON|GRANT \w+ ON) FUNCTION public\.backup_/;
  const projects = text.split(/\n{2,}/).filter((statement) => !own.test(statement)).join("\n");
  return projects.split("\n").filter((line) =>
    line !== "" && !line.startsWith("--") && !/^\\(un)?restrict /.test(line)
  );
}

function onlyIn(lines: readonly string[], others: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const line of others) left.set(line, (left.get(line) ?? 0) + 1);
  return lines.filter((line) => {
    const count = left.get(line) ?? 0;
    if (count > 0) left.set(line, count - 1);
    return count === 0;
  });
}
