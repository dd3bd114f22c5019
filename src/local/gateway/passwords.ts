import type { Login } from "./database.ts";
import { serviceCaller } from "./tokens.ts";

/**
 * bcrypt by pgcrypto, since the hosted auth service brings its own and this project has none. The auth role may not use
 * schema `extensions`, so it is a session of the service role. The password travels as a bound parameter over TLS.
 */
export async function passwordFits(passwords: Login, password: string, hash: string): Promise<boolean> {
  if (!hash.startsWith("$2")) return false;
  const [row] = await passwords.as(
    serviceCaller,
    {},
    (sql) => sql.query("select extensions.crypt($1, $2) = $2 as fits", [password, hash]),
  );
  return row?.["fits"] === "t";
}

export async function hashPassword(passwords: Login, password: string): Promise<string> {
  const [row] = await passwords.as(
    serviceCaller,
    {},
    (sql) => sql.query("select extensions.crypt($1, extensions.gen_salt('bf', 10)) as hash", [password]),
  );
  return row?.["hash"] ?? "";
}
