/** Policies: shut while what they stand on is made anew, never open in between. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { findWord, tokensOf } from "../texts/sql_text.ts";

/**
 * What takes a policy off the objects that it uses. A permissive one goes: fewer rows are seen. A restrictive one stays and
 * lets nothing pass, since without it more would be seen.
 */
export function loosenPolicy(one: Definition): readonly string[] {
  const create = one.statements.find((text) => text.startsWith("create policy ")) ?? "";
  const tokens = tokensOf(create);
  const has = (word: string) => findWord(tokens, new Set([word]), 3) < tokens.length;
  if (!create.includes(" as restrictive")) return [`drop ${one.identity}`];
  return [
    `alter ${one.identity}` + (has("using") ? " using (false)" : "") + (has("check") ? " with check (false)" : ""),
  ];
}

/** Takes its place in one transaction, whatever became of the old one. */
export function replacePolicy(one: Definition): readonly string[] {
  return [one.identity.replace(/^policy /, "drop policy if exists "), ...one.statements];
}
