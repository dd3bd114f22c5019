/** Which database a backup is of. */
import type { Manifest } from "./manifest.ts";

export type Project = Manifest["project"];

/** The same database of the same server; a clone of the whole server is told by its project, where both are known. */
export function isSameProject(a: Project, b: Project): boolean {
  return a.systemIdentifier === b.systemIdentifier && a.database === b.database &&
    (a.ref === null || b.ref === null || a.ref === b.ref);
}

/** For people. */
export function nameOfProject({ ref, systemIdentifier, database }: Project): string {
  return `${ref === null ? "" : `project ${ref}, `}database ${database} of server ${systemIdentifier}`;
}

/**
 * The sources of these backups, oldest first, each with a name that tells it from the others: the project's, else
 * `database@server`. What was taken before the project was known counts to the one project of that server and database; a
 * server that was upgraded stays the same project.
 */
export function sourcesOf<T extends { readonly manifest: Pick<Manifest, "project"> }>(
  backups: readonly T[],
): Map<string, T[]> {
  const refs = new Map<string, Set<string>>();
  for (const { manifest: { project } } of backups) {
    const known = refs.get(placeOf(project)) ?? new Set();
    refs.set(placeOf(project), project.ref === null ? known : known.add(project.ref));
  }
  const sources = new Map<string, T[]>();
  for (const backup of backups) {
    const { project } = backup.manifest;
    const [only, ...others] = refs.get(placeOf(project)) ?? [];
    const name = project.ref ?? (others.length === 0 ? only : undefined) ?? placeOf(project);
    sources.set(name, [...sources.get(name) ?? [], backup]);
  }
  return sources;
}

function placeOf({ database, systemIdentifier }: Project): string {
  return `${database}@${systemIdentifier}`;
}
