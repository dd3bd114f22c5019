/** What an erasure would do, and what is in its way: looked at, nothing changed. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { userIsThere } from "../rows/beside/user_now.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { ownedTables } from "../rows/ownership/ownership.ts";
import { checkShares } from "../rows/ownership/share_limit.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import { isDeparted, isUnfinished, readGuardians, readRetained, readSides, refuseErasure } from "./erase_queries.ts";
import { type OwnedCount, OwnedRows, type Referring } from "./owned_rows.ts";

export interface ErasurePlan {
  readonly rows: readonly OwnedCount[];
  /** Rows that stay and lose a reference, or that are in the way. */
  readonly referring: readonly Referring[];
  /** Sentences: why nothing can be erased until the map decides. */
  readonly undecided: readonly string[];
  readonly files: number;
  /** Tables of the user's own of which no row can lead to anybody. */
  readonly withoutPath: readonly string[];
  /** Columns that look like a user's id and are not followed. */
  readonly suspects: readonly string[];
  /** Entries of the map that fit nothing. */
  readonly unmatched: readonly string[];
  /** Side schemas of restores: they go as well. */
  readonly sides: readonly { readonly id: string; readonly schema: string }[];
  readonly retained: { readonly backups: number; readonly held: number; readonly until: string | null };
  /** An erasure that was broken off, and that this one goes on with. */
  readonly goesOn: boolean;
  /** Requests of guardians that it answers. */
  readonly guardians: readonly string[];
}

/**
 * Errors: `user_not_found`; `erasure_held`, `last_administrator`, `user_erased`; `ownership_unclear` where too much would be
 * one person's; those of the connection. `user`: as the server writes ids.
 */
export async function planErasure(connection: Connection, user: string, map: BackupMap): Promise<ErasurePlan> {
  await refuseErasure(connection, user);
  const goesOn = await isUnfinished(connection, user);
  if (!goesOn && !(await userIsThere(connection, user)) && !(await isDeparted(connection, user))) {
    throw new HoldfastError("user_not_found", "the database has no such user", {
      hint: "Give the id in auth.users, or of one that `holdfast erase departed` lists.",
    });
  }
  await connection.execute("begin isolation level repeatable read");
  try {
    const owned = await OwnedRows.collect(connection, user, map, false);
    checkShares(owned.plan, owned.shares);
    const reaching = new Set(ownedTables(owned.plan).map(nameOf));
    const referring = await referringOf(owned);
    return {
      rows: owned.counts,
      referring,
      undecided: undecidedOf(owned.counts, referring),
      files: owned.counts.filter(({ table }) => table === "storage.objects").reduce((sum, { rows }) => sum + rows, 0),
      withoutPath: owned.graph.tables.filter(({ schema, ...table }) =>
        schema !== "auth" && schema !== "storage" && !reaching.has(nameOf({ schema, ...table }))
      ).map(nameOf),
      suspects: owned.plan.suspects.map(({ table, column }) => `${nameOf(table)}.${column}`),
      unmatched: owned.plan.unmatched,
      sides: await readSides(connection),
      retained: await readRetained(connection),
      goesOn,
      guardians: await readGuardians(connection, user),
    };
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}

export async function referringOf(owned: OwnedRows): Promise<Referring[]> {
  return (await owned.referring()).map(({ statement: _, ...one }) => one);
}

/** Pure. */
export function undecidedOf(rows: readonly OwnedCount[], referring: readonly Referring[]): string[] {
  return [
    ...rows.filter(({ shared, decided }) => shared > 0 && !decided).map(({ table, shared }) =>
      `${table}: ${shared} rows are others' as well; say "rows": "owned" to let them go, or "shared" to keep them without the person`
    ),
    ...referring.flatMap(({ table, by, rows, clear, decided }) =>
      decided && clear.length > 0 ? [] : [
        clear.length === 0
          ? `${table}: ${rows} rows that stay refer to what goes by ${by}, and cannot be without it; say "rows": "owned" to let them go`
          : `${table}: ${rows} rows of others refer to what goes by ${by}; say "rows": "shared", or of the key "follow": false, to keep them without it`,
      ]
    ),
  ];
}

/** Errors: `erasure_undecided`. */
export function refuseUndecided(undecided: readonly string[]): void {
  if (undecided.length > 0) throw new HoldfastError("erasure_undecided", undecided.join("; "));
}
