/** A database, what it was, random changes to it, and pg_dump as the witness of what it is afterwards. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { systemClock } from "../../src/shared/clock.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { type Log, silentLog } from "../../src/shared/log.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { DefinitionPlan } from "../../src/shared/restore/in_place/change_format.ts";
import { readActor } from "../../src/shared/restore/in_place/actor.ts";
import {
  planNow,
  type SettledDefinitions,
  settleDefinitions,
} from "../../src/shared/restore/in_place/settle_definitions.ts";
import { whileDeletable } from "../../src/shared/rows/apply/published_deletes.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import { applySettings } from "../../src/shared/schema/apply_settings.ts";
import type { SchemaCapture, TableShape } from "../../src/shared/schema/capture_format.ts";
import { quoteIdent, quoteQualified } from "../../src/shared/schema/quote.ts";
import { expect } from "vitest";
import { type Cluster, freshDatabase, query, startTestCluster } from "../support/cluster.ts";
import { catalogRows } from "../integration/schema_catalog_rows.ts";
import { rolesSql } from "./in_place_subject.ts";

const leaveOutSchemas = ["backup", "holdfast"];

/** What a backup holds of it: definitions and rows. */
export interface Kept {
  readonly capture: SchemaCapture;
  readonly rows: ReadonlyMap<string, Uint8Array>;
  readonly dump: ReadonlyMap<string, string>;
}

export interface Place {
  readonly cluster: Cluster;
  readonly database: string;
  /** Who restores. */
  readonly role: string;
}

export async function withConnection<T>(place: Place, use: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await openDatabase({ url: place.cluster.plainUrl(place.role, place.database) }).connect(
    "in-place",
  );
  try {
    return await use(connection);
  } finally {
    await connection.close();
  }
}

/** Tables whose rows are the user's. */
const ownTables = (capture: SchemaCapture): TableShape[] =>
  capture.tables.filter((table) => table.dataOwner === "user");

export function remember(place: Place): Promise<Kept> {
  return withConnection(place, async (connection) => {
    await connection.execute("begin isolation level repeatable read read only");
    const capture = await captureSchema(connection, { leaveOutSchemas });
    await connection.execute("set local row_security = off");
    const rows = new Map<string, Uint8Array>();
    for (const table of ownTables(capture)) rows.set(table.identity, await rowsOf(connection, table));
    await connection.execute("commit");
    return { capture, rows, dump: await witnessOf(place) };
  });
}

async function rowsOf(connection: Connection, table: TableShape): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  await connection.copyOut(
    `copy (select ${columnsOf(table)} from only ${quoteQualified(table.schema, table.name)}) to stdout`,
    (bytes) => parts.push(bytes.slice()),
  );
  return concatenated(parts);
}

const columnsOf = (table: TableShape): string => table.copyColumns.map(quoteIdent).join(", ");

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.byteLength === other.byteLength && one.every((byte, at) => byte === other[at]);
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

/** All rows as they were: what the row part of a full restore leaves, in the simplest way. */
export async function putRowsBack(connection: Connection, kept: Kept): Promise<void> {
  await connection.execute(applySettings.join(";"));
  await connection.execute("begin; set local session_replication_role = replica");
  for (const table of ownTables(kept.capture)) {
    const name = quoteQualified(table.schema, table.name);
    const wanted = kept.rows.get(table.identity) ?? new Uint8Array();
    if (isSame(await rowsOf(connection, table), wanted)) continue;
    const [live] = await connection.query("select pg_catalog.to_regclass($1)::pg_catalog.oid as oid", [name]);
    await whileDeletable(connection, [live?.["oid"] ?? ""], () => connection.execute(`delete from only ${name}`));
    const columns = table.copyColumns.length === 0 ? "" : ` (${columnsOf(table)})`;
    await connection.copyIn(`copy ${name}${columns} from stdin`, [wanted]);
  }
  await connection.execute("commit");
  // Sequences come back with the rows; those of columns that are made after them have their values from the start.
}

