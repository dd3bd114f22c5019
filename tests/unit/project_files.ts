import { execFileSync } from "node:child_process";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { readdirSync } from "node:fs";
import { join, relative } from "node:path";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const notOurs = new Set(["node_modules", ".git", ".holdfast", ".temp", ".branches", "coverage"]);

/** Every text file of the project, relative to its root. Where there is git, only what it does not ignore. */
export function projectFiles(): string[] {
  const found = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .filter((path) => !path.split("/").some((part) => notOurs.has(part)) && path !== "package-lock.json");
  const ignored = ignoredBy(found);
  return found.filter((path) => !ignored.has(path)).sort();
}

function ignoredBy(paths: readonly string[]): ReadonlySet<string> {
  try {
    const out = execFileSync("git", ["check-ignore", "--stdin"], {
      cwd: root,
      input: paths.join("\n"),
      encoding: "utf8",
      stdio: ["pipe", "pipe", "ignore"],
    });
    return new Set(out.split("\n").filter((line) => line !== ""));
  } catch {
    // Without git, or with nothing ignored (exit 1), all of it is ours.
    return new Set();
  }
}
