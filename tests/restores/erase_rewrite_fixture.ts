/** Backups and a stream that hold people, their rewriting, and a search of every object by node and zstd alone. */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createDecipheriv, hkdfSync } from "node:crypto";
import { Decrypter } from "age-encryption";
import { openSession } from "../../src/shared/backup/session.ts";
import { decodeEpochFile } from "../../src/shared/crypto/epoch_file.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { carryOut, type ErasureResult } from "../../src/shared/erase/carry_out.ts";
import { certify, type SignedCertificate } from "../../src/shared/erase/certificate/certificate.ts";
import { OwnHands } from "../../src/shared/erase/rewrite/hands.ts";
import { type RewriteResult, rewriteRetained } from "../../src/shared/erase/rewrite/rewrite_retained.ts";
import { type Settled, settleRewriting } from "../../src/shared/erase/rewrite/settle.ts";
import { epochName } from "../../src/shared/format/layout.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { createLog, silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { BackupMap } from "../../src/shared/rows/ownership/map_file.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import type { Pair } from "../integration/replicate_fixture.ts";

export interface ErasePart {
  readonly map?: BackupMap;
  /** Default: the person has none. */
  readonly removeFiles?: (bucket: string, names: readonly string[]) => Promise<void>;
}

export async function eraseFrom(
  pair: Pick<Pair, "url" | "deps">,
  user: string,
  { map = emptyMap, removeFiles }: ErasePart = {},
): Promise<ErasureResult> {
  const database = openDatabase({ url: pair.url });
  const connection = await openSession(database, "holdfast:erase");
  const again = await openSession(database, "holdfast:erase again");
  try {
    const repository = await openOrCreateRepository(pair.deps);
    const parts = {
      connection,
      again,
      repositoryId: repository.id,
      removeFiles: removeFiles ?? null,
      capBytes: 1 << 30,
      log: silentLog,
    };
    return await carryOut({ ...pair.deps, ...parts }, user, map);
  } finally {
    await Promise.all([connection.close(), again.close()]);
  }
}

export interface Rewritten {
  readonly result: RewriteResult;
  readonly settled: Settled;
}

/** Ends, as a process that is killed, when the `times`th line of that step appears. */
export async function rewriteNow(pair: Pair, kill: { at: string; times?: number } | null = null): Promise<Rewritten> {
  const connection = await openSession(openDatabase({ url: pair.url }), "holdfast:rewrite");
  let left = kill?.times ?? 1;
  const log = kill === null ? silentLog : createLog(({ event }) => {
    if (event === `step:${kill.at}` && --left === 0) throw new Error("killed");
  }, "debug");
  try {
    const { store, ring, compressor, random } = pair.deps;
    const repository = await openOrCreateRepository(pair.deps);
    const epochOf = epochSource(store, ring, repository.id);
    const hands = new OwnHands({ store, compressor, random, epochOf });
    const deps = { ...pair.deps, connection, second: pair.second, hands, log, repositoryId: repository.id };
    const result = await rewriteRetained(deps);
    return { result, settled: await settleRewriting(deps, result) };
  } finally {
    await connection.close();
  }
}

/** Of the first erasure. */
export async function certified(pair: Pair): Promise<SignedCertificate> {
  const connection = await openSession(openDatabase({ url: pair.url }), "holdfast:certificate");
  try {
    const repository = await openOrCreateRepository(pair.deps);
    const [row] = await connection.query("select e.id from backup.erasures as e order by e.begun_at limit 1");
    const deps = { ...pair.deps, connection, second: pair.second, repositoryId: repository.id };
    return await certify(deps, row?.["id"] ?? "");
  } finally {
    await connection.close();
  }
}

type Objects = ReadonlyMap<string, Uint8Array>;

/** The plaintext of every sealed object, by its name. */
export async function opened(pair: Pair, objects: Objects): Promise<Map<string, Buffer>> {
  const repository = JSON.parse(Buffer.from(pair.store.objects.get("v1/repository.json") ?? "").toString()) as {
    id: string;
  };
  const decrypter = new Decrypter();
  decrypter.addIdentity(pair.identity);
  const keys = new Map<string, Buffer>();
  const found = new Map<string, Buffer>();
  for (const [name, stored] of objects) {
    const isAge = Buffer.from(stored.subarray(0, 21)).toString("latin1") === "age-encryption.org/v1";
    const bytes = Buffer.from(isAge ? await decrypter.decrypt(stored, "uint8array") : stored);
    if (bytes.toString("latin1", 0, 8) !== "HOLDFAST") continue;
    const epoch = bytes.toString("latin1", 12, 38);
    if (!keys.has(epoch)) {
      const file = objects.get(epochName(epoch)) ?? new Uint8Array();
      const { secret } = await decodeEpochFile(file, { id: epoch, repositoryId: repository.id }, pair.deps.ring);
      keys.set(epoch, Buffer.from(hkdfSync("sha256", secret, repository.id, "holdfast/v1/data", 32)));
    }
    const decipher = createDecipheriv("aes-256-gcm", keys.get(epoch) ?? Buffer.alloc(0), bytes.subarray(38, 50))
      .setAAD(Buffer.concat([bytes.subarray(0, 58), Buffer.from(repository.id + name)]))
      .setAuthTag(bytes.subarray(-16));
    const packed = Buffer.concat([decipher.update(bytes.subarray(58, -16)), decipher.final()]);
    const plain = bytes[10] === 1 ? spawnSync("zstd", ["-dcq"], { input: packed, maxBuffer: 2 ** 31 }).stdout : packed;
    if (plain.length !== Number(bytes.readBigUInt64BE(50))) throw new Error(`${name} has another length`);
    found.set(name, plain);
  }
  return found;
}

/** Names of objects in which one of the words stands, in any case or form that comes to mind. */
export async function holding(pair: Pair, objects: Objects, words: readonly string[]): Promise<string[]> {
  const forms = words.flatMap((word) => {
    const bare = word.replaceAll("-", "");
    const binary = /^[0-9a-f]{32}$/.test(bare) ? [Buffer.from(bare, "hex").toString("base64").replace(/=+$/, "")] : [];
    return [word, bare, Buffer.from(word).toString("hex"), ...binary];
  });
  const plain = await opened(pair, objects);
  return [...plain].filter(([name, bytes]) =>
    !name.startsWith("v1/terms/") &&
    forms.some((form) => bytes.includes(form) || bytes.toString("latin1").toLowerCase().includes(form.toLowerCase()))
  ).map(([name]) => name).sort();
}
