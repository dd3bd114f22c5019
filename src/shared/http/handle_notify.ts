/** The function `notify`: brings what is to be told to people, by every channel that is set up. docs/http.md, docs/alerts.md. */
import { type Delivered, deliverNotices } from "../alerts/deliver.ts";
import { systemLookup } from "../alerts/address.ts";
import { tellExports } from "../export/export_mail.ts";
import { recognise } from "../identity/identity_queries.ts";
import { testChannels } from "../jobs/notice_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Needs } from "./admission.ts";
import { endNotify } from "./call_queries.ts";
import { type AcceptedCall, type FrontDeps, handle, type Outcome, type SlotWork, slotWork, workerOf } from "./door.ts";
import { projectRef } from "./environment.ts";
import { type NotifyRequest, notifyRequest } from "./requests.ts";

export interface NotifyDeps extends FrontDeps {
  /** Delivers what is due, as `worker`, until the budget is spent. Errors: those of the database. */
  readonly deliver: (connection: Connection, worker: string) => Promise<Delivered>;
}

export function notifyDeps(deps: FrontDeps, fetch: Fetch): NotifyDeps {
  const { environment, clock, log, budget } = deps;
  return {
    ...deps,
    deliver: async (connection, worker) => {
      // A copy of the project mails nothing of the original's: it has to be known as one first.
      await recognise(connection, projectRef(environment));
      const variable = (name: string) => environment[name];
      const channels = { variable, fetch, clock, lookup: systemLookup };
      await tellExports({ ...channels, connection });
      return await deliverNotices({ ...channels, connection, log, teller: "function" }, {
        worker,
        budget: budget.next(),
      });
    },
  };
}

/** Errors as answers: `method_not_allowed`, `payload_…`, `unauthorised`, `not_found`, `run_state` in a copy, those of the database. */
export function handleNotify(request: Request, deps: NotifyDeps): Promise<Response> {
  const door = {
    functionName: "notify",
    schema: notifyRequest,
    needs,
    act: (action: NotifyRequest, call: AcceptedCall) => act(action, call, deps),
  };
  return handle(door, request, deps);
}

function needs({ action }: NotifyRequest): Needs {
  return action === "test" ? "second factor" : "machines";
}

async function act(action: NotifyRequest, call: AcceptedCall, deps: NotifyDeps): Promise<Outcome> {
  const document = action.action === "test"
    ? { notice: Number(await testChannels(call.connection, action.channel ?? null)) }
    : { delivery: "begun" };
  const work = deliverWork(call, deps);
  if (work !== "busy") return { status: 202, document, work };
  // The one under way finds what is due now, or the next minute does.
  return { status: 202, document: action.action === "test" ? document : { delivery: "busy" } };
}

function deliverWork(call: AcceptedCall, deps: NotifyDeps): SlotWork {
  return slotWork(
    { name: "notify", of: {} },
    deps,
    async () => await deps.deliver(call.connection, workerOf(call)),
    (_, failure) => endNotify(call.connection, call.nonce, failure),
  );
}
