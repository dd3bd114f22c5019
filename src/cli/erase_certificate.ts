/** `erase certificate`: the proof that nothing that is kept holds a person who was erased. */
import { openSession } from "../shared/backup/session.ts";
import { certify, type SignedCertificate } from "../shared/erase/certificate/certificate.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { Context } from "./context.ts";
import { openRewriting } from "./erase_rewrite.ts";
import { installedSession } from "./installed.ts";
import { sourceDatabase } from "./open.ts";
import type { Outcome } from "./output.ts";
import { amount } from "./progress.ts";

const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** The document is the certificate; docs/format.md, "Certificates". */
export async function runCertificate(context: Context, erasure: string | undefined): Promise<Outcome> {
  if (erasure === undefined || !idPattern.test(erasure)) {
    throw new HoldfastError("usage", "a certificate is of one erasure, by its id", {
      hint: "`holdfast erase list` shows them.",
    });
  }
  await (await installedSession(context, "holdfast:certificate")).close();
  const session = await openSession(await sourceDatabase(context), "holdfast:certificate");
  try {
    const document = await certify(await openRewriting(context, session), erasure);
    return { exit: 0, document, lines: lines(document) };
  } finally {
    context.progress.clear();
    await session.close();
  }
}

function lines(document: SignedCertificate): string[] {
  const { searched, second, mentions, searchedFor, signature } = document;
  const rows = Object.values(document.rows).reduce((sum, count) => sum + count, 0);
  return [
    `Certificate of erasure ${document.erasure}, issued ${document.issuedAt}`,
    `  begun ${document.begunAt}, gone from the live project ${document.emptiedAt}: ${amount(rows, "rows")}, ${
      document.files.toLocaleString("en-GB")
    } files`,
    `  backups rewritten ${document.rewrittenAt}; the last object from before was gone ${document.cleanAt}`,
    `  searched: ${amount(searched.objects, "objects")} (${
      amount(searched.rawBytes, "bytes")
    }) of ${searched.store}, for ${
      searchedFor.map(({ kind, count }) => `${count.toLocaleString("en-GB")} × ${kind}`).join(", ")
    }`,
    ...(second === null ? [] : [`  ${second.store} holds the same objects and no other`]),
    ...(mentions.length === 0
      ? ["  nothing was found"]
      : mentions.map(({ object, what, table, count, reason }) =>
        `  stays: ${count.toLocaleString("en-GB")} ${what}${
          table === null ? "" : ` of ${table}`
        } in ${object}: ${reason}`
      )),
    `  signed with key ${signature.key}: ${signature.value}`,
  ];
}
