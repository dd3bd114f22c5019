/** Files of a project, put and changed as its users do, and what a backup holds of them, put together from its parts. */
import { createHash, randomBytes } from "node:crypto";
import type { GatewayReady } from "../../src/local/gateway/settings.ts";
import type { BackupDeps } from "../../src/shared/backup/deps.ts";
import { open } from "../../src/shared/format/container.ts";
import type { ListedFile } from "../../src/shared/format/file_list.ts";
import { openBackup } from "../../src/shared/verify/find_backup.ts";

export class Bucket {
  readonly #gateway: GatewayReady;
  readonly id: string;
  /** What lies in it, by name. */
  readonly contents = new Map<string, Uint8Array>();

  constructor(gateway: GatewayReady, id: string) {
    this.#gateway = gateway;
    this.id = id;
  }

  static async make(gateway: GatewayReady, id: string): Promise<Bucket> {
    const bucket = new Bucket(gateway, id);
    await bucket.#send("POST", "/bucket", JSON.stringify({ id, name: id, public: false }), "application/json");
    return bucket;
  }

  async put(name: string, content: Uint8Array = randomBytes(1_000)): Promise<Uint8Array> {
    await this.#send("POST", `/object/${this.path(name)}`, content.slice(), "audio/webm", { "x-upsert": "true" });
    this.contents.set(name, content);
    return content;
  }

  async remove(...names: string[]): Promise<void> {
    await this.#send("DELETE", `/object/${this.id}`, JSON.stringify({ prefixes: names }), "application/json");
    for (const name of names) this.contents.delete(name);
  }

  /** With all that is in it. */
  async drop(): Promise<void> {
    await this.#send("POST", `/bucket/${this.id}/empty`, "{}", "application/json");
    await this.#send("DELETE", `/bucket/${this.id}`, "{}", "application/json");
    this.contents.clear();
  }

  path(name: string): string {
    return [this.id, ...name.split("/")].map(encodeURIComponent).join("/");
  }

  async #send(method: string, path: string, body: BodyInit, type: string, more: Record<string, string> = {}) {
    const { url, serviceRoleKey } = this.#gateway;
    const answer = await fetch(`${url}/storage/v1${path}`, {
      method,
      body,
      headers: { authorization: `Bearer ${serviceRoleKey}`, "content-type": type, ...more },
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  }
}

export function hashOf(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** `bucket/name` → SHA-256, of all that lies in the buckets. */
export function hashesIn(buckets: readonly Bucket[]): Record<string, string> {
  return Object.fromEntries(
    buckets.flatMap((bucket) =>
      [...bucket.contents].map(([name, content]) => [`${bucket.id}/${name}`, hashOf(content)])
    )
      .sort(),
  );
}

/** The files of a backup, in the order of its lists, opened from the store and the key alone. */
export async function filesOf(deps: Pick<BackupDeps, "store" | "ring" | "compressor">, id: string) {
  const backup = await openBackup(deps, id);
  const read = async (kind: "files" | "blob", name: string) => {
    const bytes = await deps.store.read(name);
    return await open({ ...deps, epochOf: backup.epochOf }, { kind, name, bytes, maxBytes: 2 ** 30 });
  };
  const files: ListedFile[] = [];
  for (const list of backup.manifest.files?.lists ?? []) {
    const text = new TextDecoder().decode(await read("files", list.object));
    files.push(...(JSON.parse(text) as { files: ListedFile[] }).files);
  }
  const hashes = async (some: readonly ListedFile[] = files) => {
    const found: [string, string][] = [];
    for (const file of some) {
      const hash = createHash("sha256");
      for (const part of file.parts) hash.update(await read("blob", part.object));
      found.push([`${file.bucket}/${file.name}`, hash.digest("hex")]);
    }
    return Object.fromEntries(found.sort());
  };
  return { manifest: backup.manifest, files, hashes };
}
