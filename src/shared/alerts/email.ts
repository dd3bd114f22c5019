/** Mail by SMTPS: TLS from the first byte (port 465), the chain and the name of the server checked. Nothing is sent otherwise. */
import { isIP } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import nodemailer from "nodemailer";
import { HoldfastError } from "../errors.ts";
import { addressesOf, type AddressRules, hostOf } from "./address.ts";
import { type Channel, channelMs } from "./channel.ts";
import { letterOf } from "./compose.ts";
import { isEscalated, type Notice, type Sender } from "./notice.ts";

export interface SmtpSettings {
  /** `smtps://user:password@host:465`. */
  readonly url: URL;
  /** Certificates (PEM) that are trusted besides the runtime's own, for a server with an authority of its own. */
  readonly caPem: string | undefined;
}

const smtpsPort = 465;

export function emailChannel(settings: SmtpSettings, sender: Sender, rules: AddressRules): Channel {
  const { url } = settings;
  const host = hostOf(url);
  const [user, pass] = [url.username, url.password].map(decoded);
  return {
    name: "email",
    target: host,
    async send(notice) {
      const signal = AbortSignal.timeout(channelMs);
      const socket = await connectTls(settings, rules, signal);
      try {
        const transport = nodemailer.createTransport({
          host,
          // Said in EHLO; the name of the machine is nobody's business.
          name: "holdfast",
          secure: true,
          getSocket: (_options, done) => done(null, { connection: socket, secured: true }),
          greetingTimeout: channelMs,
          socketTimeout: channelMs,
          ...(user === "" ? {} : { auth: { user, pass } }),
        });
        const { subject, text, html } = letterOf(notice, sender);
        await transport.sendMail({
          from: { name: "Holdfast", address: sender.mailFrom },
          to: recipientsOf(notice, sender),
          subject,
          text,
          html,
          // The same at each try: a mail program shows it once.
          messageId: `<${notice.key}@${sender.mailFrom.split("@")[1]}>`,
          date: new Date(notice.at),
          headers: { "Auto-Submitted": "auto-generated", "X-Holdfast-Alert": String(notice.alert ?? "") },
          disableFileAccess: true,
          disableUrlAccess: true,
          signal,
        });
      } catch (cause) {
        throw refusalOf(cause, signal);
      } finally {
        socket.destroy();
      }
    },
  };
}

/** Errors: `channel_malformed`. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new HoldfastError("channel_malformed", "BACKUP_SMTP_URL holds a % that is none of an address: write %25");
  }
}

/** Everybody of `mail_to`; the emergency contact too where nobody has acknowledged it. */
export function recipientsOf(notice: Notice, { mailTo, contactEmail }: Sender): string[] {
  return [...new Set(isEscalated(notice) && contactEmail !== "" ? [...mailTo, contactEmail] : mailTo)];
}

/** To one of the host's addresses that were looked at, so that it leads nowhere else meanwhile. */
async function connectTls({ url, caPem }: SmtpSettings, rules: AddressRules, signal: AbortSignal): Promise<TLSSocket> {
  const name = hostOf(url);
  const [address] = await addressesOf(name, rules, signal);
  if (address === undefined) throw new HoldfastError("channel_unreachable", "the name of the mail server is not known");
  return await new Promise((resolve, reject) => {
    const socket = connect({
      host: address,
      port: url.port === "" ? smtpsPort : Number(url.port),
      ...(isIP(name) === 0 ? { servername: name } : {}),
      ...(caPem === undefined ? {} : { ca: [caPem] }),
      rejectUnauthorized: true,
    });
    const fail = (cause?: unknown) => {
      socket.destroy();
      reject(
        new HoldfastError(
          "channel_unreachable",
          signal.aborted
            ? `no connection within ${channelMs / 1000} s`
            : "no connection, or no TLS that can be trusted",
          { cause },
        ),
      );
    };
    socket.once("error", fail);
    signal.addEventListener("abort", () => fail(), { once: true });
    socket.once("secureConnect", () => {
      socket.off("error", fail);
      // What breaks later is told by the transport; between two listeners nothing may go unheard.
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

/** Of an answer only its code goes on: its text may repeat a name or an address. */
function refusalOf(cause: unknown, signal: AbortSignal): HoldfastError {
  if (cause instanceof HoldfastError) return cause;
  const { responseCode, command } = (cause ?? {}) as { readonly responseCode?: unknown; readonly command?: unknown };
  const at = typeof command === "string" && /^[A-Z ]{2,10}$/.test(command) ? ` to ${command}` : "";
  if (typeof responseCode === "number") {
    return new HoldfastError("channel_refused", `the mail server answered ${responseCode}${at}`, { cause });
  }
  const why = signal.aborted ? `the mail server took longer than ${channelMs / 1000} s` : "the mail server broke off";
  return new HoldfastError("channel_unreachable", why, { cause });
}
