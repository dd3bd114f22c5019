import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { projectFiles, root } from "./project_files.ts";

interface Line {
  readonly path: string;
  readonly number: number;
  readonly text: string;
}

const files = projectFiles();
const source = files.filter((path) => /^(src|supabase|tests|bench)\//.test(path) && /\.(ts|mjs|sql|sh|py)$/.test(path));
const typescript = source.filter((path) => path.endsWith(".ts"));
const text = new Map(files.map((path) => [path, readFileSync(join(root, path), "utf8")]));

function lines(paths: readonly string[]): Line[] {
  return paths.flatMap((path) =>
    (text.get(path) ?? "").split("\n").map((line, index) => ({ path, number: index + 1, text: line }))
  );
}

/** Lines that match, as `path:line`; this file, which has to name what it looks for, is left out. */
function found(paths: readonly string[], pattern: RegExp): string[] {
  return lines(paths.filter((path) => path !== "tests/unit/style.test.ts"))
    .filter((line) => pattern.test(line.text))
    .map((line) => `${line.path}:${line.number}: ${line.text.trim().slice(0, 100)}`);
}

describe("the tree", () => {
  it("has files to look at", () => {
    expect(typescript.length).toBeGreaterThan(50);
  });

  it("refers to nothing outside of the project and to no machine", () => {
    expect(found(files, /(^|[^c\w])\/?shared\/(seeds|DESIGN|PLATFORM|RULES|STYLE|PROMISES)/)).toEqual([]);
    expect(found(files, /\/work\/(main|shared)|\/home\/[a-z]+\/|\/root\/|farm-\d/)).toEqual([]);
  });

  it("has nothing unfinished or silenced", () => {
    expect(found(source, /\b(TODO|FIXME|XXX)\b|not implemented/)).toEqual([]);
    expect(found(source, /\.(skip|only|todo)\(|\bx(it|describe)\(/)).toEqual([]);
    expect(found(typescript, /@ts-(ignore|nocheck|expect-error)|deno-lint-ignore(?! require-await)|eslint-disable/))
      .toEqual([]);
    expect(found(typescript, /^(?!\s*(\/\/|\/?\*)).*(\bas any\b|:\s*any\b|<any>)/)).toEqual([]);
    expect(found(typescript.filter((path) => path.startsWith("src/")), /\bas unknown as\b/)).toEqual([]);
  });

  it("has snake_case names, and no drawer for odds and ends", () => {
    const ours = source.filter((path) => !path.startsWith("supabase/functions/"));
    expect(ours.filter((path) => !/^[a-z0-9_/.]+$/.test(path))).toEqual([]);
    expect(source.filter((path) => /(^|\/)(utils?|helpers?|common|misc)(\/|\.)/.test(path))).toEqual([]);
  });
});

describe("TypeScript", () => {
  it("is erasable: no enum, namespace or parameter property", () => {
    expect(found(typescript, /^\s*(export\s+)?(const\s+)?enum\s/)).toEqual([]);
    expect(found(typescript, /^\s*(export\s+)?(namespace|module)\s+\w+\s*\{/)).toEqual([]);
    const property = /constructor\((?:[^)]*,)?\s*(?:private|public|protected|readonly)\s+\w/;
    expect(typescript.filter((path) => path !== "tests/unit/style.test.ts" && property.test(text.get(path) ?? "")))
      .toEqual([]);
  });

  it("imports relative files by their whole name", () => {
    const relativeImport = /(?:from|import)\s*\(?\s*["'](\.{1,2}\/[^"']*)["']/;
    const wrong = lines(typescript).filter((line) => {
      const path = relativeImport.exec(line.text)?.[1];
      return path !== undefined && !/\.(ts|mjs|json|wasm)$/.test(path);
    });
    expect(wrong).toEqual([]);
  });
});

describe("src/shared", () => {
  const shared = typescript.filter((path) => path.startsWith("src/shared/"));

  it("touches no global of a runtime, but for the socket that is Deno's own", () => {
    // The text of a script, which runs elsewhere.
    const texts = ["src/shared/download/by_hand.ts"];
    const code = shared.filter((path) => !texts.includes(path));
    const others = code.filter((path) => path !== "src/shared/postgres/deno_socket.ts");
    expect(found(others, /\bDeno\.[a-z]|\bprocess\.[a-z]|\bBun\.[a-z]|__dirname|\brequire\(/)).toEqual([]);
    expect(found(code, /from "node:(process|child_process|worker_threads|vm|cluster)"/)).toEqual([]);
  });

  it("takes time and randomness from its deps, but for the two files that are them", () => {
    const others = shared.filter((path) => !/^src\/shared\/(clock|random)\.ts$/.test(path));
    expect(found(others, /\bDate\.now\(|new Date\(\)|Math\.random\(|getRandomValues|randomUUID\(|performance\.now\(/))
      .toEqual([]);
  });

  it("imports nothing of the CLI, the local stack or the tests", () => {
    expect(found(shared, /from "[./]*\/(cli|local|tests|bench)\//)).toEqual([]);
  });
});

describe("package.json", () => {
  const manifest = JSON.parse(text.get("package.json") ?? "{}") as Record<string, Record<string, string>>;

  it("pins every version exactly", () => {
    for (const kind of ["dependencies", "devDependencies"]) {
      for (const [name, version] of Object.entries(manifest[kind] ?? {})) {
        expect(version, name).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
      }
    }
  });

  it("agrees with its lock file", () => {
    const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
      packages: Record<string, { version?: string; dependencies?: Record<string, string> }>;
    };
    const all = { ...manifest["dependencies"], ...manifest["devDependencies"] };
    for (const [name, version] of Object.entries(all)) {
      expect(lock.packages[`node_modules/${name}`]?.version, name).toBe(version);
    }
  });

  it("has a script for every command and no other of that kind", async () => {
    const { commandNames } = await import("../../src/cli/command_table.ts");
    const scripts = Object.keys(manifest["scripts"] ?? {}).filter((name) => name.startsWith("backup:"));
    expect(scripts.sort()).toEqual(commandNames.map((name) => `backup:${name}`).sort());
  });
});
