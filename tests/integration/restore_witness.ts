/** pg_dump of both sides as the witness that shares nothing with the product. */
import process from "node:process";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { Cluster } from "../support/cluster.ts";

/** What pg_dump says of a database, entry by entry; rows of tables in an order of their own. */
export function dumpEntries(cluster: Cluster, database: string): Map<string, string> {
  const text = execFileSync(join(cluster.bin, "pg_dump"), [], {
    env: { ...process.env, ...cluster.environment(cluster.superuser, database) },
    encoding: "utf8",
    maxBuffer: 256 << 20,
  });
  const entries = new Map<string, string>();
  for (const part of text.split(/^-- (?:Data for )?Name: /m).slice(1)) {
    const newline = part.indexOf("\n");
    // The owner is no part of an entry's name: ALTER … OWNER stands in its body.
    const name = part.slice(0, newline).replace(/; Owner: .*$/, "");
    const body = part.slice(newline + 1).replace(/^--.*$/gm, "").replace(/^\\(un)?restrict .*$/gm, "").trim();
    const key = entries.has(name) ? `${name} (again)` : name;
    entries.set(key, name.includes("Type: TABLE DATA") ? body.split("\n").sort().join("\n") : body);
  }
  return entries;
}

/** Names of entries that only one side has, or that differ. */
export function differingEntries(source: ReadonlyMap<string, string>, target: ReadonlyMap<string, string>): string[] {
  const names = new Set([...source.keys(), ...target.keys()]);
  return [...names].filter((name) => source.get(name) !== target.get(name)).sort();
}

/** A difference that a restore means to make, with the reason; `matches` sees the entry's name. */
export interface AllowedDifference {
  readonly reason: string;
  readonly matches: RegExp;
}

/** The whole list for a bare PostgreSQL. A line that matches nothing fails its test, so that the list stays short. */
export const allowedOnBare: readonly AllowedDifference[] = [
  {
    reason: "the restore's own record of what it holds back",
    matches: /(^|; Schema: )holdfast(;|$)|^SCHEMA holdfast;/,
  },
  {
    reason: "platform schemas carry the mark of a restore",
    matches: /^SCHEMA (auth|extensions|net|realtime|storage|supabase_functions|vault|cron|_realtime); Type: COMMENT/,
  },
  {
    reason: "event triggers of the platform work on a project only",
    matches: /privileged_(drop|end|start); Type: EVENT TRIGGER/,
  },
  {
    reason: "webhooks are held back",
    matches: /^(watched hook|watched hook_always|journal_entries announce_entry); Type: TRIGGER/,
  },
  { reason: "credentials are in no backup", matches: /^corpus_subscription; Type: SUBSCRIPTION|^USER MAPPING / },
  {
    reason: "inherited columns become the table's own so that their order stays",
    matches: /; Schema: corpus_inheritance_order$/,
  },
  {
    reason: "records of Holdfast's own migrations, whose schema is in no backup",
    matches: /^schema_migrations; Type: TABLE DATA; Schema: supabase_migrations$/,
  },
  { reason: "pg_cron is not there", matches: /pg_cron|^SCHEMA cron;|; Schema: cron$/ },
];

export function notAllowed(names: readonly string[]): string[] {
  return names.filter((name) => !allowedOnBare.some((allowed) => allowed.matches.test(name)));
}
