/** A notice in words. Pure: what goes out is plain text of bounded length, without control characters or tricks of direction. */
import { z } from "zod";
import { isEscalated, type Notice, type Sender } from "./notice.ts";

/** For a mail: a line, the text, and the same as HTML. */
export interface Letter {
  readonly subject: string;
  readonly text: string;
  readonly html: string;
}

/** Letters of a subject line, and of a message. A mail server may refuse more; people read less. */
const subjectLength = 150;
const messageLength = 4_000;

const alertDetail = z.object({ openedAt: z.string().nullish(), times: z.int().nullish() });
const digestDetail = z.object({
  total: z.int(),
  shown: z.array(z.object({
    alert: z.int(),
    event: z.string(),
    kind: z.string(),
    subject: z.string(),
    severity: z.string(),
    message: z.string(),
  })),
});

/** What is told, in one line: for subjects and the first line of chats. */
export function headline(notice: Notice): string {
  return clean(headlineOf(notice)).replace(/\s+/g, " ");
}

function headlineOf(notice: Notice): string {
  const { event, kind, subject, severity } = notice;
  const what = `${words(kind)} (${subject})`;
  switch (event) {
    case "raised":
      return `${severity}: ${what}`;
    case "worse":
      return `${severity} now: ${what}`;
    case "reminded":
      return `still ${severity}: ${what}`;
    case "escalated":
      return `NOT ACKNOWLEDGED, ${severity}: ${what}`;
    case "resolved":
      return `resolved: ${what}`;
    case "passed":
      return `over already: ${what}`;
    case "digest":
      return `${isEscalated(notice) ? "NOT ACKNOWLEDGED, " : ""}${severity}: ${notice.message}`;
    case "notice":
      return severity === "information" ? what : `${severity}: ${what}`;
    case "test":
      return "test of the channels";
  }
}

/** The lines below the headline: what happened, what it is about, what to do, whom to ask. */
export function bodyLines(notice: Notice, sender: Sender): string[] {
  const { event, kind, alert, message, detail } = notice;
  const seen = alertDetail.safeParse(detail).data;
  const ofAlert = alert === null ? [] : [
    `alert ${alert}, ${kind}${seen?.openedAt ? `, open since ${seen.openedAt}` : ""}${
      (seen?.times ?? 1) > 1 ? `, seen ${seen?.times} times` : ""
    }`,
    ...(event === "resolved" || event === "passed" ? [] : [
      `Say that you have seen it: holdfast alerts ack ${alert}, or select backup.acknowledge_alert(${alert});`,
    ]),
  ];
  return [
    bounded(message, messageLength),
    "",
    ...(event === "digest" ? shownOf(detail) : ofAlert),
    `from ${sender.project === null ? "" : `project ${sender.project}, `}database ${sender.database}, ${notice.at}`,
    ...(event === "notice" || event === "test"
      ? []
      : ["What it means, and the way out: docs/alerts.md, or holdfast alerts show"]),
    ...(sender.contact === "" ? [] : [`Emergency contact: ${sender.contact}`]),
  ].map((line) => clean(line));
}

export function letterOf(notice: Notice, sender: Sender): Letter {
  const of = sender.project ?? sender.database;
  const lines = bodyLines(notice, sender);
  const subject = bounded(`[Holdfast ${of}] ${headline(notice)}`, subjectLength);
  return {
    subject,
    text: `${headline(notice)}\n\n${lines.join("\n")}\n`,
    html: `<p><strong>${htmlOf(headline(notice))}</strong></p>\n<p>${lines.map(htmlOf).join("<br>\n")}</p>\n`,
  };
}

function shownOf(detail: Notice["detail"]): string[] {
  const found = digestDetail.safeParse(detail).data;
  if (found === undefined) return [];
  const rest = found.total - found.shown.length;
  return [
    ...found.shown.map(({ alert, event, kind, subject, severity, message }) =>
      `alert ${alert}, ${event}, ${severity}: ${words(kind)} (${subject}): ${message}`
    ),
    ...(rest > 0 ? [`and ${rest} more`] : []),
    "All of them: holdfast alerts list, or select * from public.backup_alerts where status <> 'resolved';",
  ];
}

function words(kind: string): string {
  return kind.replaceAll("_", " ");
}

/** By letters, not by halves of one. */
export function bounded(text: string, most: number): string {
  const letters = Array.from(text);
  return letters.length <= most ? text : `${letters.slice(0, most - 1).join("")}…`;
}

/** Without control characters (lines and tabs stay apart as blanks do), marks of direction, and halves of letters. */
export function clean(text: string): string {
  return text
    .replace(/\r\n?|\u2028|\u2029/g, "\n")
    .replace(/(?!\n)\p{Cc}/gu, " ")
    .replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")
    .replace(/\p{Cs}/gu, "\ufffd");
}

function htmlOf(text: string): string {
  const marks: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return clean(text).replace(/[&<>"']/g, (mark) => marks[mark] ?? "").replaceAll("\n", "<br>\n");
}
