/** The public status page: what it says, as JSON and as HTML that needs nothing else. Pure. docs/decisions/0035-incidents.md. */
import { z } from "zod";

const moment = z.iso.datetime();

const update = z.object({ at: moment, message: z.string() });

const incident = z.object({
  /** Null: it was opened while the database could not be reached, and has no number. */
  id: z.int().positive().nullable(),
  openedAt: moment,
  closedAt: moment.nullable(),
  /** Newest first. */
  updates: z.array(update),
});

export const pageContent = z.object({
  format: z.literal("holdfast/status"),
  version: z.literal(1),
  state: z.enum(["operational", "maintenance", "incident"]),
  /** Null: always. */
  since: moment.nullable(),
  message: z.string().nullable(),
  nextUpdateAt: moment.nullable(),
  maintenance: z.object({ since: moment, until: moment.nullable(), message: z.string() }).nullable(),
  planned: z.array(z.object({ startsAt: moment, until: moment.nullable(), message: z.string() })),
  /** Those of the last 90 days, the open one first, then newest first. */
  incidents: z.array(incident),
});

/** All that the public is told; backup.page_content() makes it. Moments are ISO 8601, UTC. */
export type PageContent = z.infer<typeof pageContent>;

export interface PageFile {
  readonly name: "status.json" | "status.html";
  readonly contentType: string;
  readonly text: string;
}

/** `updatedAt`: when it is put there, ISO 8601. */
export function pageFiles(content: PageContent, updatedAt: string): readonly PageFile[] {
  return [
    {
      name: "status.json",
      contentType: "application/json; charset=utf-8",
      text: `${JSON.stringify({ ...content, updatedAt }, null, 2)}\n`,
    },
    { name: "status.html", contentType: "text/html; charset=utf-8", text: pageHtml(content, updatedAt) },
  ];
}

/**
 * What the page says once an incident was opened while the database could not be reached: what it said before, and this. The next
 * page that the database makes replaces it.
 */
export function withIncident(before: PageContent | null, message: string, at: string): PageContent {
  const kept: Pick<PageContent, "format" | "version" | "maintenance" | "planned" | "incidents"> = before ?? {
    format: "holdfast/status",
    version: 1,
    maintenance: null,
    planned: [],
    incidents: [],
  };
  const known = kept.incidents.find(({ closedAt }) => closedAt === null);
  const others = kept.incidents.filter((one) => one !== known);
  const told = { at, message };
  const updates = known?.updates ?? [];
  return {
    ...kept,
    state: "incident",
    since: known?.openedAt ?? at,
    message,
    nextUpdateAt: null,
    incidents: [{
      id: known?.id ?? null,
      openedAt: known?.openedAt ?? at,
      closedAt: null,
      updates: updates[0]?.message === message ? updates : [told, ...updates],
    }, ...others],
  };
}

const titles = {
  operational: "All is well",
  maintenance: "Under maintenance",
  incident: "Something is wrong",
} as const satisfies Record<PageContent["state"], string>;

const style = `
  body { font: 1.1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 42rem; padding: 1rem; color: #1a1a1a; background: #fff; }
  .state { border-left: 0.5rem solid #1b7f3b; padding: 0.2rem 1rem; }
  .maintenance { border-color: #8a5a00; } .incident { border-color: #b3261e; }
  time { white-space: nowrap; } li { margin-bottom: 0.4rem; } footer { color: #4a4a4a; font-size: 0.9rem; }
  @media (prefers-color-scheme: dark) { body { color: #eee; background: #161616; } footer { color: #bbb; } }
`;

/** No scripts, and nothing from elsewhere. */
export function pageHtml(content: PageContent, updatedAt: string): string {
  const { state, since, message, nextUpdateAt, maintenance, planned, incidents } = content;
  const title = titles[state];
  const lines = [
    "<!DOCTYPE html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    `<title>${title} – status</title>`,
    `<style>${style}</style>`,
    "</head>",
    "<body>",
    "<main>",
    "<h1>Status</h1>",
    `<section class="state ${state}" aria-labelledby="now">`,
    `<h2 id="now">${title}</h2>`,
    ...message === null ? [] : [`<p>${escaped(message)}</p>`],
    ...since === null ? [] : [`<p>Since ${time(since)}.</p>`],
    ...nextUpdateAt === null ? [] : [`<p>More is told by ${time(nextUpdateAt)}.</p>`],
    "</section>",
    ...maintenance === null || state === "maintenance" && maintenance.until === null ? [] : section("Maintenance", [
      `<p>${escaped(maintenance.message)} Since ${time(maintenance.since)}${
        maintenance.until === null ? "" : `, until ${time(maintenance.until)}`
      }.</p>`,
    ]),
    ...planned.length === 0 ? [] : section("Planned maintenance", [
      "<ul>",
      ...planned.map((window) =>
        `<li>${time(window.startsAt)}${window.until === null ? "" : ` to ${time(window.until)}`}: ${
          escaped(window.message)
        }</li>`
      ),
      "</ul>",
    ]),
    ...section("History", incidents.length === 0 ? ["<p>Nothing in the last 90 days.</p>"] : incidents.flatMap(told)),
    "</main>",
    `<footer><p>Written at ${time(updatedAt)}.</p></footer>`,
    "</body>",
    "</html>",
  ];
  return `${lines.join("\n")}\n`;
}

function section(heading: string, lines: readonly string[]): string[] {
  return ["<section>", `<h2>${heading}</h2>`, ...lines, "</section>"];
}

function told({ openedAt, closedAt, updates }: PageContent["incidents"][number]): string[] {
  return [
    "<article>",
    `<h3>${time(openedAt)}${closedAt === null ? ", not over" : ` to ${time(closedAt)}`}</h3>`,
    "<ul>",
    ...updates.map(({ at, message }) => `<li>${time(at)}: ${escaped(message)}</li>`),
    "</ul>",
    "</article>",
  ];
}

function time(at: string): string {
  return `<time datetime="${escaped(at)}">${escaped(`${at.slice(0, 10)} ${at.slice(11, 16)} UTC`)}</time>`;
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Safe as text and within a quoted attribute. */
function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => entities[sign] ?? "");
}
