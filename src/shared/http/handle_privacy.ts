/** The function `privacy`: what is kept of a person, and what guardians of children ask for. docs/http.md, docs/reports.md. */
import { openSession } from "../backup/session.ts";
import { parseKeyRing } from "../crypto/key_ring.ts";
import { HoldfastError } from "../errors.ts";
import type { PutDeps } from "../erase/ledger.ts";
import { readKeptMap } from "../export/kept_map.ts";
import { openOrCreateRepository } from "../format/repository.ts";
import { loadZstd } from "../format/zstd.ts";
import { recognise } from "../identity/identity_queries.ts";
import { settlePlace } from "../identity/settle_place.ts";
import type { Connection } from "../postgres/connection.ts";
import { admitGuardian, listGuardians, recordGuardian, withdrawGuardian } from "../privacy/guardian.ts";
import { reportOn } from "../privacy/person_report.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Needs } from "./admission.ts";
import { type AcceptedCall, type FrontDeps, handle, type Outcome } from "./door.ts";
import { projectRef, variables } from "./environment.ts";
import { databaseOf } from "./front.ts";
import { firstStore } from "./places.ts";
import { type PrivacyRequest, privacyRequest } from "./requests.ts";

export interface PrivacyDoorDeps extends FrontDeps {
  /** Where the erasure ledger is. Errors: those of settings, keys and store. */
  readonly ledger: (connection: Connection) => Promise<PutDeps>;
}

/** Newest first. */
const mostListed = 100;
/** Of one statement that counts: an answer is waited for. */
const countMs = 30_000;

/** Call it once when the isolate starts. */
export function privacyDoorDeps(front: FrontDeps, fetch: Fetch): PrivacyDoorDeps {
  const { environment, clock, random, log } = front;
  return {
    ...front,
    ledger: async (connection) => {
      await recognise(connection, projectRef(environment));
      const ring = parseKeyRing(environment[variables.keys]);
      const compressor = await loadZstd();
      const top = firstStore({ environment, fetch, clock, random, log });
      const { store } = await settlePlace({ store: top, ring, compressor, clock, random, log }, connection);
      const { id: repositoryId } = await openOrCreateRepository({ store, clock, random });
      return { store, ring, compressor, random, repositoryId };
    },
  };
}

/**
 * Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `forbidden`, `user_not_found`, `user_erased`,
 * `run_not_found`, `run_state`, those of keys, store and database.
 */
export function handlePrivacy(request: Request, deps: PrivacyDoorDeps): Promise<Response> {
  return handle({ functionName: "privacy", schema: privacyRequest, needs, act }, request, deps);
}

function needs({ action }: PrivacyRequest): Needs {
  return action === "list" ? "second factor" : "fresh second factor";
}

async function act(action: PrivacyRequest, call: AcceptedCall, deps: PrivacyDoorDeps): Promise<Outcome> {
  const { connection, person } = call;
  if (person === null && action.action !== "list") {
    throw new HoldfastError("forbidden", "what is kept of people is shown to people, and recorded by them");
  }
  switch (action.action) {
    case "report": {
      const map = await readKeptMap(connection);
      const counting = () => openSession(databaseOf(deps.environment), "holdfast:report");
      const report = await reportOn({ connection, counting, map, atMostMs: countMs }, action.user.toLowerCase());
      return { status: 200, document: report };
    }
    case "record": {
      const { action: _, child: wanted, name, reach, as: relation, ...said } = action;
      const child = wanted.toLowerCase();
      const id = await admitGuardian(connection, { child, statement: said.statement });
      const ledger = await deps.ledger(connection);
      const asked = { ...said, child, guardian: { name, reach, relation }, asks: [...new Set(said.asks)] };
      const recorded = await recordGuardian({ ...ledger, connection, clock: deps.clock }, id, asked);
      return { status: 200, document: recorded };
    }
    case "withdraw": {
      const withdrawn = await withdrawGuardian(connection, action.request);
      return { status: 200, document: { request: action.request, withdrawn } };
    }
    case "list":
      return { status: 200, document: { requests: await listGuardians(connection, mostListed) } };
  }
}
