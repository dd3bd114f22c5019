import { join } from "node:path";
import { json, jsonObject } from "./answer.ts";
import { authRoute } from "./auth.ts";
import { Blobs } from "./blobs.ts";
import { Login } from "./database.ts";
import { Functions } from "./functions.ts";
import { Journal } from "./journal.ts";
import { killMoment } from "./kill_request.ts";
import { PreRequest } from "./pre_request.ts";
import { restRoute } from "./rest.ts";
import { type GatewayReady, gatewaySettings, type GatewaySettingsInput } from "./settings.ts";
import { storageRoute } from "./storage.ts";
import { projectKeys, Tokens } from "./tokens.ts";

/** The project's HTTP front door on 127.0.0.1, as Supabase has it: functions, storage, auth and rest on one port. */
export interface Gateway {
  readonly ready: GatewayReady;
  close(): Promise<void>;
}

type Route = (request: Request, path: string) => Promise<Response>;

/** Starts serving; runs on Deno only. Settings that do not hold throw a `ZodError`. */
export async function startGateway(input: GatewaySettingsInput): Promise<Gateway> {
  const settings = gatewaySettings.parse(input);
  const keys = await projectKeys(settings.dataFolder, settings.projectRef);
  const tokens = new Tokens(keys);
  const journal = new Journal(settings.journalFile);
  const routes = new Map<string, Route>();
  const server = Deno.serve({
    hostname: "127.0.0.1",
    port: settings.port,
    onListen: () => {},
    onError: (error) => failed(error, journal),
  }, (request) => {
    const url = new URL(request.url);
    const [, prefix = "", rest = ""] = /^(\/(?:functions|storage|auth|rest)\/v1|\/__[a-z]+)(.*)$/.exec(url.pathname) ??
      [];
    const route = routes.get(prefix);
    return route?.(request, rest + url.search) ?? json(404, { message: "no Route matched with those values" });
  });
  const { port } = server.addr;
  const url = `http://127.0.0.1:${port}`;

  const functions = new Functions({
    ...settings.functions,
    folder: settings.functions.folder,
    environment: {
      ...settings.functions.environment,
      SUPABASE_URL: url,
      SUPABASE_ANON_KEY: keys.anonKey,
      SUPABASE_SERVICE_ROLE_KEY: keys.serviceRoleKey,
      SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: keys.publishableKey }),
      SUPABASE_SECRET_KEYS: JSON.stringify({ default: keys.secretKey }),
      SUPABASE_JWKS: JSON.stringify(tokens.jwks()),
      SB_REGION: "local",
      DENO_DEPLOYMENT_ID: `${settings.projectRef}_local_1`,
    },
    journal,
  });
  routes.set("/functions/v1", (request, path) => functions.handle(request, path));

  const storage = {
    login: new Login(settings.database, "supabase_storage_admin", "storage-api"),
    blobs: new Blobs(join(settings.dataFolder, "objects"), settings.storage.durable),
    tokens,
    fileSizeLimit: settings.storage.fileSizeLimit,
  };
  routes.set("/storage/v1", (request, path) => storageRoute(storage, request, path));
  const authenticator = new Login(settings.database, "authenticator", "PostgREST");
  const auth = {
    login: new Login(settings.database, "supabase_auth_admin", "gotrue"),
    passwords: authenticator,
    tokens,
    issuer: `${url}/auth/v1`,
  };
  routes.set("/auth/v1", keyed((request, path) => authRoute(auth, request, path)));
  const rest = { login: authenticator, tokens, preRequest: new PreRequest(authenticator) };
  routes.set("/rest/v1", keyed((request, path) => restRoute(rest, request, path)));
  routes.set("/__metrics", () => Promise.resolve(json(200, functions.metrics())));
  if (settings.testing) routes.set("/__kill", (request, path) => kill(functions, request, path));

  return {
    ready: {
      url,
      port,
      pid: Deno.pid,
      projectRef: settings.projectRef,
      anonKey: keys.anonKey,
      serviceRoleKey: keys.serviceRoleKey,
      publishableKey: keys.publishableKey,
      secretKey: keys.secretKey,
      jwtSecret: keys.jwtSecret,
    },
    async close() {
      await functions.close();
      rest.preRequest.close();
      for (const login of [storage.login, auth.login, authenticator]) login.close();
      await Promise.race([server.shutdown(), new Promise((resolve) => setTimeout(resolve, 1_000))]);
    },
  };
}

/** The platform's edge lets nothing through to auth and rest without an `apikey`, but the public signing keys. */
function keyed(route: Route): Route {
  return async (request, path) => {
    const given = request.headers.has("apikey") || new URL(request.url).searchParams.has("apikey");
    if (given || path.startsWith("/.well-known/")) return await route(request, path);
    return json(401, {
      message: "No API key found in request",
      hint: "No `apikey` request header or url param was found.",
    });
  };
}

/** `POST /__kill {function, at, text?, nth?}` orders, `GET /__kill/<id>` says whether it fired, `DELETE` takes it back. */
async function kill(functions: Functions, request: Request, path: string): Promise<Response> {
  const { killSwitch } = functions;
  const id = /^\/([0-9a-f-]{36})$/.exec(path)?.[1];
  if (request.method === "POST" && id === undefined) {
    const wanted = killMoment(await jsonObject(request));
    return wanted === null
      ? json(400, { message: "wanted: {function, at: now | request | response | line, text?, nth?}" })
      : json(200, await killSwitch.order(wanted.function, wanted.moment));
  }
  const order = id === undefined ? undefined : killSwitch.find(id);
  if (order === undefined) return json(404, { message: "no such order" });
  if (request.method === "DELETE") await killSwitch.cancel(order.id);
  return json(200, order);
}

function failed(error: unknown, journal: Journal): Response {
  journal.write({
    kind: "gateway_error",
    error: error instanceof Error ? error.stack ?? error.message : String(error),
  });
  return json(500, { message: "An unexpected error occurred" });
}
