/** Each channel against a receiver that really receives, and against one that refuses, is slow, or is not what it says. */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createHmac } from "node:crypto";
import type { Socket } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { makeServerCertificate, type ServerCertificate } from "../../src/local/certificates.ts";
import { systemLookup } from "../../src/shared/alerts/address.ts";
import { channelMs } from "../../src/shared/alerts/channel.ts";
import { channelsFrom } from "../../src/shared/alerts/channels_from.ts";
import type { Notice, Sender } from "../../src/shared/alerts/notice.ts";
import { systemClock } from "../../src/shared/clock.ts";
import {
  type MailServer,
  type Receiver,
  startMailServer,
  startMute,
  startOdd,
  startReceiver,
} from "../support/receivers.ts";
import { trustingFetch } from "../support/trusting_fetch.ts";

let certificate: ServerCertificate;
let mail: MailServer;
let hook: Receiver;

beforeAll(async () => {
  certificate = makeServerCertificate("receivers of alerts");
  mail = await startMailServer(certificate);
  hook = await startReceiver(certificate);
});
afterAll(async () => {
  await mail?.close();
  await hook?.close();
});
beforeEach(() => {
  mail.refuse = null;
  mail.mails.splice(0);
  hook.answers = [200];
  hook.received.splice(0);
});

const sender: Sender = {
  install: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
  project: null,
  database: "shop",
  contact: "Ada Admin, ada@example.org",
  contactEmail: "ada@example.org",
  mailFrom: "backups@example.org",
  mailTo: ["ops@example.org", "anna@example.org"],
};
const notice: Notice = {
  key: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01-7-x",
  id: 7,
  event: "raised",
  kind: "backup_failed",
  subject: "kind:full\r\nBcc: victim@example.org",
  severity: "critical",
  message: "Sicherung schlug fehl: 失敗 🦖 <b>&</b>\n.\r\nRCPT TO:<victim@example.org>\r\n" + "x".repeat(3_000),
  detail: {},
  alert: 12,
  at: "2026-11-21T00:01:00Z",
};
const secret = `whsec_${Buffer.from("0123456789abcdef0123456789abcdef").toString("base64")}`;
const key = "re_secret_key_of_the_mail_api";

type Variables = Readonly<Record<string, string>>;
const smtp = (port = mail.port, password = mail.password): Variables => ({
  BACKUP_SMTP_URL: `smtps://holdfast:${encodeURIComponent(password)}@127.0.0.1:${port}`,
  BACKUP_SMTP_CA: certificate.authority,
});
const hooks = (port = hook.port): Variables => ({
  BACKUP_SLACK_URL: `https://127.0.0.1:${port}/services/T0/B0/slack-secret`,
  BACKUP_WEBHOOK_URL: `https://127.0.0.1:${port}/hook`,
  BACKUP_WEBHOOK_SECRET: secret,
  BACKUP_MAIL_API_URL: `https://127.0.0.1:${port}/emails`,
  BACKUP_MAIL_API_KEY: key,
  BACKUP_HEARTBEAT_URL: `https://127.0.0.1:${port}/ping/heartbeat-secret`,
});

function channels(variables: Variables, allowPrivate = true) {
  return channelsFrom({
    variable: (name) => ({ ...variables, ...(allowPrivate ? { BACKUP_PRIVATE_CHANNELS: "1" } : {}) })[name],
    fetch: trustingFetch(certificate.authority),
    clock: systemClock,
    lookup: () => Promise.resolve(["127.0.0.1"]),
  }, sender);
}

function channel(name: string, variables: Variables) {
  const found = channels(variables).usable.find((one) => one.name === name);
  if (found === undefined) throw new Error(`${name} is not usable`);
  return found;
}