export interface RestoreOptions {
  readonly dropExtra?: boolean;
  readonly sameDatabase?: boolean;
  /** One that is there. */
  readonly sideSchema?: string;
}

/** The parts of a full restore in place, without a store. */
export interface Parts {
  plan(): Promise<DefinitionPlan>;
  before(): Promise<SettledDefinitions>;
  rows(): Promise<void>;
  after(): Promise<SettledDefinitions>;
  /** False: there was no step left. */
  stoppedAfterOneStep(part: "before" | "after"): Promise<boolean>;
  close(): Promise<void>;
}

export async function inParts(place: Place, kept: Kept, options: RestoreOptions = {}): Promise<Parts> {
  const connection = await openDatabase({ url: place.cluster.plainUrl(place.role, place.database) }).connect(
    "in-place",
  );
  const context = {
    connection,
    clock: systemClock,
    log: silentLog,
    signal: undefined,
    was: kept.capture,
    leaveOutSchemas,
    sideSchema: options.sideSchema,
    lockTimeoutMs: 200,
    lockTries: 3,
    options: {
      sameDatabase: options.sameDatabase ?? true,
      dropExtra: options.dropExtra ?? false,
      replacesRows: true,
      ...await readActor(connection),
    },
  };
  return {
    plan: () => planNow(context),
    before: () => settleDefinitions(context, "before"),
    rows: () => putRowsBack(connection, kept),
    after: () => settleDefinitions(context, "after"),
    async stoppedAfterOneStep(part) {
      const stop = new AbortController();
      const log: Log = { ...silentLog, step: () => stop.abort() };
      try {
        await settleDefinitions({ ...context, log, signal: stop.signal }, part);
      } catch (error) {
        if (error instanceof HoldfastError && error.code === "cancelled") return true;
        throw error;
      }
      return stop.signal.aborted;
    },
    close: () => connection.close(),
  };
}

/** What a full restore in place does. Returns the first plan and the last, which has what stays other than it was. */
export async function restoreInPlace(
  place: Place,
  kept: Kept,
  options: RestoreOptions = {},
): Promise<{
  first: DefinitionPlan;
  last: DefinitionPlan;
  steps: number;
  emptied: readonly string[];
  gone: SettledDefinitions["gone"];
  again: readonly string[];
}> {
  const parts = await inParts(place, kept, options);
  try {
    const first = await parts.plan();
    const before = await parts.before();
    await parts.rows();
    const after = await parts.after();
    return {
      first,
      last: after.plan,
      steps: before.steps + after.steps,
      emptied: [...before.emptied, ...after.emptied],
      gone: after.gone,
      again: after.again,
    };
  } finally {
    await parts.close();
  }
}

/** Of PostgreSQL 17, whose pg_dump cannot be had, rows of its catalogs; without grants, which may be written in two ways. */
async function witnessOf(place: Place): Promise<Map<string, string>> {
  if (place.cluster.version === 15) return dumpedDefinitions(place);
  const { superuser } = place.cluster;
  const lines = await catalogRows((text, values) =>
    query(place.cluster.plainUrl(superuser, place.database), text, values ?? [])
  );
  return new Map(lines.filter((line) => !line.includes("pg.dropped")).map((line) => [withoutGrants(line), ""]));
}

