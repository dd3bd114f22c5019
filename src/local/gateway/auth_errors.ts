import { json } from "./answer.ts";
import { serverFailure } from "./database.ts";
import { NotLetIn } from "./tokens.ts";

/** A refusal in Auth's own form. */
export class AuthFailure extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** For a body that is no JSON object, or not of the shape that it has to be. */
export const notJson = () => new AuthFailure(400, "bad_json", "Could not parse request body as JSON");

/** The answer for anything that was thrown on the way; null for what is a defect of the gateway itself. */
export function authFailureAnswer(error: unknown): Response | null {
  const failure = error instanceof AuthFailure ? error : foreign(error);
  return failure === null
    ? null
    : json(failure.status, { code: failure.status, error_code: failure.code, msg: failure.message });
}

function foreign(error: unknown): AuthFailure | null {
  if (error instanceof NotLetIn) {
    return error.kind === "no_key" || error.kind === "bad_key"
      ? new AuthFailure(401, "no_authorization", error.message)
      : new AuthFailure(403, "bad_jwt", `invalid JWT: ${error.message}`);
  }
  const server = serverFailure(error);
  if (server === null) return null;
  return server.code === "25006"
    ? new AuthFailure(503, "unexpected_failure", "Database is read-only")
    : new AuthFailure(500, "unexpected_failure", `Database error: ${server.message}`);
}
