/** What is told: a notice as the database hands it to a channel, and what every message says besides. */
import { z } from "zod";

export const channelNames = ["email", "mail_api", "slack", "webhook", "heartbeat"] as const;
export type ChannelName = typeof channelNames[number];

const severity = z.enum(["information", "warning", "critical"]);
export type Severity = z.infer<typeof severity>;

/** What `backup.claim_delivery` gives; `detail` differs by event, and is read by `compose.ts`. */
export const noticeFormat = z.object({
  /** Of notice and channel, the same at each try: by it a receiver knows what it has already. */
  key: z.string(),
  id: z.int(),
  event: z.enum(["raised", "worse", "reminded", "escalated", "resolved", "passed", "digest", "notice", "test"]),
  kind: z.string(),
  subject: z.string(),
  severity,
  message: z.string(),
  detail: z.record(z.string(), z.unknown()),
  /** Id of the alert that it is about; null: of none, or of many. */
  alert: z.int().nullable(),
  /** When it was written, ISO 8601. */
  at: z.string(),
});
export type Notice = z.infer<typeof noticeFormat>;

/** Who tells, and whom to ask: `backup.sender()`. Empty texts where nothing is set. */
export const senderFormat = z.object({
  install: z.string(),
  /** Ref of the project; null on a plain PostgreSQL. */
  project: z.string().nullable(),
  database: z.string(),
  contact: z.string(),
  contactEmail: z.string(),
  mailFrom: z.string(),
  mailTo: z.string().transform((text) => text.split(" ").filter((one) => one !== "")),
});
export type Sender = z.infer<typeof senderFormat>;

/** Nobody may have seen it yet: it also goes to the emergency contact. */
export function isEscalated({ event, detail }: Notice): boolean {
  return event === "escalated" || detail["escalated"] === true;
}
