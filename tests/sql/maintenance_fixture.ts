/** An installed project with an app's objects in it, closed for a test, and requests as PostgREST makes them. */
import type pg from "pg";
import { afterAll, beforeAll } from "vitest";
import { installedCluster, rolledBack, session, type Version } from "./cluster.ts";

const objects = `
  create table public.entries (id int primary key, title text not null);
  insert into public.entries values (1, 'one');
  create view public.titles as select id, title from public.entries;
  create table public.parted (id int primary key) partition by range (id);
  create table public.parted_low partition of public.parted for values from (0) to (10);
  create sequence public.counter;
  create materialized view public.counted as select count(*) from public.entries;
  create function public.add_entry(new_id int) returns void language sql security definer
    as $$ insert into public.entries values (new_id, 'by a definer') $$;
  create function public.add_stubbornly(new_id int) returns text language plpgsql security definer as $$
    begin
      begin
        perform pg_catalog.set_config('transaction_read_only', 'off', true);
      exception when others then null;
      end;
      insert into public.entries values (new_id, 'in spite of all');
      return 'done';
    end $$;
  grant all on all tables in schema public to anon, authenticated, service_role;
  grant all on all sequences in schema public to anon, authenticated, service_role;
  revoke insert, update, delete on public.backup_runs, public.backup_audit, public.backup_alerts,
    public.backup_announcements from anon, authenticated, service_role;`;

/** A transaction with the app's objects in it, closed, which goes on after what is refused. */

export interface Failure {
  readonly code: string;
  readonly message: string;
}

export class Project {
  readonly client: pg.Client;

  constructor(client: pg.Client) {
    this.client = client;
  }

  /** A transaction with the app's objects in it, closed, which goes on after what is refused. */
  async closed(work: () => Promise<void>, prepare = ""): Promise<void> {
    await this.withObjects(async () => {
      if (prepare !== "") await this.client.query(prepare);
      await this.client.query("select backup.maintenance_on('Back at noon')");
      await work();
    });
  }

  /** The same, open. */
  async withObjects(work: () => Promise<void>): Promise<void> {
    await rolledBack(this.client, async () => {
      await this.client.query(objects);
      await work();
    });
  }

  /** What PostgREST does with a request, and the SQLSTATE of the first of its statements that fails. */
  async request(
    call: { readonly method: string; readonly path: string; readonly role?: string },
    statements: readonly string[] = [],
  ): Promise<Failure | null> {
    await this.client.query("savepoint request");
    try {
      await this.client.query(
        `select set_config('request.method', $1, true), set_config('request.path', $2, true), set_config('role', $3, true),
           set_config('search_path', 'public, extensions', true)`,
        [call.method, call.path, call.role ?? "service_role"],
      );
      await this.client.query(`select "public"."backup_before_request"()`);
      for (const statement of statements) await this.client.query(statement);
      return null;
    } catch (error) {
      const { code, message } = error as Failure;
      return { code, message };
    } finally {
      await this.client.query("rollback to savepoint request");
    }
  }

  /** The outcome of statements that a function under /rpc might run. */
  async inFunction(...statements: readonly string[]): Promise<string> {
    return (await this.request({ method: "POST", path: "/rpc/anything" }, statements))?.code ?? "written";
  }
}

/** For the tests of a describe block: the function that it returns gives the project inside tests and hooks. */
export function useProject(version: Version = 15): () => Project {
  let project: Project | undefined;
  beforeAll(async () => {
    project = new Project(await session(await installedCluster(version)));
  });
  afterAll(async () => {
    await project?.client.end();
  });
  return () => {
    if (project === undefined) throw new Error("the project is there in tests and hooks only");
    return project;
  };
}
