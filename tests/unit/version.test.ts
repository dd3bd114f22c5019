import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { holdfastVersion } from "../../src/shared/backup/deps.ts";

it("the version that manifests carry is the package's", () => {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
    version: string;
  };
  expect(holdfastVersion).toBe(version);
});
