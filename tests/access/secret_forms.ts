/** Looking for a secret wherever it may have come to, in whatever spelling. */
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";

/** What to look for by name; the names stand in what a test says, the values nowhere. */
export type Secrets = Readonly<Record<string, string>>;

/** Where something was found. */
export interface Found {
  readonly secret: string;
  readonly form: string;
  readonly place: string;
}

interface Needle {
  readonly secret: string;
  readonly form: string;
  readonly bytes: Buffer;
}

/** The forms that each secret may have: as it is, as UTF-16, hex, base64 at each of three offsets, URL, JSON, quoted. */
export function needlesOf(secrets: Secrets): Needle[] {
  return Object.entries(secrets).flatMap(([secret, value]) => {
    const raw = Buffer.from(value, "utf8");
    if (raw.length < 8) throw new Error(`${secret} is too short to be told from chance`);
    const hex = raw.toString("hex");
    const decoded = /^[A-Za-z0-9_-]{40,}$/.test(value) ? Buffer.from(value, "base64url") : null;
    const forms: [string, Buffer][] = [
      ["plain", raw],
      ["reversed", Buffer.from(raw).reverse()],
      ["UTF-16", Buffer.from(value, "utf16le")],
      ["hex", Buffer.from(hex)],
      ["HEX", Buffer.from(hex.toUpperCase())],
      ["url", Buffer.from(encodeURIComponent(value))],
      ["json", Buffer.from(JSON.stringify(value).slice(1, -1))],
      ...[0, 1, 2].flatMap((offset): [string, Buffer][] => [
        [`base64 at ${offset}`, inside(raw, offset, "base64")],
        [`base64url at ${offset}`, inside(raw, offset, "base64url")],
      ]),
    ];
    if (decoded !== null) {
      forms.push(["its bytes", decoded], ["its bytes in hex", Buffer.from(decoded.toString("hex"))]);
      forms.push(["its bytes in base64", Buffer.from(decoded.toString("base64").replace(/=+$/, ""))]);
    }
    const seen = new Set<string>();
    return forms.filter(([, bytes]) => {
      const known = seen.has(bytes.toString("latin1"));
      seen.add(bytes.toString("latin1"));
      return !known && bytes.length >= 8;
    }).map(([form, bytes]) => ({ secret, form, bytes }));
  });
}

/** The letters of base64 that do not depend on what stands before and behind, where the secret begins at that offset of three. */
function inside(raw: Buffer, offset: number, encoding: "base64" | "base64url"): Buffer {
  const whole = Buffer.concat([Buffer.alloc(offset), raw]).toString(encoding).replace(/=+$/, "");
  const from = offset === 0 ? 0 : offset + 1;
  const cut = (raw.length + offset) % 3 === 0 ? whole.length : whole.length - 1;
  return Buffer.from(whole.slice(from, cut));
}

export function lookIn(place: string, content: string | Uint8Array, needles: readonly Needle[]): Found[] {
  const bytes = typeof content === "string"
    ? Buffer.from(content, "utf8")
    : Buffer.from(content.buffer, content.byteOffset, content.byteLength);
  return needles.filter((needle) => bytes.includes(needle.bytes)).map(({ secret, form }) => ({ secret, form, place }));
}

/** Every file below the folder: its content and its name. */
export function lookInFolder(
  folder: string,
  needles: readonly Needle[],
): { readonly found: Found[]; readonly files: number } {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const found = entries.flatMap((entry) => {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const name = relative(folder, path);
    return [...lookIn(`the name ${name}`, name, needles), ...lookIn(name, readFileSync(path), needles)];
  });
  return { found, files: entries.length };
}
