/** A database that was copied with Holdfast in it is one in which Holdfast was installed just now. */
import { describe, expect, it } from "vitest";
import { runMigrations } from "../../src/local/installed.ts";
import { pushMigrations } from "../../src/local/push.ts";
import { type Cluster, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { differingEntries, dumpEntries } from "./restore_witness.ts";

/** Rows that two installs have for themselves: which they are, and the transaction of a row of the audit. */
const own = ["audit_key", "audit_log", "identity"].map((table) => `${table}; Type: TABLE DATA; Schema: backup`);

// What a job did meanwhile would be a difference.
const settings = { max_worker_processes: "0" };
const cluster = useCluster({ settings });
const other = useCluster({ settings, prepared: "installed" });

/** All that pg_dump says of a database, but for moments. */
function dumped(from: Cluster, database: string): Map<string, string> {
  const entries = dumpEntries(from, database);
  for (const [name, body] of entries) {
    entries.set(name, body.replaceAll(/\d{4}(-\d\d){2} \d\d(:\d\d){2}[.\d]*(\+00)?/g, "then"));
  }
  return entries;
}

/** Columns of moments in schema `backup`, by name, in which one lies before `since`. */
async function olderThan(url: string, since: Date): Promise<string[]> {
  const columns = await query(
    url,
    `select c.oid::regclass::text as in_table, quote_ident(a.attname) as name
       from pg_class as c join pg_attribute as a on a.attrelid = c.oid
      where c.relnamespace = 'backup'::regnamespace and c.relkind = 'r' and a.atttypid = 'timestamptz'::regtype
        and a.attnum > 0 and not a.attisdropped order by 1, 2`,
  );
  const older: string[] = [];
  for (const { in_table: table, name } of columns) {
    const [row] = await query(url, `select exists (select from ${String(table)} where ${String(name)} < $1) as found`, [
      since,
    ]);
    if (row?.["found"] === true) older.push(`${String(table)}.${String(name)}`);
  }
  return older;
}

async function identityOf(url: string): Promise<Record<string, unknown> | undefined> {
  const [row] = await query(
    url,
    `select i.install_id, i.database_name = current_database() as of_this_database,
            i.system_identifier = c.system_identifier::text as of_this_server, encode(k.key, 'hex') as audit_key
       from backup.identity as i, backup.audit_key as k, pg_control_system() as c`,
  );
  return row;
}

/** What is only noted there; nothing counts from these. */
const noted = [
  "backup.audit_log.recorded_at",
  "backup.installed_objects.recorded_at",
  "backup.maintenance_probe.written_at",
  "backup.policies.changed_at",
  "backup.settings.changed_at",
];

describe("an installed database that was copied", () => {
  it("is what the migrations make, to pg_dump, and an install of its own that begins now", async () => {
    const made = await freshDatabase(cluster());
    await runMigrations(cluster().plainUrl("postgres", made));
    const since = new Date();
    const names = [
      await freshDatabase(cluster(), { installed: true }),
      await freshDatabase(cluster(), { installed: true }),
    ];
    const identities = [];
    for (const name of names) {
      expect(differingEntries(dumped(cluster(), made), dumped(cluster(), name))).toEqual(own);
      const url = cluster().plainUrl(cluster().superuser, name);
      expect(await olderThan(url, since)).toEqual(noted);
      identities.push(await identityOf(url));
    }
    for (const identity of identities) expect(identity).toMatchObject({ of_this_database: true, of_this_server: true });
    for (const key of ["install_id", "audit_key"]) {
      expect(new Set(identities.map((identity) => identity?.[key])).size, key).toBe(2);
    }
  });
});

describe("a cluster that was copied with Holdfast in it", () => {
  it("is what supabase db push makes, jobs among it, and an install of its own", async () => {
    await pushMigrations(cluster());
    // A job holds its server's port.
    expect(differingEntries(dumped(cluster(), "postgres"), dumped(other(), "postgres"))).toEqual(
      [...own, "job; Type: TABLE DATA; Schema: cron"],
    );
    const [pushed, copied] = [await identityOf(cluster().plainUrl()), await identityOf(other().plainUrl())];
    expect(copied).toMatchObject({ of_this_database: true, of_this_server: true });
    for (const key of ["install_id", "audit_key"]) expect(copied?.[key], key).not.toBe(pushed?.[key]);
    const jobs = "select jobname, schedule, command, database, username, active from cron.job order by jobname";
    const ofPushed = await query(cluster().plainUrl(), jobs);
    expect(ofPushed.length).toBeGreaterThan(3);
    expect(await query(other().plainUrl(), jobs)).toEqual(ofPushed);
  });
});
