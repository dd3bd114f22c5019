/** What the functions take, as zod schemas. docs/http.md lists the same actions and fields; a test compares them. */
import { z } from "zod";
import { channelNames } from "../alerts/notice.ts";
import { downloadFormats } from "../download/format.ts";
import { guardianAsks, guardianRelations, identityWays } from "../erase/guardian_words.ts";
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
  z.strictObject({ action: z.literal("anchor") }),
  z.strictObject({ action: z.literal("replicate") }),
  z.strictObject({ action: z.literal("copy"), run }),
]);
export type BackupRequest = z.infer<typeof backupRequest>;

export const verifyRequest = z.discriminatedUnion("action", [
  z.strictObject({ action: z.literal("start"), id: run.describe("id of the backup to verify") }),
  z.strictObject({ action: z.literal("check"), cadence: z.enum(["daily", "weekly"]).describe("which checks") }),
  z.strictObject({ action: z.literal("leg"), run }),
]);
export type VerifyRequest = z.infer<typeof verifyRequest>;

export const retentionRequest = z.discriminatedUnion("action", [
  z.strictObject({ action: z.literal("start") }),
  z.strictObject({ action: z.literal("plan") }),
  z.strictObject({ action: z.literal("leg"), run }),
]);
export type RetentionRequest = z.infer<typeof retentionRequest>;

export const drillRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("start"),
    drill: z.string().regex(/^[a-z][a-z_]{0,40}$/).describe("its name in the calendar, such as `recovery`"),
  }),
  z.strictObject({ action: z.literal("leg"), run }),
  z.strictObject({ action: z.literal("sweep") }),
]);
export type DrillRequest = z.infer<typeof drillRequest>;

export const notifyRequest = z.discriminatedUnion("action", [
  z.strictObject({ action: z.literal("deliver") }),
  z.strictObject({
    action: z.literal("test"),
    channel: z.enum(channelNames).optional().describe("only this one; without it all that are set up"),
  }),
]);
export type NotifyRequest = z.infer<typeof notifyRequest>;

export const incidentRequest = z.discriminatedUnion("action", [z.strictObject({ action: z.literal("publish") })]);
export type IncidentRequest = z.infer<typeof incidentRequest>;

export const monitorRequest = z.discriminatedUnion("action", [
  z.strictObject({ action: z.literal("look") }),
  z.strictObject({ action: z.literal("status") }),
  z.strictObject({ action: z.literal("metrics") }),
]);
export type MonitorRequest = z.infer<typeof monitorRequest>;

const restore = z.uuid().describe("id of a restore");
const mode = z.enum(["missing", "merge", "replace"]);
const name = z.string().min(1).max(200);
const backupId = z.union([z.uuid(), z.literal("latest")]).describe("id of a full backup, or `latest`");

export const restoreRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("plan"),
    scope: z.enum(["table", "record", "user"]).describe("what is wanted"),
    backup: backupId,
    table: name.optional().describe("`schema.table`, for a table and a record"),
    where: z.array(z.strictObject({ column: z.string().min(1).max(63), value: z.string() })).min(1).max(20).optional()
      .describe("which rows: `[{column, value}]`, of which all hold; for a record"),
    all: z.boolean().optional().describe("several rows may fit `where`"),
    user: z.guid().optional().describe("id in `auth.users`, for a user"),
    as: z.guid().optional().describe("the id under which the user signed up again"),
    credentials: z.boolean().optional().describe("password and second factors too"),
    shared: z.boolean().optional().describe("rows that are others' as well, too"),
    map: z.record(z.string(), z.unknown()).optional().describe("what would stand in `backup.map.json`"),
    mode: mode.optional().describe("which plan is made; `merge` without it"),
  }),
  z.strictObject({
    action: z.literal("full"),
    backup: backupId,
    confirm: name.optional().describe("name of the new database, as the answer without it tells it"),
  }),
  z.strictObject({
    action: z.literal("files"),
    backup: backupId.optional().describe("id of a full backup, or `latest`; or `at`"),
    at: z.string().max(64).optional().describe("as of this moment, such as `2024-01-09T12:00:00Z`; not with `backup`"),
    bucket: name.optional().describe("of this bucket alone; without it of all"),
    mode: z.enum(["missing", "merge"]).optional().describe("`merge` also puts back what differs; `missing` without it"),
    confirm: name.optional().describe("name of the database, typed by who wants it"),
  }),
  z.strictObject({
    action: z.literal("apply"),
    restore,
    mode: mode.describe("what goes into place"),
    confirm: name.describe("name of the database, typed by who wants it"),
    skipSafetyBackup: name.optional().describe("name of the database, to go without a safety backup"),
    fireTriggers: z.boolean().optional().describe("where triggers fire whatever a restore sets"),
    withoutFiles: z.boolean().optional().describe("of a user: rows alone"),
  }),
  z.strictObject({ action: z.literal("status"), restore }),
  z.strictObject({ action: z.literal("cancel"), restore }),
  z.strictObject({ action: z.literal("leg"), restore }),
]);
export type RestoreRequest = z.infer<typeof restoreRequest>;
export type PlanRequest = Extract<RestoreRequest, { action: "plan" }>;

