/** The status page as the settings here have it. */
import { asHoldfastError } from "../shared/errors.ts";
import { keepPage } from "../shared/incidents/keep_page.ts";
import { pageVariables } from "../shared/incidents/page_variables.ts";
import { openStatusPage, type StatusPage } from "../shared/incidents/publish_page.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import { installedSession } from "./installed.ts";
import { storeAddress, storeDeps } from "./open_store.ts";
import type { Settings } from "./settings.ts";

/** Null: none is set up here. Errors: `setting_missing`, `usage`. */
export function statusPage(context: Context): StatusPage | null {
  const { settings } = context;
  return openStatusPage((name) => variable(settings, name), storeDeps(context));
}

/**
 * After something has happened that it tells of. Hinders nothing: what went wrong is told, and the function `incident` tries
 * again. Null: no page is set up here, or it could not be put; else where it is.
 */
export async function refreshPage(context: Context, session: Connection): Promise<string | null> {
  try {
    // The functions may have one: that there is none here is not recorded.
    if (context.settings.variable(pageVariables.address) === undefined) return null;
    return (await keepPage(session, () => statusPage(context), context.clock)).place;
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    context.note(`warning: the status page was not updated: ${code}: ${message}`);
    return null;
  }
}

/** `refreshPage` in a session of its own: something was done that the page tells of. Hinders nothing. */
export async function tellPage(context: Context): Promise<void> {
  if (context.settings.variable(pageVariables.address) === undefined) return;
  try {
    const session = await installedSession(context, "holdfast:page");
    try {
      await refreshPage(context, session);
    } finally {
      await session.close();
    }
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    context.note(`warning: the status page was not updated: ${code}: ${message}`);
  }
}

function variable(settings: Settings, name: string): string | undefined {
  if (name === "BACKUP_SECONDARY") return settings.get("secondary");
  if (name === "BACKUP_STORE") return settings.get("store") === undefined ? undefined : storeAddress(settings);
  return settings.variable(name) ?? (name === "SUPABASE_URL" ? settings.get("project-url") : undefined);
}
