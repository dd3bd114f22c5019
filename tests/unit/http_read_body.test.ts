import { describe, expect, it } from "vitest";
import { maxBodyBytes, readBody } from "../../src/shared/http/read_body.ts";

/** A request whose body comes as these parts, each after so many milliseconds; `left` counts how often it was given up. */
function request(parts: readonly Uint8Array[], eachMs = 0) {
  const seen = { left: 0 };
  const rest = [...parts];
  let timer: ReturnType<typeof setTimeout> | undefined;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) =>
      new Promise((resolve) => {
        timer = setTimeout(() => {
          const part = rest.shift();
          if (part === undefined) controller.close();
          else controller.enqueue(part);
          resolve();
        }, eachMs);
      }),
    cancel: () => {
      seen.left++;
      clearTimeout(timer);
    },
  });
  const init = { method: "POST", body, duplex: "half" };
  return { seen, request: new Request("https://project.test/", init as RequestInit) };
}

const byte = Uint8Array.of(0x7b);

describe("a request's body", () => {
  it("is read as it came, from nothing up to the bound", async () => {
    expect(await readBody(new Request("https://project.test/", { method: "POST" }))).toEqual(new Uint8Array(0));
    const full = new Uint8Array(maxBodyBytes).fill(0x20);
    const read = await readBody(request([full.subarray(0, 100), full.subarray(100)]).request);
    expect(read).toEqual(full);
  });

  it("is given up with the first byte past the bound", async () => {
    const { request: tooLarge, seen } = request([new Uint8Array(maxBodyBytes), byte, byte]);
    await expect(readBody(tooLarge)).rejects.toMatchObject({ code: "payload_too_large", status: 413 });
    expect(seen.left).toBe(1);
  });

  it.each([["trickles in", Array.from({ length: 1000 }, () => byte), 20], ["never comes", [byte], 60_000]])(
    "is given up when it %s",
    async (_what, parts, eachMs) => {
      const { request: slow, seen } = request(parts, eachMs);
      const began = performance.now();
      await expect(readBody(slow, 200)).rejects.toMatchObject({ code: "payload_late", status: 408, retry: "backoff" });
      expect(performance.now() - began).toBeLessThan(5_000);
      expect(seen.left).toBe(1);
    },
  );
});