describe("mail by SMTPS", () => {
  it("arrives whole at everybody, its headers our own whatever the notice holds", async () => {
    await channel("email", smtp()).send(notice);
    const [got] = mail.mails;
    expect(mail.mails).toHaveLength(1);
    expect(got).toMatchObject({ from: "backups@example.org", to: ["ops@example.org", "anna@example.org"] });
    const [head = "", ...rest] = (got?.raw ?? "").split("\r\n\r\n");
    expect(head).not.toMatch(/^bcc:/im);
    expect(head).toContain(`Message-ID: <${notice.key}@example.org>`);
    expect(head).toContain("Auto-Submitted: auto-generated");
    // Read by a program that has nothing of ours.
    const read = spawnSync("python3", ["-c", readMail], { input: got?.raw ?? "", encoding: "utf8" });
    expect(read.stderr).toBe("");
    const { subject, text, html } = JSON.parse(read.stdout) as Record<"subject" | "text" | "html", string>;
    expect(subject).toBe("[Holdfast shop] critical: backup failed (kind:full Bcc: victim@example.org)");
    expect(text.replaceAll("\r\n", "\n")).toContain(
      "Sicherung schlug fehl: 失敗 🦖 <b>&</b>\n.\nRCPT TO:<victim@example.org>",
    );
    expect(html).toContain("&lt;b&gt;&amp;&lt;/b&gt;");
    expect(rest.join("")).not.toBe("");
  });

  it("goes to the emergency contact too where nobody has acknowledged", async () => {
    await channel("email", smtp()).send({ ...notice, event: "escalated" });
    expect(mail.mails[0]?.to).toEqual(["ops@example.org", "anna@example.org", "ada@example.org"]);
  });

  it.each(
    [
      ["mail", 451, "channel_refused", "the mail server answered 451 to MAIL FROM"],
      ["rcpt", 550, "channel_refused", "the mail server answered 550"],
      ["data", 552, "channel_refused", "the mail server answered 552"],
    ] as const,
  )("that is refused at %s with %i says so, and nothing of the server's words", async (at, code, ours, message) => {
    mail.refuse = { at, code };
    const error = await channel("email", smtp()).send(notice).then(() => null, (one: unknown) => one);
    expect(error).toMatchObject({ code: ours });
    expect(String((error as Error).message)).toContain(message.slice(0, 30));
    expect(String((error as Error).message)).not.toContain("secret.example");
    mail.refuse = null;
    await channel("email", smtp()).send(notice);
    expect(mail.mails).toHaveLength(1);
  });

  it("with another password is refused, and names none", async () => {
    const error = await channel("email", smtp(mail.port, "wrong-password")).send(notice).catch((one: unknown) => one);
    expect(error).toMatchObject({ code: "channel_refused" });
    expect((error as Error).message).toMatch(/^the mail server answered 535/);
    expect(mail.mails).toEqual([]);
  });

  it("is not given to a server that shows another authority's certificate, nor to one without TLS", async () => {
    const other = makeServerCertificate("somebody else");
    await expect(channel("email", { ...smtp(), BACKUP_SMTP_CA: other.authority }).send(notice)).rejects.toMatchObject({
      code: "channel_unreachable",
      message: expect.stringContaining("no TLS that can be trusted"),
    });
    const plain = await startMute("220 mail.example.org ESMTP\r\n");
    await expect(channel("email", smtp(plain.port)).send(notice)).rejects.toMatchObject({
      code: "channel_unreachable",
    });
    await plain.close();
    expect(mail.mails).toEqual([]);
  });

  it("gives up on a server that is gone, and on one that never says a word", async () => {
    const mute = await startMute();
    const begun = performance.now();
    await expect(channel("email", smtp(mute.port)).send(notice)).rejects.toMatchObject({ code: "channel_unreachable" });
    expect(performance.now() - begun).toBeLessThan(channelMs + 3_000);
    await mute.close();
    await expect(channel("email", smtp(mute.port)).send(notice)).rejects.toMatchObject({ code: "channel_unreachable" });
  }, channelMs + 10_000);
});

