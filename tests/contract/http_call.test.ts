import { describe, expect, it } from "vitest";
import { callHttp } from "../../src/shared/store/http_call.ts";
import { failureOf } from "../unit/format_fixture.ts";

const call = { method: "GET", url: "http://store.test/a", headers: new Headers(), body: null } as const;
const bounds = { label: "a store", timeoutMs: 5000, maxBytes: 100 };
const answering = (body: string, headers: Record<string, string> = {}, status = 200) => () =>
  Promise.resolve(new Response(body, { status, headers }));

describe("one exchange with a store", () => {
  it("gives status, headers and the whole body, whatever the status", async () => {
    const answer = await callHttp(answering("abc", { "content-length": "3", etag: "x" }, 418), call, bounds);
    expect(answer.status).toBe(418);
    expect(answer.headers.get("etag")).toBe("x");
    expect(new TextDecoder().decode(answer.body)).toBe("abc");
  });

  it.each(["2", "4", "99"])(
    "is store_lied when the answer has 3 bytes and says %s, though the runtime took it",
    async (length) => {
      const error = await failureOf(callHttp(answering("abc", { "content-length": length }), call, bounds));
      expect(error.code).toBe("store_lied");
    },
  );

  it("does not compare lengths where the body was encoded on the way", async () => {
    const headers = { "content-length": "2", "content-encoding": "gzip" };
    expect((await callHttp(answering("abc", headers), call, bounds)).body.byteLength).toBe(3);
  });

  it("takes no more than its bound, stated or not", async () => {
    const long = "x".repeat(101);
    for (const headers of [{ "content-length": "101" }, {}]) {
      expect((await failureOf(callHttp(answering(long, headers), call, bounds))).code).toBe("store_lied");
    }
    expect((await callHttp(answering("x".repeat(100)), call, bounds)).body.byteLength).toBe(100);
  });

  it("asks for no redirect to be followed, since the signature and the key would go along", async () => {
    let seen: RequestInit = {};
    await callHttp((_, init) => (seen = init, Promise.resolve(new Response(""))), call, bounds);
    expect(seen.redirect).toBe("manual");
  });

  it("keeps address and headers out of its messages", async () => {
    const headers = new Headers({ authorization: "Bearer SECRETWORD" });
    const failing = () => Promise.reject(new TypeError("http://SECRETWORD@store.test failed"));
    const error = await failureOf(callHttp(failing, { ...call, headers }, bounds));
    expect(error.code).toBe("store_unreachable");
    expect(error.message + error.hint).not.toContain("SECRETWORD");
  });
});
