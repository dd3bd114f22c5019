import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { root } from "../child.ts";

/** Runs a command of the CLI as a person would, with nothing but these settings, and gives its document. `exits`: those that are right. */
export function holdfast(
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
  onLine: (line: string) => void = () => {},
  exits: readonly number[] = [0],
): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const { PATH = "", HOME = "" } = process.env;
    const child = spawn("node", [join(root, "src/cli/holdfast.mjs"), ...args, "--json"], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { PATH, HOME, ...settings },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-4000);
      const line = text.split(/[\r\n]+/).map((part) => part.trim()).filter((part) => part !== "").at(-1);
      if (line !== undefined) onLine(line);
    });
    child.once("error", reject);
    child.once("close", (code) => {
      if (exits.includes(code ?? -1)) resolve(JSON.parse(stdout) as Record<string, unknown>);
      else reject(new Error(`holdfast ${args.join(" ")} ended with ${code}:\n${stdout}${stderr}`));
    });
  });
}
