/**
 * Runs a gateway as a process of its own: settings as JSON on stdin (one line), what it became as JSON on stdout (one
 * line). It ends on SIGTERM and SIGINT, and when stdin closes unless `endWithStdin` is false.
 */
import { startGateway } from "./gateway.ts";
import { lines } from "./lines.ts";
import { gatewaySettings, type GatewaySettingsInput } from "./settings.ts";

const input = lines(Deno.stdin.readable);
const first = await input.next();
const given: GatewaySettingsInput = JSON.parse(first.done ? "" : first.value);
const { endWithStdin } = gatewaySettings.parse(given);
const gateway = await startGateway(given);

let ending = false;
async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  await gateway.close();
  Deno.exit(0);
}

for (const signal of ["SIGTERM", "SIGINT"] as const) Deno.addSignalListener(signal, end);
console.log(JSON.stringify(gateway.ready));
const rest = await input.next();
if (endWithStdin && rest.done) await end();
