/** Loads the corpus: each file by the role its first line names. */
import { readdir, readFile } from "node:fs/promises";
import type { Connection } from "../../src/shared/postgres/connection.ts";

export interface CorpusSessions {
  /** Role `postgres`: no superuser, owner of the database, with CREATEROLE, CREATEDB, REPLICATION, BYPASSRLS. */
  readonly postgres: Connection;
  readonly superuser: Connection;
}

const folder = new URL(".", import.meta.url);

/** Names of the corpus files in their order. */
export async function corpusFiles(): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.endsWith(".sql")).sort();
}

/** Loads the files whose names `wanted` accepts (all by default) and returns their names. */
export async function loadCorpus(
  sessions: CorpusSessions,
  wanted: (name: string) => boolean = () => true,
): Promise<string[]> {
  const files = (await corpusFiles()).filter(wanted);
  for (const name of files) {
    const text = await readFile(new URL(name, folder), "utf8");
    const role = /^-- run as: (\w+)$/m.exec(text)?.[1];
    if (role !== "postgres" && role !== "superuser") throw new Error(`${name} does not say who runs it`);
    try {
      await sessions[role].execute(text);
      await sessions[role].execute("reset all");
    } catch (error) {
      throw new Error(`${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
  return files;
}
