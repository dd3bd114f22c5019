import { type Login, quoted } from "./database.ts";

/**
 * The function that role authenticator's setting `pgrst.db_pre_request` names, called in each transaction before its
 * work. Looked up at the start and again at `notify pgrst`, as PostgREST does.
 */
export class PreRequest {
  #statement: string | null = null;
  readonly #login: Login;
  readonly #over = new AbortController();
  readonly #first = Promise.withResolvers<void>();

  constructor(login: Login) {
    this.#login = login;
    this.#login.listen("pgrst", (payload) => {
      if (payload === "" || payload.startsWith("reload")) this.#look();
    }, this.#over.signal);
  }

  /** Resolves when the setting has been looked up once. */
  get ready(): Promise<void> {
    return this.#first.promise;
  }

  /** The call as SQL, or null when there is none. */
  get statement(): string | null {
    return this.#statement;
  }

  close(): void {
    this.#over.abort();
  }

  async #look(): Promise<void> {
    try {
      const [row] = await this.#login.transaction((sql) =>
        sql.query(
          `select split_part(setting, '=', 2) as name
             from pg_catalog.pg_db_role_setting s
             left join pg_catalog.pg_database d on d.oid = s.setdatabase
             cross join unnest(s.setconfig) as setting
            where s.setrole = current_user::regrole and setting like 'pgrst.db\\_pre\\_request=%'
              and (s.setdatabase = 0 or d.datname = current_database())
            order by s.setdatabase desc limit 1`,
        )
      );
      const name = row?.["name"] ?? "";
      this.#statement = name === "" ? null : `select ${name.split(".").map((part) => quoted(part)).join(".")}()`;
      this.#first.resolve();
    } catch {
      // The server is gone: listening starts again with it, and looks again.
    }
  }
}
