/** Tables on which COPY can go wrong, and what psql makes of them: the oracle for the sessions on Node and on Deno. */
import { execFileSync } from "node:child_process";
import type { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { DatabaseOptions } from "../../src/shared/postgres/pg_connection.ts";
import { type Cluster, freshDatabase, query } from "../support/cluster.ts";

export const copyTables = ["odd", "narrow", "nothing", "wide"] as const;

export const transports = ["plain", "tls"] as const;
export type Transport = (typeof transports)[number];

/**
 * A new database with `copyTables`. `odd`: values that need escaping, extremes of their types, nulls, rows of every length.
 * `narrow`: 300,000 integers. `nothing`: two rows without columns. `wide`: a row of 9 MB and one of 200 KB.
 */
export async function copyDatabase(cluster: Cluster): Promise<string> {
  const database = await freshDatabase(cluster);
  await query(
    cluster.plainUrl("postgres", database),
    `create table odd (id int, t text, b bytea, n numeric, f float8, a text[], j jsonb, ts timestamptz);
     insert into odd values
       (1, e'tab\\t nl\\n cr\\r backslash \\\\ bell\\x07 ü 日本 \\U0001F600', '\\x00ff', 'NaN', '-0', '{"a,b",null,""}', '{"k": null}', 'infinity'),
       (2, '\\N', '', '1e-200', 'NaN', '{}', 'null', '0044-03-15 BC'),
       (3, null, null, null, null, null, null, null),
       (4, '', e'\\\\x', repeat('9', 1000)::numeric, 1e308, '{{1,2},{3,4}}', '"x"', '2026-01-01 00:00:00.000001+00');
     insert into odd select i, repeat(chr(65 + i % 26), i * 37), decode(md5(i::text), 'hex'), i / 7.0, i / 3.0, array[i::text], to_jsonb(i), now()
       from generate_series(5, 400) as i;
     create table narrow (i int); insert into narrow select generate_series(1, 300000);
     create table nothing (); insert into nothing default values; insert into nothing default values;
     create table wide (i int, t text); insert into wide values (1, repeat('x', 9000000)), (2, repeat('yz', 100000));`,
  );
  return database;
}

/** How `database` is reached; over TLS with the certificate checked. */
export function reached(
  cluster: Cluster,
  database: string,
  transport: Transport,
): Pick<DatabaseOptions, "url" | "caPem"> {
  const url = cluster.plainUrl("postgres", database);
  if (transport === "plain") return { url };
  return { url: `${url}?sslmode=verify-full`, caPem: readFileSync(cluster.caFile, "utf8") };
}

/** The bytes that psql writes, with the number of rows that the server counts. */
export async function byPsql(
  cluster: Cluster,
  database: string,
  table: (typeof copyTables)[number],
): Promise<{ readonly bytes: Buffer; readonly rows: number }> {
  const bytes = execFileSync(
    join(cluster.bin, "psql"),
    ["-X", "-q", "-c", `\\copy ${table} to stdout`],
    { env: { ...process.env, ...cluster.environment("postgres", database) }, maxBuffer: 64 * 1024 * 1024 },
  );
  const [counted] = await query(cluster.plainUrl("postgres", database), `select count(*)::int as n from ${table}`);
  return { bytes, rows: Number(counted?.["n"]) };
}
