/** `npm run stop`: ends the stack of `npm start` and waits until it is gone. Its data stays. */
import process from "node:process";
import { readRunning } from "./running.ts";

const running = readRunning();
if (running === null) {
  console.error("The stack is not running.");
  process.exit(0);
}
process.kill(running.pid, "SIGTERM");
const deadline = Date.now() + 60_000;
while (alive(running.pid)) {
  if (Date.now() > deadline) {
    console.error(`Process ${running.pid} does not end.`);
    process.exit(1);
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
}
console.error("The stack has ended; `npm start` goes on with the same data.");

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
