import { json } from "./answer.ts";
import { serverFailure } from "./database.ts";
import { NotLetIn } from "./tokens.ts";

/** A refusal in Storage's own form: HTTP 400 with the meaning in the body's `statusCode`, but 416, 500 and 503 as they are. */
export class StorageFailure extends Error {
  readonly statusCode: string;
  readonly kind: string;
  constructor(statusCode: number, kind: string, message: string) {
    super(message);
    this.statusCode = String(statusCode);
    this.kind = kind;
  }
}

export const objectNotFound = () => new StorageFailure(404, "not_found", "Object not found");
export const bucketNotFound = () => new StorageFailure(404, "Bucket not found", "Bucket not found");
export const alreadyExists = () => new StorageFailure(409, "Duplicate", "The resource already exists");
export const invalidInput = (message: string) => new StorageFailure(400, "InvalidRequest", message);
export const tooLarge = () =>
  new StorageFailure(413, "Payload too large", "The object exceeded the maximum allowed size");

const ownStatus = new Set(["416", "500", "503"]);

/** The answer for anything that was thrown on the way; null for what is a defect of the gateway itself. */
export function storageFailureAnswer(error: unknown): Response | null {
  const failure = error instanceof StorageFailure ? error : foreign(error);
  if (failure === null) return null;
  const { statusCode, kind, message } = failure;
  return json(ownStatus.has(statusCode) ? Number(statusCode) : 400, { statusCode, error: kind, message });
}

function foreign(error: unknown): StorageFailure | null {
  if (error instanceof NotLetIn) {
    if (error.kind === "no_key") {
      return new StorageFailure(400, "Error", "headers must have required property 'authorization'");
    }
    return new StorageFailure(403, "Unauthorized", error.message);
  }
  const server = serverFailure(error);
  if (server === null) return null;
  if (server.code === "42501") return new StorageFailure(403, "Unauthorized", server.message);
  if (server.code === "23505") return alreadyExists();
  if (server.code === "23503") return new StorageFailure(404, "Not found", "The parent resource is not found");
  if (server.code === "25006") return new StorageFailure(503, "DatabaseReadOnly", server.message);
  return new StorageFailure(500, "DatabaseError", server.message);
}
