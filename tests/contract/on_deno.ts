/**
 * Run by Deno, with an S3 server's settings on stdin: what tests on Node cannot show of the runtime that the product runs
 * on. Prints what it saw as one line of JSON.
 */
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { z } from "zod";
import { systemClock } from "../../src/shared/clock.ts";
import { ageFileBytes, parseIdentities, parseRecipients } from "../../src/shared/crypto/age.ts";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { currentEpoch, epochSource } from "../../src/shared/crypto/epochs.ts";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { open, seal } from "../../src/shared/format/container.ts";
import { objectName } from "../../src/shared/format/object_name.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { webCryptoRandom as random } from "../../src/shared/random.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { putAndReadBack } from "../../src/shared/store/put.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { Store } from "../../src/shared/store/store.ts";

const input = z.object({
  folder: z.string(),
  s3: z.object({
    endpoint: z.string(),
    region: z.string(),
    bucket: z.string(),
    prefix: z.string(),
    accessKeyId: z.string(),
    secretAccessKey: z.string(),
  }),
  /** Something that listens and never answers, and something that cuts each answer. */
  silent: z.string(),
  cutting: z.string(),
}).parse(await new Response(Deno.stdin.readable).json());

const clock = systemClock;
const deps = { fetch: (url: string, init: RequestInit) => fetch(url, init), clock };
const compressor = await loadZstd();
const ring = parseKeyRing(generateKey(random).entry);

async function roundTrip(store: Store): Promise<Record<string, unknown>> {
  const repository = await openOrCreateRepository({ store, clock, random });
  const epoch = await currentEpoch({ store, ring, clock, random }, repository.id);
  const plaintext = new TextEncoder().encode("17\tcalm\tA walk by the river\n".repeat(300_000));
  const { name } = await objectName(epoch, "chunk", plaintext);
  const openDeps = { compressor, epochOf: epochSource(store, ring, repository.id) };
  const openIt = (bytes: Uint8Array) => open(openDeps, { kind: "chunk", name, bytes, maxBytes: 2 ** 24 });
  const same = async (bytes: Uint8Array) => sameBytes(await openIt(bytes), plaintext);
  const outcomes: string[] = [];
  for (let round = 0; round < 2; round++) {
    const bytes = await seal({ random, compressor }, epoch, { kind: "chunk", name, plaintext });
    outcomes.push((await putAndReadBack(store, name, bytes, same)).outcome);
  }
  const opened = await same(await store.read(name));
  const names: string[] = [];
  for await (const object of store.list("v1/")) names.push(object.name);
  const size = await store.size(name);
  await store.remove(names);
  return {
    outcomes,
    opened,
    listed: names.length,
    sized: (size ?? 0) > 74,
    removed: (await store.size(name)) === null,
  };
}

async function codeOf(act: Promise<unknown>): Promise<string> {
  return await act.then(() => "no error", (error) => error instanceof HoldfastError ? error.code : String(error));
}

/** The age layer of the second store, around an object of 8 MiB. */
async function throughAge(): Promise<boolean> {
  const identity = await generateX25519Identity();
  const bytes = new Uint8Array(8 * 1024 * 1024);
  for (let at = 0; at < bytes.length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  const wrapped = await parseRecipients(await identityToRecipient(identity)).wrap(bytes);
  return sameBytes(await parseIdentities(identity).open("v1/objects/aa/x", wrapped), bytes) &&
    wrapped.length === ageFileBytes(bytes.length, 1);
}

const result = {
  age: await throughAge(),
  file: await roundTrip(createFileStore(input.folder)),
  s3: await roundTrip(createS3Store(input.s3, deps)),
  denied: await codeOf(createS3Store({ ...input.s3, secretAccessKey: "other" }, deps).read("a")),
  silent: await codeOf(createS3Store({ ...input.s3, endpoint: input.silent }, { ...deps, timeoutMs: 300 }).read("a")),
  cut: await codeOf(createS3Store({ ...input.s3, endpoint: input.cutting }, deps).read("a")),
  refused: await codeOf(createS3Store({ ...input.s3, endpoint: "http://127.0.0.1:1" }, deps).read("a")),
};
console.log(JSON.stringify(result));