describe("a mail server that", () => {
  /** Speaks as a server does up to a command, then does something else. */
  const speaking = (until: string, then: (socket: Socket) => void) =>
    startOdd(certificate, (socket) => {
      let isMessage = false;
      socket.write("220 mail.example.org ESMTP\r\n");
      socket.on("data", (part: Uint8Array) => {
        const [first = ""] = new TextDecoder().decode(part).split(/[ \r\n]/);
        const word = isMessage ? "the message" : first;
        isMessage ||= word === "DATA";
        if (word === until) then(socket);
        else if (word === "EHLO") socket.write("250-mail.example.org\r\n250 AUTH PLAIN LOGIN\r\n");
        else if (word === "AUTH") socket.write("235 ok\r\n");
        else if (word === "DATA") socket.write("354 go on\r\n");
        else socket.write("250 ok\r\n");
      });
    });

  it.each(["EHLO", "AUTH", "MAIL", "RCPT", "DATA", "the message"])(
    "goes away at %s leaves nothing behind but that it broke off",
    async (word) => {
      const server = await speaking(word, (socket) => socket.destroy());
      const error = await channel("email", smtp(server.port)).send(notice).catch((one: unknown) => one);
      expect(error).toMatchObject({ code: "channel_unreachable", message: "the mail server broke off" });
      await server.close();
    },
  );

  it("says a letter now and then is given up when the time of an exchange is over, whatever it said", async () => {
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    vi.spyOn(AbortSignal, "timeout").mockImplementation(() => timeout(1_000));
    const server = await speaking("MAIL", (socket) => {
      const timer = setInterval(() => socket.write("250-still thinking\r\n"), 50);
      socket.on("close", () => clearInterval(timer));
    });
    try {
      const begun = performance.now();
      const error = await channel("email", smtp(server.port)).send(notice).catch((one: unknown) => one);
      expect(performance.now() - begun).toBeLessThan(5_000);
      expect(error).toMatchObject({ code: "channel_unreachable", message: expect.stringContaining("took longer") });
    } finally {
      vi.restoreAllMocks();
      await server.close();
    }
  });

  it("asks for another server, or shows an answer of control characters, gets no more than the code on record", async () => {
    const server = await speaking(
      "MAIL",
      (socket) => socket.write("550 \u001b[2Jgo to https://evil.example/secret\r\n"),
    );
    const error = await channel("email", smtp(server.port)).send(notice).catch((one: unknown) => one);
    expect(error).toMatchObject({ code: "channel_refused", message: "the mail server answered 550 to MAIL FROM" });
    await server.close();
  });
});

/** Subject, plain text and HTML of a mail on stdin, as JSON. */
const readMail = `
import sys, json, email, email.policy
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
print(json.dumps({"subject": m["subject"], "text": m.get_body(("plain",)).get_content(), "html": m.get_body(("html",)).get_content()}))
`;

