/** How a captured definition is taken back. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { quoteLiteral, unquoteIdent } from "../../../schema/quote.ts";
import { readUnnamedJob } from "../../../schema/unnamed_jobs.ts";
import { typeName } from "../texts/identity_names.ts";

const nameBehind = (identity: string, word: string): string => identity.slice(word.length + 1);

/**
 * Statements that undo it, without CASCADE: what hangs on it must be gone. Empty: it goes with something else. Null: it is
 * not known how, so the object is left.
 */
export function dropStatements(one: Definition): readonly string[] | null {
  const { identity, kind } = one;
  const [first = ""] = one.statements.filter((text) => !text.startsWith("set search_path = "));
  if (identity.startsWith("body of ")) return [];
  switch (kind) {
    case "table":
    case "foreign table":
    case "view":
    case "materialized view":
    case "schema":
    case "server":
    case "publication":
    case "event trigger":
    case "policy":
    case "rule":
    case "collation":
    case "conversion":
    case "cast":
    case "operator":
    case "text search dictionary":
    case "text search configuration":
    case "text search parser":
    case "text search template":
      return [`drop ${identity}`];
    case "index":
      return [`drop ${identity.replace(/^index /, "index if exists ")}`];
    case "sequence":
      // One that a column owned is gone with it.
      return [`drop sequence if exists ${nameBehind(identity, "sequence")}`];
    case "trigger":
      return [`drop ${identity}`];
    case "partition trigger":
    case "materialized view data":
    case "index partition":
    case "operator family members":
    case "extension privileges":
      return [];
    case "function":
    case "procedure":
      return [`drop ${identity}`];
    case "aggregate":
      return [`drop routine ${nameBehind(identity, "aggregate")}`];
    case "enum":
    case "range":
    case "composite type":
    case "shell type":
      return [`drop type ${typeName(identity)}`];
    case "domain":
      return [`drop domain ${typeName(identity)}`];
    case "operator class":
    case "operator family":
      return [`drop ${identity}`];
    case "foreign data wrapper":
      return [`drop foreign data wrapper ${nameBehind(identity, "foreign-data wrapper")}`];
    case "user mapping":
      return replaced(
        first,
        /^create user mapping for ("(?:[^"]|"")+"|\S+) server ("(?:[^"]|"")+"|\S+)[\s\S]*$/,
        "drop user mapping for $1 server $2",
      );
    case "statistics":
      return [`drop statistics ${nameBehind(identity, "statistics object")}`];
    case "primary key":
    case "unique constraint":
    case "exclusion constraint":
    case "check constraint":
      return first === ""
        ? []
        : dropConstraint(first, /^(alter table )(?:only )?([\s\S]+?) add constraint ("(?:[^"]|"")+"|\S+) [\s\S]*$/);
    case "foreign key":
      // ONLY stands where the table is not partitioned: tables that inherit from it do not have its keys.
      return dropConstraint(first, /^(alter table )((?:only )?[\s\S]+?) add constraint ("(?:[^"]|"")+"|\S+) [\s\S]*$/);
    case "domain constraint":
      return replaced(
        first,
        /^(alter domain [\s\S]+?) add constraint ("(?:[^"]|"")+"|\S+) [\s\S]*$/,
        "$1 drop constraint $2",
      );
    case "default":
      return replaced(
        first,
        /^(alter (?:foreign )?(?:table only|view) [\s\S]+? alter column (?:"(?:[^"]|"")+"|\S+) )set default [\s\S]*$/,
        "$1drop default",
      );
    case "identity":
      return replaced(
        first,
        /^(alter table [\s\S]+? alter column (?:"(?:[^"]|"")+"|\S+) )add generated [\s\S]*$/,
        "$1drop identity if exists",
      );
    case "sequence ownership":
      return replaced(first, /^(alter sequence [\s\S]+? owned by )[\s\S]*$/, "$1none");
    case "partition":
      return replaced(
        first,
        /^(alter table )only ([\s\S]+?) attach (partition (?:"(?:[^"]|"")+"|[^\s."]+)\.(?:"(?:[^"]|"")+"|[^\s"]+))[\s\S]*$/,
        "$1$2 detach $3",
      );
    case "index marks":
      return one.statements.map((text) =>
        text.replace(/ cluster on [\s\S]+$/, " set without cluster").replace(
          / replica identity using [\s\S]+$/,
          " replica identity default",
        )
      );
    case "row security":
      return one.statements.map((text) =>
        text.replace(/ enable row level security$/, " disable row level security").replace(
          / force row level security$/,
          " no force row level security",
        )
      );
    case "publication table":
      return replaced(
        first,
        /^(alter publication (?:"(?:[^"]|"")+"|\S+) )add (table )only ((?:"(?:[^"]|"")+"|[^\s."]+)\.(?:"(?:[^"]|"")+"|[^\s"]+))[\s\S]*$/,
        "$1drop $2only $3",
      );
    case "publication schema":
      return replaced(first, /^(alter publication [\s\S]+? )add (tables in schema [\s\S]*)$/, "$1drop $2");
    case "cron job":
      return [dropJob(one)];
    default:
      return null;
  }
}

function dropConstraint(text: string, pattern: RegExp): readonly string[] | null {
  return replaced(text, pattern, "$1if exists $2 drop constraint if exists $3");
}

function replaced(text: string, pattern: RegExp, by: string): readonly string[] | null {
  return pattern.test(text) ? [text.replace(pattern, by)] : null;
}

/** By name and user; one without a name by all that it is, and only one of several that are equal. */
function dropJob(one: Definition): string {
  const { identity } = one;
  const job = readUnnamedJob(one);
  if (job !== null) {
    return `select cron.unschedule(o.jobid) from (select j.jobid from cron.job j where j.jobname is null and j.schedule = ${job.schedule} and j.command = ${job.command} and j.database = ${job.database} and j.username = ${job.user} order by j.jobid desc limit 1) o`;
  }
  const named = /^cron job ([\s\S]+) of ("(?:[^"]|"")+"|\S+)$/.exec(identity);
  const user = unquoteIdent(named?.[2] ?? "");
  const name = named?.[1] ?? "";
  const which = `j.jobname = ${quoteLiteral(unquoteIdent(name))}`;
  return `select cron.unschedule(j.jobid) from cron.job j where ${which} and j.username = ${quoteLiteral(user)}`;
}
