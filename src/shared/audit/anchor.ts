/** Heads of the audit's chain in a store, where whoever rewrites the database does not reach. docs/format.md, "Anchors". */
import { z } from "zod";
import type { Epoch, EpochSource } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { open, seal, type SealDeps } from "../format/container.ts";
import { anchorName, idPattern, parseAnchorName, prefixes } from "../format/layout.ts";
import type { Connection } from "../postgres/connection.ts";
import { putAndReadBack } from "../store/put.ts";
import type { Store } from "../store/store.ts";

/** The chain's head at a moment. */
export interface Anchor {
  readonly install: string;
  /** From 1 on. */
  readonly place: number;
  /** SHA-256 in hex. */
  readonly hash: string;
  /** Of the server: another one after a managed restore or a move (`backup.server_life`). */
  readonly life: string;
  /** In UTC, to the second. */
  readonly at: string;
}

/** An anchor with the store that holds it. */
export interface StoredAnchor extends Anchor {
  readonly store: string;
  readonly name: string;
}

const shape = z.object({
  format: z.literal("holdfast/anchor"),
  version: z.literal(1),
  install: z.string().regex(idPattern),
  place: z.number().int().positive(),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  life: z.string().max(100),
  at: z.iso.datetime({ precision: 0 }),
});
const maxBytes = 4096;
/** Rows that are chained before a head is taken; what is left is chained by the watchdog, and anchored next time. */
const rowsAtOnce = 10_000;

export interface AnchorDeps extends SealDeps {
  readonly store: Store;
  /** In no transaction. */
  readonly connection: Connection;
}

/**
 * Chains what is new and puts the head into the store; null where nothing was ever written to the audit, or where the head
 * stands there already. `epoch` seals it. The second store is to have it soon. Errors: of the store and the database.
 */
export async function putAnchor(deps: AnchorDeps, epoch: Epoch): Promise<Anchor | null> {
  const { connection } = deps;
  await connection.query("select backup.chain_audit($1::integer)", [String(rowsAtOnce)]);
  const [row] = await connection.query(
    `select i.install_id, c.place, encode(c.hash, 'hex') as hash, backup.server_life() as life,
       to_char(backup.clock_now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as at,
       exists (select from backup.audit_anchors as a where a.place = c.place and a.store = $1) as anchored
     from backup.audit_chain as c, backup.identity as i order by c.place desc limit 1`,
    [deps.store.label],
  );
  if (row === undefined || row["anchored"] === "t") return null;
  const anchor: Anchor = {
    install: row["install_id"] ?? "",
    place: Number(row["place"]),
    hash: row["hash"] ?? "",
    life: row["life"] ?? "",
    at: row["at"] ?? "",
  };
  const name = anchorName(anchor);
  const plaintext = new TextEncoder().encode(
    JSON.stringify({ format: "holdfast/anchor", version: 1, ...anchor } satisfies z.infer<typeof shape>),
  );
  const sealed = await seal(deps, epoch, { kind: "anchor", name, plaintext });
  // The name says place and hash: one that is there says the same of another moment.
  await putAndReadBack(deps.store, name, sealed, async (stored) => {
    const source: EpochSource = () => Promise.resolve(epoch);
    return (await openAnchor({ compressor: deps.compressor, epochOf: source }, name, stored)).hash === anchor.hash;
  });
  await connection.query(
    `insert into backup.audit_anchors (object_name, store, place, hash, life) values ($1, $2, $3::bigint, decode($4, 'hex'), $5)
     on conflict do nothing`,
    [name, deps.store.label, String(anchor.place), anchor.hash, anchor.life],
  );
  await connection.query("select backup.ask_for_copies()");
  return anchor;
}

/** Errors: `object_damaged` for whatever is not the anchor of its name, those of the keys. */
async function openAnchor(
  deps: { readonly compressor: Compressor; readonly epochOf: EpochSource },
  name: string,
  bytes: Uint8Array,
): Promise<Anchor> {
  const plain = await open(deps, { kind: "anchor", name, bytes, maxBytes });
  const named = parseAnchorName(name);
  let said: unknown;
  try {
    said = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(plain));
  } catch {
    said = null;
  }
  const parsed = shape.safeParse(said);
  if (!parsed.success || named === null || anchorName(parsed.data) !== name) {
    throw new HoldfastError("object_damaged", `${name} is no anchor`);
  }
  const { install, place, hash, life, at } = parsed.data;
  return { install, place, hash, life, at };
}

/** Every anchor of every install, and the names of those that do not open. Errors: those of the store. */
export async function readAnchors(
  deps: { readonly store: Store; readonly compressor: Compressor; readonly epochOf: EpochSource },
): Promise<{ readonly anchors: readonly StoredAnchor[]; readonly damaged: readonly string[] }> {
  const { store } = deps;
  const anchors: StoredAnchor[] = [];
  const damaged: string[] = [];
  const names: string[] = [];
  for await (const { name } of store.list(prefixes.anchors)) names.push(name);
  for (const name of names.sort()) {
    try {
      anchors.push({ ...await openAnchor(deps, name, await store.read(name)), store: store.label, name });
    } catch (error) {
      if (!(error instanceof HoldfastError) || !["object_damaged", "format_newer"].includes(error.code)) throw error;
      damaged.push(name);
    }
  }
  return { anchors, damaged };
}
