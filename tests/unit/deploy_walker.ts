import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** As Supabase CLI 3.1.0 has it; read out of its program. It sees text, not syntax. */
const importPattern =
  /(?:import|export)\s+(?:type\s+)?(?:{[^{}]+}|.*?)\s*(?:from)?\s*['"](.*?)['"]|import\(\s*(?:"([^"\r\n]*)"|'([^'\r\n]*)')\s*[,)]/gi;

/** Specifiers that the CLI takes for imports in a source text. */
export function specifiersSeenByCli(source: string): string[] {
  return [...source.matchAll(importPattern)].map((found) => (found[1] ?? found[2] ?? found[3] ?? "").trim());
}

/**
 * The files that `supabase functions deploy` uploads for an entry point: imports are found by the pattern above; only
 * relative ones whose last part has a dot are followed, below `root` only, after the import map.
 */
export function filesUploadedByCli(entry: string, imports: Readonly<Record<string, string>>, root: string): string[] {
  const seen = new Set<string>();
  const waiting = [resolve(entry)];
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (seen.has(file) || !existsSync(file)) continue;
    seen.add(file);
    for (const specifier of specifiersSeenByCli(readFileSync(file, "utf8"))) {
      const path = imports[specifier] ?? specifier;
      if (!path.slice(path.lastIndexOf("/") + 1).includes(".") || !/^(\.\.?)?\//.test(path)) continue;
      const target = resolve(dirname(file), path);
      if (target.startsWith(root)) waiting.push(target);
    }
  }
  return [...seen].sort();
}
