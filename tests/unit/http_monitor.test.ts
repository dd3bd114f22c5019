/** The scraper's token: its hash alone is known, and nothing short or unset lets anybody in. */
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { isMetricsToken } from "../../src/shared/http/metrics_token.ts";

const token = "0123456789abcdef0123456789abcdef";
const hashOf = (text: string) => createHash("sha256").update(text).digest("hex");

describe("the token of a scraper", () => {
  it("is the one whose hash is set, in either case of letters", async () => {
    expect(await isMetricsToken(token, hashOf(token))).toBe(true);
    expect(await isMetricsToken(token, hashOf(token).toUpperCase())).toBe(true);
  });

  it.each([
    ["another one", `${token}0`, hashOf(token)],
    ["one that differs in its last letter", `${token.slice(0, -1)}0`, hashOf(token)],
    ["the hash itself", hashOf(token), hashOf(token)],
    ["one that is too short, though its hash is set", "short", hashOf("short")],
    ["an empty one", "", hashOf("")],
    ["any, where nothing is set", token, undefined],
    ["any, where an empty value is set", token, ""],
    ["any, where the token itself is set instead of its hash", token, token],
    ["any, where half a hash is set", token, hashOf(token).slice(0, 32)],
  ])("is not %s", async (_what, given, expected) => {
    expect(await isMetricsToken(given, expected)).toBe(false);
  });
});
