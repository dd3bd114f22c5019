/** What could be done about an incident: for each way the commands to run, what they bring, and how long they may take. Pure. */
import type { Suspect } from "./suspects.ts";

export interface Offer {
  /** A sentence. */
  readonly what: string;
  readonly scope: "table" | "user" | "point" | "full";
  /** Rows that it brings back or makes anew, as far as they are known. */
  readonly rows: number | null;
  /** What may be expected: the last good one of this scope as it was measured; the objective; null where neither is known. */
  readonly seconds: { readonly measured: number | null; readonly objective: number | null } | null;
  /** To be run one after the other, by a person. */
  readonly steps: readonly OfferedStep[];
}

export interface OfferedStep {
  /** A line for a shell, whole. */
  readonly command: string;
  readonly does: string;
}

/** What can be gone back to. Moments are ISO 8601. */
export interface RecoveryPoints {
  /** Every moment in between can be restored. */
  readonly windows: readonly { readonly from: string; readonly to: string }[];
  readonly gaps: readonly { readonly from: string; readonly to: string; readonly reason?: string }[];
  /** By store, newest first. */
  readonly stores: readonly StoredFulls[];
}

export interface StoredFulls {
  readonly store: string;
  /** What --store says for it. */
  readonly place: "first" | "second";
  readonly fulls: readonly { readonly id: string; readonly tier: string; readonly consistentAt: string }[];
  /** Why nothing is known of it; null: it is. */
  readonly failure: string | null;
}

export interface OfferFacts {
  readonly suspects: readonly Suspect[];
  readonly points: RecoveryPoints;
  readonly times: readonly RecoveryTime[];
  /** Tables in the order in which they may be filled, parents first; null: nobody could be asked. */
  readonly order: readonly string[] | null;
  /** A whole database's rows, of the newest backup; null: there is none. */
  readonly totalRows: number | null;
}

export interface RecoveryTime {
  readonly scope: string;
  readonly objectiveSeconds: number;
  /** Of the last good drill or restore. */
  readonly measuredSeconds: number | null;
}

/** For so many of the likeliest transactions an offer is made; others by `incident offer --before-xid`. */
const mostOffered = 3;

const command = (name: string, words: readonly string[], options: readonly string[]) =>
  [
    "npm run -s",
    `backup:${name}`,
    ...words.map(shellQuoted),
    ...options.length > 0 ? ["--", ...options.map(shellQuoted)] : [],
  ]
    .join(" ");

/** Narrow ones first: a table before the whole database. Nothing of it is done by anybody but a person. */
export function offersOf(facts: OfferFacts): Offer[] {
  const covered = facts.suspects.filter(({ before }) => isCovered(facts.points, before));
  const offered = covered.slice(0, mostOffered);
  return [
    ...offered.flatMap((suspect) => tableOffers(suspect, facts)),
    ...offered.map((suspect) => pointOffer(suspect, facts)),
    ...fullOffer(facts),
  ];
}

export function isCovered({ windows }: Pick<RecoveryPoints, "windows">, moment: string): boolean {
  return windows.some(({ from, to }) => from <= moment && moment <= to);
}

function tableOffers(suspect: Suspect, facts: OfferFacts): Offer[] {
  const { order } = facts;
  const place = (table: string) => order?.indexOf(table) ?? -1;
  const left = suspect.tables.filter(({ table, deleted, updated, truncated }) =>
    deleted + updated + truncated > 0 && !suspect.droppedTables.includes(table) && !isOfService(table)
  );
  const tables = [...left].sort((a, b) => place(a.table) - place(b.table)).map(
    ({ table, deleted, updated, truncated }) => {
      // What was changed has to get its old values back; what is gone alone comes back without touching the rest.
      const mode = updated > 0 ? "merge" : "missing";
      const options = ["--at", suspect.before, "--apply", mode];
      return {
        what: `${table} as it was right before transaction ${suspect.xid}: ${
          mode === "missing"
            ? "rows that are gone come back, all others stay"
            : "rows that are gone or differ are put back"
        }`,
        scope: "table",
        rows: truncated > 0 ? suspect.rows : deleted + updated,
        seconds: secondsOf(facts, "table"),
        steps: [
          { command: command("restore-table", [table], [...options, "--dry-run"]), does: "shows what it would change" },
          {
            command: command("restore-table", [table], options),
            does: "asks for the name of the database, takes a safety backup, does it",
          },
        ],
      } as const;
    },
  );
  return [...userOffer(suspect, facts), ...droppedOffers(suspect, facts), ...tables];
}

