/** A Storage of which only the database's part is real: rows by SQL, content out of memory. */
import { createHash, randomBytes } from "node:crypto";
import type { ProjectFiles } from "../../src/shared/files/project_files.ts";
import { query } from "./backup_fixture.ts";

/** Storage of a database without a service: rows by SQL, content by version. */
export class Shelf {
  readonly #url: string;
  readonly #contents = new Map<string, Uint8Array>();
  read = 0;

  constructor(url: string) {
    this.#url = url;
  }

  async put(
    name: string,
    content: Uint8Array = randomBytes(3_000),
    owner: string | null = null,
  ): Promise<Uint8Array> {
    const etag = createHash("md5").update(content).digest("hex");
    await query(
      this.#url,
      `insert into storage.objects (bucket_id, name, version, metadata, owner, owner_id)
       values ('notes', $1, gen_random_uuid()::text, jsonb_build_object('size', $2::int, 'eTag', $3::text), $4::uuid, $4::text)
       on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata`,
      [name, content.byteLength, etag, owner],
    );
    this.#contents.set(name, content);
    return content;
  }

  async remove(name: string): Promise<void> {
    await query(
      this.#url,
      `set storage.allow_delete_query = 'true'; delete from storage.objects where name = '${name}'`,
    );
    this.#contents.delete(name);
  }

  readonly files: ProjectFiles = {
    label: "a shelf",
    read: ({ name, from, to }) => {
      this.read++;
      return Promise.resolve((this.#contents.get(name) ?? new Uint8Array(0)).slice(from, to));
    },
  };

  hashes(): Record<string, string> {
    return Object.fromEntries(
      [...this.#contents].map((
        [name, content],
      ) => [`notes/${name}`, createHash("sha256").update(content).digest("hex")])
        .sort(),
    );
  }
}
