/** Types whose text tells equality: two values are equal if and only if the server writes them alike under `applySettings`. */

export type TextForm = Pick<RegExp, "test">;

const integer = /^-?(0|[1-9]\d*)$/;
const anything = /^/;
/** From a type that pads: without its blanks it may be equal to a text that has none. */
const unpadded = /(^|[^ ])$/;
/** Pairs of digits, told without a loop that could be taken back: values are of any length. */
const hexadecimal = {
  test: (text: string) => text.startsWith("\\\\x") && text.length % 2 === 1 && !/[^0-9a-f]/.test(text.slice(3)),
};
const time = String.raw`\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?`;
const date = String.raw`\d{4,6}-\d\d-\d\d`;

/**
 * Each with the form of its texts: a value of another form comes from a column of another type (`5.00` of a numeric one),
 * and may be equal all the same. Not here, and why: float (-0 and 0), numeric (1.0 and 1), interval (1 mon and 30 days),
 * character (trailing blanks), json and jsonb (numbers in them), citext and ranges, composites and arrays of any of
 * these; inet and cidr, which are equal with different texts; enums, whose labels can be renamed since; "char", whose
 * text changed with version 16; domains, which may be of any of these.
 */
const forms: readonly (readonly [type: RegExp, form: TextForm])[] = [
  [/^uuid$/, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/],
  [/^(smallint|integer|bigint|oid)$/, integer],
  [/^boolean$/, /^[tf]$/],
  [/^text$/, unpadded],
  [/^name$/, unpadded],
  [/^character varying(\(\d+\))?$/, unpadded],
  [/^bytea$/, hexadecimal],
  [/^date$/, new RegExp(`^(${date}( BC)?|-?infinity)$`)],
  [/^time(\(\d\))? without time zone$/, new RegExp(`^${time}$`)],
  [/^timestamp(\(\d\))? without time zone$/, new RegExp(`^(${date} ${time}( BC)?|-?infinity)$`)],
  [/^timestamp(\(\d\))? with time zone$/, new RegExp(String.raw`^(${date} ${time}\+00( BC)?|-?infinity)$`)],
  [/^macaddr8?$/, anything],
];

/** `type` as `format_type` writes it. Null: texts of the type do not tell. */
export function textForm(type: string): TextForm | null {
  return forms.find(([name]) => name.test(type))?.[1] ?? null;
}