describe("what goes by HTTPS", () => {
  it("is signed so that a receiver can check it with stock tools", async () => {
    await channel("webhook", hooks()).send(notice);
    const [{ headers, body, path, method } = fail()] = hook.received;
    expect({ method, path }).toEqual({ method: "POST", path: "/hook" });
    const signed = createHmac("sha256", Buffer.from(secret.slice(6), "base64"))
      .update(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`).digest("base64");
    expect(headers["webhook-signature"]).toBe(`v1,${signed}`);
    expect(headers["webhook-id"]).toBe(notice.key);
    expect(JSON.parse(body)).toMatchObject({
      version: 1,
      event: "raised",
      kind: "backup_failed",
      alert: 12,
      database: "shop",
    });
    // The lines that docs/alerts.md shows.
    const lines = /```python\n([\s\S]*?)```/.exec(await page())?.[1] ?? "";
    const check =
      `${lines}\nimport json, sys\no = json.load(sys.stdin)\nprint(genuine(o["secret"], o["headers"], o["body"].encode()))`;
    const python = (over: object) =>
      spawnSync("python3", ["-c", check], {
        input: JSON.stringify({ secret, headers, body, ...over }),
        encoding: "utf8",
      }).stdout.trim();
    expect(python({})).toBe("True");
    expect(python({ body: `${body} ` })).toBe("False");
    expect(python({ secret: `whsec_${Buffer.from("another secret of 32 letters!!!!").toString("base64")}` })).toBe(
      "False",
    );
    expect(python({ headers: { ...headers, "webhook-timestamp": "1700000000" } })).toBe("False");
  });

  it("reaches a chat, a mail API and the outside watcher in their own form", async () => {
    const { usable } = channels(hooks());
    for (const one of usable) await one.send(notice);
    const at = (path: string) => hook.received.find((one) => one.path === path) ?? fail();
    expect(JSON.parse(at("/services/T0/B0/slack-secret").body).text).toContain("critical: backup failed");
    const api = at("/emails");
    expect(api.headers).toMatchObject({ authorization: `Bearer ${key}`, "idempotency-key": notice.key });
    expect(JSON.parse(api.body)).toMatchObject({
      from: "backups@example.org",
      to: sender.mailTo,
      subject: expect.any(String),
    });
    expect(at("/ping/heartbeat-secret")).toMatchObject({ method: "GET", body: "" });
  });

  it.each(
    [[500, "channel_refused"], [404, "channel_refused"], [429, "channel_refused"], [302, "channel_refused"], [
      "silent",
      "channel_unreachable",
    ]] as const,
  )(
    "fails for an answer of %s, without the receiver's words or the address",
    async (status, code) => {
      // The bound itself is proven with mail.
      if (status === "silent") vi.spyOn(AbortSignal, "timeout").mockImplementation(() => AbortSignal.abort());
      hook.answers = [status];
      for (const one of channels(hooks()).usable) {
        const error = await one.send(notice).then(
          () => fail(),
          (found: unknown) => found as Error & { readonly code: string },
        );
        expect(error.code).toBe(code);
        expect(error.message).not.toMatch(/secret|token-in-an-answer|127\.0\.0\.1/);
      }
      // Nobody followed the redirect.
      expect(hook.received.every(({ path }) => path !== "/elsewhere")).toBe(true);
      vi.restoreAllMocks();
    },
  );

  it("goes through once the receiver is well again", async () => {
    hook.answers = [500, 200];
    await expect(channel("webhook", hooks()).send(notice)).rejects.toMatchObject({ message: "the answer was 500" });
    await channel("webhook", hooks()).send(notice);
    expect(hook.received.map(({ headers }) => headers["webhook-id"])).toEqual([notice.key, notice.key]);
  });

  it("is sent to no second address that the first one names, and to no name that leads inside", async () => {
    const asked: string[] = [];
    const server = await startOdd(null, (socket) => {
      socket.on("data", (part: Uint8Array) => {
        asked.push(new TextDecoder().decode(part).split(" ")[1] ?? "");
        socket.end(`HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:${server.port}/inside\r\ncontent-length: 0\r\n\r\n`);
      });
    });
    const plain: Variables = {
      BACKUP_SLACK_URL: `http://127.0.0.1:${server.port}/first`,
      BACKUP_PRIVATE_CHANNELS: "1",
    };
    const named: Variables = { BACKUP_SLACK_URL: `https://hook.example.org:${server.port}/named` };
    // The runtime's own fetch, which follows where it is not told otherwise.
    const made = (variables: Variables) =>
      channelsFrom({
        variable: (name) => variables[name],
        fetch,
        clock: systemClock,
        lookup: () => Promise.resolve(["93.184.215.14", "127.0.0.1"]),
      }, sender).usable;
    for (const one of made(plain)) {
      await expect(one.send(notice)).rejects.toMatchObject({
        code: "channel_refused",
        message: expect.stringContaining("a redirect"),
      });
    }
    for (const one of made(named)) {
      await expect(one.send(notice)).rejects.toMatchObject({
        code: "channel_refused",
        message: expect.stringContaining("private network"),
      });
    }
    expect(made(named)).toHaveLength(1);
    expect(asked).toEqual(["/first"]);
    await server.close();
  });

  it("is over with the answer's first line: nobody reads a body without end", async () => {
    let written = 0;
    const server = await startOdd(null, (socket) => {
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        const more = () => {
          while (!socket.destroyed && socket.write(`10000\r\n${"x".repeat(65_536)}\r\n`)) written += 65_536;
        };
        socket.on("drain", more);
        more();
      });
    });
    const begun = performance.now();
    const variables: Variables = { BACKUP_SLACK_URL: `http://127.0.0.1:${server.port}/`, BACKUP_PRIVATE_CHANNELS: "1" };
    // The runtime's own, as in the function.
    const deps = { variable: (name: string) => variables[name], fetch, clock: systemClock, lookup: systemLookup };
    const { usable } = channelsFrom(deps, sender);
    expect(usable).toHaveLength(1);
    for (const one of usable) await one.send(notice);
    expect(performance.now() - begun).toBeLessThan(10_000);
    const after = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(written - after).toBeLessThan(16 * 1024 * 1024);
    await server.close();
  });

  it("is not given to a server whose certificate cannot be trusted, nor to one that is gone", async () => {
    const other = await startReceiver(makeServerCertificate("somebody else"));
    for (const one of channels(hooks(other.port)).usable) {
      await expect(one.send(notice)).rejects.toMatchObject({ code: "channel_unreachable" });
    }
    expect(other.received).toEqual([]);
    await other.close();
    for (const one of channels(hooks(other.port)).usable) {
      await expect(one.send(notice)).rejects.toMatchObject({ code: "channel_unreachable" });
    }
  });
});

