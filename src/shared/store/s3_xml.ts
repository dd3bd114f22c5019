/** The little XML that an S3 server answers: elements and text, no attributes that matter, no DTD. */
import { HoldfastError } from "../errors.ts";

export interface XmlElement {
  readonly name: string;
  readonly children: readonly XmlElement[];
  /** Its own text, entities decoded. */
  readonly text: string;
}

/** A listing of 1,000 names has some 8,000 elements, at depth 4. */
const maxElements = 50_000;
const maxDepth = 16;

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/**
 * The root element. Strict: anything that is not well-formed, and any document type, CDATA section or unknown entity, is
 * `store_lied`, so that no listing is understood in part. Never throws anything else; time is linear in the text.
 */
export function parseXml(text: string): XmlElement {
  const open: { name: string; children: XmlElement[]; text: string }[] = [{ name: "", children: [], text: "" }];
  const token = /<\?xml[^<>]*\?>|<!--(?:[^-]|-[^-])*-->|<(\/?)([A-Za-z_][\w.:-]*)((?:\s[^<>]*?)?)(\/?)>|([^<]+)/y;
  let elements = 0;
  for (let at = text.startsWith("\ufeff") ? 1 : 0; at < text.length; at = token.lastIndex) {
    token.lastIndex = at;
    const found = token.exec(text);
    const top = open.at(-1);
    if (found === null || top === undefined) throw malformed();
    const [, closing = "", name = "", , empty = "", words] = found;
    if (words !== undefined) {
      top.text += decodeEntities(words);
    } else if (name === "") {
      continue;
    } else if (closing !== "") {
      const parent = open.at(-2);
      if (parent === undefined || top.name !== name || empty !== "") throw malformed();
      parent.children.push(top);
      open.pop();
    } else {
      if (++elements > maxElements || open.length > maxDepth) throw malformed();
      const element = { name, children: [], text: "" };
      if (empty !== "") top.children.push(element);
      else open.push(element);
    }
  }
  const [document] = open;
  const [root] = document?.children ?? [];
  if (open.length !== 1 || document?.children.length !== 1 || root === undefined || document.text.trim() !== "") {
    throw malformed();
  }
  return root;
}

/** The text of the one child of that name; undefined where there is none, `store_lied` where there are several. */
export function childText(element: XmlElement, name: string): string | undefined {
  const found = element.children.filter((child) => child.name === name);
  if (found.length > 1 || (found[0]?.children.length ?? 0) > 0) throw malformed();
  return found[0]?.text;
}

function decodeEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&([^;&]{0,10})(;?)/g, (_, name: string, end: string) => {
    const code = /^#(?:(\d{1,7})|x([0-9A-Fa-f]{1,6}))$/.exec(name);
    const point = code === null ? NaN : code[1] === undefined ? parseInt(code[2] ?? "", 16) : Number(code[1]);
    const decoded = point <= 0x10ffff ? String.fromCodePoint(point) : entities[name];
    if (end === "" || decoded === undefined || !Object.hasOwn(entities, name) && code === null) throw malformed();
    return decoded;
  });
}

function malformed(): HoldfastError {
  return new HoldfastError("store_lied", "the store answered XML that cannot be read");
}
