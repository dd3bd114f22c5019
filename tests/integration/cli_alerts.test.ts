/** `holdfast alerts` and `holdfast settings` as people run them, on a plain PostgreSQL: no job and no function, so the CLI delivers. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeServerCertificate } from "../../src/local/certificates.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { type MailServer, type Receiver, startMailServer, startReceiver } from "../support/receivers.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster({ platform: false });
const folder = mkdtempSync(join(tmpdir(), "holdfast-cli-alerts-"));
let mail: MailServer;
let hook: Receiver;
let plain: Record<string, string>;
let settings: Record<string, string>;

beforeAll(async () => {
  const certificate = makeServerCertificate("receivers of alerts");
  mail = await startMailServer(certificate);
  hook = await startReceiver(certificate);
  writeFileSync(join(folder, "authority.pem"), certificate.authority);
  plain = { BACKUP_DB_URL: cluster().url("postgres"), BACKUP_STORE: `file://${folder}/store` };
  settings = {
    ...plain,
    BACKUP_SMTP_URL: `smtps://holdfast:${encodeURIComponent(mail.password)}@127.0.0.1:${mail.port}`,
    BACKUP_SMTP_CA: certificate.authority,
    BACKUP_SLACK_URL: `https://127.0.0.1:${hook.port}/services/slack-secret`,
    BACKUP_HEARTBEAT_URL: `https://127.0.0.1:${hook.port}/beat-secret`,
    BACKUP_PRIVATE_CHANNELS: "1",
    DENO_CERT: join(folder, "authority.pem"),
  };
  const { exit, stderr } = await cli(["init"], { ...plain, BACKUP_KEYS: `test:${"A".repeat(43)}` });
  expect(exit, stderr).toBe(0);
}, clusterMs);
afterAll(async () => {
  await mail?.close();
  await hook?.close();
  rmSync(folder, { recursive: true, force: true });
});

const ask = (text: string) => query(cluster().plainUrl("postgres"), text);

describe("holdfast settings", () => {
  it("lists every setting with its bounds, sets one, and refuses what does not fit", async () => {
    const { document, exit } = await cli(["settings", "--json"], plain);
    expect(exit).toBe(0);
    const all = document as { name: string; value: string; minimum: number | null }[];
    expect(all.find(({ name }) => name === "alert_burst")).toMatchObject({ value: "5", minimum: 1 });
    const set = await cli(["settings", "set", "alert_burst", "6", "--json"], plain);
    expect(set).toMatchObject({ exit: 0, document: { name: "alert_burst", from: "5", to: "6" } });
    expect(await cli(["settings", "set", "alert_burst", "0"], plain)).toMatchObject({
      exit: 2,
      stderr: expect.stringMatching(/^payload_invalid: the value does not fit/),
    });
    expect(await cli(["settings", "set", "alert_bursts", "6"], plain)).toMatchObject({
      exit: 1,
      stderr: expect.stringMatching(/^not_found/),
    });
    expect(await cli(["settings", "set", "alert_burst"], plain)).toMatchObject({
      exit: 2,
      stderr: expect.stringMatching(/^usage/),
    });
    expect((await cli(["settings", "list", "alert_burst"], plain)).stdout).toContain("1 to 50");
  });

  it("holds the emergency contact, and who gets mail", async () => {
    expect((await cli(["settings", "contact"], plain)).stdout).toContain("No emergency contact is set");
    for (
      const [name, value] of [
        ["contact_name", "Ada Admin"],
        ["contact_phone", "+44 20 7946 0000"],
        ["mail_to", "ops@example.org anna@example.org"],
        ["mail_from", "backups@example.org"],
      ] as const
    ) expect((await cli(["settings", "set", name, value], plain)).exit).toBe(0);
    expect(await cli(["settings", "contact", "--json"], plain)).toMatchObject({
      document: { contact: "Ada Admin, +44 20 7946 0000" },
    });
    expect((await cli(["settings", "set", "contact_name", ""], plain)).exit).toBe(0);
    expect((await cli(["settings", "contact"], plain)).stdout).toBe("+44 20 7946 0000\n");
  });
});

describe("holdfast alerts", () => {
  it("without a channel lists and shows, and `test` says that nobody would be told", async () => {
    await ask("delete from backup.alerts");
    await ask(
      "select backup.raise_alert('backup_failed', 'kind:full', 'run 1 failed'), backup.raise_alert('copies_late', 'store:second', 'm', 'warning')",
    );
    const { document } = await cli(["alerts", "--json"], plain);
    const [first, second] = document as { id: number; kind: string; toldAt: string | null }[];
    expect([first, second]).toMatchObject([{ kind: "backup_failed", toldAt: null }, { kind: "copies_late" }]);
    const shown = await cli(["alerts", "show", String(first?.id)], plain);
    expect(shown.stdout).toContain("nobody was told");
    expect(shown.stdout).toContain("emergency contact: +44 20 7946 0000");
    expect(await cli(["alerts", "show", "999"], plain)).toMatchObject({
      exit: 1,
      stderr: expect.stringMatching(/^not_found/),
    });
    expect(await cli(["alerts", "frobnicate"], plain)).toMatchObject({ exit: 2 });
    expect(await cli(["alerts", "ack", "x"], plain)).toMatchObject({ exit: 2 });
    const nobody = await cli(["alerts", "test"], plain);
    expect(nobody).toMatchObject({
      exit: 1,
      stdout: expect.stringContaining("no channel is set up: nobody would be told"),
    });
    await ask("delete from backup.notices");
  });

  it("delivers what is due, is the watchdog as well, and says what came of it", async () => {
    const first = await cli(["alerts", "deliver", "--json"], settings);
    expect(first.exit, first.stdout + first.stderr).toBe(0);
    expect(first.document).toMatchObject({
      ticked: true,
      channels: [{ name: "email", problem: null }, { name: "slack" }, { name: "heartbeat" }],
      delivered: 4,
      failures: [],
      heartbeat: "not due",
    });
    expect(mail.mails.map(({ to }) => to)).toEqual(
      Array.from({ length: 2 }, () => ["ops@example.org", "anna@example.org"]),
    );
    expect(hook.received.map(({ path }) => path)).toEqual(["/services/slack-secret", "/services/slack-secret"]);
    expect((await cli(["alerts", "deliver", "--json"], settings)).document).toMatchObject({
      ticked: false,
      delivered: 0,
    });
    const [alert] = (await cli(["alerts", "--json"], plain)).document as { id: number }[];
    const shown = (await cli(["alerts", "show", String(alert?.id), "--json"], plain)).document;
    expect(shown).toMatchObject({
      told: [{
        event: "raised",
        deliveries: [
          { channel: "email", status: "delivered", tries: [{ outcome: "delivered" }] },
          { channel: "slack", status: "delivered" },
        ],
      }],
    });
    expect((await cli(["alerts", "ack", String(alert?.id)], plain)).exit).toBe(0);
    expect(await cli(["alerts", "ack", String(alert?.id)], plain)).toMatchObject({
      exit: 1,
      stderr: expect.stringMatching(/^not_found/),
    });
    expect((await cli(["alerts", "deliver", "--json"], settings)).document).toMatchObject({ heartbeat: "sent" });
    expect(hook.received.at(-1)).toMatchObject({ method: "GET", path: "/beat-secret" });
  });

  it("tests each channel by a real message, and names the one that does not work", async () => {
    mail.mails.splice(0);
    const well = await cli(["alerts", "test", "--json"], settings);
    expect(well.exit, well.stdout + well.stderr).toBe(0);
    expect(well.document).toMatchObject({
      ok: true,
      channels: [
        { channel: "email", status: "delivered" },
        { channel: "heartbeat", status: "delivered" },
        { channel: "slack", status: "delivered" },
      ],
    });
    expect(mail.mails).toHaveLength(1);
    expect((await cli(["alerts", "test", "slack", "--json"], settings)).document).toMatchObject({
      channels: [{ channel: "slack" }],
    });
    mail.refuse = { at: "mail", code: 554 };
    const ill = await cli(["alerts", "test"], settings);
    mail.refuse = null;
    expect(ill.exit).toBe(1);
    expect(ill.stdout).toContain("email (127.0.0.1): FAILED, the mail server answered 554");
    expect(ill.stdout).toContain("slack (127.0.0.1): took the message");
    expect(ill.stdout + ill.stderr).not.toMatch(/slack-secret|beat-secret|pass/);
    expect(await cli(["alerts", "test", "webhook"], settings)).toMatchObject({
      exit: 1,
      stderr: expect.stringMatching(/^not_found/),
    });
    const wrong = await cli(["alerts", "test", "--json"], { ...settings, BACKUP_SLACK_URL: "nonsense" });
    expect(wrong).toMatchObject({
      exit: 1,
      document: { ok: false, unusable: [{ channel: "slack" }], error: { code: "channels_failed" } },
    });
  }, 60_000);

  it("with `doctor` says which channels there are, and what is missing", async () => {
    const { document } = await cli(["doctor", "--json"], plain);
    const { checks } = document as { checks: { name: string; state: string; message: string }[] };
    expect(checks).toEqual(expect.arrayContaining([
      expect.objectContaining({ name: "alerts: heartbeat", state: "ok" }),
      expect.objectContaining({ name: "alerts: slack", state: "fail", message: "BACKUP_SLACK_URL is no address" }),
      expect.objectContaining({ name: "emergency contact", state: "ok", message: "+44 20 7946 0000" }),
    ]));
  });
});
