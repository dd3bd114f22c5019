import type { SupabaseClient } from "@supabase/supabase-js";
import { parseKeyRing } from "../../shared/crypto/key_ring.ts";
import { sha256Hex } from "../../shared/crypto/digest.ts";
import { exportDocument } from "../../shared/export/document_format.ts";
import { documentFacts, verifySignature } from "../../shared/export/signature.ts";
import { untilDone } from "./until_done.ts";

export interface OwnData {
  readonly rows: number;
  readonly tables: number;
  readonly files: number;
  readonly bytes: number;
}

interface Link {
  readonly document: readonly { readonly url: string }[];
  readonly files: readonly { readonly path: string; readonly url: string; readonly sha256: string }[];
}

/**
 * A person orders what the app holds of them, by the function `export` with the token of their own session, fetches it by its links,
 * and holds it against what they see in the app. Throws where anything of it is not so. `others`: what must not be in it.
 */
export async function ownData(person: SupabaseClient, keys: string, others: readonly string[]): Promise<OwnData> {
  const { export: id } = await invoke<{ export: string }>(person, { action: "request" });
  await untilDone("the export", 60_000, async () => {
    const { data, error } = await person.from("my_exports").select("status").eq("id", id).single();
    if (error !== null) throw new Error(`my_exports was not shown: ${error.message}`);
    if (data.status === "failed") throw new Error("the export failed");
    return data.status === "ready" ? true : null;
  });
  const link = await invoke<Link>(person, { action: "link", export: id });
  const bytes = joined(await Promise.all(link.document.map(({ url }) => fetched(url))));
  const read = (from: number, to: number) => Promise.resolve(bytes.subarray(from, to));
  const facts = await documentFacts(read, bytes.byteLength);
  await verifySignature(parseKeyRing(keys), { ...facts, bytes: bytes.byteLength, read });
  const text = new TextDecoder().decode(bytes);
  const { tables, files } = exportDocument.parse(JSON.parse(text));
  if (others.some((word) => text.includes(word))) throw new Error("the export holds something of another person's");
  const { count, error } = await person.from("journal_entries").select("id", { count: "exact", head: true });
  const entries = tables.find(({ table }) => table === "journal_entries")?.rowCount;
  if (error !== null || entries !== count) throw new Error(`the export has ${entries} entries, the app shows ${count}`);
  for (const { path, url, sha256 } of link.files) {
    if (await sha256Hex(await fetched(url)) !== sha256) throw new Error(`${path} is not as the export says`);
  }
  return {
    rows: tables.reduce((sum, { rowCount }) => sum + rowCount, 0),
    tables: tables.length,
    files: files.length,
    bytes: bytes.byteLength,
  };
}

async function invoke<T>(person: SupabaseClient, body: object): Promise<T> {
  const { data, error } = await person.functions.invoke<T>("export", { body });
  if (error !== null || data === null) throw new Error(`the function export refused: ${String(error)}`);
  return data;
}

async function fetched(url: string): Promise<Uint8Array> {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`a link answered ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.byteLength;
  }
  return all;
}
