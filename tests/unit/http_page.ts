import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** One action as docs/http.md describes it. */
export interface PageAction {
  readonly functionName: string;
  readonly action: string;
  readonly fields: readonly { readonly name: string; readonly required: boolean; readonly meaning: string }[];
  /** The shell line that makes the call: `call` is a machine's, `ask` a person's. */
  readonly call: string;
}

export interface HttpPage {
  /** What has to run in the shell before a call. */
  readonly preparation: string;
  readonly actions: readonly PageAction[];
  /** Names of the table of variables. */
  readonly variables: readonly string[];
}

/** docs/http.md as the tests read it. */
export function httpPage(): HttpPage {
  const page = readFileSync(fileURLToPath(new URL("../../docs/http.md", import.meta.url)), "utf8");
  const sections = page.split(/^## /m).slice(1);
  const actions = sections.flatMap((section) => {
    const title = /^([a-z-]+): ([a-z]+)\n/.exec(section);
    if (title === null) return [];
    const fields = [...section.matchAll(/^\| `(\w+)` *\| (yes|no) +\| (.+?) *\|$/gm)]
      .map(([, name = "", required, meaning = ""]) => ({ name, required: required === "yes", meaning }));
    return [{ functionName: title[1] ?? "", action: title[2] ?? "", fields, call: bash(section) }];
  });
  const environment = sections.find((section) => section.startsWith("Environment")) ?? "";
  return {
    preparation: ["Signing", "People"].map((title) =>
      bash(sections.find((section) => section.startsWith(`${title}\n`)) ?? "")
    ).join("\n"),
    actions,
    variables: [...environment.matchAll(/^\| `(\w+)`/gm)].map(([, name = ""]) => name),
  };
}

function bash(section: string): string {
  return /```bash\n([\s\S]*?)```/.exec(section)?.[1]?.trim() ?? "";
}
