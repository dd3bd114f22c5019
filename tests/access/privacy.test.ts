/** The function `privacy` on the stack, within the platform's limits: reports on people, and what guardians of children ask for. */
import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { cli } from "../integration/cli_fixture.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import { useProject } from "../support/stack.ts";

const project = useProject({}, async ({ query }) => {
  await query(
    `create table public.notes (id int primary key, user_id uuid not null references auth.users, body text);
     create table public.pages (id int primary key, note_id int not null references public.notes, body text)`,
  );
});
let [admin, child]: SignedIn[] = [];
let request = "";

const ask = (text: string, values: readonly unknown[] = []) => project().query(text, values);

async function call(body: Readonly<Record<string, unknown>>, who = admin) {
  const answer = await fetch(`${project().stack.gateway.url}/functions/v1/privacy`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${who?.accessToken}` },
    body: JSON.stringify(body),
  });
  const told = await answer.json() as Record<string, unknown>;
  return { status: answer.status, code: told["code"] ?? null, told };
}

const asked = () => ({
  action: "record",
  child: child?.userId.toUpperCase(),
  name: "Maria Muster",
  reach: "maria@example.org",
  as: "parent",
  asks: ["erasure"],
  identityBy: "payment",
  saidOn: "2026-11-20",
  statement: "Delete all of it, please.",
});

async function run(...args: string[]) {
  const { stack } = project();
  const settings = {
    BACKUP_DB_URL: stack.cluster.url("postgres"),
    BACKUP_DB_CA: stack.cluster.caFile,
    BACKUP_KEYS: stack.keys,
    BACKUP_STORE: "supabase://holdfast-backups",
    SUPABASE_URL: stack.gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.gateway.serviceRoleKey,
  };
  const { exit, document, stderr, stdout } = await cli([...args, "--json"], settings);
  expect(exit, stdout + stderr).toBe(0);
  return document as Record<string, unknown>;
}

beforeAll(async () => {
  admin = await signedIn(project().stack, { aal2: true });
  child = await signedIn(project().stack);
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
  await ask(
    "insert into public.notes select i, case when i <= 20000 then $1::uuid else $2::uuid end, 'note ' || i from generate_series(1, 50000) as i",
    [child.userId, admin.userId],
  );
  await ask("insert into public.pages select i, i, 'page ' || i from generate_series(1, 50000) as i");
}, 180_000);

describe("an administrator with a fresh second factor", () => {
  it("is told what is kept of a person, who else has it made nobody, and the next one names who made it", async () => {
    expect(await call({ action: "report", user: child?.userId }, child)).toMatchObject({
      status: 403,
      code: "forbidden",
    });
    await ask("delete from backup.pauses");
    const { status, told } = await call({ action: "report", user: child?.userId });
    expect(status, JSON.stringify(told)).toBe(200);
    const { live, standing } = told as {
      live: { tables: readonly { table: string; rows: number }[] };
      standing: string;
    };
    expect(standing).toBe("there");
    const rows = Object.fromEntries(live.tables.map((one) => [one.table, one.rows]));
    expect(rows).toMatchObject({ "public.notes": 20_000, "public.pages": 20_000, "auth.users": 1 });
    const again = (await call({ action: "report", user: child?.userId })).told as {
      seen: readonly Record<string, unknown>[];
    };
    expect(again.seen[0]).toMatchObject({
      action: "report.made",
      who: `administrator ${admin?.userId}`,
      subject: "the person",
    });
    expect(JSON.stringify(await call({ action: "report", user: randomUUID() }))).toContain("user_not_found");
  });

  it("records what a guardian asks for, sealed beside the ledger, and the erasure by the CLI answers it", async () => {
    expect(await call({ ...asked(), statement: `Of ${child?.email}` })).toMatchObject({
      status: 400,
      code: "payload_invalid",
    });
    const recorded = await call(asked());
    expect(recorded.status, JSON.stringify(recorded.told)).toBe(200);
    expect(recorded.told["entry"]).toBe("v1/erasures/000000000000001");
    request = String(recorded.told["request"]);
    const listed = await call({ action: "list" });
    expect(listed.told["requests"]).toMatchObject([{ id: request, status: "open", asks: "erasure" }]);
    expect(JSON.stringify(listed.told)).not.toMatch(/Maria|Delete all/);
    expect(await run("guardians", "show", request)).toMatchObject({
      statement: "Delete all of it, please.",
      guardian: { name: "Maria Muster" },
    });
    const [row] = await ask("select recorded_by = backup.person_hash($1) as by_admin from backup.guardian_requests", [
      admin?.userId,
    ]);
    expect(row).toEqual({ by_admin: true });
    expect((await run("erase", String(child?.userId), "--yes"))["guardians"]).toEqual([request]);
    expect(await ask("select status from backup.guardian_requests")).toEqual([{ status: "done" }]);
    expect((await call({ action: "withdraw", request })).told).toEqual({ request, withdrawn: false });
    expect(await call(asked())).toMatchObject({ status: 409, code: "user_erased" });
    const { told } = await call({ action: "report", user: child?.userId });
    expect(told).toMatchObject({ standing: "erased", live: null, guardians: [{ request, status: "done" }] });
  });

  it("withdraws a request, once, while its erasure has not begun", async () => {
    const other = await signedIn(project().stack);
    const { told } = await call({ ...asked(), child: other.userId, asks: ["review", "erasure"] });
    const id = String(told["request"]);
    expect((await call({ action: "withdraw", request: id })).told).toEqual({ request: id, withdrawn: true });
    expect((await call({ action: "withdraw", request: id })).told).toEqual({ request: id, withdrawn: false });
    expect(await call({ action: "withdraw", request: randomUUID() })).toMatchObject({
      status: 404,
      code: "run_not_found",
    });
    const actions = await ask("select action from backup.audit_log where subject = $1 order by id", [`guardian:${id}`]);
    expect(actions.map(({ action }) => action)).toEqual(["guardian.recorded", "guardian.withdrawn"]);
  });
});
