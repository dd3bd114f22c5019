/** What the functions take, as zod schemas. docs/http.md lists the same actions and fields; a test compares them. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";

const run = z.uuid().describe("id of a run");
const requestKey = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9:._-]{0,199}$/)
  .describe("the same key gives the same run, however often it is sent");

export const backupRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("start"),
    tier: z.enum(["daily", "weekly", "manual", "safety"]).describe("what the backup is kept by"),
    requestKey: requestKey.optional(),
  }),
  z.strictObject({ action: z.literal("leg"), run }),
  z.strictObject({ action: z.literal("status"), run }),
  z.strictObject({ action: z.literal("drain") }),
]);
export type BackupRequest = z.infer<typeof backupRequest>;

export const verifyRequest = z.discriminatedUnion("action", [
  z.strictObject({ action: z.literal("start"), id: run.describe("id of the backup to verify") }),
  z.strictObject({ action: z.literal("leg"), run }),
]);
export type VerifyRequest = z.infer<typeof verifyRequest>;

/** Reads JSON by a schema. `payload_invalid` names the fields that are wrong, never what was in them. */
export function parseRequest<T>(schema: z.ZodType<T>, body: Uint8Array): T {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    throw new HoldfastError("payload_invalid", "the request is not JSON");
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.slice(0, 10).map((issue) => {
    const named = issue.path.map(String).join(".");
    return named === "" ? "the request itself" : named;
  });
  throw new HoldfastError("payload_invalid", `not as expected: ${[...new Set(fields)].join(", ")}`);
}
