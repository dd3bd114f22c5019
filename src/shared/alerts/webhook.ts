/**
 * A receiver of one's own: JSON, signed as Standard Webhooks 1.0.0 says (standardwebhooks.com), whose libraries check it. docs/alerts.md
 * shows how to check it without one.
 */
import { HoldfastError } from "../errors.ts";
import type { Clock } from "../clock.ts";
import { bounded, headline } from "./compose.ts";
import { hostOf } from "./address.ts";
import type { Channel } from "./channel.ts";
import type { Notice, Sender } from "./notice.ts";
import { post, type PostDeps } from "./post.ts";

export interface WebhookSettings {
  readonly url: URL;
  /** Of `secretBytes`. */
  readonly secret: Uint8Array;
}

export function webhookChannel(
  { url, secret }: WebhookSettings,
  sender: Sender,
  deps: PostDeps & { readonly clock: Clock },
): Channel {
  return {
    name: "webhook",
    target: hostOf(url),
    async send(notice) {
      const body = JSON.stringify(webhookDocument(notice, sender));
      const seconds = Math.floor(deps.clock.now().getTime() / 1000);
      const headers = await signedHeaders({ id: notice.key, seconds, body }, secret);
      await post(deps, { method: "POST", url, headers, body });
    },
  };
}

/** `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256 over id, timestamp and body, joined by dots. */
export async function signedHeaders(
  { id, seconds, body }: { readonly id: string; readonly seconds: number; readonly body: string },
  secret: Uint8Array,
): Promise<Record<string, string>> {
  const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const signed = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(`${id}.${seconds}.${body}`));
  return {
    "webhook-id": id,
    "webhook-timestamp": String(seconds),
    "webhook-signature": `v1,${btoa(String.fromCharCode(...new Uint8Array(signed)))}`,
  };
}

/** The bytes of `whsec_<base64>`. Errors: `channel_malformed` for another form, and for less than 24 bytes or more than 64. */
export function secretBytes(text: string): Uint8Array {
  const found = /^whsec_([A-Za-z0-9+/]{32,88}={0,2})$/.exec(text.trim())?.[1];
  let bytes = new Uint8Array(0);
  try {
    if (found !== undefined) bytes = Uint8Array.from(atob(found), (letter) => letter.charCodeAt(0));
  } catch {
    // told below
  }
  if (bytes.byteLength < 24 || bytes.byteLength > 64) {
    throw new HoldfastError(
      "channel_malformed",
      "BACKUP_WEBHOOK_SECRET is not whsec_ and the base64 of 24 to 64 bytes",
      {
        hint: 'Make one with: echo "whsec_$(openssl rand -base64 32)"',
      },
    );
  }
  return bytes;
}

function webhookDocument(notice: Notice, { project, database, contact }: Sender) {
  const { id, event, kind, subject, severity, detail, alert, at } = notice;
  return {
    version: 1,
    id,
    event,
    kind,
    subject,
    severity,
    headline: headline(notice),
    message: bounded(notice.message, 8_000),
    detail,
    alert,
    at,
    project,
    database,
    contact,
  };
}
