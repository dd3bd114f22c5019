import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, describe, expect, it } from "vitest";
import { commandNames, optionsOf } from "../../src/cli/command_table.ts";
import { optionFacts } from "../../src/cli/options.ts";
import { root } from "../unit/project_files.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-npm-"));

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** The npm that is installed, as people call it; of the environment nothing but the way to programs and `settings`. */
async function npm(args: readonly string[], settings: Readonly<Record<string, string>> = {}) {
  const { PATH = "", HOME = "" } = process.env;
  const own = { npm_config_cache: folder, npm_config_update_notifier: "false" };
  const child = spawn("npm", args, {
    cwd: root,
    env: { PATH, HOME, ...own, ...settings },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const exit = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { exit, stderr };
}

describe("options before `--`, through npm itself", () => {
  it.each(commandNames)("are refused for %s, every one of them, with the line that was meant", async (command) => {
    // npm answers --help itself, and Node, which runs it, takes --env-file wherever it stands.
    const names = optionsOf(command).filter((name) => name !== "help" && name !== "env-file");
    const flags = names.map((name) => optionFacts(name).type === "string" ? `--${name}=4` : `--${name}`);
    const { exit, stderr } = await npm(["run", "-s", `backup:${command}`, ...flags]);
    expect(stderr).toContain(`npm kept ${names.map((name) => `--${name}`).join(" and ")} for itself`);
    const meant = flags.map((flag) => flag.replace("=", " ")).join(" ");
    expect(stderr).toContain(`npm run -s backup:${command} -- ${meant}`);
    expect(exit).toBe(2);
  });

  it.each([
    [["run", "backup:create", "--local"], "npm run -s backup:create -- --local"],
    [["--local", "run", "-s", "backup:status"], "npm run -s backup:status -- --local"],
    [["run-script", "backup:verify", "--local", "latest"], "npm run -s backup:verify -- latest --local"],
  ])("are refused where they leave nothing in the environment: npm %j", async (args, line) => {
    const { exit, stderr } = await npm(args);
    expect(stderr).toContain("npm kept --local for itself");
    expect(stderr).toContain(`: ${line}`);
    expect(exit).toBe(2);
  });

  it("are not taken from behind it, from another script, or from an npm that keeps no log", async () => {
    const behind = await npm(["run", "-s", "backup:verify", "--", "latest", "--no-global"]);
    expect(behind.stderr).toContain("--no-global");
    const inside = "npm_lifecycle_event=backup:verify node -- src/cli/holdfast.mjs verify";
    const other = await npm(["exec", "-s", "--local", "-c", inside]);
    const before = readdirSync(join(folder, "_logs")).length;
    const blind = await npm(["run", "-s", "backup:verify", "--local"], { npm_config_logs_max: "0" });
    expect(readdirSync(join(folder, "_logs")).length).toBeLessThanOrEqual(before);
    for (const { stderr } of [other, blind]) expect(stderr).toContain("<id> is missing");
    for (const { exit, stderr } of [behind, other, blind]) {
      expect(exit, stderr).toBe(2);
      expect(stderr).not.toContain("for itself");
    }
  });
});
