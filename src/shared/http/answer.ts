import { asHoldfastError, errorTable, type HoldfastError } from "../errors.ts";

const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff" } as const;
/** What Prometheus asks for. */
const metricsType = "text/plain; version=0.0.4; charset=utf-8";

/** A JSON answer. */
export function answer(status: number, document: unknown): Response {
  const type = "application/json; charset=utf-8";
  return new Response(JSON.stringify(document), { status, headers: { ...headers, "content-type": type } });
}

/** Figures in the text format of Prometheus. */
export function metricsAnswer(text: string): Response {
  return new Response(text, { status: 200, headers: { ...headers, "content-type": metricsType } });
}

/**
 * `{code, message, hint}` with the status of the code. Only what our own errors say goes out: of a foreign error nothing
 * but its kind, and of what went wrong inside before the caller is known (`known` false) nothing but the code.
 */
export function errorAnswer(error: unknown, known: boolean): Response {
  const ours: HoldfastError = asHoldfastError(error);
  const told = known || ours.status < 500
    ? { code: ours.code, message: ours.message, hint: ours.hint }
    : { code: ours.code, message: "the call could not be checked", hint: errorTable[ours.code].hint };
  const response = answer(ours.status, told);
  if (ours.waitSeconds !== null) response.headers.set("retry-after", String(ours.waitSeconds));
  return response;
}
