/** Mail by HTTPS, where no port for SMTP is open: the form of Resend, which others take too. */
import { hostOf } from "./address.ts";
import type { Channel } from "./channel.ts";
import { letterOf } from "./compose.ts";
import { recipientsOf } from "./email.ts";
import type { Sender } from "./notice.ts";
import { post, type PostDeps } from "./post.ts";

export interface MailApiSettings {
  readonly url: URL;
  readonly key: string;
}

export function mailApiChannel({ url, key }: MailApiSettings, sender: Sender, deps: PostDeps): Channel {
  return {
    name: "mail_api",
    target: hostOf(url),
    async send(notice) {
      const { subject, text, html } = letterOf(notice, sender);
      const body = JSON.stringify({ from: sender.mailFrom, to: recipientsOf(notice, sender), subject, text, html });
      const headers = { authorization: `Bearer ${key}`, "idempotency-key": notice.key };
      await post(deps, { method: "POST", url, headers, body });
    },
  };
}
