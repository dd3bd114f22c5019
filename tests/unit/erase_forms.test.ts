/** What names a person, in every form that a certificate says it searched for. */
import { Buffer } from "node:buffer";
import { describe, expect, it } from "vitest";
import { countKinds, formsOf, holds } from "../../src/shared/erase/certificate/forms.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const person = "0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11";
const other = "5f0c6f2b-8e0a-4d1c-9b7a-3e2d1f0c9b8a";

describe("the forms of what is searched for", () => {
  const terms = [{ kind: "id" as const, text: person }, { kind: "e-mail" as const, text: "Änn@example.org" }];
  const forms = formsOf(terms);
  const bare = person.replaceAll("-", "");

  it("are found wherever they stand, and nothing else is", () => {
    const hidden = [
      person.toUpperCase(),
      bare,
      `{${bare.toUpperCase()}}`,
      Buffer.from(bare, "hex").toString("base64"),
      Buffer.from(bare, "hex").toString("base64url"),
      ...["", "a", "ab"].map((before) => Buffer.from(`${before}${person}, and more`).toString("base64")),
      `\\\\x${Buffer.from(person).toString("hex")}`,
      "Änn@EXAMPLE.org",
      "https://x.y/?m=%C3%84nn%40example.org",
      JSON.stringify({ m: "\\u00c4nn@example.org" }).replaceAll("\\\\", "\\"),
      Buffer.from("xÄnn@example.org").toString("base64"),
    ];
    for (const text of hidden) expect(holds(utf8(`before ${text} after`), forms), text).toBe(true);
    for (const text of [other, "nn@example.org", bare.slice(1), "", Buffer.from(other).toString("base64")]) {
      expect(holds(utf8(`before ${text} after`), forms), text).toBe(false);
    }
    expect(countKinds(terms)).toEqual([{ kind: "id", count: 1 }, { kind: "e-mail", count: 1 }]);
  });
});
