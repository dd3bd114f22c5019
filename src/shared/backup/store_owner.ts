/** Whose backups a store holds. */
import { epochSource } from "../crypto/epochs.ts";
import { HoldfastError } from "../errors.ts";
import { type BackupName, parseManifestName, prefixes } from "../format/layout.ts";
import type { Manifest } from "../format/manifest.ts";
import { openManifest } from "../format/manifest_codec.ts";
import { readRepository } from "../format/repository.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Store } from "../store/store.ts";
import type { BackupDeps } from "./deps.ts";

export interface ListedManifest extends BackupName {
  readonly name: string;
}

/** Newest first; nothing is opened. */
export async function listManifests(store: Store): Promise<ListedManifest[]> {
  const found: ListedManifest[] = [];
  for await (const { name } of store.list(prefixes.backups)) {
    const parsed = parseManifestName(name);
    if (parsed !== null) found.push({ ...parsed, name });
  }
  return found.sort((a, b) => b.createdAt.getTime() - a.createdAt.getTime() || (a.name < b.name ? 1 : -1));
}

/** Errors: `schema_missing`. */
export async function readProject(connection: Connection): Promise<Manifest["project"]> {
  const [row] = await connection.query(
    `select coalesce(i.present_ref, i.project_ref) as project_ref, c.system_identifier,
            pg_catalog.current_database() as database
       from backup.identity as i, pg_catalog.pg_control_system() as c`,
  );
  if (row === undefined) throw new HoldfastError("schema_missing", "schema backup has no identity");
  return {
    ref: row["project_ref"] ?? null,
    systemIdentifier: text(row, "system_identifier"),
    database: text(row, "database"),
  };
}

type StoreDeps = Pick<BackupDeps, "store" | "ring" | "compressor">;

/** Of one backup. Errors: those of keys and store. */
export async function projectOfBackup(deps: StoreDeps, { name }: ListedManifest): Promise<Manifest["project"] | null> {
  const repository = await readRepository(deps.store);
  if (repository === null) return null;
  const epochOf = epochSource(deps.store, deps.ring, repository.id);
  const bytes = await deps.store.read(name);
  return (await openManifest({ compressor: deps.compressor, epochOf }, name, bytes)).manifest.project;
}
