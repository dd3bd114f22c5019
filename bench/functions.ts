import type { IsolateRecord } from "../src/local/gateway/isolate.ts";
import type { Stack } from "../src/local/stack.ts";
import type { Report } from "./report.ts";

type Psql = (cluster: Stack["cluster"], role: string, args: readonly string[]) => Promise<string>;

/** How long does a full take through the Edge Functions under the hosted limits, and what does a leg use? */
export async function functions(stack: Stack, rounds: number, report: Report, psql: Psql): Promise<void> {
  const sql = async (text: string) => (await psql(stack.cluster, "postgres", ["-c", text])).trim();
  for (let round = 0; round < rounds; round++) {
    // What an earlier round stored must not be taken over: the base would be found by its run.
    await sql("delete from backup.chunks");
    const began = performance.now();
    const run = await sql("select run from backup.start_backup('manual')");
    const status = await until(async () => {
      const [status = "", code = ""] = (await sql(`select status, error_code from backup.runs where id = '${run}'`))
        .split("|");
      if (status === "failed") throw new Error(`the run failed: ${code}`);
      return status === "succeeded" ? status : null;
    });
    if (status !== null) report.run("full through the functions", performance.now() - began, 0);
  }
  const dumped = report.seconds("pg_dump -Fc");
  const seconds = report.seconds("full through the functions");
  report.find("full through the functions", seconds, "s");
  if (Number.isFinite(dumped)) report.find("full through the functions / pg_dump -Fc", seconds / dumped, "ratio", 1.0);

  const answer = await fetch(`${stack.gateway.url}/__metrics`);
  const { ended, running } = await answer.json() as { ended: IsolateRecord[]; running: IsolateRecord[] };
  const ours = [...ended, ...running].filter((isolate) => isolate.function === "backup" && isolate.cpuMs > 0);
  const legs = ours.flatMap((isolate) => isolate.uses);
  report.find("CPU of a leg, at most", Math.max(...legs.map((leg) => leg.cpuMs)), "ms", 1000);
  report.find(
    "resident memory of a leg's process, at most",
    Math.max(...legs.map((leg) => leg.peakBytes)) / 1e6,
    "MB",
    200,
  );
}

/** Asks until there is an answer; at most 10 minutes. */
async function until<T>(ask: () => Promise<T | null>): Promise<T> {
  const deadline = Date.now() + 600_000;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (Date.now() > deadline) throw new Error("the run did not end within 10 minutes");
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