const download = z.uuid().describe("id of a download");
/** Bundles may lie there for seven days; the database holds each format to its own bound. */
const expirySeconds = z.int().min(1).max(7 * 24 * 60 * 60).optional();

export const downloadRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("start"),
    backup: z.union([z.uuid(), z.literal("latest")]).optional().describe(
      "id of a backup, or `latest`: has to be there",
    ),
    at: z.string().max(64).optional().describe("a moment: refused as `usage`, since the CLI alone takes rows of one"),
    format: z.enum(downloadFormats).describe("what is wanted"),
    table: name.optional().describe("`schema.table`; without it the whole backup"),
    files: z.string().min(2).max(1200).optional().describe(
      "for the format `files`: `bucket/name` for one file, `bucket/` for those of a bucket",
    ),
    expirySeconds: expirySeconds.describe("how long it lies there once it is ready"),
  }),
  z.strictObject({ action: z.literal("status"), download }),
  z.strictObject({
    action: z.literal("link"),
    download,
    expirySeconds: expirySeconds.describe("how long the link lasts; without it as long as the file lies there"),
  }),
  z.strictObject({ action: z.literal("list") }),
  z.strictObject({ action: z.literal("remove"), download }),
  z.strictObject({ action: z.literal("leg"), download }),
  z.strictObject({ action: z.literal("sweep") }),
]);
export type DownloadRequest = z.infer<typeof downloadRequest>;

const dataExport = z.uuid().describe("id of an export");

export const exportRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("request"),
    user: z.guid().optional().describe("id in `auth.users`; without it one's own"),
  }),
  z.strictObject({ action: z.literal("status"), export: dataExport }),
  z.strictObject({ action: z.literal("list") }),
  z.strictObject({
    action: z.literal("link"),
    export: dataExport,
    expirySeconds: expirySeconds.describe("how long the links last; a day without it"),
    after: z.int().min(0).max(2_147_483_647).optional().describe("`next` of the answer before: files behind those"),
  }),
  z.strictObject({ action: z.literal("cancel"), export: dataExport }),
  z.strictObject({ action: z.literal("leg"), export: dataExport }),
  z.strictObject({ action: z.literal("sweep") }),
]);
export type ExportRequest = z.infer<typeof exportRequest>;

const dataImport = z.uuid().describe("id of an import");

export const importExportRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("ask"),
    document: z.string().regex(/^[0-9a-f]{64}$/).describe("`root` of the document's signature"),
    export: z.uuid().describe("`id` of the document"),
    install: z.uuid().describe("`install` of the document"),
    user: z.guid().describe("`user` of the document"),
  }),
  z.strictObject({ action: z.literal("approve"), import: dataImport }),
  z.strictObject({ action: z.literal("consent"), import: dataImport }),
  z.strictObject({ action: z.literal("withdraw"), import: dataImport }),
  z.strictObject({ action: z.literal("list") }),
]);
export type ImportExportRequest = z.infer<typeof importExportRequest>;

const shortLine = z.string().regex(/^[^\r\n]{1,200}$/);

export const privacyRequest = z.discriminatedUnion("action", [
  z.strictObject({
    action: z.literal("report"),
    user: z.guid().describe("id in `auth.users`, also of somebody who was erased"),
  }),
  z.strictObject({
    action: z.literal("record"),
    child: z.guid().describe("id of the child in `auth.users`"),
    name: shortLine.describe("of the guardian; sealed"),
    reach: shortLine.describe("their address or number; sealed"),
    as: z.enum(guardianRelations).describe("`parent` or `guardian`"),
    asks: z.array(z.enum(guardianAsks)).min(1).max(2).describe("`review`, `erasure`, or both"),
    identityBy: z.enum(identityWays).describe("how it was made sure who they are"),
    saidOn: z.iso.date().describe("day of their statement"),
    statement: z.string().min(1).max(8000).describe("in their words, without the child's id or address; sealed"),
  }),
  z.strictObject({ action: z.literal("withdraw"), request: z.uuid().describe("id of a guardian's request") }),
  z.strictObject({ action: z.literal("list") }),
]);
export type PrivacyRequest = z.infer<typeof privacyRequest>;

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
