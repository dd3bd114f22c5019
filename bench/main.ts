/**
 * `npm run bench`: a database of realistic rows, our backup and restore beside PostgreSQL's own tools, in one run.
 *
 *   npm run bench                                 everything, 1.6 GB, three rounds
 *   npm run bench -- --target-mb 200 --rounds 1   a quick look
 *   npm run bench -- --only full,restore          some questions
 *   npm run bench -- --json bench.json            the figures as a document too
 *   npm run bench -- --readme                     puts them into README.md
 */
import { readFileSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runProgram } from "../src/local/child.ts";
import { newDirectory } from "../src/local/directories.ts";
import { startCluster } from "../src/local/postgres.ts";
import { startStack } from "../src/local/stack.ts";
import { again } from "./again.ts";
import { fullBackup, type Table } from "./full_backup.ts";
import { functions } from "./functions.ts";
import { exports } from "./exports.ts";
import { files } from "./files.ts";
import { Report } from "./report.ts";
import { records } from "./records.ts";
import { restore } from "./restore.ts";
import { rewriting } from "./rewriting.ts";
import { person, rows, rowsTargetMb } from "./rows.ts";
import { stream } from "./stream.ts";
import { verify } from "./verify.ts";

const questions = [
  "full",
  "restore",
  "rows",
  "functions",
  "again",
  "verify",
  "rewriting",
  "stream",
  "export",
  "files",
  "records",
] as const;

