/** One entry of the erasure ledger: keyed hashes of what was erased, and no personal data. docs/format.md, "Erasures". */
import { z } from "zod";
import type { Epoch } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";
import { open, type OpenDeps, seal, type SealDeps } from "../format/container.ts";
import { erasureName, idPattern } from "../format/layout.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { guardianAsks, guardianRelations, identityWays } from "./guardian_words.ts";

const table = z.object({ schema: z.string(), name: z.string() });
const column = z.string();

/** As the file has it once it is read: which tables and columns count, never a value. */
const map = z.object({
  version: z.literal(1),
  share: z.number().optional(),
  keys: z.array(z.object({ table, columns: z.array(column), to: table.optional(), follow: z.boolean() })),
  users: z.array(z.object({ table, column })),
  tables: z.array(
    z.object({ table, rows: z.enum(["owned", "shared", "never"]).optional(), share: z.number().optional() }),
  ),
});

const consent = z.object({
  /** Hash of the child's id, as an erasure's entry has it; it is in no list of what was erased. */
  child: z.string().regex(/^[0-9a-f]{32}$/),
  guardian: z.object({ name: z.string(), reach: z.string(), relation: z.enum(guardianRelations) }),
  asks: z.array(z.enum(guardianAsks)).min(1),
  identityBy: z.enum(identityWays),
  /** Of their statement, as a date. */
  saidOn: z.iso.date(),
  statement: z.string(),
});
/** What a guardian said. Sealed, and kept as long as the ledger. */
export type Consent = z.infer<typeof consent>;

const shape = z.object({
  format: z.literal("holdfast/erasure"),
  version: z.literal(1),
  number: z.int().positive(),
  erasure: z.string().regex(idPattern),
  at: z.iso.datetime({ precision: 0 }),
  map,
  rows: z.array(table.extend({ columns: z.array(column).min(1) })),
  hashes: z.array(z.string().regex(/^[0-9a-f]{32}$/)),
  rewritten: z.array(
    z.object({ name: z.string(), revision: z.int().positive(), hash: z.string().regex(/^[0-9a-f]{64}$/) }),
  ).optional(),
  consent: consent.optional(),
});

/** What tells a row of a table from the others: its primary key, or what foreign keys refer to. Columns in the order of names. */
export interface Identity {
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[];
}

export interface LedgerEntry {
  /** From 1 on, without a gap. */
  readonly number: number;
  /** Of `backup.erasures`; one erasure can have several entries. With `consent`: of `backup.guardian_requests`. */
  readonly erasure: string;
  /** In UTC, to the second. */
  readonly at: string;
  /** The map by which it was decided whose rows they are. */
  readonly map: BackupMap;
  /** Over which columns of which tables the hashes are. */
  readonly rows: readonly Identity[];
  /** 16 bytes each, in hex; see hashes.ts. */
  readonly hashes: readonly string[];
  /** Manifests and segments that were sealed again; an entry that has them names no rows. F-35. */
  readonly rewritten?: readonly RewrittenObject[];
  /** What a guardian of a child said; an entry that has it names no rows and erases nothing. F-58. */
  readonly consent?: Consent;
}

/** Those that say what was erased: neither what was rewritten nor what a guardian said. */
export const namesRows = ({ rewritten, consent }: LedgerEntry): boolean =>
  rewritten === undefined && consent === undefined;

/** What stands under a name from now on: an earlier revision of it is one that was put back. */
export interface RewrittenObject {
  readonly name: string;
  readonly revision: number;
  /** SHA-256 of the sealed bytes in hex. */
  readonly hash: string;
}

/** So many are about 2 MB of text. */
export const mostRewritten = 10_000;

/** So many hashes are about 2.3 MB of text. */
export const mostHashes = 65_536;
const maxBytes = 8 * 1024 * 1024;

/** Errors: none of its own. */
export async function sealEntry(deps: SealDeps, epoch: Epoch, entry: LedgerEntry): Promise<Uint8Array> {
  const document = { format: "holdfast/erasure", version: 1, ...entry };
  const plaintext = new TextEncoder().encode(JSON.stringify(document));
  return await seal(deps, epoch, { kind: "erasure", name: erasureName(entry.number), plaintext });
}

/** Errors: `object_damaged` for whatever is not the entry of its number, `format_newer`, those of the keys. */
export async function openEntry(deps: OpenDeps, number: number, bytes: Uint8Array): Promise<LedgerEntry> {
  const name = erasureName(number);
  const plain = await open(deps, { kind: "erasure", name, bytes, maxBytes });
  const parsed = shape.safeParse(readJson(plain));
  if (!parsed.success || parsed.data.number !== number) {
    throw new HoldfastError("object_damaged", `${name} is no entry of the erasure ledger`);
  }
  const { format: _, version: __, map: { share, ...rest }, rewritten, consent, ...entry } = parsed.data;
  return {
    ...entry,
    ...(rewritten === undefined ? {} : { rewritten }),
    ...(consent === undefined ? {} : { consent }),
    map: { ...rest, ...(share === undefined ? {} : { share }) },
  };
}

function readJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
}
