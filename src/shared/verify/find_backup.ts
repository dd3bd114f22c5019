/** Which backups a store holds, found from the store alone. */
import type { EpochSource } from "../crypto/epoch.ts";
import { epochSource } from "../crypto/epochs.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { listedIn, refuseUnlawful } from "../erase/lawful.ts";
import { readLedger } from "../erase/ledger.ts";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { type BackupName, parseManifestName, prefixes } from "../format/layout.ts";
import { quarantineOf } from "../format/manifest.ts";
import { type OpenedManifest, openManifest } from "../format/manifest_codec.ts";
import { readRepository } from "../format/repository.ts";
import type { Store } from "../store/store.ts";

export interface ReadDeps {
  readonly store: Store;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
}

/** A backup by its name, before it is opened. */
export interface ListedBackup extends BackupName {
  /** Full name of the manifest. */
  readonly name: string;
  /** Bytes of the sealed manifest. */
  readonly size: number;
}

/** An opened backup with what opens its objects. */
export interface OpenedBackup extends OpenedManifest {
  readonly epochOf: EpochSource;
}

/** Ids are random: 8 hex digits are clear among any number of backups that a store has. */
const leastIdLetters = 4;

/** Every manifest's name, newest first. One name a backup; nothing is opened. */
export async function listBackups(store: Store): Promise<ListedBackup[]> {
  const found: ListedBackup[] = [];
  for await (const { name, size } of store.list(prefixes.backups)) {
    const parsed = parseManifestName(name);
    if (parsed !== null) found.push({ ...parsed, name, size });
  }
  return found.sort((a, b) => a.name < b.name ? 1 : -1);
}

/**
 * The backup that `wanted` names: an id, shortened or not, or `latest`, which passes over those that restores took of what they
 * were to change. Errors: those of `backupById`.
 */
export function chooseBackup(backups: readonly ListedBackup[], wanted: string): ListedBackup {
  if (wanted !== "latest") return backupById(backups, wanted);
  const [newest] = backups.filter(countsAsLatest);
  if (newest !== undefined) return newest;
  throw new HoldfastError("backup_not_found", "the store has no backup that counts as latest", {
    hint: "`holdfast list` shows what there is; name one by its id.",
  });
}

function countsAsLatest({ tier }: ListedBackup): boolean {
  return tier !== "safety";
}

/** The one whose id is `wanted`, or begins with it (4 letters at least). Errors: `backup_not_found`, `backup_ambiguous`. */
export function backupById<T extends { readonly id: string }>(backups: readonly T[], wanted: string): T {
  const letters = wanted.toLowerCase();
  const fits = letters.length < leastIdLetters ? [] : backups.filter((backup) => backup.id.startsWith(letters));
  const [only] = fits;
  if (only === undefined) {
    const short = letters.length < leastIdLetters ? `; an id is shortened to ${leastIdLetters} letters at least` : "";
    const what = wanted === "" ? "no backup's id is given" : `the store has no backup ${wanted}${short}`;
    throw new HoldfastError("backup_not_found", what);
  }
  if (fits.length > 1) {
    const ids = fits.slice(0, 3).map((backup) => backup.id).join(", ");
    throw new HoldfastError("backup_ambiguous", `${fits.length} backups start with ${wanted}: ${ids}`);
  }
  return only;
}

/**
 * Reads, opens and checks the manifest of the backup that `wanted` names (see `chooseBackup`). `latest` is the newest one
 * that was not quarantined: a database that lost its rows must not take the place of the one that had them. Whether
 * somebody accepted it, the store cannot know; it is opened by its id.
 * The erasure ledger has the word on whether a manifest was rewritten by right.
 * Errors: `backup_quarantined` when `latest` finds no other; `rewrite_unlawful`, `ledger_unreadable`; those of `chooseBackup`, `key_wrong`, `format_newer`, `manifest_damaged`, `object_damaged`, those of the store.
 */
export async function openBackup(deps: ReadDeps, wanted: string): Promise<OpenedBackup> {
  const backups = await listBackups(deps.store);
  const chosen = chooseBackup(backups, wanted);
  const repository = await readRepository(deps.store);
  if (repository === null) {
    throw new HoldfastError("object_missing", `${deps.store.label} has backups but no v1/repository.json`, {
      hint: "Copy v1/repository.json from the other store, or take it from a copy of this one.",
    });
  }
  const epochOf = epochSource(deps.store, deps.ring, repository.id);
  const openOne = async (listed: ListedBackup): Promise<OpenedBackup> => {
    const bytes = await deps.store.read(listed.name);
    const opened = await openManifest({ compressor: deps.compressor, epochOf }, listed.name, bytes);
    if (opened.manifest.repositoryId !== repository.id) {
      throw new HoldfastError("manifest_damaged", `${listed.name} belongs to another repository`);
    }
    refuseUnlawful(entries, lawful, { ...opened, rewritten: opened.manifest.rewritten });
    return { ...opened, epochOf };
  };
  const { entries } = await readLedger(deps);
  const lawful = listedIn(entries);
  if (wanted !== "latest") return await openOne(chosen);
  const others = backups.filter(countsAsLatest);
  for (let at = 0; at < others.length;) {
    // Names tell seconds only; of two small backups in one second the generation tells which is newer.
    const second = others[at]?.createdAt.getTime();
    const same = others.filter((listed) => listed.createdAt.getTime() === second);
    const opened: OpenedBackup[] = [];
    for (const listed of same) opened.push(await openOne(listed));
    opened.sort((a, b) => b.manifest.generation - a.manifest.generation);
    const found = opened.find(({ manifest }) => quarantineOf(manifest) === null);
    if (found !== undefined) return found;
    at += same.length;
  }
  throw new HoldfastError("backup_quarantined", "every backup in the store was quarantined when it was taken", {
    hint: "Look at them with `holdfast list`, then name one by its id.",
  });
}
