/** Where channels may lead; against the runtime's own list of networks. */
import { BlockList, isIP } from "node:net";
import { describe, expect, it } from "vitest";
import { addressesOf, type AddressRules, isPrivateAddress, parseAddress } from "../../src/shared/alerts/address.ts";
import { HoldfastError } from "../../src/shared/errors.ts";

const strict: AddressRules = { allowPrivate: false, lookup: () => Promise.resolve(["93.184.215.14"]) };
const lax: AddressRules = { ...strict, allowPrivate: true };

/** RFC 6890, by the runtime. */
const inner = new BlockList();
for (
  const [network, bits] of [
    ["0.0.0.0", 8],
    ["10.0.0.0", 8],
    ["100.64.0.0", 10],
    ["127.0.0.0", 8],
    ["169.254.0.0", 16],
    ["172.16.0.0", 12],
    ["192.0.0.0", 24],
    ["192.168.0.0", 16],
    ["198.18.0.0", 15],
    ["224.0.0.0", 3],
  ] as const
) inner.addSubnet(network, bits, "ipv4");

function failure(act: () => unknown): HoldfastError {
  try {
    act();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("an address", () => {
  it("is private or not, as the runtime's list says, for 20,000 of IPv4 and each edge of a network", () => {
    let seed = 7;
    const random = () => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
    const some = Array.from(
      { length: 20_000 },
      () => Array.from({ length: 4 }, () => Math.floor(random() * 256)).join("."),
    );
    const edges = [
      "9.255.255.255",
      "11.0.0.0",
      "100.63.255.255",
      "100.128.0.0",
      "172.15.255.255",
      "172.32.0.0",
      "192.0.1.0",
      "198.17.255.255",
      "198.20.0.0",
      "223.255.255.255",
    ];
    const within = [
      "10.0.0.0",
      "100.64.0.0",
      "100.127.255.255",
      "127.0.0.1",
      "169.254.169.254",
      "172.31.255.255",
      "192.168.1.1",
      "198.19.255.255",
      "224.0.0.1",
      "255.255.255.255",
    ];
    for (const address of [...some, ...edges, ...within]) {
      expect(isPrivateAddress(address), address).toBe(inner.check(address, "ipv4"));
    }
    expect(within.every(isPrivateAddress)).toBe(true);
    expect(edges.some(isPrivateAddress)).toBe(false);
  });

  it.each([
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "2001:db8::1",
    "::127.0.0.1",
    "not an address",
  ])(
    "of IPv6 that leads inside is private: %s",
    (address) => expect(isPrivateAddress(address)).toBe(true),
  );

  it.each([
    "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
    "2a00:1450:4001:82a::200e",
    "::ffff:93.184.215.14",
    "64:ff9b::93.184.215.14",
  ])(
    "of IPv6 that leads outside is not: %s",
    (address) => {
      expect(isIP(address)).toBe(6);
      expect(isPrivateAddress(address)).toBe(false);
    },
  );
});

const never = new AbortController().signal;

describe("an address in a setting", () => {
  it.each([
    ["http://example.org/hook", "has to begin with https://"],
    ["ftp://example.org/", "has to begin with https://"],
    ["https://localhost/hook", "leads into a private network"],
    ["https://app.internal/", "leads into a private network"],
    ["https://metadata/", "leads into a private network"],
    ["https://127.0.0.1/", "leads into a private network"],
    ["https://2130706433/", "leads into a private network"],
    ["https://0x7f.1/", "leads into a private network"],
    ["https://169.254.169.254/latest", "leads into a private network"],
    ["https://[::1]/", "leads into a private network"],
    ["https://[::ffff:127.0.0.1]/", "leads into a private network"],
    ["https://user:secret-word@example.org/", "holds a user or a password"],
    ["example.org/hook", "is no address"],
    ["", "is no address"],
  ])("is refused where it should not lead: %s", (text, why) => {
    const error = failure(() => parseAddress(text, "BACKUP_SLACK_URL", "https:", strict));
    expect(error).toMatchObject({ code: "channel_malformed" });
    expect(error.message).toBe(`BACKUP_SLACK_URL ${why}`);
    expect(error.message).not.toContain("secret-word");
  });

  it("may lead inside where that was said, there without TLS too; outside never without", () => {
    expect(parseAddress("http://127.0.0.1:8080/x", "X", "https:", lax).port).toBe("8080");
    expect(parseAddress("https://hook.internal/x", "X", "https:", lax).hostname).toBe("hook.internal");
    expect(failure(() => parseAddress("http://example.org/x", "X", "https:", lax)).message).toContain("https://");
    expect(failure(() => parseAddress("smtp://127.0.0.1:25", "X", "smtps:", lax)).message).toContain("smtps://");
  });

  it("is refused when its name leads inside, by any of its addresses", async () => {
    const lookup = () => Promise.resolve(["93.184.215.14", "10.1.2.3"]);
    await expect(addressesOf("rebound.example.org", { ...strict, lookup }, never)).rejects.toMatchObject({
      code: "channel_refused",
    });
    await expect(addressesOf("rebound.example.org", { ...lax, lookup }, never)).resolves.toHaveLength(2);
    await expect(addressesOf("example.org", strict, never)).resolves.toEqual(["93.184.215.14"]);
  });

  it("whose look-up does not end is waited for no longer than the exchange may last", async () => {
    const lookup = () => new Promise<readonly string[]>(() => {});
    const ended = AbortSignal.abort();
    await expect(addressesOf("slow.example.org", { ...strict, lookup }, ended)).resolves.toEqual([]);
    const soon = AbortSignal.timeout(20);
    await expect(addressesOf("slow.example.org", { ...strict, lookup }, soon)).resolves.toEqual([]);
  });
});
