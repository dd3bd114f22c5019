import { json } from "./answer.ts";
import { type ServerFailure, serverFailure } from "./database.ts";
import { NotLetIn } from "./tokens.ts";

/** A refusal in PostgREST's own form. */
export class RestFailure extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: string | null;
  readonly hint: string | null;
  constructor(
    status: number,
    code: string,
    message: string,
    details: string | null = null,
    hint: string | null = null,
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.hint = hint;
  }
}

/** The answer for anything that was thrown on the way; null for what is a defect of the gateway itself. */
export function restFailureAnswer(error: unknown, role: string): Response | null {
  const failure = error instanceof RestFailure ? error : foreign(error, role);
  if (failure === null) return null;
  const { status, code, message, details, hint } = failure;
  return json(status, { code, details, hint, message });
}

function foreign(error: unknown, role: string): RestFailure | null {
  if (error instanceof NotLetIn) {
    return error.kind === "expired"
      ? new RestFailure(401, "PGRST303", "JWT expired")
      : new RestFailure(401, "PGRST301", error.message);
  }
  const server = serverFailure(error);
  return server === null
    ? null
    : new RestFailure(statusOf(server, role), server.code, server.message, server.detail, server.hint);
}

/** PostgREST's table of SQLSTATEs and statuses (its docs, "Errors"). */
export function statusOf({ code }: Pick<ServerFailure, "code">, role: string): number {
  const raised = /^PT([1-5]\d\d)$/.exec(code)?.[1];
  if (raised !== undefined) return Number(raised);
  const exact: Record<string, number> = {
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "42501": role === "anon" ? 401 : 403,
    P0001: 400,
  };
  const byClass: Record<string, number> = {
    "08": 503,
    "09": 500,
    "0L": 403,
    "0P": 403,
    "25": 500,
    "28": 403,
    "2D": 500,
    "38": 500,
    "39": 500,
    "3B": 500,
    "40": 500,
    "53": 503,
    "54": 500,
    "55": 500,
    "57": 500,
    "58": 500,
    F0: 500,
    HV: 500,
    P0: 500,
    XX: 500,
  };
  return exact[code] ?? byClass[code.slice(0, 2)] ?? 400;
}
