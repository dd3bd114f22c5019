/** Tells people by mail that their exports are ready, or their imports done. No link is in it: whoever reads the mail has to sign in. */
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

/** Who is to be told of what. */
interface DueLetter {
  readonly kind: "export" | "import";
  readonly id: string;
  /** Null: the person has no confirmed one. */
  readonly address: string | null;
  readonly letter: Letter;
}

/** How many were told. What fails is tried again each minute for an hour. Errors: those of the database. */
export async function tellExports({ connection, ...channels }: ExportMailDeps): Promise<number> {
  const due = [...await dueExportLetters(connection), ...await dueImportLetters(connection)];
  if (due.length === 0) return 0;
  const { mailFrom } = await readSender(connection);
  const mailer = mailerOrWhyNot(channels);
  let told = 0;
  for (const one of due) {
    const why = typeof mailer === "string"
      ? mailer
      : mailFrom === ""
      ? "the setting mail_from is empty"
      : one.address === null
      ? "the person has no confirmed address"
      : null;
    if (why !== null || typeof mailer === "string" || one.address === null) {
      await note(connection, one, `not sent: ${why}`);
      continue;
    }
    try {
      await mailer({
        fromName: "Your data",
        from: mailFrom,
        to: [one.address],
        ...one.letter,
        key: `${one.kind}-${one.id}`,
        at: channels.clock.now(),
      });
      await note(connection, one, "sent");
      told++;
    } catch (error) {
      const failure = asHoldfastError(error);
      if (failure.retry !== "backoff") await note(connection, one, `not sent: ${failure.message}`);
    }
  }
  return told;
}

async function dueExportLetters(connection: Connection): Promise<DueLetter[]> {
  const rows = await call(
    connection,
    `select m.export, m.address, m.page, to_char(m.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') as until
     from backup.export_mails() as m`,
    [],
  );
  return rows.map((row) => ({
    kind: "export",
    id: text(row, "export"),
    address: row["address"] ?? null,
    letter: readyLetter(text(row, "until"), row["page"] ?? null),
  }));
}

async function dueImportLetters(connection: Connection): Promise<DueLetter[]> {
  const rows = await call(connection, "select m.import, m.address from backup.import_mails() as m", []);
  return rows.map((row) => ({
    kind: "import",
    id: text(row, "import"),
    address: row["address"] ?? null,
    letter: importedLetter(),
  }));
}

/** A sentence: why nobody can be told. */
function mailerOrWhyNot(channels: ChannelDeps): Mailer | string {
  try {
    return mailerFrom(channels) ?? "no way out for mail is set up";
  } catch (error) {
    return asHoldfastError(error).message;
  }
}

async function note(connection: Connection, { kind, id }: DueLetter, told: string): Promise<void> {
  await call(connection, `select backup.note_${kind}_mail($1::uuid, $2)`, [id, told]);
}

/** Pure. `until`: for people. */
export function readyLetter(until: string, page: string | null): Letter {
  return letterOf("Your data is ready to download", [
    "The copy of your data that was asked for is ready.",
    page === null ? "Sign in to the app to download it." : `Sign in to download it: ${page}`,
    `It is removed on ${until}.`,
    "If you have not asked for it, change your password and tell the people who run the app.",
  ]);
}

/** Pure. */
export function importedLetter(): Letter {
  return letterOf("Your data is back", [
    "The copy of your data that you had given to the people who run the app was brought in again.",
    "Sign in to look at it. If you cannot sign in, have a new password sent to this address.",
    "If you know nothing of it, tell the people who run the app.",
  ]);
}

function letterOf(subject: string, lines: readonly string[]): Letter {
  const html = (line: string) => line.replace(/[&<>"]/g, (sign) => `&#${sign.codePointAt(0)};`);
  return {
    subject,
    text: `${lines.join("\n\n")}\n`,
    html: `${lines.map((line) => `<p>${html(line)}</p>`).join("\n")}\n`,
  };
}
