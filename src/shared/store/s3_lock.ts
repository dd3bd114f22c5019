/**
 * Object lock and versions of a bucket of S3. An object's own retention stands before the bucket's default, so that keys are
 * put with one that ends soon. Nothing of this is sent to a server that does not say that the bucket has object lock: there are
 * some that take a retention for the object's new bytes.
 */
import { HoldfastError } from "../errors.ts";
import type { Clock } from "../clock.ts";
import { statedLength } from "./http_call.ts";
import {
  defaultLock,
  isLocked,
  lockedUntil,
  type LockMode,
  renewalMs,
  type Retention,
  type StoreLock,
} from "./lock.ts";
import type { LockSettings } from "./lock.ts";
import { type BucketLock, readLock, readVersioning } from "./s3_bucket.ts";
import type { S3Place } from "./s3_call.ts";
import { md5, removal } from "./s3_remove.ts";
import { s3Failure } from "./s3_errors.ts";
import { versionsOf } from "./s3_versions.ts";

/** Above the 15 minutes by which the server's clock may differ: it takes no retention that has ended. */
const endsSoonMs = 20 * 60 * 1000;

export interface S3Lock extends StoreLock {
  /** What a put of this name carries. Errors: those of asking the bucket. */
  headersFor(name: string): Promise<Record<string, string>>;
  /** Removes every version of these names. False: the bucket keeps none, or does not tell, and nothing was removed. */
  removeVersions(names: readonly string[]): Promise<boolean>;
}

/** `urlOf`, `keyOf`: an object's address, and its whole key. */
export function createS3Lock(
  place: S3Place,
  { urlOf, keyOf }: { readonly urlOf: (name: string) => string; readonly keyOf: (name: string) => string },
  { days, mode }: LockSettings = defaultLock,
  clock: Clock,
): S3Lock {
  const { label, send } = place;
  const lock = once(async (): Promise<BucketLock | null> => {
    const found = await readLock(place);
    return typeof found === "string" ? null : found;
  });
  // A bucket with object lock keeps them, whatever it says.
  const keepsVersions = once(async () =>
    await lock() !== null || ["on", "suspended"].includes(await readVersioning(place))
  );
  let proven = false;

  async function look(name: string): Promise<{ readonly size: number | null; readonly retention: Retention | null }> {
    const answer = await send("HEAD", urlOf(name));
    if (answer.status !== 200) throw s3Failure(answer, `look at ${name}`, label);
    return { size: statedLength(answer.headers), retention: retentionIn(answer.headers, label) };
  }

  async function retain(name: string, wanted: Retention): Promise<void> {
    const body = new TextEncoder().encode(
      `<?xml version="1.0" encoding="UTF-8"?><Retention xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Mode>${wanted.mode}</Mode><RetainUntilDate>${
        stamp(wanted.until)
      }</RetainUntilDate></Retention>`,
    );
    const headers = { "content-md5": md5(body), "content-type": "application/xml" };
    const answer = await send("PUT", `${urlOf(name)}?retention=`, { body, headers });
    if (answer.status !== 200) throw lockRefused(s3Failure(answer, `lock ${name}`, label));
  }

  async function removeEach(name: string, which: (isLatest: boolean) => boolean): Promise<void> {
    const key = keyOf(name);
    const versions = (await versionsOf(place, key)).filter(({ isLatest }) => which(isLatest));
    const { kept } = await removal(place, versions.map(({ id }) => ({ key, version: id })));
    if (kept === 0) return;
    throw new HoldfastError("store_denied", `${label} keeps ${kept} versions of ${name}`, {
      hint: "A lock may hold them, or these credentials may not remove versions (s3:DeleteObjectVersion).",
    });
  }

  return {
    async inForce() {
      return days > 0 && await lock() !== null ? { days, mode } : null;
    },

    async hold(name) {
      if (days === 0 || !isLocked(name) || await lock() === null) return;
      const { size, retention } = await look(name);
      const until = lockedUntil(clock.now(), days);
      if (retention !== null && retention.until.getTime() >= until.getTime() - renewalMs(days)) return;
      // What is locked for good cannot be locked in the weaker way.
      await retain(name, { mode: retention?.mode === "COMPLIANCE" ? "COMPLIANCE" : mode, until });
      if (proven) return;
      const after = await look(name);
      if (after.size !== size || (after.retention !== null && after.retention.until < until)) {
        throw new HoldfastError("store_lied", `${label} says that it locks, and did something else with ${name}`, {
          hint: "Add lock=off to the store's address, and put this object there again.",
        });
      }
      proven = true;
    },

    async retentionOf(name) {
      return (await look(name)).retention;
    },

    async headersFor(name) {
      const found = await lock();
      if (found === null) return {};
      if (isLocked(name)) return days === 0 ? {} : headersOf(mode, lockedUntil(clock.now(), days));
      // The bucket's default would hold it.
      return found.preset === null ? {} : headersOf("GOVERNANCE", new Date(clock.now().getTime() + endsSoonMs));
    },

    async forgetEarlier(name) {
      if (await keepsVersions()) await removeEach(name, (isLatest) => !isLatest);
    },

    async removeVersions(names) {
      if (!(await keepsVersions())) return false;
      for (const name of names) await removeEach(name, () => true);
      return true;
    },
  };
}

/** For what a server refuses that comes with a lock. */
export function lockRefused(failure: HoldfastError): HoldfastError {
  const { code, message } = failure;
  if (code !== "store_denied" && code !== "store_lied") return failure;
  return new HoldfastError(code, message, {
    hint: "The bucket has object lock: allow s3:PutObjectRetention, or add lock=off to the store's address.",
    cause: failure,
  });
}

function headersOf(mode: LockMode, until: Date): Record<string, string> {
  return { "x-amz-object-lock-mode": mode, "x-amz-object-lock-retain-until-date": stamp(until) };
}

/** Whole seconds, rounded up. */
function stamp(moment: Date): string {
  return new Date(Math.ceil(moment.getTime() / 1000) * 1000).toISOString().replace(".000Z", "Z");
}

function retentionIn(headers: Headers, label: string): Retention | null {
  const text = headers.get("x-amz-object-lock-retain-until-date");
  if (text === null) return null;
  const until = new Date(text);
  if (!Number.isNaN(until.getTime())) return { mode: headers.get("x-amz-object-lock-mode"), until };
  throw new HoldfastError("store_lied", `${label} tells a lock until a moment that is none`);
}

/** Asked once; a failure is not kept. */
function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let known: Promise<T> | undefined;
  return () => {
    if (known === undefined) {
      known = ask();
      known.catch(() => known = undefined);
    }
    return known;
  };
}
