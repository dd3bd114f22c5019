import { createHash, createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { callValidMs, checkSignature } from "../../src/shared/http/caller.ts";

const secret = "a worker secret that is long enough to be one";
const now = new Date("2026-11-21T19:00:00Z");
const body = new TextEncoder().encode('{"action":"status"}');

function signed(
  changes: { functionName?: string; timestamp?: string; nonce?: string; body?: Uint8Array; secret?: string } = {},
) {
  const timestamp = changes.timestamp ?? String(now.getTime() / 1000);
  const nonce = changes.nonce ?? "0123456789abcdef-nonce";
  const hash = createHash("sha256").update(changes.body ?? body).digest("hex");
  const lines = [changes.functionName ?? "backup", timestamp, nonce, hash].join("\n");
  const signature = createHmac("sha256", changes.secret ?? secret).update(lines).digest("hex");
  return new Headers({
    "x-holdfast-timestamp": timestamp,
    "x-holdfast-nonce": nonce,
    "x-holdfast-signature": signature,
  });
}

const call = (headers: Headers) => ({ functionName: "backup", headers, body, secret, now });

describe("checkSignature", () => {
  it("takes a call that is signed as docs/http.md says, and says until when it is valid", async () => {
    const checked = await checkSignature(call(signed()));
    expect(checked).toEqual({ nonce: "0123456789abcdef-nonce", expiresAt: new Date(now.getTime() + callValidMs) });
  });

  it("refuses with one and the same error whatever is wrong", async () => {
    const seconds = (offset: number) => String(now.getTime() / 1000 + offset);
    const without = (name: string) => {
      const headers = signed();
      headers.delete(name);
      return headers;
    };
    const changed = (name: string, value: string) => {
      const headers = signed();
      headers.set(name, value);
      return headers;
    };
    const bad: readonly Headers[] = [
      new Headers(),
      without("x-holdfast-timestamp"),
      without("x-holdfast-nonce"),
      without("x-holdfast-signature"),
      signed({ functionName: "verify" }),
      signed({ body: new TextEncoder().encode("{}") }),
      signed({ secret: `${secret}!` }),
      signed({ timestamp: seconds(-301) }),
      signed({ timestamp: seconds(301) }),
      signed({ timestamp: "1e9" }),
      signed({ timestamp: "-5" }),
      signed({ nonce: "short" }),
      signed({ nonce: "x".repeat(65) }),
      signed({ nonce: "sixteen'letters'" }),
      changed("x-holdfast-nonce", "another-nonce-of-16"),
      changed("x-holdfast-timestamp", seconds(1)),
      changed("x-holdfast-signature", "0".repeat(64)),
      changed("x-holdfast-signature", "zz"),
      changed("x-holdfast-signature", signed().get("x-holdfast-signature")?.toUpperCase() ?? ""),
    ];
    const messages = new Set<string>();
    for (const [index, headers] of bad.entries()) {
      const error = await checkSignature(call(headers)).then(() => null, (one) => one);
      expect(error, `case ${index}`).toMatchObject({ code: "unauthorised" });
      messages.add(`${error.message} ${error.hint}`);
    }
    expect(messages.size).toBe(1);
  });

  it("lets nobody in when there is no secret, or one that is too short", async () => {
    for (const weak of [undefined, "", "short"]) {
      const headers = signed({ secret: weak ?? "" });
      await expect(checkSignature({ ...call(headers), secret: weak })).rejects.toMatchObject({ code: "unauthorised" });
    }
  });

  it("takes calls at both ends of the five minutes", async () => {
    for (const offset of [-300, 300]) {
      const headers = signed({ timestamp: String(now.getTime() / 1000 + offset) });
      await expect(checkSignature(call(headers))).resolves.toBeTruthy();
    }
  });
});
