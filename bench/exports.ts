/** Exports of one's own data through the Edge Functions: how long, and what a leg uses. */
import type { IsolateRecord } from "../src/local/gateway/isolate.ts";
import type { Stack } from "../src/local/stack.ts";
import type { Report } from "./report.ts";

type Psql = (cluster: Stack["cluster"], role: string, args: readonly string[]) => Promise<string>;

export interface PersonSize {
  /** Of the person; another has as many. */
  readonly rows: number;
  readonly tables: number;
  /** Sizes of their files, in bytes. */
  readonly files: readonly number[];
}

/** What the goal is about. */
export const usualPerson: PersonSize = { rows: 10_000, tables: 30, files: Array.from({ length: 100 }, () => 50_000) };

/** How long a person with 10,000 rows in 30 tables and 100 files waits for their export. */
export async function exports(stack: Stack, rounds: number, report: Report, psql: Psql): Promise<void> {
  const sql = async (text: string) => (await psql(stack.cluster, "postgres", ["-c", text])).trim();
  const person = await makePerson(stack, usualPerson, sql);
  for (let round = 0; round < rounds; round++) {
    report.run("export of 10,000 rows and 100 files", await exported(sql, person), 0);
  }
  const question = "export of 10,000 rows and 100 files";
  report.find(question, report.seconds(question), "s", 10);
  report.find("CPU of a leg of an export, at most", (await mostOfLegs(stack)).cpuMs, "ms", 1000);
}

type Sql = (text: string) => Promise<string>;

/** Tables that lead to a person by keys, half of them through another; their files. Returns the person's id. */
export async function makePerson(stack: Stack, { rows, tables, files }: PersonSize, sql: Sql): Promise<string> {
  const person = "00000000-0000-4000-8000-0000000e0001";
  const other = "00000000-0000-4000-8000-0000000e0002";
  const each = Math.ceil(rows / tables);
  await sql(
    `insert into auth.users (id, email) values ('${person}', 'e1@journal.example'), ('${other}', 'e2@journal.example');
     create schema person;
     ${
      Array.from({ length: tables }, (_, at) => {
        const child = at % 2 === 1;
        const columns = child
          ? `parent_id int not null references person.t${at - 1}`
          : "user_id uuid not null references auth.users";
        const owner = child ? "i" : `case when i <= ${each} then '${person}'::uuid else '${other}'::uuid end`;
        return `create table person.t${at} (id int primary key, ${columns}, words text, number numeric, seen timestamptz, about jsonb);
        create index on person.t${at} (${child ? "parent_id" : "user_id"});
        insert into person.t${at} select i, ${owner}, repeat(md5(i::text), 8), i / 7.0, now(), jsonb_build_object('at', i, 'tags', array['a', 'b'])
          from generate_series(1, ${2 * each}) as i`;
      }).join(";\n")
    };
     insert into storage.buckets (id, name, public, file_size_limit) values ('person', 'person', false, 5368709120) on conflict do nothing;
     analyze`,
  );
  for (const [at, bytes] of files.entries()) {
    const { url, serviceRoleKey } = stack.gateway;
    const answer = await fetch(`${url}/storage/v1/object/person/${person}/${at}.webm`, {
      method: "POST",
      headers: { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}`, "content-type": "audio/webm" },
      body: new Uint8Array(bytes).fill(at),
    });
    if (!answer.ok) throw new Error(`a file was not taken: ${await answer.text()}`);
  }
  await sql(`update storage.objects set owner_id = '${person}', owner = '${person}' where bucket_id = 'person'`);
  return person;
}

/** Milliseconds from the order until it is ready; the watchdog is not waited for. */
export async function exported(sql: Sql, person: string, minutes = 10): Promise<number> {
  const began = performance.now();
  const id = await sql(`select id from backup.begin_export('${person}', 'admin')`);
  await sql("select backup.launch_exports()");
  const deadline = Date.now() + minutes * 60_000;
  for (;;) {
    const [status = "", told = ""] =
      (await sql(`select status, concat_ws(': ', error_code, error_message) from backup.exports where id = '${id}'`))
        .split("|");
    if (status === "ready") return performance.now() - began;
    if (status !== "queued" && status !== "making") throw new Error(`the export is ${status}: ${told}`);
    if (Date.now() > deadline) throw new Error(`the export did not end within ${minutes} minutes`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Of the function `export` since the stack was started. */
export async function mostOfLegs(stack: Stack): Promise<{ cpuMs: number; peakBytes: number; legs: number }> {
  const answer = await fetch(`${stack.gateway.url}/__metrics`);
  const { ended, running } = await answer.json() as { ended: IsolateRecord[]; running: IsolateRecord[] };
  const uses = [...ended, ...running].filter((isolate) => isolate.function === "export" && isolate.cpuMs > 0)
    .flatMap((isolate) => isolate.uses);
  return {
    cpuMs: Math.max(...uses.map(({ cpuMs }) => cpuMs)),
    peakBytes: Math.max(...uses.map(({ peakBytes }) => peakBytes)),
    legs: uses.length,
  };
}