describe("settings of channels", () => {
  it("that lead inside are refused unless that is allowed, each by its variable and never by its value", () => {
    const { usable, broken } = channels({ ...smtp(), ...hooks() }, false);
    expect(usable).toEqual([]);
    expect(broken.map(({ name }) => name)).toEqual(["email", "mail_api", "slack", "webhook", "heartbeat"]);
    expect(JSON.stringify(broken)).not.toMatch(/127|secret-|slack-secret|heartbeat-secret|pass/);
  });

  it("with a percent sign that is none of an address are told, and not taken for a server that breaks off", () => {
    const url = "smtps://holdfast:50%of@127.0.0.1:465";
    expect(channels({ BACKUP_SMTP_URL: url }).broken).toEqual([
      { name: "email", problem: "BACKUP_SMTP_URL holds a % that is none of an address: write %25" },
    ]);
  });

  it("that are wrong break their own channel alone", () => {
    const { usable, broken } = channels({
      ...hooks(),
      BACKUP_WEBHOOK_SECRET: "too short",
      BACKUP_SLACK_URL: "nonsense",
    });
    expect(usable.map(({ name }) => name)).toEqual(["mail_api", "heartbeat"]);
    expect(broken).toEqual([
      { name: "slack", problem: "BACKUP_SLACK_URL is no address" },
      { name: "webhook", problem: "BACKUP_WEBHOOK_SECRET is not whsec_ and the base64 of 24 to 64 bytes" },
    ]);
  });

  it("without anybody to mail to make no channel of mail", () => {
    const deps = {
      variable: (name: string) => ({ ...smtp(), BACKUP_PRIVATE_CHANNELS: "1" })[name],
      fetch: trustingFetch(certificate.authority),
      clock: systemClock,
      lookup: () => Promise.resolve([]),
    };
    expect(channelsFrom(deps, { ...sender, mailTo: [] }).broken).toEqual([
      { name: "email", problem: "the setting mail_to is empty" },
    ]);
    expect(channelsFrom({ ...deps, variable: () => undefined }, sender)).toMatchObject({ usable: [], broken: [] });
  });
});

async function page(): Promise<string> {
  const { readFile } = await import("node:fs/promises");
  return await readFile(new URL("../../docs/alerts.md", import.meta.url), "utf8");
}

function fail(): never {
  throw new Error("nothing was received");
}
