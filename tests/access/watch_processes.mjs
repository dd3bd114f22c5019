/**
 * Looks at the arguments of every process of this machine, again and again, until its standard input ends. First line of the
 * input: what to look for, as JSON `[{secret, form, bytes}]` with bytes in base64. At the end it prints one JSON document:
 * how often it looked, what it saw of each program, what it found.
 */
import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";

const pauseMs = 4;
let input = "";
let ended = false;
process.stdin.setEncoding("utf8").on("data", (text) => (input += text)).on("end", () => (ended = true));

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
while (!input.includes("\n")) await wait(pauseMs);
const needles = JSON.parse(input.slice(0, input.indexOf("\n"))).map(({ secret, form, bytes }) => ({
  secret,
  form,
  bytes: Buffer.from(bytes, "base64"),
}));
process.stdout.write("looking\n");

const seen = new Map();
const found = new Map();
let looks = 0;
while (!ended) {
  looks++;
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    let line;
    try {
      line = readFileSync(`/proc/${pid}/cmdline`);
    } catch {
      continue; // it has ended
    }
    if (line.length === 0) continue;
    for (const word of line.toString("utf8").split("\0")) {
      if (/\.(ts|mjs)$|^postgres(:|$)/.test(word)) {
        seen.set(word.split("/").at(-1), (seen.get(word.split("/").at(-1)) ?? 0) + 1);
      }
    }
    for (const { secret, form, bytes } of needles) {
      if (line.includes(bytes)) found.set(`${pid} ${secret} ${form}`, { secret, form, place: `process ${pid}` });
    }
  }
  await wait(pauseMs);
}
process.stdout.write(`${JSON.stringify({ looks, seen: [...seen.keys()], found: [...found.values()] })}\n`);
