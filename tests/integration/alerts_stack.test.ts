/** From a failure in a project to the people: the function `notify` on its own runtime, with receivers that really receive. */
import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { makeServerCertificate } from "../../src/local/certificates.ts";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { type MailServer, type Receiver, startMailServer, startReceiver } from "../support/receivers.ts";
import { eventually, type Project, projectOf, setClock, stackMs } from "../support/stack.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-alerts-"));
const webhookSecret = `whsec_${Buffer.from("0123456789abcdef0123456789abcdef").toString("base64")}`;
let mail: MailServer;
let hook: Receiver;
let stack: Stack;
let project: Project;

beforeAll(async () => {
  const certificate = makeServerCertificate("receivers of alerts");
  mail = await startMailServer(certificate);
  hook = await startReceiver(certificate);
  writeFileSync(join(folder, "authority.pem"), certificate.authority);
  stack = await startStack({
    durable: false,
    stream: false,
    prepared: true,
    testing: true,
    environment: {
      BACKUP_LOG_LEVEL: "debug",
      BACKUP_SMTP_URL: `smtps://holdfast:${encodeURIComponent(mail.password)}@localhost:${mail.port}`,
      BACKUP_SMTP_CA: certificate.authority,
      BACKUP_SLACK_URL: `https://localhost:${hook.port}/services/slack-secret`,
      BACKUP_WEBHOOK_URL: `https://localhost:${hook.port}/hook`,
      BACKUP_WEBHOOK_SECRET: webhookSecret,
      BACKUP_HEARTBEAT_URL: `https://localhost:${hook.port}/beat-secret`,
      BACKUP_PRIVATE_CHANNELS: "1",
      // Read by the runtime itself, which has no other way to trust an authority.
      DENO_CERT: join(folder, "authority.pem"),
    },
  });
  project = projectOf(stack);
  await project.query(
    `update backup.settings set value = case name
       when 'mail_to' then 'ops@example.org' when 'mail_from' then 'backups@example.org' when 'contact_email' then 'ada@example.org'
       else 'Ada Admin' end
     where name in ('mail_to', 'mail_from', 'contact_email', 'contact_name')`,
  );
  // The minute's jobs are called here, at moments that are known.
  await project.query("update backup.schedules set enabled = false where name = 'watchdog'");
  await project.query("select * from backup.apply_schedules()");
}, stackMs);
afterAll(async () => {
  await stack?.destroy();
  await mail?.close();
  await hook?.close();
  rmSync(folder, { recursive: true, force: true });
}, stackMs);
beforeEach(async () => {
  await quiet();
  await project.query("delete from backup.alerts; delete from backup.notices");
  mail.mails.splice(0);
  hook.received.splice(0);
  mail.refuse = null;
  hook.answers = [200];
});

const minute = () => project.query("select backup.call_notify()");
const at = (path: string) => hook.received.filter((one) => one.path === path);

/** No call of the function is under way. */
async function quiet(): Promise<void> {
  await eventually("every call has ended", async () => {
    const [row] = await project.query(
      "select count(*)::int as n from backup.calls where function_name = 'notify' and status in ('sent', 'begun')",
    );
    return row?.["n"] === 0 ? true : null;
  });
}

describe("a failed backup", () => {
  it("is in the mailbox, the chat and at the receiver with the next minute's job, once", async () => {
    await minute();
    await quiet();
    expect(
      (await project.query("select name, problem from backup.channels order by name")).map((
        { name, problem },
      ) => [name, problem]),
    )
      .toEqual([["email", null], ["heartbeat", null], ["slack", null], ["webhook", null]]);
    const { run } = await project.startBackup();
    await project.query("select backup.fail_run($1, 'store_unreachable', 'the store: no answer')", [run]);
    await minute();
    await eventually("the mail", () => Promise.resolve(mail.mails[0] ?? null));
    await quiet();
    expect(mail.mails).toHaveLength(1);
    expect(mail.mails[0]).toMatchObject({ from: "backups@example.org", to: ["ops@example.org"] });
    expect(mail.mails[0]?.raw).toContain("critical: backup failed (kind:full)");
    expect(mail.mails[0]?.raw).toContain("Emergency contact: Ada Admin, ada@example.org");
    expect(at("/services/slack-secret")).toHaveLength(1);
    expect(JSON.parse(at("/hook")[0]?.body ?? "{}")).toMatchObject({ event: "raised", kind: "backup_failed" });
    // Nobody hears that all is well meanwhile, and nothing is told twice.
    await project.query("select backup.tick()");
    await minute();
    await quiet();
    expect(at("/beat-secret")).toEqual([]);
    expect(mail.mails).toHaveLength(1);
    expect(await project.query("select event from public.backup_notices")).toHaveLength(1);
  });

  it("whose function is killed between the receivers' answers and its record is told again under the same key", async () => {
    await project.query("select backup.raise_alert('backup_failed', 'kind:full', 'm')");
    const kill = await project.killAt("notices.given", 1, "notify");
    await minute();
    await kill.fired();
    expect(at("/hook")).toHaveLength(1);
    await setClock(project, 200);
    try {
      await project.query("select backup.tick()");
      await minute();
      await eventually("it came again", () => Promise.resolve(at("/hook")[1] ?? null));
      await eventually("it is on record", async () => {
        const rows = await project.query("select from backup.deliveries where status = 'delivered'");
        return rows.length === 3 ? rows : null;
      });
    } finally {
      await setClock(project, 0);
    }
    expect(new Set(at("/hook").map(({ headers }) => headers["webhook-id"])).size).toBe(1);
    const ids = mail.mails.map(({ raw }) => /^Message-ID: (.*)$/m.exec(raw)?.[1]);
    expect(ids).toHaveLength(2);
    expect(new Set(ids).size).toBe(1);
    const tries = await project.query("select try, outcome from backup.delivery_attempts order by try, outcome");
    expect(tries.map((one) => [one["try"], one["outcome"]])).toEqual([
      ...Array.from({ length: 3 }, () => [1, null]),
      ...Array.from({ length: 3 }, () => [2, "delivered"]),
    ]);
  });
});

