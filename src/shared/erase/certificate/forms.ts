/** Every form in which a term is searched for. Pure. */
import type { Term, TermKind } from "../rewrite/terms.ts";

/** The names of the forms, as a certificate lists them. */
export const formNames = [
  "as it is, in any case",
  "without hyphens, in any case (ids)",
  "percent-encoded",
  "with JSON escapes",
  "with the escapes of COPY",
  "as hexadecimal bytes, such as bytea has them",
  "base64 and base64url of the text, at any offset",
  "base64 and base64url of the 16 bytes of an id",
] as const;

export interface Forms {
  /** Lower-case; looked for in lower-case text. */
  readonly folded: readonly string[];
  /** Looked for as they are. */
  readonly exact: readonly string[];
}

const encoder = new TextEncoder();
const latin1 = new TextDecoder("latin1");
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Bytes as text, one letter a byte: what is searched, and what is searched for. */
export const bytesAsText = (bytes: Uint8Array): string => latin1.decode(bytes);

export function formsOf(terms: readonly Term[]): Forms {
  const folded = new Set<string>();
  const exact = new Set<string>();
  for (const { text } of terms) {
    const fold = (form: string) => folded.add(bytesAsText(encoder.encode(form)).toLowerCase());
    fold(text);
    fold(encodeURIComponent(text));
    fold(escaped(text));
    fold(text.replace(/\\/g, "\\\\").replace(/\t/g, "\\t").replace(/\n/g, "\\n"));
    fold(hexOf(encoder.encode(text)));
    for (const form of base64AnyOffset(encoder.encode(text))) exact.add(form);
    const id = text.toLowerCase();
    if (!uuid.test(id)) continue;
    const bare = id.replaceAll("-", "");
    fold(bare);
    const bytes = Uint8Array.from({ length: 16 }, (_, at) => parseInt(bare.slice(at * 2, at * 2 + 2), 16));
    for (const form of variants(base64(bytes).replace(/=+$/, ""))) exact.add(form);
  }
  return { folded: [...folded], exact: [...exact] };
}

/** How many of each kind were searched for: the terms themselves are nobody's business. */
export function countKinds(terms: readonly Term[]): { readonly kind: TermKind; readonly count: number }[] {
  const counts = new Map<TermKind, number>();
  for (const { kind } of terms) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => ({ kind, count }));
}

/** Does one of them stand in the bytes? */
export function holds(bytes: Uint8Array, { folded, exact }: Forms): boolean {
  const text = bytesAsText(bytes);
  if (exact.some((form) => text.includes(form))) return true;
  const lower = text.toLowerCase();
  return folded.some((form) => lower.includes(form));
}

/** Without the letters at both ends, which depend on what stands beside. */
function base64AnyOffset(bytes: Uint8Array): string[] {
  return [0, 1, 2].flatMap((offset) => {
    const padded = new Uint8Array(offset + bytes.length);
    padded.set(bytes, offset);
    const text = base64(padded).replace(/=+$/, "");
    const start = Math.ceil(offset * 8 / 6);
    const end = Math.floor((offset + bytes.length) * 8 / 6);
    const inside = text.slice(start, end);
    return inside.length < 8 ? [] : variants(inside);
  });
}

const variants = (text: string): string[] => [...new Set([text, text.replaceAll("+", "-").replaceAll("/", "_")])];

const base64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes));

const hexOf = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** As JSON has it where everything beyond ASCII is escaped. */
function escaped(text: string): string {
  return JSON.stringify(text).slice(1, -1).replace(
    /[\u0080-\uffff]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
