/** One part of a `multipart/form-data` body. */
export interface FormPart {
  readonly name: string;
  /** Null where the part is a plain field. */
  readonly fileName: string | null;
  readonly type: string;
  readonly bytes: Uint8Array;
}

/**
 * The parts of a form (RFC 7578), held in memory. The runtime's own `formData()` drops parts with an empty name, which is
 * what supabase-js gives a file. Null for a body that is no such form.
 */
export function formParts(body: Uint8Array, contentType: string): FormPart[] | null {
  const boundary = /boundary=(?:"([^"]+)"|([^;\s]+))/i.exec(contentType);
  const mark = boundary?.[1] ?? boundary?.[2];
  if (mark === undefined) return null;
  const text = new TextDecoder("latin1").decode(body); // one character a byte, so that places in it are places in the body
  const parts: FormPart[] = [];
  let at = text.indexOf(`--${mark}\r\n`);
  while (at >= 0) {
    const head = at + mark.length + 4;
    const gap = text.indexOf("\r\n\r\n", head);
    const end = text.indexOf(`\r\n--${mark}`, gap + 2);
    if (gap < 0 || end < 0) return null;
    const headers = new TextDecoder().decode(body.subarray(head, gap));
    parts.push({
      name: /;\s*name="([^"]*)"/i.exec(headers)?.[1] ?? "",
      fileName: /;\s*filename="([^"]*)"/i.exec(headers)?.[1] ?? null,
      type: /^content-type:\s*(.+)$/im.exec(headers)?.[1]?.trim() ?? "application/octet-stream",
      bytes: body.subarray(Math.min(gap + 4, end), end),
    });
    at = text.startsWith(`\r\n--${mark}\r\n`, end) ? end + 2 : -1;
  }
  return parts;
}
