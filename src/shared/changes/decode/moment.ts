/** Microseconds since 1970 → ISO 8601 with microseconds. */
export function momentOf(micros: bigint | null): string | null {
  if (micros === null) return null;
  const seconds = new Date(Number(micros / 1_000_000n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${(micros % 1_000_000n).toString().padStart(6, "0")}Z`;
}
