/** A notice in words: bounded, and without anything in it that a receiver would take for something else. */
import { describe, expect, it } from "vitest";
import { clean, headline, letterOf } from "../../src/shared/alerts/compose.ts";
import type { Notice, Sender } from "../../src/shared/alerts/notice.ts";
import { slackText } from "../../src/shared/alerts/slack.ts";

const sender: Sender = {
  install: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01",
  project: "abcdefghijklmnopqrst",
  database: "postgres",
  contact: "Ada Admin, ada@example.org, +44 20 7946 0000",
  contactEmail: "ada@example.org",
  mailFrom: "backups@example.org",
  mailTo: ["ops@example.org"],
};

function notice(parts: Partial<Notice>): Notice {
  return {
    key: "install-7-email",
    id: 7,
    event: "raised",
    kind: "backup_failed",
    subject: "kind:full",
    severity: "critical",
    message: "run 1 failed: no answer (store_unreachable)",
    detail: { openedAt: "2026-11-21T00:00:00+00:00", times: 3 },
    alert: 12,
    at: "2026-11-21T00:01:00Z",
    ...parts,
  };
}

describe("a letter", () => {
  it("says what happened, where, since when, what to do and whom to ask", () => {
    const { subject, text } = letterOf(notice({}), sender);
    expect(subject).toBe("[Holdfast abcdefghijklmnopqrst] critical: backup failed (kind:full)");
    for (
      const part of [
        "run 1 failed: no answer (store_unreachable)",
        "alert 12, backup_failed, open since 2026-11-21T00:00:00+00:00, seen 3 times",
        "holdfast alerts ack 12",
        "backup.acknowledge_alert(12)",
        "project abcdefghijklmnopqrst, database postgres",
        "docs/alerts.md",
        "Emergency contact: Ada Admin, ada@example.org, +44 20 7946 0000",
      ]
    ) expect(text).toContain(part);
  });

  it.each(["raised", "worse", "reminded", "escalated", "resolved", "passed", "digest", "notice", "test"] as const)(
    "has a headline of its own for %s",
    (event) => {
      const others = [
        "raised",
        "worse",
        "reminded",
        "escalated",
        "resolved",
        "passed",
        "digest",
        "notice",
        "test",
      ] as const;
      const lines = others.map((one) => headline(notice({ event: one, severity: "warning" })));
      expect(headline(notice({ event, severity: "warning" }))).not.toBe("");
      // A notice that warns reads as an alert does.
      expect(new Set(lines).size).toBe(others.length - 1);
    },
  );

  it("asks nobody to acknowledge what is over", () => {
    for (const event of ["resolved", "passed"] as const) {
      expect(letterOf(notice({ event }), sender).text).not.toContain("alerts ack");
    }
  });

  it("names the worst of many, and how many there are besides", () => {
    const shown = [{
      alert: 1,
      event: "raised",
      kind: "backup_failed",
      subject: "kind:full",
      severity: "critical",
      message: "m",
    }];
    const { text } = letterOf(
      notice({ event: "digest", alert: null, message: "40 alerts: 40 backup_failed", detail: { total: 40, shown } }),
      sender,
    );
    expect(text).toContain("40 alerts: 40 backup_failed");
    expect(text).toContain("alert 1, raised, critical: backup failed (kind:full): m");
    expect(text).toContain("and 39 more");
  });

  it("keeps a subject in one line whatever is put into it: no header comes out of it", () => {
    for (const eol of ["\r\n", "\n", "\r", "\u2028", "\u0000\r\n", "\u0085"]) {
      const { subject } = letterOf(notice({ subject: `x${eol}Bcc: victim@example.org${eol}${eol}body` }), sender);
      expect(subject).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
    }
  });

  it("shows markup as it was written", () => {
    const { html, text } = letterOf(notice({ message: `<script>alert("1")</script> & <img src='x'>` }), sender);
    expect(html).not.toMatch(/<(?!\/?(p|strong|br)>)/);
    expect(html).toContain("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &lt;img src=&#39;x&#39;&gt;");
    expect(text).toContain("<script>");
  });

  it("is bounded, by letters and not by halves of one", () => {
    const { subject, text } = letterOf(notice({ subject: "🦖".repeat(290), message: "🦖ü".repeat(50_000) }), sender);
    expect(Array.from(subject).length).toBeLessThanOrEqual(150);
    expect(Array.from(text).length).toBeLessThan(5_500);
    expect(subject + text).not.toMatch(/\p{Cs}/u);
    expect(text).toContain("…");
  });

  it("keeps other scripts, and drops marks that turn the direction round", () => {
    expect(clean("резервная копия 失敗 🦖 שלום")).toBe("резервная копия 失敗 🦖 שלום");
    expect(clean("a\u202egnp.exe\u2066b\u0007c\ud800d")).toBe("agnp.exeb c\ufffdd");
  });
});

describe("a line in a chat", () => {
  it("calls nobody and links nowhere by what a message holds", () => {
    const text = slackText(notice({ message: "<!channel> <@U1> <https://evil.example|ok> &" }), sender);
    expect(text).not.toMatch(/[<>]/);
    expect(text.replaceAll("\u200b", "")).toContain(
      "&lt;!channel&gt; &lt;@U1&gt; &lt;https://evil.example|ok&gt; &amp;",
    );
  });

  it("calls nobody by a name behind an @, and makes no link of brackets, as chats with Markdown do", () => {
    const text = slackText(
      notice({ subject: "table:public.@all", message: "@channel @here (@bob) ![x](https://evil.example/a.png)" }),
      { ...sender, contact: "Ada, ada@example.org, a.b-c+d@example.org" },
    );
    expect(text).not.toMatch(/(^|[\s(.])@[a-z]/m);
    expect(text).not.toContain("](");
    expect(text).toContain("Ada, ada@example.org, a.b-c+d@example.org");
  });

  it("stays below what chats take", () => {
    expect(slackText(notice({ message: "🦖".repeat(20_000) }), sender).length).toBeLessThan(10_000);
  });
});
