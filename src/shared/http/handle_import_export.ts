/** The function `import-export`: who asks for an import of an export, and who agrees to it. docs/http.md, docs/imports.md. */
import { HoldfastError } from "../errors.ts";
import { agreeImport, askImport, listImports, withdrawImport } from "../import/import_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { admit, type Needs } from "./admission.ts";
import { type AcceptedCall, type FrontDeps, handle, type Outcome } from "./door.ts";
import { type ImportExportRequest, importExportRequest } from "./requests.ts";

/** Newest first. */
const mostListed = 100;

/**
 * Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `forbidden`, `sign_in_old`, `run_not_found`, `run_state`,
 * `import_foreign`, `user_erased`, those of the database.
 */
export function handleImportExport(request: Request, deps: FrontDeps): Promise<Response> {
  return handle({ functionName: "import-export", schema: importExportRequest, needs, act }, request, deps);
}

/** Whose data it is consents by the sign-in alone: they need be no administrator, and have no second factor. */
function needs({ action }: ImportExportRequest): Needs {
  if (action === "consent") return "fresh sign-in";
  return action === "list" ? "second factor" : "fresh second factor";
}

async function act(action: ImportExportRequest, call: AcceptedCall): Promise<Outcome> {
  const { connection, person } = call;
  if (person === null && action.action !== "list") {
    throw new HoldfastError("forbidden", "imports are asked for and agreed to by people");
  }
  switch (action.action) {
    case "ask": {
      const { id, joined } = await askImport(connection, action);
      return { status: 200, document: { import: id, joined } };
    }
    case "approve":
      await agreeImport(connection, action.import, false);
      return { status: 200, document: { import: action.import, agreed: true } };
    case "consent":
      await requireOwn(action.import, call);
      await agreeImport(connection, action.import, true);
      return { status: 200, document: { import: action.import, agreed: true } };
    case "withdraw":
      return {
        status: 200,
        document: { import: action.import, withdrawn: await withdrawImport(connection, action.import) },
      };
    case "list":
      return { status: 200, document: { imports: await listImports(connection, { limit: mostListed }) } };
  }
}

/** Whose data it is not, learns nothing of it: not even whether it is there. */
async function requireOwn(id: string, { connection, person }: AcceptedCall): Promise<void> {
  if (person === null || await ownerOf(connection, id) === person.sub) return;
  await admit(connection, person, "import-export", "fresh second factor");
  throw new HoldfastError("forbidden", "the data is another person's: an administrator agrees by `approve`");
}

async function ownerOf(connection: Connection, id: string): Promise<string | null> {
  const [row] = await connection.query("select user_id::text as owner from backup.imports where id = $1::uuid", [id]);
  return row?.["owner"] ?? null;
}