const { values } = parseArgs({
  options: {
    "target-mb": { type: "string" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: questions.join(",") },
    json: { type: "string" },
    readme: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(
    "npm run bench -- [--target-mb 1600, without rows 1100] [--rounds 3] [--only full,restore,rows,functions,again,verify,rewriting,stream,export,files,records] [--json FILE] [--readme]",
  );
  process.exit(0);
}
const asked = new Set((values.only ?? "").split(","));
for (const name of asked) {
  if (!(questions as readonly string[]).includes(name)) {
    console.error(`there is no question "${name}"; there are ${questions.join(", ")}`);
    process.exit(2);
  }
}
const rounds = Number(values.rounds);
const targetMb = Number(values["target-mb"] ?? (asked.has("rows") ? rowsTargetMb : 1100));
if (!(Number.isInteger(rounds) && rounds >= 1 && targetMb >= 10)) {
  console.error("--rounds is a whole number from 1, --target-mb at least 10");
  process.exit(2);
}

const say = (line: string) => console.error(line);
const report = new Report(say);
/** Of the change stream: asked by itself, and with a place of its own in the README. */
const streamReport = new Report(say);
/** Of restores of rows; likewise. */
const rowsReport = new Report(say);
/** Of verification by the CLI; likewise. */
const verifyReport = new Report(say);
/** Of files of Storage; likewise. */
const filesReport = new Report(say);
/** Of exports and erasures; likewise. */
const peopleReport = new Report(say);
/** Of a catalogue of years; likewise. */
const recordsReport = new Report(say);
// On a disk: what is not durable lives in memory else, which is not what is measured.
const stack = await startStack({
  directory: newDirectory("stacks", true),
  durable: false,
  stream: false,
  log: say,
  settings: { max_wal_size: "8GB", shared_buffers: "1GB" },
});
const target = await startCluster({
  directory: newDirectory("clusters", true),
  version: 15,
  platform: false,
  durable: false,
  settings: { max_wal_size: "8GB", shared_buffers: "1GB" },
});
try {
  const { cluster } = stack;
  const psql = (where: typeof cluster, role: string, args: readonly string[]) =>
    runProgram(
      join(cluster.bin, "psql"),
      ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", ...args],
      where.environment(role),
    );
  say(`making a database of about ${targetMb} MB`);
  const made = performance.now();
  await psql(cluster, "postgres", [
    "-v",
    `target_mb=${targetMb}`,
    "-f",
    fileURLToPath(new URL("database.sql", import.meta.url)),
  ]);
  await psql(cluster, "postgres", ["-c", "vacuum (freeze, analyze)"]);
  say(`  made in ${((performance.now() - made) / 1000).toFixed(0)} s`);
  const tables: Table[] = (await psql(cluster, "postgres", [
    "-c",
    "select c.oid::regclass::text, c.relpages from pg_class c where c.relnamespace = 'bench'::regnamespace and c.relkind = 'r' order by c.relpages desc",
  ])).trim().split("\n").map((line) => {
    const [name = "", pages = "0"] = line.split("|");
    return { name, pages: Number(pages) };
  });

  const setting = { cluster, role: "postgres", keys: stack.keys };
  const execute = async (sql: string) => void await psql(cluster, "postgres", ["-c", sql]);
  if (asked.has("full") || asked.has("restore") || asked.has("rows")) {
    if (asked.has("rows")) {
      await execute(`insert into auth.users (id, email) values (${person}, 'bench@journal.example')`);
    }
    // Rows alone need a backup, whose figures are the other questions'.
    const about = asked.has("full") || asked.has("restore") ? report : new Report(say);
    const kept = await fullBackup(setting, tables, rounds, about);
    try {
      const onTarget = async (sql: string) => void await psql(target, target.superuser, ["-c", sql]);
      if (asked.has("restore")) await restore(setting, target, kept, rounds, report, onTarget);
      if (asked.has("rows")) {
        const answered = (sql: string) => psql(cluster, "postgres", ["-c", sql]);
        const onTheirs = async (sql: string, database = "postgres") =>
          void await psql(target, target.superuser, ["-d", database, "-c", sql]);
        await rows(setting, target, kept, rounds, rowsReport, answered, onTheirs);
      }
    } finally {
      kept.remove();
    }
  }
  if (asked.has("functions")) await functions(stack, rounds, report, psql);
  if (asked.has("again")) await again(setting, rounds, report, execute);
  if (asked.has("verify")) await verify(setting, rounds, verifyReport);
  if (asked.has("rewriting")) {
    await rewriting(setting, rounds, peopleReport, (sql) => psql(cluster, "postgres", ["-c", sql]));
  }
  if (asked.has("stream")) await stream(stack, target, rounds, streamReport, say);
  if (asked.has("export")) await exports(stack, rounds, peopleReport, psql);
  if (asked.has("files")) await files(stack, setting, rounds, filesReport, execute);
  // The last: what is on record then is of no database.
  if (asked.has("records")) await records(stack, rounds, recordsReport);
} finally {
  await target.destroy();
  await stack.destroy();
}

const machine = `${cpus().length} cores (${cpus()[0]?.model ?? "unknown"}), ${(totalmem() / 2 ** 30).toFixed(0)} GiB`;
const day = new Date().toISOString().slice(0, 10);
const sections = [
  { marker: "bench", report, how: `medians of ${rounds}; a database of about ${targetMb} MB` },
  { marker: "bench-rows", report: rowsReport, how: `medians of ${rounds}; a database of about ${targetMb} MB` },
  { marker: "bench-verify", report: verifyReport, how: `medians of ${rounds}; a database of about ${targetMb} MB` },
  { marker: "bench-files", report: filesReport, how: `medians of ${rounds}; random content, by CLI into a folder` },
  { marker: "bench-people", report: peopleReport, how: `medians of ${rounds}; a database of about ${targetMb} MB` },
  {
    marker: "bench-records",
    report: recordsReport,
    how: `medians of ${rounds}; a catalogue of 10,000 runs and 1,000,000 objects`,
  },
  { marker: "bench-stream", report: streamReport, how: `incrementals of a database of about ${targetMb} MB` },
].filter((section) => section.report.findings.length > 0);
for (const { marker, report: own, how } of sections) {
  const missed = own.missed.length === 0
    ? "Every goal was reached."
    : `Not reached: ${own.missed.map((finding) => finding.question).join("; ")}.`;
  const text = `${machine}; ${day}; ${how}.\n\n${own.table()}\n\n${missed}`;
  console.log(`\n${text}\n`);
  if (values.readme) writeFigures(marker, text);
}
if (values.json !== undefined) {
  const everything = [report, rowsReport, streamReport, verifyReport, filesReport, peopleReport, recordsReport];
  const document = {
    machine,
    rounds,
    targetMb,
    at: new Date().toISOString(),
    findings: everything.flatMap(({ findings }) => findings),
    runs: Object.assign({}, ...everything.map(({ runs }) => runs)) as Report["runs"],
  };
  writeFileSync(values.json, `${JSON.stringify(document, null, 2)}\n`);
}

/** Between `<!-- marker:begin -->` and `<!-- marker:end -->` of the README. */
function writeFigures(marker: string, text: string): void {
  const file = new URL("../README.md", import.meta.url);
  const readme = readFileSync(file, "utf8");
  const block = new RegExp(`(<!-- ${marker}:begin -->\\n)[\\s\\S]*(\\n<!-- ${marker}:end -->)`);
  if (!block.test(readme)) throw new Error(`README.md has no place for the figures of ${marker}`);
  writeFileSync(file, readme.replace(block, (_, begin: string, end: string) => `${begin}\n${text}\n${end}`));
}
