/** Comments, security labels and DEPENDS ON EXTENSION, which follow a definition's own statements. Pure. */

const comment = /^(comment on [\s\S]*?) is E?'(?:[^'\\]|''|\\[\s\S])*'$/;
const label = /^(security label for [\s\S]*?) is E?'(?:[^'\\]|''|\\[\s\S])*'$/;
const depends = /^alter ([\s\S]+) depends on extension (\S+)$/;

export function isRemark(statement: string): boolean {
  return comment.test(statement) || label.test(statement) || depends.test(statement);
}

/** Statements that lead from the remarks among `is` to those among `was`. */
export function remarkChanges(was: readonly string[], is: readonly string[]): string[] {
  const subjectOf = (text: string) => comment.exec(text)?.[1] ?? label.exec(text)?.[1] ?? text;
  const wanted = was.filter(isRemark);
  const present = is.filter(isRemark);
  const kept = new Set(wanted.map(subjectOf));
  return [
    ...present.filter((text) => !kept.has(subjectOf(text))).map((text) =>
      depends.test(text) ? text.replace(depends, "alter $1 no depends on extension $2") : `${subjectOf(text)} is null`
    ),
    ...wanted.filter((text) => !present.includes(text)),
  ];
}
