/** Whether the functions answer: an unsigned call has to be refused by the function itself. */
import type { ProjectApi } from "../../../maintenance/project_api.ts";
import { callAsApp, codeOf, toldOf } from "./check_call.ts";
import { failed, type Found, well } from "./check_result.ts";

const checked = "backup";

/** Nothing is begun. Errors: `project_unreachable`. */
export async function checkFunctions(project: ProjectApi): Promise<Found> {
  const answer = await callAsApp(project, {
    method: "POST",
    path: `/functions/v1/${checked}`,
    accessToken: null,
    body: {},
  });
  const told = `${checked} answers ${toldOf(answer)}`;
  if (answer.status === 401 && codeOf(answer.json) === "unauthorised") return well(told);
  if (answer.status === 401) return failed(`${told}, and not the function itself; is verify_jwt off for it?`);
  return failed(answer.status === 404 ? `${told}; is it deployed?` : told);
}
