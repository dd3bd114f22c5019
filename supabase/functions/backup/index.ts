import { handleBackup } from "../../../src/shared/http/handle_backup.ts";
import { backupDoorDeps } from "../../../src/shared/http/backup_deps.ts";
import { jsonLine } from "../../../src/shared/log.ts";

declare const EdgeRuntime: { waitUntil(work: Promise<void>): void };

const deps = backupDoorDeps({
  environment: Deno.env.toObject(),
  waitUntil: (work) => EdgeRuntime.waitUntil(work),
  fetch: (input, init) => fetch(input, init),
  write: (line) => console.log(jsonLine(line)),
});

Deno.serve((request) => handleBackup(request, deps));