/** Of several, one that needs another says so: that one first. */
function droppedOffers(suspect: Suspect, facts: OfferFacts): Offer[] {
  const options = ["--at", suspect.before, "--apply", "missing"];
  return suspect.droppedTables.filter((table) => !isOfService(table)).map((table) => ({
    what:
      `${table} as it was right before transaction ${suspect.xid} dropped it: with its keys, policies, grants and rows`,
    scope: "table",
    rows: suspect.droppedTables.length === 1 ? suspect.rows : null,
    seconds: secondsOf(facts, "table"),
    steps: [
      { command: command("restore-table", [table], [...options, "--dry-run"]), does: "shows what it would make" },
      {
        command: command("restore-table", [table], options),
        does: "asks for the name of the database, takes a safety backup, makes the table again in one transaction",
      },
    ],
  }));
}

/** Rows of Auth and Storage come back with the person, or with the whole: by themselves they would not fit what the services know. */
function isOfService(table: string): boolean {
  return /^(auth|storage)\./.test(table);
}

function userOffer(suspect: Suspect, facts: OfferFacts): Offer[] {
  const users = suspect.tables.find(({ table, deleted }) => table === "auth.users" && deleted > 0);
  if (users === undefined) return [];
  const line = `npm run -s backup:restore-user "$PERSON" -- --at ${suspect.before} --apply missing`;
  return [{
    what: `people whose accounts transaction ${suspect.xid} deleted, each with what is theirs`,
    scope: "user",
    rows: users.deleted,
    seconds: secondsOf(facts, "user"),
    steps: [
      {
        command: `${line} --dry-run`,
        does: "shows what of theirs is gone; PERSON is their id in auth.users as it was",
      },
      { command: line, does: "asks for the name of the database, takes a safety backup, does it" },
    ],
  }];
}

function pointOffer(suspect: Suspect, facts: OfferFacts): Offer {
  const options = ["--before-xid", suspect.xid];
  return {
    what:
      `the whole database as it was right before transaction ${suspect.xid} (${suspect.before}), beside the live one`,
    scope: "point",
    rows: facts.totalRows,
    seconds: secondsOf(facts, "point"),
    steps: [
      { command: command("restore-point", [], options), does: "shows what it would make; exit 2, nothing is done" },
      { command: command("restore-point", [], [...options, "--yes"]), does: "makes a new database and names it" },
    ],
  };
}

/** The newest backup that the first store has, else the second: all that was written since is taken back. */
function fullOffer(facts: OfferFacts): Offer[] {
  const { points, suspects } = facts;
  const [suspect] = suspects;
  const from = points.stores.find(({ fulls }) => fulls.length > 0);
  const full = from?.fulls.find(({ consistentAt }) => suspect === undefined || consistentAt <= suspect.before);
  if (from === undefined || full === undefined) return [];
  const store = from.place === "second" ? ["--store", "second"] : [];
  const options = [...store, "--apply", "replace"];
  return [{
    what:
      `the whole project in place as of backup ${full.id} (${full.consistentAt}): all that was written since is taken back`,
    scope: "full",
    rows: facts.totalRows,
    seconds: secondsOf(facts, "full"),
    steps: [
      { command: command("restore-full", [full.id], [...options, "--dry-run"]), does: "shows what it would change" },
      {
        command: command("restore-full", [full.id], options),
        does: "asks for the name of the database, takes a safety backup, does it",
      },
      { command: command("restore-full", [full.id], store), does: "instead: plans a copy beside the live one" },
    ],
  }];
}

function secondsOf({ times }: OfferFacts, scope: string): Offer["seconds"] {
  const found = times.find((time) => time.scope === scope);
  return found === undefined ? null : { measured: found.measuredSeconds, objective: found.objectiveSeconds };
}

/** As a POSIX shell reads it. */
export function shellQuoted(word: string): string {
  return /^[A-Za-z0-9_.:=@%+,/-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
