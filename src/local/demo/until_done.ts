/** Asks four times a second until there is an answer; at most `atMostMs`. */
export async function untilDone<T>(what: string, atMostMs: number, ask: () => Promise<T | null>): Promise<T> {
  const deadline = Date.now() + atMostMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (Date.now() > deadline) throw new Error(`${what} took longer than ${atMostMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
