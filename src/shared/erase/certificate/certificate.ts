/** The certificate of an erasure: what went, what was searched, and that nothing is left; signed. docs/format.md, "Certificates". */
import { z } from "zod";
import type { Clock } from "../../clock.ts";
import { epochSource } from "../../crypto/epochs.ts";
import type { KeyRing } from "../../crypto/key_ring.ts";
import { isSigned, signatureFormat, signatureOf } from "../../crypto/signed_document.ts";
import { HoldfastError } from "../../errors.ts";
import { prefixes, termsName } from "../../format/layout.ts";
import { call } from "../../jobs/call.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { Store } from "../../store/store.ts";
import type { PutDeps } from "../ledger.ts";
import { termKinds } from "../rewrite/terms.ts";
import { readTerms } from "../rewrite/terms_file.ts";
import { countKinds, formNames, formsOf } from "./forms.ts";
import { type Found, type SearchDeps, searchStore } from "./search.ts";

const purpose = "holdfast erasure certificate v1";

const found = z.object({
  object: z.string(),
  what: z.enum(["rows", "changes", "definition", "file", "list of files", "record"]),
  table: z.string().nullable(),
  count: z.int(),
  /** Why it stays. */
  reason: z.string(),
});

export const certificateFormat = z.object({
  format: z.literal("holdfast/erasure-certificate"),
  version: z.literal(1),
  erasure: z.string(),
  /** A keyed hash that means nothing outside of the database. */
  person: z.string(),
  begunAt: z.string(),
  /** Gone from the live project; rewritten out of what is kept; and what was there before gone from every store, the last locked copy too. */
  emptiedAt: z.string(),
  rewrittenAt: z.string(),
  cleanAt: z.string(),
  issuedAt: z.string(),
  rows: z.record(z.string(), z.number()),
  files: z.int(),
  /** In the live project: where the id still stood, in rows of others. */
  liveMentions: z.array(z.object({ table: z.string(), rows: z.number() })),
  ledger: z.array(z.string()),
  searchedFor: z.array(z.object({ kind: z.enum(termKinds), count: z.int() })),
  forms: z.array(z.string()),
  searched: z.object({ store: z.string(), objects: z.int(), rawBytes: z.int() }),
  /** The second store has no object that the first has not: it holds the same ones, in one more layer. */
  second: z.object({ store: z.string(), objects: z.int() }).nullable(),
  mentions: z.array(found),
});
export type Certificate = z.infer<typeof certificateFormat>;

const signed = certificateFormat.extend({ signature: signatureFormat });
export type SignedCertificate = z.infer<typeof signed>;

export interface CertifyDeps extends PutDeps {
  readonly connection: Connection;
  readonly second: Store | null;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  readonly onProgress?: NonNullable<SearchDeps["onProgress"]>;
}

const reasons: Readonly<Record<Found["what"], string>> = {
  rows: "by its keys, the map and the ledger the row is not the person's",
  changes:
    "by its keys, the map and the ledger the row that was changed is not the person's, or it became somebody else's",
  definition: "it stands in the definition of an object of the database",
  file: "it stands in the content of a file that is not the person's",
  "list of files": "it stands in the row of a file that is not the person's",
  record: "it stands in a record of ours",
};

/**
 * The one that was issued, or a new one. Errors: `certificate_not_due` while something is left; `run_state` for no such erasure; those of
 * keys and stores.
 */
