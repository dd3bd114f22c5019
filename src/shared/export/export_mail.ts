/** Tells people by mail that their exports are ready. No link is in it: whoever reads the mail has to sign in. */
import type { Letter } from "../alerts/compose.ts";
import { type ChannelDeps, mailerFrom } from "../alerts/channels_from.ts";
import type { Mailer } from "../alerts/mailer.ts";
import { asHoldfastError } from "../errors.ts";
import { call } from "../jobs/call.ts";
import { readSender } from "../jobs/notice_queries.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";

export interface ExportMailDeps extends ChannelDeps {
  readonly connection: Connection;
}

/** How many were told. What fails is tried again each minute for an hour. Errors: those of the database. */
export async function tellExports({ connection, ...channels }: ExportMailDeps): Promise<number> {
  const due = await call(
    connection,
    `select m.export, m.address, m.page, to_char(m.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') as until
     from backup.export_mails() as m`,
    [],
  );
  if (due.length === 0) return 0;
  const { mailFrom } = await readSender(connection);
  const note = async (id: string, told: string) =>
    await call(connection, "select backup.note_export_mail($1::uuid, $2)", [id, told]);
  let mailer: Mailer | null | string;
  try {
    mailer = mailerFrom(channels);
  } catch (error) {
    mailer = asHoldfastError(error).message;
  }
  let told = 0;
  for (const row of due) {
    const [id, to] = [text(row, "export"), row["address"] ?? null];
    const why = mailer === null
      ? "no way out for mail is set up"
      : typeof mailer === "string"
      ? mailer
      : mailFrom === ""
      ? "the setting mail_from is empty"
      : to === null
      ? "the person has no confirmed address"
      : null;
    if (why !== null || mailer === null || typeof mailer === "string" || to === null) {
      await note(id, `not sent: ${why}`);
      continue;
    }
    const letter = readyLetter(text(row, "until"), row["page"] ?? null);
    const mail = {
      fromName: "Your data",
      from: mailFrom,
      to: [to],
      ...letter,
      key: `export-${id}`,
      at: channels.clock.now(),
    };
    try {
      await mailer(mail);
      await note(id, "sent");
      told++;
    } catch (error) {
      if (asHoldfastError(error).retry !== "backoff") await note(id, `not sent: ${asHoldfastError(error).message}`);
    }
  }
  return told;
}

/** Pure. `until`: for people. */
export function readyLetter(until: string, page: string | null): Letter {
  const lines = [
    "The copy of your data that was asked for is ready.",
    page === null ? "Sign in to the app to download it." : `Sign in to download it: ${page}`,
    `It is removed on ${until}.`,
    "If you have not asked for it, change your password and tell the people who run the app.",
  ];
  const html = (line: string) => line.replace(/[&<>"]/g, (sign) => `&#${sign.codePointAt(0)};`);
  return {
    subject: "Your data is ready to download",
    text: `${lines.join("\n\n")}\n`,
    html: `${lines.map((line) => `<p>${html(line)}</p>`).join("\n")}\n`,
  };
}
