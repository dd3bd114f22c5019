import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { describe, expect, it } from "vitest";
import { denoProgram } from "../../src/local/child.ts";
import { filesUploadedByCli, specifiersSeenByCli } from "./deploy_walker.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = `${root}supabase/functions`;
const functions = readdirSync(folder).filter((name) => existsSync(`${folder}/${name}/index.ts`)).sort();
const megabyte = 1024 * 1024;

interface DenoInfo {
  readonly modules: readonly {
    readonly specifier: string;
    readonly kind?: string;
    readonly size?: number;
    readonly error?: string;
    readonly dependencies?: readonly { readonly specifier: string }[];
  }[];
}

/** What Deno itself finds, by syntax. */
function denoInfo(name: string): DenoInfo {
  const args = ["info", "--json", "--quiet", "--node-modules-dir=manual"];
  const config = ["--config", `${folder}/${name}/deno.json`, `${folder}/${name}/index.ts`];
  return JSON.parse(
    execFileSync(denoProgram(), [...args, ...config], { encoding: "utf8", cwd: root, maxBuffer: 64 * 1024 * 1024 }),
  );
}

function importMap(name: string): Record<string, string> {
  return JSON.parse(readFileSync(`${folder}/${name}/deno.json`, "utf8")).imports;
}

function ownFiles(info: DenoInfo): string[] {
  return info.modules.map((module) => module.specifier)
    .filter((specifier) => specifier.startsWith("file:") && !specifier.includes("/node_modules/"))
    .map((specifier) => fileURLToPath(specifier))
    .sort();
}

describe("the folder of functions", () => {
  it("holds the functions of this part, each with its configuration and closed to verify_jwt", () => {
    expect(functions).toEqual([
      "backup",
      "download",
      "drill",
      "export",
      "import-export",
      "incident",
      "monitor",
      "notify",
      "privacy",
      "restore",
      "retention",
      "verify",
    ]);
    const config = readFileSync(`${root}supabase/config.toml`, "utf8");
    for (const name of functions) {
      expect(config).toContain(`[functions.${name}]\nverify_jwt = false\nimport_map = "./functions/${name}/deno.json"`);
    }
  });

  it("is what the README says to deploy, all of it", () => {
    const line = /functions deploy .*--use-api (.*)$/m.exec(readFileSync(`${root}README.md`, "utf8"))?.[1];
    expect(line?.split(" ")).toEqual(functions);
  });
});

describe.each(functions)("the function %s", (name) => {
  const info = denoInfo(name);

  it("has every file that it needs found by the CLI's import walker", () => {
    expect(info.modules.filter((module) => module.error !== undefined && !module.specifier.startsWith("npm:"))).toEqual(
      [],
    );
    const needed = ownFiles(info);
    expect(needed.length).toBeGreaterThan(20);
    const uploaded = filesUploadedByCli(`${folder}/${name}/index.ts`, importMap(name), root);
    expect(needed.filter((file) => !uploaded.includes(file))).toEqual([]);
  });

  it("pins each package that it uses to the version of package.json, and no other", () => {
    const { dependencies } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
    const imports = importMap(name);
    const used = new Set(
      ownFiles(info).flatMap((file) => bareImports(readFileSync(file, "utf8"))).filter((one) =>
        !one.startsWith("node:")
      ),
    );
    expect(Object.keys(imports).sort()).toEqual([...used].sort());
    for (const [specifier, target] of Object.entries(imports)) {
      expect(target).toBe(`npm:${specifier}@${dependencies[specifier]}`);
      expect(dependencies[specifier], "an exact version").toMatch(/^\d+\.\d+\.\d+$/);
    }
  });

  it("is smaller than 5 MB as a bundle, and so are its sources with whole packages, compressed", async () => {
    const result = await build({
      entryPoints: [`${folder}/${name}/index.ts`],
      bundle: true,
      write: false,
      metafile: true,
      platform: "node",
      format: "esm",
      logLevel: "silent",
      external: ["pg-native"],
    });
    const wasm = statSync(`${root}node_modules/@bokuweb/zstd-wasm/dist/common/zstd.wasm`, { throwIfNoEntry: false });
    const bundle = result.outputFiles.reduce((sum, file) => sum + file.contents.byteLength, 0) + (wasm?.size ?? 0);
    expect(bundle).toBeGreaterThan(200_000);
    expect(bundle).toBeLessThan(5 * megabyte);
    const packages = new Set(Object.keys(result.metafile.inputs).flatMap((input) => packageOf(input)));
    for (const specifier of Object.keys(importMap(name))) expect([...packages]).toContain(specifier);
    // What is uploaded is one compressed file; theirs is compressed better than this.
    const whole = [...ownFiles(info), ...[...packages].flatMap((one) => filesBelow(`${root}node_modules/${one}`))]
      .map((file) => readFileSync(file));
    expect(gzipSync(Buffer.concat(whole)).byteLength).toBeLessThan(5 * megabyte);
  });

  it("is a door of a few lines", () => {
    const lines = readFileSync(`${folder}/${name}/index.ts`, "utf8").split("\n");
    expect(lines.length).toBeLessThan(25);
  });
});

describe("the CLI's import walker", () => {
  it("sees the forms that we use, and misses a default import with names over several lines", () => {
    expect(
      specifiersSeenByCli('import a from "./a.ts";\nexport { b } from "./b.ts";\nimport type { C } from "./c.ts";'),
    )
      .toEqual(["./a.ts", "./b.ts", "./c.ts"]);
    expect(specifiersSeenByCli('import {\n  a,\n  b,\n} from "./a.ts";')).toEqual(["./a.ts"]);
    expect(specifiersSeenByCli('import a, {\n  b,\n} from "./a.ts";')).toEqual([]);
  });
});

/** Packages that a source imports, types apart. */
function bareImports(source: string): string[] {
  return [...source.matchAll(/^(?:import|export)\s(?!type\s)[^;]*?from\s+"([^".][^"]*)";|^import\s+"([^".][^"]*)";/gm)]
    .map((found) => found[1] ?? found[2] ?? "");
}

function packageOf(input: string): string[] {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(input);
  return found?.[1] === undefined ? [] : [found[1]];
}

function filesBelow(path: string): string[] {
  return readdirSync(path, { withFileTypes: true }).flatMap((entry) => {
    const inside = join(path, entry.name);
    if (entry.isDirectory()) return filesBelow(inside);
    return entry.isFile() ? [inside] : [];
  });
}
