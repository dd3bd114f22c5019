import { spawnSync } from "node:child_process";
import { createHash, createHmac } from "node:crypto";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { variables } from "../../src/shared/http/environment.ts";
import {
  backupRequest,
  downloadRequest,
  drillRequest,
  exportRequest,
  importExportRequest,
  incidentRequest,
  monitorRequest,
  notifyRequest,
  privacyRequest,
  restoreRequest,
  retentionRequest,
  verifyRequest,
} from "../../src/shared/http/requests.ts";
import { httpPage } from "./http_page.ts";

const page = httpPage();

/** Actions and fields as the schemas have them. */
function fromSchemas() {
  return Object.entries({
    backup: backupRequest,
    verify: verifyRequest,
    retention: retentionRequest,
    drill: drillRequest,
    notify: notifyRequest,
    incident: incidentRequest,
    monitor: monitorRequest,
    restore: restoreRequest,
    download: downloadRequest,
    export: exportRequest,
    "import-export": importExportRequest,
    privacy: privacyRequest,
  }).flatMap((
    [functionName, schema],
  ) =>
    schema.options.map((option) => {
      const json = z.toJSONSchema(option) as {
        properties: Record<string, { const?: string; description?: string }>;
        required: string[];
      };
      const { action, ...rest } = json.properties;
      return {
        functionName,
        action: action?.const,
        fields: Object.entries(rest).map(([name, field]) => ({
          name,
          required: json.required.includes(name),
          meaning: field.description,
        })),
      };
    })
  );
}

describe("docs/http.md", () => {
  it("lists every action with the fields, and the meanings, of its schema", () => {
    const listed = page.actions.map(({ functionName, action, fields }) => ({ functionName, action, fields }));
    expect(listed).toEqual(fromSchemas());
  });

  /** What the functions refuse to whoever has the worker secret alone. */
  const byPeopleOnly = (functionName: string, action: string) =>
    functionName === "export"
      ? !["leg", "sweep"].includes(action)
      : ["import-export", "privacy"].includes(functionName) && action !== "list";

  it("shows a call of its own action with every required field: signed, where machines may make it", () => {
    for (const { functionName, action, fields, call } of page.actions) {
      const shown = /^(call|ask) ([\w-]+) '(.*)'$/.exec(call);
      expect(shown?.[2]).toBe(functionName);
      expect(shown?.[1], call).toBe(byPeopleOnly(functionName, action) ? "ask" : "call");
      const body = JSON.parse((shown?.[3] ?? "").replace(/'"\$\w+"'/g, "x"));
      expect(body.action).toBe(action);
      for (const field of fields) if (field.required) expect(Object.keys(body)).toContain(field.name);
    }
  });

  it("lists the variables that the functions read", () => {
    expect([...page.variables].sort()).toEqual(Object.values(variables).sort());
  });

  it.each([["short", "0123456789abcdef0123456789abcdef"], ["longer than a block", "k%\\n€".repeat(20)]])(
    "signs in the shell as the functions expect it, with a secret that is %s",
    (_what, secret) => {
      const body = `{"action": "status", "run": "ü%s"}`;
      // The call's own curl is replaced by one that shows what it was given.
      const script = `set -eu\n${page.preparation}\ncurl() { printf '%s\\n' "$@"; }\ncall backup '${body}'`;
      const env = { PATH: process.env["PATH"] ?? "", PROJECT_URL: "https://p.test", BACKUP_WORKER_SECRET: secret };
      const result = spawnSync("bash", ["-c", script], { encoding: "utf8", env, timeout: 20_000 });
      expect(result.status, result.stderr).toBe(0);
      const header = (name: string) => new RegExp(`^x-holdfast-${name}: (.*)$`, "m").exec(result.stdout)?.[1] ?? "";
      const hash = createHash("sha256").update(body).digest("hex");
      const lines = ["backup", header("timestamp"), header("nonce"), hash].join("\n");
      expect(header("signature")).toBe(createHmac("sha256", secret).update(lines).digest("hex"));
      expect(result.stdout).not.toContain(secret);
      expect(result.stdout).toContain("https://p.test/functions/v1/backup");
    },
  );
});
