/** May a database write where it wrote? docs/decisions/0023-identity.md. */
import { isSameProject, nameOfProject, type Project } from "../format/project.ts";
import type { Claim } from "./claim.ts";

/** What a database knows of itself: as it is recorded, and as it is now. */
export interface Identity {
  readonly install: string;
  /** Of the project in which it was recognised first, or that was adopted. */
  readonly ref: string | null;
  /** Of the project where functions run now, if that is another one. */
  readonly presentRef: string | null;
  readonly recorded: { readonly systemIdentifier: string; readonly database: string };
  readonly present: { readonly systemIdentifier: string; readonly database: string };
  /** Below which it writes, '' for the top of its stores. */
  readonly prefix: string;
  readonly isCopy: boolean;
  /** A person has said that it takes the original's place. */
  readonly adopting: boolean;
  /** When it did, in UTC, to the second. */
  readonly adoptedAt: string | null;
}

/** What the place in the store holds. */
export interface Found {
  /** The newest claim: whose it is, and whether this database made it; null: there is none. */
  readonly newest: { readonly number: number; readonly claim: Claim | null; readonly isOurs: boolean } | null;
  /** Of the newest backup, where there is no claim: what was written before there were any. */
  readonly backup: { readonly project: Project; readonly isKnown: boolean } | null;
  /** This database has held a claim, here or elsewhere. */
  readonly hasClaimed: boolean;
  readonly hasClaimedHere: boolean;
  /** It has held one here since it took an original's place. */
  readonly hasAdoptedHere: boolean;
}

/**
 * `own`: it may write there, after a claim. `copy`: it needs a place of its own, and why. `strange`: it writes elsewhere, and this is
 * the store of another install; nothing is wrong with the database, but with the setting.
 */
export type Verdict = { readonly kind: "own" } | { readonly kind: "copy" | "strange"; readonly because: string };

const own: Verdict = { kind: "own" };

/**
 * Pure. The store's last claim decides: this database's, or another one's. Where it is this database's, another server is an
 * upgrade if the project is known to be the same; without a known project nothing tells it from a copy that was quicker.
 */
export function judge(identity: Identity, found: Found): Verdict {
  const { newest, backup } = found;
  if (newest !== null && !newest.isOurs) {
    if (isOverruled(identity, found)) return own;
    const because = byOthers(identity, newest.claim);
    return isStrange(found, newest.claim?.install !== identity.install) ? { kind: "strange", because } : copy(because);
  }
  const moved = movedBecause(identity, found);
  if (moved !== null) return copy(moved);
  if (newest === null && backup !== null && !isOwnBackup(identity, backup)) {
    const because = `the newest backup in its store is of ${nameOfProject(backup.project)}`;
    return isStrange(found, !backup.isKnown) ? { kind: "strange", because } : copy(because);
  }
  return own;
}

/** It took the original's place in one store: that counts for the others as well, once, for what was claimed before. */
function isOverruled({ adoptedAt, prefix }: Identity, { newest, hasAdoptedHere }: Found): boolean {
  return adoptedAt !== null && prefix === "" && !hasAdoptedHere && newest?.claim != null &&
    newest.claim.at <= adoptedAt;
}

function isStrange({ hasClaimed, hasClaimedHere }: Found, isOfAnother: boolean): boolean {
  return isOfAnother && hasClaimed && !hasClaimedHere;
}

/** Is the server, or the database, another one than before? */
export function hasMoved({ recorded, present }: Identity): boolean {
  return recorded.systemIdentifier !== present.systemIdentifier || recorded.database !== present.database;
}

function movedBecause(identity: Identity, { hasClaimed }: Found): string | null {
  const { recorded, present, ref } = identity;
  // Nothing was ever written: a schema that came along with a template has no place to lose.
  if (!hasMoved(identity) || (!hasClaimed && !identity.isCopy && ref === null)) return null;
  if (recorded.database !== present.database) {
    return `it was database ${recorded.database} and is ${present.database} now: a copy, or it was renamed`;
  }
  if (ref !== null) return null;
  return `it was on server ${recorded.systemIdentifier} and is on ${present.systemIdentifier} now, and no project is known ` +
    "that would say whether it moved or was copied";
}

function byOthers(identity: Identity, claim: Claim | null): string {
  if (claim === null) return "the last claim in its store is damaged, so nobody knows who writes there";
  const { ref, database, systemIdentifier, at } = claim;
  const who = nameOfProject({ ref, database, systemIdentifier });
  if (claim.install !== identity.install) return `its store belongs to another install, ${who}, since ${at}`;
  const unknown = `${who} wrote to its store at ${at}, which this database knows nothing of`;
  if (identity.ref === null || ref !== identity.ref || identity.presentRef !== null) {
    return `${unknown}: it is a copy, or a copy of it runs somewhere, or it was put back to an earlier state`;
  }
  return `${unknown}, though it is that project's: it was put back to an earlier state, as a managed restore or a snapshot ` +
    "does, or another database of the same project runs beside it";
}

function isOwnBackup(identity: Identity, { project, isKnown }: NonNullable<Found["backup"]>): boolean {
  const mine = { ref: identity.presentRef ?? identity.ref, ...identity.present };
  return isSameProject(mine, project) || (isKnown && mine.ref !== null && mine.ref === project.ref);
}

function copy(because: string): Verdict {
  return { kind: "copy", because };
}
