/** `byteLength` fresh bytes from a cryptographic source. Comes in through deps, so that tests can repeat a run. */
export type Random = (byteLength: number) => Uint8Array;

/** The runtime's own source. WebCrypto gives at most 65,536 bytes a call; nothing here asks for more. */
export const webCryptoRandom: Random = (byteLength) => crypto.getRandomValues(new Uint8Array(byteLength));
