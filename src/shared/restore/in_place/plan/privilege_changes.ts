/** Grants that are there into grants that were, statement by statement. Pure. */

interface Right {
  /** `grant … on` up to the target, without the verb: what ALTER DEFAULT PRIVILEGES puts before it. */
  readonly prefix: string;
  readonly privilege: string;
  readonly target: string;
  readonly grantee: string;
  /** Role that granted; null: the owner. */
  readonly grantor: string | null;
}

/** What was done to a right, against what the object has when nothing was granted or revoked. */
type Level = "granted" | "grantable" | "revoked";

const identifier = `(?:"(?:[^"]|"")+"|[^\\s",()]+)`;
const privilege = `[a-z]+(?: [a-z]+)?(?: \\(${identifier}\\))?`;
const statementPattern = new RegExp(
  `^((?:alter default privileges for role [\\s\\S]+? )?)(grant|revoke) (${privilege}(?:, ${privilege})*) on ` +
    `([\\s\\S]+) (?:to|from) (${identifier})( with grant option)?$`,
);
const privilegePattern = new RegExp(privilege, "g");

/** Null where a statement is none that `accessStatements` writes. */
function readRights(statements: readonly string[]): Map<string, { right: Right; level: Level }> | null {
  const rights = new Map<string, { right: Right; level: Level }>();
  let grantor: string | null = null;
  for (const statement of statements) {
    const role = /^set role ([\s\S]+)$/.exec(statement)?.[1];
    if (role !== undefined) grantor = role;
    else if (statement === "reset role") grantor = null;
    else {
      const match = statementPattern.exec(statement);
      if (match === null) return null;
      const [, prefix = "", verb, list = "", target = "", grantee = "", option] = match;
      for (const [one] of list.matchAll(privilegePattern)) {
        const right = { prefix, privilege: one, target, grantee, grantor };
        const level = verb === "revoke" ? "revoked" : option === undefined ? "granted" : "grantable";
        // An entry that is revoked and granted again (with another option) is as it was granted.
        rights.set(JSON.stringify(right), { right, level });
      }
    }
  }
  return rights;
}

/**
 * Statements that lead from the grants of `is` to those of `was`, each relative to the same owner's defaults. Only what
 * differs is named. Null where that cannot be told from the texts.
 */
export function privilegeChanges(was: readonly string[], is: readonly string[]): string[] | null {
  if (was.join("\n") === is.join("\n")) return [];
  const common = new Set(is.filter((text) => was.includes(text) && /^revoke all on /.test(text)));
  const wanted = readRights(was.filter((text) => !common.has(text)));
  const present = readRights(is.filter((text) => !common.has(text)));
  if (wanted === null || present === null) return null;
  const statements: string[] = [];
  const say = (right: Right, text: string) => {
    if (right.grantor === null) statements.push(right.prefix + text);
    else statements.push(`set role ${right.grantor}`, right.prefix + text, "reset role");
  };
  const revoke = (right: Right, what = "") =>
    say(right, `revoke ${what}${right.privilege} on ${right.target} from ${right.grantee}`);
  const grant = (right: Right, option: boolean) =>
    say(
      right,
      `grant ${right.privilege} on ${right.target} to ${right.grantee}${option ? " with grant option" : ""}`,
    );
  for (const [key, { right, level }] of present) {
    const other = wanted.get(key)?.level;
    if (other === undefined && level !== "revoked") revoke(right);
    if (other === "granted" && level === "grantable") revoke(right, "grant option for ");
    if (other === "revoked" && level !== "revoked") revoke(right);
  }
  for (const [key, { right, level }] of wanted) {
    const other = present.get(key)?.level;
    if (level === "revoked") {
      if (other === undefined) revoke(right);
    } else if (other === undefined || other === "revoked") grant(right, level === "grantable");
    else if (level === "grantable" && other === "granted") grant(right, true);
  }
  for (const [key, { right, level }] of present) {
    if (level === "revoked" && !wanted.has(key)) grant(right, false);
  }
  return statements;
}
