/** The status page: what a parser of the standard makes of it, whatever people have written. */
import { type DefaultTreeAdapterMap, parse, type ParserError } from "parse5";
import { describe, expect, it } from "vitest";
import { openStatusPage } from "../../src/shared/incidents/publish_page.ts";
import {
  type PageContent,
  pageContent,
  pageFiles,
  pageHtml,
  withIncident,
} from "../../src/shared/incidents/status_page.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";

type Node = DefaultTreeAdapterMap["node"];
type Element = DefaultTreeAdapterMap["element"];

const hostile = `</p><script>alert("1")</script><img src=x onerror='a&b'> “ü”`;
const at = "2026-01-01T10:00:00Z";

const content: PageContent = {
  format: "holdfast/status",
  version: 1,
  state: "incident",
  since: at,
  message: hostile,
  nextUpdateAt: "2026-01-01T11:00:00Z",
  maintenance: { since: at, until: "2026-01-01T12:00:00Z", message: hostile },
  planned: [{ startsAt: "2026-02-01T00:00:00Z", until: null, message: hostile }],
  incidents: [
    { id: 2, openedAt: at, closedAt: null, updates: [{ at, message: hostile }] },
    { id: 1, openedAt: "2025-12-01T00:00:00Z", closedAt: "2025-12-01T01:00:00Z", updates: [{ at, message: "over" }] },
  ],
};
const quiet: PageContent = {
  ...content,
  state: "operational",
  since: null,
  message: null,
  nextUpdateAt: null,
  maintenance: null,
  planned: [],
  incidents: [],
};

function parsed(html: string): { readonly errors: ParserError[]; readonly elements: Element[]; readonly text: string } {
  const errors: ParserError[] = [];
  const elements: Element[] = [];
  let text = "";
  const walk = (node: Node) => {
    if ("tagName" in node) elements.push(node);
    if (node.nodeName === "#text" && "value" in node) text += node.value;
    if ("childNodes" in node) node.childNodes.forEach(walk);
  };
  walk(parse(html, { onParseError: (error) => errors.push(error) }));
  return { errors, elements, text };
}

const attribute = (element: Element | undefined, name: string) =>
  element?.attrs.find((one) => one.name === name)?.value;

describe("the page", () => {
  it.each([["an incident", content], ["nothing", quiet], ["maintenance", {
    ...quiet,
    state: "maintenance" as const,
    message: "Back soon",
    maintenance: { since: at, until: null, message: "Back soon" },
  }]])("of %s is HTML without an error", (_, said) => {
    const { errors, elements } = parsed(pageHtml(said, at));
    expect(errors).toEqual([]);
    const tags = elements.map(({ tagName }) => tagName);
    expect(tags.filter((tag) => ["script", "img", "link", "iframe", "a", "form", "object", "base"].includes(tag)))
      .toEqual([]);
    for (const one of ["title", "main", "h1", "h2", "footer"]) expect(tags).toContain(one);
  });

  it("shows what people wrote as text, letter for letter, and nothing of it as markup", () => {
    const { elements, text } = parsed(pageHtml(content, at));
    expect(text.split(hostile)).toHaveLength(5);
    const attributes = elements.flatMap(({ attrs }) => attrs.map(({ name }) => name));
    expect(attributes.filter((name) => /^on|^src$|^href$/.test(name))).toEqual([]);
    const policy = elements.find((one) => attribute(one, "http-equiv") === "Content-Security-Policy");
    expect(attribute(policy, "content")).toBe("default-src 'none'; style-src 'unsafe-inline'");
  });

  it("can be read by everybody: a language, headings in order, every region and moment named", () => {
    const { elements } = parsed(pageHtml(content, at));
    expect(attribute(elements.find(({ tagName }) => tagName === "html"), "lang")).toBe("en");
    expect(elements.filter(({ tagName }) => tagName === "h1")).toHaveLength(1);
    const levels = elements.flatMap(({ tagName }) => /^h[1-6]$/.test(tagName) ? [Number(tagName[1])] : []);
    levels.forEach((level, index) => expect(level - (levels[index - 1] ?? 0)).toBeLessThanOrEqual(1));
    const labelled = elements.map((one) => attribute(one, "aria-labelledby")).filter((id) => id !== undefined);
    for (const id of labelled) expect(elements.some((one) => attribute(one, "id") === id)).toBe(true);
    for (const time of elements.filter(({ tagName }) => tagName === "time")) {
      expect(attribute(time, "datetime")).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    }
    expect(attribute(elements.find((one) => attribute(one, "name") === "viewport"), "content")).toContain(
      "width=device-width",
    );
  });

  it("says the same as JSON, with when it was written", () => {
    const [json] = pageFiles(content, at);
    expect(json).toMatchObject({ name: "status.json", contentType: "application/json; charset=utf-8" });
    expect(JSON.parse(json?.text ?? "")).toEqual({ ...content, updatedAt: at });
    // What it was read from again.
    expect(pageContent.parse(JSON.parse(json?.text ?? ""))).toEqual(content);
  });
});

