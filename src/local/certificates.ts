import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HoldfastError } from "../shared/errors.ts";

/** PEM texts of a server certificate and of the authority that signed it. */
export interface ServerCertificate {
  /** What clients need to trust the server. */
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

/** Ten years: a local stack's files are thrown away long before. */
const days = "3650";

/**
 * A certificate for `127.0.0.1` and `localhost` from an authority made for it alone. The authority's key is deleted
 * before this returns, so nothing else can ever be signed with it.
 */
export function makeServerCertificate(name: string): ServerCertificate {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-certificate-"));
  const at = (file: string) => join(folder, file);
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  try {
    openssl([
      "req",
      "-x509",
      ...newKey,
      "-days",
      days,
      "-subj",
      `/CN=${name} authority`,
      "-keyout",
      at("ca.key"),
      "-out",
      at("ca.pem"),
    ]);
    openssl(["req", "-new", ...newKey, "-subj", `/CN=${name}`, "-keyout", at("server.key"), "-out", at("server.csr")]);
    writeFileSync(at("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n");
    openssl([
      "x509",
      "-req",
      "-in",
      at("server.csr"),
      "-CA",
      at("ca.pem"),
      "-CAkey",
      at("ca.key"),
      "-CAcreateserial",
      "-days",
      days,
      "-extfile",
      at("server.ext"),
      "-out",
      at("server.pem"),
    ]);
    return {
      authority: readFileSync(at("ca.pem"), "utf8"),
      certificate: readFileSync(at("server.pem"), "utf8"),
      key: readFileSync(at("server.key"), "utf8"),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function openssl(args: readonly string[]): void {
  const done = spawnSync("openssl", [...args], { encoding: "utf8", timeout: 30_000 });
  if (done.status === 0) return;
  throw new HoldfastError("internal", `openssl ${args[0]} failed: ${(done.stderr ?? "").trim().split("\n").at(-1)}`);
}
