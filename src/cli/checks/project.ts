import { minSecretLength } from "../../shared/http/caller.ts";
import type { Context } from "../context.ts";
import { callFunction } from "../function_client.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { type Check, fail, failed, ok } from "./check.ts";

/** No run has this id: a signed question about it is answered by `run_not_found`, which shows that the way is open. */
const nobody = "00000000-0000-4000-8000-000000000000";

/** The functions answer, and take our signature. Silent when no project is set. */
export async function* checkProject(context: Context): AsyncIterable<Check> {
  const url = context.settings.get("project-url");
  if (url === undefined) return;
  const secret = context.settings.variable("BACKUP_WORKER_SECRET");
  if (secret === undefined || secret.length < minSecretLength) {
    yield fail("project", "BACKUP_WORKER_SECRET is missing or shorter than 32 characters", "openssl rand -base64 48");
    return;
  }
  try {
    await callFunction(context, "backup", { action: "status", run: nobody });
    yield ok("project", `${url} takes our calls`);
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "run_not_found") yield ok("project", `${url} takes our calls`);
    else yield failed("project", error);
  }
}
