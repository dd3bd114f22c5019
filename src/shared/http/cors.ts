/** Which pages of a browser may call: those of the origins that are configured, by default none. */
import { type Environment, optional, variables } from "./environment.ts";

const preflightSeconds = 600;

/** The request's origin where it is one of BACKUP_ALLOWED_ORIGINS (`https://admin.example.com`, several with commas); else null. */
export function allowedOrigin(request: Request, environment: Environment): string | null {
  const origin = request.headers.get("origin");
  const allowed = (optional(environment, variables.allowedOrigins) ?? "").split(",").map((one) => one.trim());
  return origin !== null && origin !== "" && allowed.includes(origin) ? origin : null;
}

/** The answer to a browser that asks whether it may call. It tells nothing about anybody else. */
export function preflight(): Response {
  return new Response(null, { status: 204 });
}

/** The answer, readable for a page of that origin; `null`: for no page. */
export function withOrigin(response: Response, origin: string | null): Response {
  response.headers.set("vary", "origin");
  if (origin === null) return response;
  response.headers.set("access-control-allow-origin", origin);
  response.headers.set("access-control-allow-methods", "POST");
  response.headers.set("access-control-allow-headers", "authorization, apikey, content-type, x-client-info");
  response.headers.set("access-control-max-age", String(preflightSeconds));
  response.headers.set("access-control-expose-headers", "retry-after");
  return response;
}
