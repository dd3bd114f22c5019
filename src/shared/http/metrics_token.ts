/** The token of a scraper: good for the figures and nothing else. The environment holds its hash alone. */

/** A shorter one can be guessed; `openssl rand -hex 32` gives 64 characters. */
const minTokenLength = 32;

/**
 * Is `expected` the SHA-256 of the token, in hexadecimal? False where it is not set or none, so that nobody is let in. The token's
 * own characters are never compared, and the time that it takes tells nothing of either.
 */
export async function isMetricsToken(token: string, expected: string | undefined): Promise<boolean> {
  const wanted = /^[0-9a-f]{64}$/i.test(expected ?? "") ? (expected ?? "").toLowerCase() : null;
  if (wanted === null || token.length < minTokenLength) return false;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token)));
  let difference = 0;
  for (const [at, byte] of digest.entries()) difference |= byte ^ parseInt(wanted.slice(2 * at, 2 * at + 2), 16);
  return difference === 0;
}
