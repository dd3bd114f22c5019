import { HoldfastError } from "../errors.ts";
import { captureFormatVersion, type SchemaCapture, schemaCaptureFormat } from "../schema/capture_format.ts";

/** The opened plaintext of a schema object. `name` is for messages. Errors: `format_newer`, `object_damaged`. */
export function decodeCapture(bytes: Uint8Array, name: string): SchemaCapture {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new HoldfastError("object_damaged", `${name} is no JSON text`, { cause });
  }
  const version = typeof json === "object" && json !== null && "format" in json ? json.format : undefined;
  if (typeof version === "number" && version > captureFormatVersion) {
    throw new HoldfastError(
      "format_newer",
      `${name} has version ${version}, this Holdfast reads up to ${captureFormatVersion}`,
    );
  }
  const parsed = schemaCaptureFormat.safeParse(json);
  if (!parsed.success) throw new HoldfastError("object_damaged", `${name} is no schema capture of this format`);
  return parsed.data;
}
