/** A chat that takes Slack's incoming webhooks: Slack, Mattermost, Rocket.Chat. The address itself is the secret. */
import { bodyLines, bounded, clean, headline } from "./compose.ts";
import { hostOf } from "./address.ts";
import type { Channel } from "./channel.ts";
import type { Notice, Sender } from "./notice.ts";
import { post, type PostDeps } from "./post.ts";

/** Slack cuts at 40,000 letters and advises against more than 4,000. */
const textLength = 3_500;

export function slackChannel(url: URL, sender: Sender, deps: PostDeps): Channel {
  return {
    name: "slack",
    target: hostOf(url),
    async send(notice) {
      await post(deps, { method: "POST", url, headers: {}, body: JSON.stringify({ text: slackText(notice, sender) }) });
    },
  };
}

/**
 * Nothing in it is a command: `<!channel>` and links are shown as they are written, and nobody is called by `@all`, which is what
 * Mattermost and Rocket.Chat go by: a blank without width behind the mark parts it from the word, but in an address of mail.
 */
export function slackText(notice: Notice, sender: Sender): string {
  const text = [headline(notice), ...bodyLines(notice, sender)].map((line) => clean(line)).join("\n");
  const marks: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  return bounded(text, textLength)
    .replace(/(?<![\p{L}\p{N}_%+-])@(?=\p{L})/gu, "@\u200b")
    .replace(/\]\(/g, "]\u200b(")
    .replace(/[&<>]/g, (mark) => marks[mark] ?? "");
}
