/** Rows that go wrong in other formats, and ways to take a download apart. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { Contents } from "../../src/shared/download/contents.ts";

/** Names and values that end statements, lines, fields and folders. */
export const hostileSql = `
  create schema "../up";
  create table "../up"."a/b
    c""d\\." ("=cmd()" text, "x,y" text, "line
break" text, "ÄÖ" jsonb, n numeric);
  insert into "../up"."a/b
    c""d\\." values
    ('=1+1', 'a,b', e'one\\ntwo', 'null', 12345678901234567890.12345678901234567890),
    (null, '', e'\\r', null, null),
    ('', null, e'tab\\tback\\\\slash "quoted"', '{"a": 1.000000000000000000001}', 'NaN'),
    ('\\.', '\\N', e'\\x01\\x02\\x0b\\x0c\\x08\\x1f\\x7f', '"null"', '-0.00');
  create table public."\\." ("\\." text);
  insert into public."\\." values ('\\.'), (null), (''), ('\\N'), ('\\\\.'), ('.'), (' lead'), ('trail '), ('"');
  create table public.bounds (a int[], t timestamptz, d date, f float8, b bytea, c char(5), j json, x xml, i interval);
  insert into public.bounds values
    ('[0:2]={1,NULL,3}', 'infinity', '4713-01-01 BC', '-infinity', '\\x00ff', 'ab', '{"b":1,"a":null}', '<a/>', '-1 mon 2 days'),
    ('{}', '2024-02-29 12:00:00.123456+00', '-infinity', 0.1::float8 + 0.2, '', '', 'null', null, null);
  create table public."Twin" (v int);
  create table public.twin (v int);
  insert into public."Twin" values (1);
  insert into public.twin values (2);
  create table public.without_columns ();
  insert into public.without_columns default values;
  insert into public.without_columns default values;
  create table public.empty_one (id int, note text);
  create table public.many (id int primary key, note text, doubled int generated always as (id * 2) stored, always int generated always as identity);
  insert into public.many (id, note) select i, case i % 5 when 0 then null when 1 then '' else repeat(md5(i::text), i % 7) end from generate_series(1, 4000) as i;
`;

/** All of it, in one buffer: for small ones. */
export async function bytesOf(contents: Contents, from: unknown = null): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const { pieces } of contents.steps(from)) for (const piece of pieces) parts.push(Buffer.from(piece));
  return Buffer.concat(parts);
}

/**
 * The same by a new process for every step: each begins at the mark that the one before left, as the database keeps it.
 * `steps` counts them.
 */
export async function bytesInLegs(open: () => Promise<Contents>): Promise<{ bytes: Buffer; steps: number }> {
  const parts: Buffer[] = [];
  let mark: unknown = null;
  for (let steps = 0;; steps++) {
    const contents = await open();
    const from = mark === null ? null : contents.markSchema.parse(JSON.parse(JSON.stringify(mark)));
    let hasStep = false;
    for await (const step of contents.steps(from)) {
      for (const piece of step.pieces) parts.push(Buffer.from(piece));
      mark = step.mark();
      hasStep = true;
      break;
    }
    if (!hasStep) return { bytes: Buffer.concat(parts), steps };
  }
}

export const sha256 = (bytes: Uint8Array | string): string => createHash("sha256").update(bytes).digest("hex");
