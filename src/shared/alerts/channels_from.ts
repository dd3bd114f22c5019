/** The channels that an environment sets up: of the function `notify`, or of the CLI. */
import type { Clock } from "../clock.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { Fetch } from "../store/http_call.ts";
import { type AddressRules, type Lookup, parseAddress } from "./address.ts";
import type { BrokenChannel, Channel, Channels, Watcher } from "./channel.ts";
import { emailChannel, smtpMailer, type SmtpSettings } from "./email.ts";
import { heartbeatChannel } from "./heartbeat.ts";
import { apiMailer, mailApiChannel, type MailApiSettings } from "./mail_api.ts";
import type { Mailer } from "./mailer.ts";
import type { ChannelName, Sender } from "./notice.ts";
import { slackChannel } from "./slack.ts";
import { channelVariables } from "./variables.ts";
import { secretBytes, webhookChannel } from "./webhook.ts";

export interface ChannelDeps {
  /** The value of a variable; empty counts as not set. */
  readonly variable: (name: string) => string | undefined;
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly lookup: Lookup;
}

/** Sends nothing and looks nothing up. What is wrong with one channel hinders no other. */
export function channelsFrom(channelDeps: ChannelDeps, sender: Sender): Channels {
  const { set, need, https, deps, rules } = settingsOf(channelDeps);

  let watcher: Watcher | null = null;
  const makers: readonly [ChannelName, keyof typeof channelVariables, () => Channel][] = [
    ["email", "smtpUrl", () => {
      requireMail(sender);
      return emailChannel(smtpOf(channelDeps), sender, rules);
    }],
    ["mail_api", "mailApiUrl", () => {
      requireMail(sender);
      return mailApiChannel(mailApiOf(channelDeps), sender, deps);
    }],
    ["slack", "slackUrl", () => slackChannel(https("slackUrl"), sender, deps)],
    ["webhook", "webhookUrl", () => {
      const secret = secretBytes(need("webhookSecret"));
      return webhookChannel({ url: https("webhookUrl"), secret }, sender, deps);
    }],
    ["heartbeat", "heartbeatUrl", () => watcher = heartbeatChannel(https("heartbeatUrl"), deps)],
  ];
  const usable: Channel[] = [];
  const broken: BrokenChannel[] = [];
  for (const [name, address, make] of makers) {
    if (set(address) === undefined) continue;
    try {
      usable.push(make());
    } catch (error) {
      broken.push({ name, problem: asHoldfastError(error).message });
    }
  }
  return { usable, watcher, broken };
}

/** For letters to people who are none of `mail_to`: by SMTPS where that is set up, else by HTTPS. Null: neither is. Errors: `channel_malformed`. */
export function mailerFrom(channelDeps: ChannelDeps): Mailer | null {
  const { set, deps, rules } = settingsOf(channelDeps);
  if (set("smtpUrl") !== undefined) return smtpMailer(smtpOf(channelDeps), rules);
  return set("mailApiUrl") === undefined ? null : apiMailer(mailApiOf(channelDeps), deps);
}

function smtpOf(channelDeps: ChannelDeps): SmtpSettings {
  const { set, need, rules } = settingsOf(channelDeps);
  const url = parseAddress(need("smtpUrl"), channelVariables.smtpUrl, "smtps:", rules);
  return { url, caPem: set("smtpAuthority") };
}

function mailApiOf(channelDeps: ChannelDeps): MailApiSettings {
  const { need, https } = settingsOf(channelDeps);
  return { url: https("mailApiUrl"), key: headerText(need("mailApiKey"), "mailApiKey") };
}

function settingsOf({ variable, fetch, clock, lookup }: ChannelDeps) {
  const set = (name: keyof typeof channelVariables) => {
    const value = variable(channelVariables[name])?.trim();
    return value === "" ? undefined : value;
  };
  const need = (name: keyof typeof channelVariables) => {
    const value = set(name);
    if (value === undefined) throw new HoldfastError("channel_malformed", `${channelVariables[name]} is not set`);
    return value;
  };
  const rules: AddressRules = { allowPrivate: set("privateChannels") === "1", lookup };
  const https = (name: keyof typeof channelVariables) =>
    parseAddress(need(name), channelVariables[name], "https:", rules);
  return { set, need, https, rules, deps: { fetch, rules, clock } };
}

function requireMail({ mailTo, mailFrom }: Sender): void {
  const missing = mailTo.length === 0 ? "mail_to" : mailFrom === "" ? "mail_from" : null;
  if (missing !== null) throw new HoldfastError("channel_malformed", `the setting ${missing} is empty`);
}

/** What may stand in a header. */
function headerText(value: string, name: keyof typeof channelVariables): string {
  if (/^[\x21-\x7e]+$/.test(value)) return value;
  throw new HoldfastError("channel_malformed", `${channelVariables[name]} holds blanks or letters that no key has`);
}
