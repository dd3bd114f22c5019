/**
 * A bucket with versions and object lock, in memory, as Amazon S3 documents them (User Guide, "Locking objects with Object
 * Lock" and "Working with delete markers"; API Reference, PutObject, PutObjectRetention, ListObjectVersions, DeleteObjects).
 * No server that knows them can be had from npm. What our client does not use is not modelled and answers 501.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";

export interface BucketLocks {
  readonly versioning: "Enabled" | "Suspended" | null;
  /** Null: there is no object lock. `preset`: what a put without a retention of its own gets. */
  readonly lock: { readonly preset: { readonly mode: string; readonly days: number } | null } | null;
  /** Calls that these credentials may not make, by the names of their rights. */
  readonly denied?: readonly ("ask" | "retain" | "removeVersions")[];
  /** It says that it locks, and takes the call that renews a lock for an ordinary put, as Supabase's endpoint does. */
  readonly nonsense?: boolean;
}

export interface Retention {
  readonly mode: string;
  readonly until: Date;
}

interface Version {
  readonly id: string;
  /** Null: a delete marker. */
  readonly body: Uint8Array | null;
  retention: Retention | null;
}

export interface BucketCall {
  readonly method: string;
  /** Empty for the bucket itself. */
  readonly key: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Uint8Array;
}

export interface BucketAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

const namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"';
const dayMs = 86_400_000;
const namesPerPage = 40;

export class VersionedBucket {
  readonly locks: BucketLocks;
  /** Moved on by tests. */
  aheadMs = 0;
  /** Every call that was answered, such as `PUT v1/keys/a?retention`. */
  readonly calls: string[] = [];
  readonly #versions = new Map<string, Version[]>();
  #made = 0;

  constructor(locks: BucketLocks) {
    this.locks = locks;
  }

  now(): Date {
    return new Date(Date.now() + this.aheadMs);
  }

  /** Names of what lies there below a prefix, in their order. */
  keys(prefix: string): string[] {
    return [...this.#versions.keys()].filter((key) =>
      key.startsWith(prefix) && this.versionsOf(key).at(-1)?.body != null
    )
      .sort();
  }

  /** The newest last. */
  versionsOf(key: string): readonly Version[] {
    return this.#versions.get(key) ?? [];
  }

  /** Of the current version; null: it has none, or there is no object. */
  retentionOf(key: string): Retention | null {
    return this.versionsOf(key).at(-1)?.retention ?? null;
  }

  answer(call: BucketCall): BucketAnswer {
    const { method, key, query } = call;
    const [question = ""] = ["versioning", "object-lock", "versions", "delete", "retention", "list-type"]
      .filter((name) => query.has(name));
    this.calls.push(`${method} ${key}${question === "" ? "" : `?${question}`}`);
    if (key === "") {
      switch (`${method} ${question}`) {
        case "GET versioning":
          return this.#may("ask") ??
            xml(`<VersioningConfiguration ${namespace}>${this.#status()}</VersioningConfiguration>`);
        case "GET object-lock":
          return this.#may("ask") ?? this.#configuration();
        case "GET versions":
          return this.#listVersions(query);
        case "GET list-type":
          return this.#list(query);
        case "POST delete":
          return this.#remove(call);
        case "HEAD ":
          return { status: 200 };
        default:
          return refused(501, "NotImplemented");
      }
    }
    if (method === "PUT") {
      return question === "retention" && this.locks.nonsense !== true ? this.#retain(call) : this.#put(call);
    }
    if (method === "GET" || method === "HEAD") return this.#read(key);
    return refused(501, "NotImplemented");
  }

