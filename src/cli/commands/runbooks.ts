import { readdir, readFile } from "node:fs/promises";
import { lastTests, type LogEntry } from "../../shared/drills/log_queries.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { columns, type Outcome } from "../output.ts";

const folder = new URL("../../../docs/runbooks/", import.meta.url);

/** The document: `[{runbook, title, lastTestedAt, result, notes}]`, by name. A runbook that was never tested has nulls. */
export async function run(context: Context): Promise<Outcome> {
  const pages = await readPages();
  const session = await installedSession(context, "holdfast:runbooks");
  let tests: ReadonlyMap<string, LogEntry>;
  try {
    tests = await lastTests(session, pages.map(({ runbook }) => runbook));
  } finally {
    await session.close();
  }
  const document = pages.map(({ runbook, title }) => {
    const last = tests.get(runbook);
    return {
      runbook,
      title,
      lastTestedAt: last?.date ?? null,
      result: last?.result ?? null,
      notes: last?.notes ?? null,
    };
  });
  const lines = columns(document.map(({ runbook, lastTestedAt, result, notes }) => [
    `docs/runbooks/${runbook}.md`,
    lastTestedAt === null
      ? "never tested"
      : `last tested on ${lastTestedAt.slice(0, 10)} – ${result ?? ""} – ${notes ?? ""}`,
  ]));
  return { exit: 0, document, lines };
}

async function readPages(): Promise<readonly { readonly runbook: string; readonly title: string }[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".md")).sort();
  return await Promise.all(names.map(async (name) => ({
    runbook: name.slice(0, -3),
    title: /^# (.+)$/m.exec(await readFile(new URL(name, folder), "utf8"))?.[1] ?? name,
  })));
}
