/**
 * `npm run soak:export -- --rows 200000 --files 30 --megabytes 300`: the export of a person who has much, through the functions under
 * the platform's limits, fetched by its links and held against the database. Files are small, of a part and of many. Exit 0 only if
 * every row and every byte is right.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import process from "node:process";
import { parseArgs } from "node:util";
import { exported, makePerson, mostOfLegs } from "../../bench/exports.ts";
import { runProgram } from "../../src/local/child.ts";
import { newDirectory } from "../../src/local/directories.ts";
import { startStack } from "../../src/local/stack.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { downloadBucket } from "../../src/shared/download/bucket.ts";
import { makeExportLink } from "../../src/shared/export/export_link.ts";
import { blockBytes } from "../../src/shared/export/document_format.ts";
import { documentFacts, verifySignature } from "../../src/shared/export/signature.ts";
import { readDocument } from "../../src/shared/import/read_document.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "200000" },
    files: { type: "string", default: "30" },
    megabytes: { type: "string", default: "300" },
  },
});
const [rows, files, megabytes] = [Number(values.rows), Number(values.files), Number(values.megabytes)];
const say = (line: string) => process.stdout.write(`${line}\n`);
// One of a fifth of all, one that is empty, one of just a part, the others alike.
const part = 8 * 1024 * 1024;
const rest = Math.floor((megabytes * 800_000 - part) / Math.max(1, files - 3));
const sizes = [megabytes * 200_000, 0, part, ...Array.from({ length: files - 3 }, (_, at) => rest + at)];

const stack = await startStack({ directory: newDirectory("stacks", true), durable: false, stream: false, log: say });
try {
  const { cluster, gateway } = stack;
  const sql = async (text: string) => {
    const args = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text];
    return (await runProgram(`${cluster.bin}/psql`, args, cluster.environment("postgres"))).trim();
  };
  const person = await makePerson(stack, { rows, tables: 30, files: sizes }, sql);
  say(`a person with ${rows} rows and ${files} files of ${megabytes} MB`);
  const ms = await exported(sql, person, 60);
  const { cpuMs, peakBytes, legs } = await mostOfLegs(stack);
  say(`made in ${(ms / 1000).toFixed(1)} s, by ${legs} calls; at most ${cpuMs} ms of CPU, ${peakBytes / 1e6} MB`);
  const id = await sql("select id from backup.exports where status = 'ready'");
  const connection = await openDatabase({ url: cluster.plainUrl("postgres") }).connect("soak");
  const place = { projectUrl: gateway.url, serviceKey: gateway.serviceRoleKey };
  const bucket = downloadBucket(place, { fetch, clock: systemClock, random: webCryptoRandom }, "data-exports");
  const link = await makeExportLink(connection, bucket, id, { expirySeconds: 3600, after: 0 });
  await connection.close();
  const fetched = async (urls: readonly string[]) => {
    const parts: Uint8Array[] = [];
    for (const url of urls) parts.push(new Uint8Array(await (await fetch(url)).arrayBuffer()));
    return Buffer.concat(parts);
  };
  // A document of gigabytes is held as its parts, and read row by row.
  const documentParts: Uint8Array[] = [];
  for (const { url } of link.document) documentParts.push(await fetched([url]));
  const bytes = documentParts.reduce((sum, part) => sum + part.byteLength, 0);
  const read = (from: number, to: number) => {
    const found: Uint8Array[] = [];
    for (let at = from; at < to;) {
      // The signature may reach behind the last block.
      const number = Math.min(Math.floor(at / blockBytes), documentParts.length - 1);
      const begins = at - number * blockBytes;
      const taken = documentParts[number]?.subarray(begins, begins + to - at) ?? new Uint8Array(0);
      if (taken.byteLength === 0) break;
      found.push(taken);
      at += taken.byteLength;
    }
    return Promise.resolve(new Uint8Array(Buffer.concat(found)));
  };
  const facts = await documentFacts(read, bytes);
  const signature = await verifySignature(parseKeyRing(stack.keys), { ...facts, bytes, read });
  const idsOf = new Map<string, number[]>();
  let ids: number[] = [];
  const document = await readDocument({ bytes, read, signature }, {
    table: ({ schema, table }) => {
      ids = [];
      idsOf.set(`${schema}.${table}`, ids);
      return Promise.resolve();
    },
    row: (row) => {
      ids.push((JSON.parse(new TextDecoder().decode(row)) as { row: { id: number } }).row.id);
      return Promise.resolve();
    },
  });
  const problems: string[] = [];
  for (let at = 0; at < 30; at++) {
    const told = createHash("md5").update((idsOf.get(`person.t${at}`) ?? []).join(",")).digest("hex");
    const there = await sql(
      at % 2 === 0
        ? `select md5(coalesce(string_agg(id::text, ',' order by id), '')) from person.t${at} where user_id = '${person}'`
        : `select md5(coalesce(string_agg(c.id::text, ',' order by c.id), '')) from person.t${at} as c
             join person.t${at - 1} as p on p.id = c.parent_id where p.user_id = '${person}'`,
    );
    if (told !== there) problems.push(`rows of t${at} differ`);
  }
  for (const { name, path } of document.files) {
    const number = Number(/(\d+)\.webm$/.exec(name)?.[1]);
    const content = await fetched(
      link.files.filter((one) => one.path === path || one.path.startsWith(`${path}.0`)).map(({ url }) => url),
    );
    if (content.byteLength !== sizes[number] || !content.every((byte) => byte === number % 256)) {
      problems.push(`${name} differs`);
    }
  }
  if (document.files.length !== files) problems.push(`${document.files.length} files, not ${files}`);
  if (cpuMs > 2000 || peakBytes > 256e6) problems.push("a leg was above the platform's limits");
  for (const problem of problems) say(problem);
  say(problems.length === 0 ? `all of it is right: ${bytes} bytes` : "it is not right");
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  await stack.destroy();
}