describe("a channel that fails", () => {
  it("is told by the others, and takes what it missed once it is well", async () => {
    mail.refuse = { at: "rcpt", code: 451 };
    await project.query("select backup.raise_alert('backup_failed', 'kind:full', 'm')");
    try {
      for (const seconds of [0, 40]) {
        await setClock(project, seconds);
        await minute();
        await eventually("a try", async () => {
          const [row] = await project.query("select tries, status from backup.deliveries where channel = 'email'");
          return row?.["tries"] === (seconds === 0 ? 1 : 2) && row["status"] === "open" ? row : null;
        });
        await quiet();
      }
      expect(mail.mails).toEqual([]);
      await minute();
      await eventually(
        "the others were told",
        () => Promise.resolve(at("/hook").find(({ body }) => body.includes("channel_failing")) ?? null),
      );
      expect(at("/hook").at(-1)?.body).toContain("the mail server answered 451");
      mail.refuse = null;
      await quiet();
      await setClock(project, 150);
      await minute();
      await eventually("the mail", () => Promise.resolve(mail.mails[0] ?? null));
      await quiet();
      await minute();
      await eventually(
        "that it works again",
        () => Promise.resolve(mail.mails.find(({ raw }) => raw.includes("resolved: channel failing")) ?? null),
      );
    } finally {
      await setClock(project, 0);
    }
  });
});

describe("the outside watcher", () => {
  it("hears that all is well while the watchdog goes through", async () => {
    await project.query("update backup.pulse set ticked_at = null, beaten_at = null");
    await minute();
    await quiet();
    expect(at("/beat-secret")).toEqual([]);
    await project.query("select backup.tick()");
    await minute();
    await eventually("a heartbeat", () => Promise.resolve(at("/beat-secret")[0] ?? null));
    await quiet();
    expect(at("/beat-secret")).toMatchObject([{ method: "GET" }]);
  });
});

describe("a test", () => {
  it("sends a real message by each channel, and says what came of it", async () => {
    await project.query("select backup.tick()");
    hook.answers = [200];
    const [row] = await project.query("select backup.test_channels() as notice");
    await eventually("its end", async () => {
      const rows = await project.query("select status from public.backup_deliveries where notice_id = $1", [
        row?.["notice"],
      ]);
      return rows.length === 4 && rows.every(({ status }) => status === "delivered") ? rows : null;
    });
    expect(mail.mails[0]?.raw).toContain("test of the channels");
  });
});

describe("afterwards", () => {
  it("every isolate of the function stayed within the platform's limits, and no secret is in a log or a row", async () => {
    const used = (await project.isolates()).filter((one) => one.function === "notify");
    expect(used.length).toBeGreaterThan(0);
    for (const { cpuMs, peakBytes } of used) {
      expect(cpuMs).toBeLessThan(1_500);
      expect(peakBytes).toBeLessThan(256 * 1024 * 1024);
    }
    const rows = await project.query(
      `select to_jsonb(c)::text as row from backup.channels as c union all select to_jsonb(d)::text from backup.deliveries as d
       union all select to_jsonb(t)::text from backup.delivery_attempts as t union all select to_jsonb(a)::text from backup.alerts as a
       union all select to_jsonb(n)::text from backup.notices as n union all select to_jsonb(l)::text from backup.audit_log as l`,
    );
    const all = JSON.stringify(rows) + readFileSync(stack.journalFile, "utf8");
    for (
      const secret of ["slack-secret", "beat-secret", webhookSecret, mail.password, encodeURIComponent(mail.password)]
    ) {
      expect(all).not.toContain(secret);
    }
    expect(all).toContain("notices.given");
  });
});