describe("an incident while the database is down", () => {
  it("is added to what the page said, once, however often it is opened", () => {
    const once = withIncident({ ...quiet, incidents: content.incidents.slice(1) }, "We are on it", at);
    expect(once).toMatchObject({ state: "incident", since: at, message: "We are on it" });
    expect(once.incidents.map(({ id }) => id)).toEqual([null, 1]);
    const again = withIncident(once, "We are on it", "2026-01-01T10:05:00Z");
    expect(again).toEqual(once);
    const known = withIncident(content, "Nearly done", "2026-01-01T10:05:00Z");
    expect(known.since).toBe(at);
    expect(known.incidents.map(({ id, updates }) => [id, updates.length])).toEqual([[2, 2], [1, 1]]);
    expect(pageContent.parse(withIncident(null, "We are on it", at)).incidents).toHaveLength(1);
  });
});

describe("the page's place", () => {
  const deps = {
    fetch: () => Promise.reject(new Error("nothing is asked")),
    clock: systemClock,
    random: webCryptoRandom,
  };
  const opened = (variables: Record<string, string>) => openStatusPage((name) => variables[name], deps);
  const s3 = { BACKUP_STATUS_PAGE_S3_ACCESS_KEY_ID: "a", BACKUP_STATUS_PAGE_S3_SECRET_ACCESS_KEY: "b" };

  it("is none where none is set, and never in a store of the backups", () => {
    expect(opened({})).toBeNull();
    expect(opened({ BACKUP_STATUS_PAGE: " " })).toBeNull();
    for (
      const [page, other] of [
        ["file:///srv/backups", { BACKUP_STORE: "file:///srv/backups" }],
        ["file:///srv/backups/public", { BACKUP_STORE: "file:///srv/backups" }],
        ["supabase://holdfast-backups/status", { BACKUP_STORE: "supabase://holdfast-backups" }],
        ["s3://b/y?endpoint=https://h.test", { ...s3, BACKUP_SECONDARY: "s3://b/x?endpoint=https://h.test" }],
      ] as const
    ) {
      const all = {
        SUPABASE_URL: "https://p.test",
        SUPABASE_SERVICE_ROLE_KEY: "k",
        BACKUP_STATUS_PAGE: page,
        ...other,
      };
      expect(() => opened(all), page).toThrow("everybody may read it");
    }
  });

  it("is JSON alone in Supabase Storage, which serves HTML as text", () => {
    const supabase = { SUPABASE_URL: "https://p.test", SUPABASE_SERVICE_ROLE_KEY: "k" };
    expect(opened({ ...supabase, BACKUP_STATUS_PAGE: "supabase://status" })?.files).toEqual(["status.json"]);
    expect(opened({ ...s3, BACKUP_STATUS_PAGE: "s3://status" })?.files).toEqual(["status.json", "status.html"]);
  });

  it("takes the second store's credentials where it has none of its own, and never the first store's", () => {
    const second = { BACKUP_SECONDARY_S3_ACCESS_KEY_ID: "a", BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: "b" };
    expect(opened({ ...second, BACKUP_STATUS_PAGE: "s3://status" })).not.toBeNull();
    const first = { BACKUP_S3_ACCESS_KEY_ID: "a", BACKUP_S3_SECRET_ACCESS_KEY: "b" };
    expect(() => opened({ ...first, BACKUP_STATUS_PAGE: "s3://status" })).toThrow("BACKUP_SECONDARY_S3_ACCESS_KEY_ID");
  });
});
