/** Where channels may lead: to hosts outside, over TLS. What is told by whoever sets a channel is not trusted with the inside. */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { HoldfastError } from "../errors.ts";

/** All addresses of a host name. */
export type Lookup = (host: string) => Promise<readonly string[]>;

export interface AddressRules {
  /** BACKUP_PRIVATE_CHANNELS=1: hosts in private networks are meant, there without TLS where the address says `http:`. */
  readonly allowPrivate: boolean;
  readonly lookup: Lookup;
}

export const systemLookup: Lookup = async (host) => (await lookup(host, { all: true })).map(({ address }) => address);

/**
 * The address in a setting, checked as far as its text goes. `scheme`: `https:` or `smtps:`. Errors: `channel_malformed`, naming the
 * variable: the value may be a secret.
 */
export function parseAddress(text: string, variable: string, scheme: "https:" | "smtps:", rules: AddressRules): URL {
  const wrong = (why: string) => new HoldfastError("channel_malformed", `${variable} ${why}`);
  let url: URL;
  try {
    url = new URL(text.trim());
  } catch {
    throw wrong("is no address");
  }
  const host = hostOf(url);
  if (host === "") throw wrong("names no host");
  if (isPrivateHost(host) && !rules.allowPrivate) throw wrong("leads into a private network");
  const isPlain = scheme === "https:" && url.protocol === "http:" && isPrivateHost(host);
  if (url.protocol !== scheme && !isPlain) throw wrong(`has to begin with ${scheme}//`);
  if (scheme === "https:" && (url.username !== "" || url.password !== "")) throw wrong("holds a user or a password");
  return url;
}

/** Host name or address, without the brackets of IPv6. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1");
}

/**
 * The addresses of a host; one that cannot be resolved here, or not before `signal` ends the exchange, gives none, and is left to the
 * connection itself. Errors: `channel_refused` where one of them lies in a private network.
 */
export async function addressesOf(
  host: string,
  rules: AddressRules,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const addresses = isIP(host) === 0 ? await before(signal, rules.lookup(host)).catch(() => []) : [host];
  if (!rules.allowPrivate && addresses.some(isPrivateAddress)) {
    throw new HoldfastError("channel_refused", "the host leads into a private network, and nothing was sent");
  }
  return addresses;
}

/** A look-up cannot be called off: nobody waits for it any more. */
async function before<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  let end = () => {};
  const ended = new Promise<never>((_, reject) => {
    end = () => reject(signal.reason);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
  try {
    return await Promise.race([work, ended]);
  } finally {
    signal.removeEventListener("abort", end);
  }
}

function isPrivateHost(host: string): boolean {
  return isIP(host) === 0
    ? /(^|\.)(localhost|local|internal|home\.arpa|lan)\.?$/i.test(host) || !host.includes(".")
    : isPrivateAddress(host);
}

/** Not of the public internet: RFC 6890 and what stands for an IPv4 address within IPv6. */
export function isPrivateAddress(address: string): boolean {
  if (isIP(address) === 4) return isPrivateV4(address.split(".").map(Number));
  const groups = groupsOf(address);
  if (groups === null) return true;
  const [first = 0, second = 0] = groups;
  const lead = groups.slice(0, 6);
  const v4 = [...groups.slice(6)].flatMap((group) => [group >> 8, group & 0xff]);
  const isMapped = lead.slice(0, 5).every((group) => group === 0) && (lead[5] === 0xffff || lead[5] === 0);
  const isTranslated = first === 0x64 && second === 0xff9b;
  if (isMapped || isTranslated) return isPrivateV4(v4);
  if (first === 0x2002) {
    return isPrivateV4([second >> 8, second & 0xff, (groups[2] ?? 0) >> 8, (groups[2] ?? 0) & 0xff]);
  }
  // Only 2000::/3 is given out; in it 2001:db8::/32 is for documentation.
  return (first & 0xe000) !== 0x2000 || (first === 0x2001 && second === 0xdb8);
}

function isPrivateV4([a = 0, b = 0, c = 0]: readonly number[]): boolean {
  return a === 0 || a === 10 || a === 127 || a >= 224 || (a === 100 && b >= 64 && b < 128) ||
    (a === 169 && b === 254) ||
    (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168) || (a === 192 && b === 0 && c === 0) ||
    (a === 198 && (b === 18 || b === 19));
}

/** The eight groups of an IPv6 address; null for anything else. */
function groupsOf(address: string): number[] | null {
  const text = address.replace(/%.*$/, "");
  if (isIP(text) !== 6) return null;
  // The parser of addresses writes every form in one way.
  const [head = "", tail] = hostOf(new URL(`http://[${text}]/`)).split("::");
  const parse = (part: string) => part === "" ? [] : part.split(":").map((group) => parseInt(group, 16));
  const [left, right] = [parse(head), parse(tail ?? "")];
  return tail === undefined ? left : [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
}