export async function certify(deps: CertifyDeps, erasure: string): Promise<SignedCertificate> {
  const row = await readRow(deps.connection, erasure);
  if (row.certificate !== null) return signed.parse(JSON.parse(row.certificate));
  const terms = await readTerms(deps, erasure);
  if (row.facts.cleanAt === "") throw notDue(`the erasure is ${row.status}, and what is kept is not clean yet`);
  if (terms.length === 0) throw notDue("what the person is to be searched by is not in the store");
  const { store, ring, repositoryId, clock } = deps;
  const epochOf = epochSource(store, ring, repositoryId);
  const result = await searchStore({ ...deps, epochOf }, formsOf(terms));
  if (result.unnamed.length > 0) {
    throw notDue(`${result.unnamed.length} objects that nothing names hold the person, such as ${result.unnamed[0]}`);
  }
  const plain: Certificate = {
    format: "holdfast/erasure-certificate",
    version: 1,
    erasure,
    ...row.facts,
    issuedAt: `${clock.now().toISOString().slice(0, 19)}Z`,
    searchedFor: countKinds(terms),
    forms: [...formNames],
    searched: { store: store.label, objects: result.objects, rawBytes: result.rawBytes },
    second: await compareSecond(deps),
    mentions: result.found.map((one) => ({ ...one, reason: reasons[one.what] })),
  };
  const document = { ...plain, signature: await signatureOf(plain, ring, purpose) };
  await call(deps.connection, "select backup.certify_erasure($1::uuid, $2::jsonb)", [
    erasure,
    JSON.stringify(document),
  ]);
  await store.remove([termsName(erasure)]);
  return document;
}

/** Errors: `usage` for no certificate, `key_missing`. */
export async function isGenuine(document: unknown, ring: KeyRing): Promise<boolean> {
  const parsed = signed.safeParse(document);
  if (!parsed.success) throw new HoldfastError("usage", "this is no certificate of an erasure");
  const { signature, ...plain } = parsed.data;
  return await isSigned(plain, signature, ring, purpose);
}

function notDue(why: string): HoldfastError {
  return new HoldfastError("certificate_not_due", `there is no certificate yet: ${why}`);
}

/** Errors: `certificate_not_due` for what lies in the second store alone. */
async function compareSecond({ store, second }: CertifyDeps): Promise<Certificate["second"]> {
  if (second === null) return null;
  let objects = 0;
  for (const prefix of [prefixes.objects, prefixes.blobs, prefixes.changes, prefixes.backups]) {
    const names = new Set<string>();
    for await (const { name } of store.list(prefix)) names.add(name);
    for await (const { name } of second.list(prefix)) {
      objects++;
      if (!names.has(name)) throw notDue(`${name} lies in ${second.label} alone, where nobody can look into it`);
    }
  }
  return { store: second.label, objects };
}

type RowFacts = Pick<
  Certificate,
  | "person"
  | "begunAt"
  | "emptiedAt"
  | "rewrittenAt"
  | "cleanAt"
  | "rows"
  | "files"
  | "liveMentions"
  | "ledger"
>;

async function readRow(
  connection: Connection,
  erasure: string,
): Promise<{ readonly status: string; readonly certificate: string | null; readonly facts: RowFacts }> {
  const at = (column: string) =>
    `coalesce(pg_catalog.to_char(e.${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') as ${column}`;
  const [row] = await call(
    connection,
    `select e.status, e.certificate::text as certificate, e.person, e.rows::text as rows, e.files, e.mentions::text as mentions,
            pg_catalog.array_to_json(e.entries)::text as entries, ${
      ["begun_at", "emptied_at", "rewritten_at", "clean_at"].map(at).join(", ")
    } from backup.erasures as e where e.id = $1::uuid`,
    [erasure],
  );
  if (row === undefined) {
    throw new HoldfastError("run_state", `there is no erasure ${erasure}`, {
      hint: "`holdfast erase list` shows them.",
    });
  }
  const facts = certificateFormat.pick({ rows: true, liveMentions: true, ledger: true }).parse({
    rows: JSON.parse(text(row, "rows")),
    liveMentions: JSON.parse(text(row, "mentions")),
    ledger: JSON.parse(text(row, "entries")),
  });
  return {
    status: text(row, "status"),
    certificate: row["certificate"] ?? null,
    facts: {
      ...facts,
      person: text(row, "person"),
      begunAt: text(row, "begun_at"),
      emptiedAt: text(row, "emptied_at"),
      rewrittenAt: text(row, "rewritten_at"),
      cleanAt: text(row, "clean_at"),
      files: Number(row["files"]),
    },
  };
}
