/** A JSON answer. */
export function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json; charset=utf-8", ...headers },
  });
}

/** The request's body as a JSON object, or null when it is none. At most `longest` characters are taken. */
export async function jsonObject(request: Request, longest = 8 * 1024 * 1024): Promise<Record<string, unknown> | null> {
  const text = await request.text();
  if (text.length > longest) return null;
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
