/** What has to be rewritten for whom: looked at, nothing changed. Pure. */
import { type LedgerEntry, namesRows } from "../entry.ts";

export interface ErasureFacts {
  readonly id: string;
  /** From then on nothing new can hold the person. Null: the database does not know the erasure. */
  readonly searchedAt: Date | null;
}

export interface BackupFacts {
  readonly name: string;
  readonly consistentAt: Date;
  /** Entries up to there were applied. */
  readonly through: number;
  /** Why it has to stay as it is; null: it has not. */
  readonly hold: string | null;
}

export interface RewritingPlan {
  /** Backups with what is to be applied to each; none: nothing is. */
  readonly backups: readonly { readonly backup: BackupFacts; readonly entries: readonly LedgerEntry[] }[];
  /** Backups on hold that may hold somebody, with the reason. */
  readonly held: readonly {
    readonly backup: BackupFacts;
    readonly reason: string;
    readonly entries: readonly LedgerEntry[];
  }[];
  /** Number of the newest entry that names rows; 0: nobody was erased. */
  readonly through: number;
  /** Erasures of which a backup on hold may hold rows. */
  readonly waiting: readonly string[];
}

/** A backup of after an erasure holds nobody of it, and may hold somebody else under a key that was used again. */
export function planRewriting(
  ledger: readonly LedgerEntry[],
  erasures: readonly ErasureFacts[],
  backups: readonly BackupFacts[],
): RewritingPlan {
  const entries = ledger.filter(namesRows);
  const searchedAt = new Map(erasures.map(({ id, searchedAt }) => [id, searchedAt]));
  const concerns = ({ erasure }: LedgerEntry, { consistentAt }: BackupFacts): boolean => {
    const searched = searchedAt.get(erasure) ?? null;
    return searched === null || consistentAt <= searched;
  };
  const due = backups.map((backup) => {
    const applied = entries.filter((entry) => concerns(entry, backup));
    return { backup, entries: applied, isDue: applied.some(({ number }) => number > backup.through) };
  }).filter(({ isDue }) => isDue);
  const held = due.flatMap(({ backup, entries }) =>
    backup.hold === null ? [] : [{ backup, reason: backup.hold, entries }]
  );
  return {
    backups: due.filter(({ backup }) => backup.hold === null).map(({ backup, entries }) => ({ backup, entries })),
    held,
    through: entries.reduce((most, { number }) => Math.max(most, number), 0),
    waiting: [
      ...new Set(
        due.filter(({ backup }) => backup.hold !== null).flatMap(({ backup, entries }) =>
          entries.filter(({ number }) => number > backup.through).map(({ erasure }) => erasure)
        ),
      ),
    ],
  };
}
