import { HoldfastError } from "../../shared/errors.ts";
import { emergencyContact, listSettings, setSetting, type Setting } from "../../shared/jobs/setting_queries.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { columns, type Outcome } from "../output.ts";

/**
 * The document of `list`: `[{name, kind, value, minimum, maximum, note}]`; of `set`: `{name, from, to}`; of `contact`: `{contact}`.
 * Errors: `not_found`, `payload_invalid`, and then nothing was changed.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "list", name, value] = context.words;
  if (what !== "list" && what !== "set" && what !== "contact") {
    throw new HoldfastError("usage", "settings takes `list`, `set <name> <value>` or `contact`");
  }
  if (what === "set" ? value === undefined : value !== undefined || (what === "contact" && name !== undefined)) {
    throw new HoldfastError("usage", "settings set takes a name and a value, list at most a name, contact nothing");
  }
  const session = await installedSession(context, "holdfast:settings");
  try {
    if (what === "contact") {
      const contact = await emergencyContact(session);
      const line = contact === ""
        ? "No emergency contact is set: settings set contact_name, contact_email, contact_phone."
        : contact;
      return { exit: 0, document: { contact }, lines: [line] };
    }
    const all = await listSettings(session);
    if (what === "list") {
      const wanted = name === undefined ? all : [known(all, name)];
      return { exit: 0, document: wanted, lines: columns(wanted.map(shown)) };
    }
    const { name: found, value: from } = known(all, name ?? "");
    await setSetting(session, found, value ?? "");
    return {
      exit: 0,
      document: { name: found, from, to: value },
      lines: [`${found}: ${quoted(from)} → ${quoted(value ?? "")}`],
    };
  } finally {
    await session.close();
  }
}

function known(all: readonly Setting[], name: string): Setting {
  const found = all.find((one) => one.name === name);
  if (found !== undefined) return found;
  throw new HoldfastError("not_found", `there is no setting ${JSON.stringify(name)}`, {
    hint: "`holdfast settings` lists them.",
  });
}

function shown({ name, value, minimum, maximum, note }: Setting): string[] {
  return [name, quoted(value), minimum === null ? "" : `${minimum} to ${maximum}`, note];
}

function quoted(value: string): string {
  return value === "" ? "(nothing)" : value;
}
