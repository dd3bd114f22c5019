/**
 * Makes a fresh clone usable, then runs a command: `node src/local/setup.mjs deno run -A src/local/demo.ts`.
 *
 * Plain Node without packages, since it is what installs them. The packages are installed when `node_modules` is missing
 * or differs from the lock file. Nothing is written to stdout, so that a command's document stays alone there.
 *
 * Deno is started directly instead of through the npm package's `bin.cjs`: npm 11 does not run install scripts, and
 * that wrapper neither passes signals on nor works on a read-only checkout.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { constants } from "node:os";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Deno's, for the CLI; what people type follows. */
export const cliArguments = [
  ...["run", "--quiet", "--no-prompt", "--allow-all", "--config", join(root, "deno.json")],
  join(root, "src", "cli", "main.ts"),
];

const forwarded = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Installs the packages of the lock file unless they are there. Throws with a readable message when npm fails. */
export function ensurePackages() {
  if (packagesMatch()) return;
  process.stderr.write("holdfast: installing packages\n");
  // A registry that lacks the packages of other platforms makes `npm ci` refuse the lock file; versions stay the same.
  if (npm("ci") || npm("install", "--no-save")) return;
  throw new Error("npm could not install the packages; its output above says why.");
}

/** Runs npm with its output on stderr. Settings that an outer `npm run` hands down do not count here. */
function npm(...command) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_config_/i.test(name)));
  const options = ["--include=dev", "--include=optional", "--no-audit", "--no-fund"];
  return spawnSync("npm", [...command, ...options], { cwd: root, stdio: ["ignore", 2, 2], env }).status === 0;
}

/** The Deno executable that npm installed for this platform. */
export function denoPath() {
  const libc = process.platform === "linux" ? "-glibc" : "";
  const exe = process.platform === "win32" ? "deno.exe" : "deno";
  const places = [
    join(root, "node_modules", "@deno", `${process.platform}-${process.arch}${libc}`, exe),
    join(root, "node_modules", "deno", exe),
  ];
  const found = places.find((place) => existsSync(place));
  if (found === undefined) throw new Error(`no Deno for ${process.platform}-${process.arch} in node_modules`);
  return found;
}

/** Runs a program with our terminal, passes signals on, resolves with its exit code (128 + number after a signal). */
export function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: "inherit", ...options });
    const pass = (signal) => child.kill(signal);
    for (const signal of forwarded) process.on(signal, pass);
    child.once("error", reject);
    child.once("exit", (code, signal) => {
      for (const name of forwarded) process.off(name, pass);
      resolve(code ?? 128 + constants.signals[signal]);
    });
  });
}

/** Whether `node_modules` holds the versions of the lock file (npm writes down what it installed). */
function packagesMatch() {
  const installed = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installed)) return false;
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const there = JSON.parse(readFileSync(installed, "utf8")).packages;
  return Object.entries(wanted).every(([name, entry]) =>
    name === "" || there[name]?.version === entry.version || (there[name] === undefined && entry.optional === true)
  );
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    ensurePackages();
    const [program, ...args] = process.argv.slice(2);
    if (program === "deno") process.exitCode = await run(denoPath(), args, { cwd: root });
    else if (program !== undefined) process.exitCode = await run(program, args, { cwd: root });
  } catch (error) {
    process.stderr.write(`holdfast: ${error.message}\n`);
    process.exitCode = 1;
  }
}
