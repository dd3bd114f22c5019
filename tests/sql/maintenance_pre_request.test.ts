/** The pre-request function that a project has already: called first, put back exactly. */
import { describe, expect, it } from "vitest";
import { rolledBack, scalar } from "./cluster.ts";
import { useProject } from "./maintenance_fixture.ts";

describe.each([15, 17] as const)("the project's own pre-request function, PostgreSQL %i", (version) => {
  const project = useProject(version);

  const own = `
    create schema "App Gate";
    create table public.called (who text, path text, names text);
    grant all on public.called to anon, service_role;
    create function "App Gate".check() returns void language plpgsql as $$
      begin
        if current_setting('request.path') = '/forbidden' then raise sqlstate 'PT402' using message = 'pay first'; end if;
        insert into called values (current_user, current_setting('request.path'), current_setting('search_path'));
      end $$;
    grant usage on schema "App Gate" to public;`;

  const settings = async () =>
    (await project().client.query(
      `select setdatabase::text as database, setconfig::text as config from pg_db_role_setting
       where setrole = 'authenticator'::regrole order by setdatabase`,
    )).rows;

  it("is called first, as the caller, with the request's search_path", async () => {
    await project().closed(async () => {
      expect(await project().request({ method: "POST", path: "/forbidden" })).toMatchObject({
        code: "PT402",
        message: "pay first",
      });
      const seen = "do $$ begin if not exists (select from public.called where who = 'anon' and path = '/rpc/x' " +
        "and names = 'public, extensions') then raise 'not called'; end if; end $$";
      expect(await project().request({ method: "POST", path: "/rpc/x", role: "anon" }, [seen])).toBeNull();
      expect(await project().request({ method: "PATCH", path: "/entries" })).toMatchObject({ code: "PT503" });
    }, `${own} alter role authenticator set pgrst.db_pre_request = 'App Gate.check'`);
  });

  it("keeps what it sets for the request, its search_path too", async () => {
    await project().closed(
      async () => {
        const seen =
          "do $$ begin if current_setting('search_path') <> 'app, public' or current_setting('app.tenant') <> '7' " +
          "then raise 'it is %', current_setting('search_path'); end if; end $$";
        expect(await project().request({ method: "GET", path: "/entries", role: "anon" }, [seen])).toBeNull();
      },
      `create function public.tenant() returns void language plpgsql as $$ begin
          perform set_config('search_path', 'app, public', true), set_config('app.tenant', '7', true);
        end $$;
        alter role authenticator set pgrst.db_pre_request = 'public.tenant'`,
    );
  });

  it("goes on being called for a moment after the project is open, until PostgREST has read its settings", async () => {
    await project().closed(async () => {
      await project().client.query("select backup.maintenance_off()");
      expect(await project().request({ method: "POST", path: "/forbidden" })).toMatchObject({ code: "PT402" });
      expect(
        await project().request({ method: "PATCH", path: "/entries" }, ["insert into public.entries values (2, '')"]),
      )
        .toBeNull();
    }, `${own} alter role authenticator set pgrst.db_pre_request = 'App Gate.check'`);
  });

  it.each([
    ["no setting", "alter role authenticator reset pgrst.db_pre_request"],
    ["a setting of the role", "alter role authenticator set pgrst.db_pre_request = 'public.check'"],
    ["an empty setting", "alter role authenticator set pgrst.db_pre_request = ''"],
    ["a setting with quotes", `alter role authenticator set pgrst.db_pre_request = 'o''clock.chec"k'`],
    [
      "a setting of the role in this database",
      `alter role authenticator set pgrst.db_pre_request = 'public.other';
      alter role authenticator in database postgres set pgrst.db_pre_request = 'public.check'`,
    ],
  ])("is put back exactly: %s", async (_, prepare) => {
    await rolledBack(project().client, async () => {
      await project().client.query(prepare);
      const before = await settings();
      await project().client.query("select backup.maintenance_on('Back at noon')");
      await project().client.query("select backup.maintenance_on('Back at one')");
      const during = await settings();
      expect(during).not.toEqual(before);
      const effective = during.find((row) => row.database !== "0" && /pre_request/.test(row.config)) ?? during[0];
      expect(effective?.config).toContain("pgrst.db_pre_request=public.backup_before_request");
      await project().client.query("select backup.maintenance_off()");
      expect(await settings()).toEqual(before);
    });
  });

  it("is put back where it was changed, whatever somebody sets for this database meanwhile", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query("alter role authenticator set pgrst.db_pre_request = 'public.check'");
      const [before] = await settings();
      await project().client.query("select backup.maintenance_on('Back at noon')");
      await project().client.query(
        "alter role authenticator in database postgres set pgrst.db_pre_request = 'public.other'",
      );
      await project().client.query("savepoint meanwhile");
      const off = JSON.parse(await scalar(project().client, "select backup.maintenance_off()") ?? "null");
      expect(off.left).toEqual([expect.stringContaining("public.other")]);
      expect((await settings())[0]).toEqual(before);
      await project().client.query("rollback to savepoint meanwhile");
      // turned on again, it takes its place, and nothing of ours is left at the other level
      await project().client.query("select backup.maintenance_on('Back at one')");
      expect(await project().request({ method: "POST", path: "/entries" })).not.toBeNull();
      await project().client.query("select backup.maintenance_off()");
      const after = await settings();
      expect(after[0]).toEqual(before);
      expect(after[1]?.config).toContain("pgrst.db_pre_request=public.other");
    });
  });

  it("that somebody else sets meanwhile is left, and told", async () => {
    await project().closed(async () => {
      await project().client.query("alter role authenticator set pgrst.db_pre_request = 'public.newer'");
      const outcome = JSON.parse(await scalar(project().client, "select backup.maintenance_off()") ?? "null");
      expect(outcome.left).toEqual([expect.stringContaining("public.newer")]);
      expect(outcome.preRequest.present).toBe("public.newer");
    });
  });
});
