/** Mail by HTTPS, where no port for SMTP is open: the form of Resend, which others take too. */
import { hostOf } from "./address.ts";
import type { Channel } from "./channel.ts";
import { letterOf } from "./compose.ts";
import { recipientsOf } from "./email.ts";
import type { Mailer } from "./mailer.ts";
import type { Sender } from "./notice.ts";
import { post, type PostDeps } from "./post.ts";

export interface MailApiSettings {
  readonly url: URL;
  readonly key: string;
}

export function mailApiChannel(settings: MailApiSettings, sender: Sender, deps: PostDeps): Channel {
  const send = apiMailer(settings, deps);
  return {
    name: "mail_api",
    target: hostOf(settings.url),
    send: async (notice) =>
      await send({
        fromName: "Holdfast",
        from: sender.mailFrom,
        to: recipientsOf(notice, sender),
        ...letterOf(notice, sender),
        key: notice.key,
        at: new Date(notice.at),
      }),
  };
}

/** Errors: `channel_unreachable`, `channel_refused`. */
export function apiMailer({ url, key: secret }: MailApiSettings, deps: PostDeps): Mailer {
  return async ({ from, to, subject, text, html, key }) => {
    const body = JSON.stringify({ from, to, subject, text, html });
    await post(deps, {
      method: "POST",
      url,
      headers: { authorization: `Bearer ${secret}`, "idempotency-key": key },
      body,
    });
  };
}
