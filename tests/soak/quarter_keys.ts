/** Keys of a simulated project that are replaced. */
import { rewrap, rewrapSecond } from "../../src/shared/crypto/epochs.ts";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openStore } from "../../src/shared/store/open_store.ts";
import type { World } from "./quarter_world.ts";

/** As `keys rotate` does it twice: with the new key before the old one, then without the old one. */
export async function rotateKeys({ platform }: World): Promise<void> {
  const { environment, clock, fetch } = platform;
  const random = webCryptoRandom;
  const { entry } = generateKey(random);
  const open = (address: string | undefined) =>
    openStore(address ?? "", { s3AccessKeyId: "a", s3SecretAccessKey: "b" }, { fetch, clock, random });
  const [store, second] = [open(environment["BACKUP_STORE"]), open(environment["BACKUP_SECONDARY"])];
  const repository = (await readRepository(store))?.id ?? "";
  for (const keys of [`${entry},${environment["BACKUP_KEYS"]}`, entry]) {
    const ring = parseKeyRing(keys);
    await rewrap({ store, ring, random }, repository);
    await rewrapSecond({ store, ring, random }, second, repository);
    environment["BACKUP_KEYS"] = keys;
  }
}