  #put({ key, headers, body }: BucketCall): BucketAnswer {
    const current = this.versionsOf(key).at(-1);
    if (headers["if-none-match"] === "*" && current !== undefined && current.body !== null) {
      return refused(412, "PreconditionFailed");
    }
    const mode = one(headers["x-amz-object-lock-mode"]);
    const until = one(headers["x-amz-object-lock-retain-until-date"]);
    let retention: Retention | null = null;
    if (mode !== undefined || until !== undefined) {
      if (this.locks.lock === null) return refused(400, "InvalidRequest");
      if (mode === undefined || until === undefined) return refused(400, "InvalidArgument");
      const asked = this.#asked(mode, until);
      if ("status" in asked) return asked;
      const denied = this.#may("retain");
      if (denied !== null) return denied;
      retention = asked;
    } else if (this.locks.lock?.preset != null) {
      const { mode: preset, days } = this.locks.lock.preset;
      retention = { mode: preset, until: new Date(this.now().getTime() + days * dayMs) };
    }
    if (retention !== null && headers["content-md5"] === undefined) return refused(400, "InvalidRequest");
    this.#add(key, body, retention);
    return { status: 200 };
  }

  /** Without versions the new one takes the place of the old. */
  #add(key: string, body: Uint8Array | null, retention: Retention | null): void {
    const version = { id: this.locks.versioning === "Enabled" ? `v${++this.#made}` : "null", body, retention };
    const before = this.versionsOf(key).filter(({ id }) => id !== version.id);
    if (this.locks.versioning === null && body === null) this.#versions.delete(key);
    else this.#versions.set(key, [...before, version]);
  }

  /** "The retain until date must be in the future"; no longer than a hundred years. */
  #asked(mode: string, until: string): Retention | BucketAnswer {
    const date = new Date(until);
    if (!["GOVERNANCE", "COMPLIANCE"].includes(mode) || Number.isNaN(date.getTime())) {
      return refused(400, "MalformedXML");
    }
    return date > this.now() ? { mode, until: date } : refused(400, "InvalidArgument");
  }

  /** Longer for whoever may; shorter and away from COMPLIANCE for nobody, and away from GOVERNANCE not without bypass. */
  #retain({ key, headers, body }: BucketCall): BucketAnswer {
    if (this.locks.lock === null) return refused(400, "InvalidRequest");
    if (headers["content-md5"] === undefined) return refused(400, "InvalidRequest");
    const current = this.versionsOf(key).at(-1);
    if (current === undefined) return refused(404, "NoSuchKey");
    if (current.body === null) return refused(405, "MethodNotAllowed");
    const text = Buffer.from(body).toString();
    const field = (name: string) => new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1] ?? "";
    const asked = this.#asked(field("Mode"), field("RetainUntilDate"));
    if ("status" in asked) return asked;
    const denied = this.#may("retain");
    if (denied !== null) return denied;
    const { retention } = current;
    const isHeld = retention !== null && retention.until > this.now();
    const isLess = isHeld &&
      (asked.until < retention.until || (retention.mode === "COMPLIANCE" && asked.mode !== retention.mode));
    if (isLess) return refused(403, "AccessDenied");
    current.retention = asked;
    return { status: 200 };
  }

  #read(key: string): BucketAnswer {
    const current = this.versionsOf(key).at(-1);
    if (current === undefined || current.body === null) return refused(404, "NoSuchKey");
    const { body, retention } = current;
    return {
      status: 200,
      headers: {
        "content-type": "application/octet-stream",
        "content-length": String(body.byteLength),
        ...(retention === null ? {} : {
          "x-amz-object-lock-mode": retention.mode,
          "x-amz-object-lock-retain-until-date": retention.until.toISOString(),
        }),
      },
      body,
    };
  }

  /** With a version's id it goes for good, unless it is held; without one a marker takes its place. */
  #remove({ body, headers }: BucketCall): BucketAnswer {
    if (headers["content-md5"] === undefined) return refused(400, "InvalidRequest");
    const errors: string[] = [];
    for (const [, inside = ""] of Buffer.from(body).toString().matchAll(/<Object>(.*?)<\/Object>/g)) {
      const key = /<Key>([^<]*)<\/Key>/.exec(inside)?.[1] ?? "";
      const id = /<VersionId>([^<]*)<\/VersionId>/.exec(inside)?.[1];
      if (id === undefined) {
        if (this.locks.versioning !== null || this.#versions.has(key)) this.#add(key, null, null);
        continue;
      }
      const found = this.versionsOf(key).find((version) => version.id === id);
      const isHeld = found?.retention != null && found.retention.until > this.now();
      if (isHeld || this.#may("removeVersions") !== null) {
        errors.push(`<Error><Key>${key}</Key><VersionId>${id}</VersionId><Code>AccessDenied</Code></Error>`);
      } else this.#versions.set(key, this.versionsOf(key).filter((version) => version.id !== id));
    }
    return xml(`<DeleteResult ${namespace}>${errors.join("")}</DeleteResult>`);
  }

  #list(query: URLSearchParams): BucketAnswer {
    const prefix = query.get("prefix") ?? "";
    const after = query.get("continuation-token") ?? "";
    const names = this.keys(prefix).filter((key) => key > after);
    const page = names.slice(0, namesPerPage);
    const contents = page.map((key) =>
      `<Contents><Key>${key}</Key><Size>${this.versionsOf(key).at(-1)?.body?.byteLength}</Size></Contents>`
    );
    const next = page.length < names.length
      ? `<IsTruncated>true</IsTruncated><NextContinuationToken>${page.at(-1)}</NextContinuationToken>`
      : "<IsTruncated>false</IsTruncated>";
    return xml(
      `<ListBucketResult ${namespace}><KeyCount>${page.length}</KeyCount>${next}${
        contents.join("")
      }</ListBucketResult>`,
    );
  }

  /** Newest first, two a page, so that any replaced object makes several. */
  #listVersions(query: URLSearchParams): BucketAnswer {
    const prefix = query.get("prefix") ?? "";
    const all = [...this.#versions].filter(([key]) => key.startsWith(prefix)).sort(([a], [b]) => a < b ? -1 : 1)
      .flatMap(([key, versions]) =>
        versions.toReversed().map((version, index) => ({ key, version, isLatest: index === 0 }))
      );
    const marker = [query.get("key-marker"), query.get("version-id-marker")];
    const from = all.findIndex(({ key, version }) => key === marker[0] && version.id === marker[1]) + 1;
    const page = all.slice(from, from + 2);
    const entries = page.map(({ key, version, isLatest }) => {
      const kind = version.body === null ? "DeleteMarker" : "Version";
      const inside = `<Key>${key}</Key><VersionId>${version.id}</VersionId><IsLatest>${isLatest}</IsLatest>`;
      return `<${kind}>${inside}</${kind}>`;
    });
    const last = page.at(-1);
    const next = last !== undefined && from + 2 < all.length
      ? `<IsTruncated>true</IsTruncated><NextKeyMarker>${last.key}</NextKeyMarker><NextVersionIdMarker>${last.version.id}</NextVersionIdMarker>`
      : "<IsTruncated>false</IsTruncated>";
    return xml(`<ListVersionsResult ${namespace}>${next}${entries.join("")}</ListVersionsResult>`);
  }

  #configuration(): BucketAnswer {
    const { lock } = this.locks;
    if (lock === null) return refused(404, "ObjectLockConfigurationNotFoundError");
    const { mode = "", days = 0 } = lock.preset ?? {};
    const retention = `<DefaultRetention><Mode>${mode}</Mode><Days>${days}</Days></DefaultRetention>`;
    const rule = lock.preset === null ? "" : `<Rule>${retention}</Rule>`;
    const inside = `<ObjectLockEnabled>Enabled</ObjectLockEnabled>${rule}`;
    return xml(`<ObjectLockConfiguration ${namespace}>${inside}</ObjectLockConfiguration>`);
  }

  #status(): string {
    return this.locks.versioning === null ? "" : `<Status>${this.locks.versioning}</Status>`;
  }

  #may(right: "ask" | "retain" | "removeVersions"): BucketAnswer | null {
    return this.locks.denied?.includes(right) === true ? refused(403, "AccessDenied") : null;
  }
}

/** As S3 wants it with locks, in tests that call without our client. */
export function md5Of(body: Uint8Array): string {
  return createHash("md5").update(body).digest("base64");
}

function one(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function xml(inside: string): BucketAnswer {
  const body = Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n${inside}`);
  return { status: 200, headers: { "content-type": "application/xml", "content-length": String(body.length) }, body };
}

function refused(status: number, code: string): BucketAnswer {
  const body = Buffer.from(
    `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>refused</Message></Error>`,
  );
  return { status, headers: { "content-type": "application/xml", "content-length": String(body.length) }, body };
}
