import { HoldfastError } from "../errors.ts";

/** Where a server is and who asks. */
export interface DatabaseAddress {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  /** Null when the URL has none. */
  readonly password: string | null;
  /**
   * `plain`: no TLS. `verified`: TLS, with the server's certificate chain and name checked, against the given CA or the
   * runtime's roots. There is no TLS without a check: Deno 2.1.4 cannot do it, and it protects from nobody in between.
   */
  readonly tls: "plain" | "verified" | "verified_if_ca";
}

const schemes = new Set(["postgres:", "postgresql:"]);

/**
 * Reads `postgresql://user:password@host:port/database?sslmode=…&host=/socket/folder&port=…`.
 *
 * `sslmode`: `disable`, `allow` → plain; `require`, `verify-ca`, `verify-full` → verified; absent or `prefer` → verified when
 * a CA is given, else plain. `no-verify` and anything else: `usage`. The password never appears in an error.
 */
export function readDatabaseUrl(url: string): DatabaseAddress {
  let parsed: URL;
  try {
    // libpq takes a user without a host (`postgresql://me@/db?host=/run`), URL does not.
    parsed = new URL(url.replace(/^(\w+:\/\/[^/?#]*@)(?=[/?:]|$)/, "$1localhost"));
  } catch {
    throw wrong("it is not a URL");
  }
  if (!schemes.has(parsed.protocol)) throw wrong("it does not start with postgresql://");
  const host = parsed.searchParams.get("host") ?? bare(decode(parsed.hostname));
  const port = Number(parsed.searchParams.get("port") ?? (parsed.port || "5432"));
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw wrong("its port is not a number");
  const user = decode(parsed.username) || (parsed.searchParams.get("user") ?? "");
  if (user === "") throw wrong("it names no user");
  return {
    host: host === "" ? "localhost" : host,
    port,
    database: decode(parsed.pathname.replace(/^\//, "")) || user,
    user,
    password: parsed.password === "" ? parsed.searchParams.get("password") : decode(parsed.password),
    tls: tlsOf(parsed.searchParams.get("sslmode"), host),
  };
}

/** The Supabase project that an address names, in its host or, at a pooler, in its user; null where it names none. */
export function projectOfAddress({ host, user }: Pick<DatabaseAddress, "host" | "user">): string | null {
  const ofHost = /^db\.([a-z]{20})\.supabase\.[a-z.]+$/.exec(host);
  const ofUser = /\.pooler\.supabase\.[a-z.]+$/.test(host) ? /^[^.]+\.([a-z]{20})$/.exec(user) : null;
  return ofHost?.[1] ?? ofUser?.[1] ?? null;
}

function tlsOf(mode: string | null, host: string): DatabaseAddress["tls"] {
  if (host.startsWith("/")) return "plain";
  switch (mode) {
    case "disable":
    case "allow":
      return "plain";
    case "require":
    case "verify-ca":
    case "verify-full":
      return "verified";
    case null:
    case "prefer":
      return "verified_if_ca";
    default:
      throw wrong(`sslmode=${mode} is not known; a private certificate authority is given with --db-ca`);
  }
}

function bare(host: string): string {
  return host.replace(/^\[|\]$/g, "");
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw wrong("it holds a broken %-escape");
  }
}

function wrong(why: string): HoldfastError {
  return new HoldfastError("usage", `the database URL cannot be used: ${why}`, {
    hint: "A database URL looks like postgresql://user:password@host:5432/database.",
  });
}
