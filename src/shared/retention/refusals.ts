/** What keeps everything: where one of these holds, nothing may be removed. */
import { parseManifestName } from "../format/layout.ts";
import type { RetentionFacts } from "./facts.ts";

/** Two clocks of machines that are kept right differ by less. */
export const clockToleranceMs = 5 * 60 * 1000;

/** A reason for people, or null. docs/decisions/0030-retention.md says why each. */
export function whyNothing(facts: RetentionFacts): string | null {
  return notOurs(facts) ?? clockMoved(facts) ?? badListing(facts) ?? badNewest(facts);
}

function notOurs({ isOriginal }: RetentionFacts): string | null {
  return isOriginal ? null : "this database is a copy, or may be one: what is in the store is the original's";
}

function clockMoved({ now, elsewhere, latestRecorded, listings }: RetentionFacts): string | null {
  if (Math.abs(now - elsewhere) > clockToleranceMs) {
    return `the database's clock says ${iso(now)}, this machine's ${iso(elsewhere)}`;
  }
  if (latestRecorded > now + clockToleranceMs) {
    return `something was recorded at ${iso(latestRecorded)}, and it is ${iso(now)}: the clock was moved back`;
  }
  for (const { store, names } of listings ?? []) {
    for (const name of names) {
      const created = parseManifestName(name)?.createdAt.getTime() ?? 0;
      if (created > now + clockToleranceMs) return `${name} in ${store} is newer than now, ${iso(now)}`;
    }
  }
  return null;
}

function badListing({ listings }: RetentionFacts): string | null {
  if (listings === null) return "a store could not be listed to its end";
  for (const { store, names, expected } of listings) {
    const missing = expected.find((name) => !names.has(name));
    if (missing !== undefined) return `${store} does not list ${missing}, which is recorded: cut short, or lost`;
  }
  return null;
}

function badNewest({ now, newestEnd, backups, policy, listings }: RetentionFacts): string | null {
  if (newestEnd !== "succeeded") {
    return newestEnd === null
      ? "there is no backup"
      : `the newest backup ${newestEnd === "failed" ? "failed" : "is quarantined"}`;
  }
  const newest = backups.reduce<(typeof backups)[number] | null>(
    (best, one) => best === null || one.consistentAt > best.consistentAt ? one : best,
    null,
  );
  if (newest === null) return "there is no backup";
  if (newest.status !== "succeeded") return `the newest backup, ${newest.id}, is quarantined`;
  if (listings?.[0].names.has(newest.manifest) !== true) return `the newest backup, ${newest.id}, is not in the store`;
  if (!newest.isVerified) return `the newest backup, ${newest.id}, is not verified`;
  if (now - newest.consistentAt > policy.newestMs) {
    return `the newest backup, ${newest.id}, is of ${iso(newest.consistentAt)}: too old to rely on`;
  }
  return null;
}

function iso(moment: number): string {
  return new Date(moment).toISOString();
}