/** Nor places of columns: one that was dropped comes back last. */
const withoutGrants = (line: string): string =>
  line.replace(/\b\w+acl=\S*/g, "").replace(/^(pg_attribute \|) #\d+ /, "$1 ");

/** Entries of `pg_dump --schema-only` by name; lines of CREATE TABLE sorted, since columns may come in another order. */
export function dumpedDefinitions(place: Place): Map<string, string> {
  const { cluster, database } = place;
  const text = execFileSync(join(cluster.bin, "pg_dump"), ["--schema-only"], {
    env: { ...process.env, ...cluster.environment(cluster.superuser, database) },
    encoding: "utf8",
    maxBuffer: 64 << 20,
  });
  const entries = new Map<string, string>();
  for (const part of text.split(/^-- Name: /m).slice(1)) {
    const newline = part.indexOf("\n");
    const name = part.slice(0, newline).replace(/; Owner: .*$/, "");
    const body = part.slice(newline + 1).replace(/^--.*$/gm, "").replace(/^\\(un)?restrict .*$/gm, "").trim();
    const lines = body.split("\n").filter((line) => line !== "");
    const isTable = /Type: TABLE(;|$)/.test(name) || /Type: (ACL|DEFAULT ACL)/.test(name);
    const shown = isTable ? lines.map((line) => line.replace(/,$/, "")).sort() : lines;
    entries.set(entries.has(name) ? `${name} (again)` : name, shown.join("\n"));
  }
  return entries;
}

/** Entries that were there and are not as they were, and those that were not there. */
export function differences(was: ReadonlyMap<string, string>, is: ReadonlyMap<string, string>) {
  return {
    changed: [...was].filter(([name, body]) => is.get(name) !== body).map(([name, body]) =>
      `${name}\n--- was\n${body}\n--- is\n${is.get(name) ?? "(missing)"}`
    ),
    extra: [...is.keys()].filter((name) => !was.has(name)),
  };
}

/** A server, the subject in a database of it, what a backup would hold, and copies of the database for each test. */
export class Ground {
  readonly cluster: Cluster;
  readonly template: string;
  readonly kept: Kept;
  #copies = 0;

  private constructor(cluster: Cluster, template: string, kept: Kept) {
    this.cluster = cluster;
    this.template = template;
    this.kept = kept;
  }

  /** `subject`: SQL that role postgres runs. */
  static async prepare(platform: boolean, subject: string, version: 15 | 17 = 15): Promise<Ground> {
    const cluster = await startTestCluster({ platform, version });
    const superuser = cluster.plainUrl(cluster.superuser);
    await query(superuser, rolesSql);
    const template = await freshDatabase(cluster);
    await query(superuser, `alter database ${template} owner to postgres`);
    // CREATE DATABASE copies no grants on the database itself.
    if (platform) await query(superuser, `revoke all on database ${template} from dashboard_user`);
    await query(cluster.plainUrl("postgres", template), subject);
    return new Ground(cluster, template, await remember({ cluster, database: template, role: "postgres" }));
  }

  /** The subject with `changes` made to it as role postgres. Object ids are those of the subject. */
  async changed(changes: string): Promise<Place> {
    const database = `copy_${++this.#copies}`;
    await query(
      this.cluster.plainUrl(this.cluster.superuser),
      `create database ${database} template ${this.template} owner postgres`,
    );
    if (changes !== "") await query(this.cluster.plainUrl("postgres", database), changes);
    return { cluster: this.cluster, database, role: "postgres" };
  }
}

/** As the superuser. */
export const ask = (place: Place, text: string) =>
  query(place.cluster.plainUrl(place.cluster.superuser, place.database), text);

/** Everything is as pg_dump showed it; what stays besides is returned. */
export async function restoredAsItWas(place: Place, kept: Kept, options: RestoreOptions = {}) {
  const result = await restoreInPlace(place, kept, options);
  const { changed, extra } = differences(kept.dump, await witnessOf(place));
  expect(changed).toEqual([]);
  expect(await rowsThatDiffer(place, kept)).toEqual([]);
  return { ...result, extra };
}

/** Tables of which the rows are not those that were kept. */
async function rowsThatDiffer(place: Place, kept: Kept): Promise<string[]> {
  return await withConnection(place, async (connection) => {
    await connection.execute([...applySettings, "set row_security = off"].join(";"));
    const different: string[] = [];
    for (const table of ownTables(kept.capture)) {
      const present = await rowsOf(connection, table);
      if (!isSame(sortedLines(present), sortedLines(kept.rows.get(table.identity) ?? new Uint8Array()))) {
        different.push(table.identity);
      }
    }
    return different;
  });
}

/** Rows come in any order. */
function sortedLines(copied: Uint8Array): Uint8Array {
  return new TextEncoder().encode(new TextDecoder().decode(copied).split("\n").sort().join("\n"));
}
