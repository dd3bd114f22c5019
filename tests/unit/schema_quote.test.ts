import { describe, expect, it } from "vitest";
import {
  foreignOptions,
  settingName,
  settingValue,
  splitIdentifierList,
  storageOptions,
} from "../../src/shared/schema/options.ts";
import {
  arrayText,
  quoteGrantee,
  quoteIdent,
  quoteLiteral,
  quoteQualified,
  splitQualified,
  unquoteIdent,
} from "../../src/shared/schema/quote.ts";

describe("names in SQL", () => {
  it("stay bare only where no server reads them otherwise", () => {
    expect(["plain", "with_1", "_x"].map(quoteIdent)).toEqual(["plain", "with_1", "_x"]);
    expect(["Upper", "1st", "a b", "a-b", "é", "", "a$b"].map(quoteIdent)).toEqual([
      '"Upper"',
      '"1st"',
      '"a b"',
      '"a-b"',
      '"é"',
      '""',
      '"a$b"',
    ]);
    expect(["select", "user", "left", "between", "values", "json_table"].map(quoteIdent)).toEqual([
      '"select"',
      '"user"',
      '"left"',
      '"between"',
      '"values"',
      '"json_table"',
    ]);
  });

  it("are read back as they were written", () => {
    const names = ["plain", "a.b", 'a"b', "Odd\nschéma", "select", "a, b", " "];
    for (const schema of names) {
      for (const name of names) {
        expect(splitQualified(quoteQualified(schema, name))?.map(unquoteIdent)).toEqual([schema, name]);
      }
    }
    for (const text of ["a", "a.b.c", ".a", "a.", '"a.b', "a b.c", "a,b.c", '"".a']) {
      expect(splitQualified(text), text).toBeNull();
    }
  });

  it("keep quotes, newlines and everything else that a name may hold", () => {
    expect(quoteIdent('a"b')).toBe('"a""b"');
    expect(quoteQualified("Odd\nschéma", "'; drop --")).toBe('"Odd\nschéma"."\'; drop --"');
    expect(quoteGrantee(null)).toBe("public");
    expect(quoteGrantee("public ")).toBe('"public "');
  });
});

describe("texts in SQL", () => {
  it("read the same whether backslashes escape or not", () => {
    expect(quoteLiteral("it's")).toBe("'it''s'");
    expect(quoteLiteral("a\\b'c")).toBe("E'a\\\\b''c'");
    expect(quoteLiteral("")).toBe("''");
  });

  it("are array literals with every element quoted", () => {
    expect(arrayText([])).toBe("{}");
    expect(arrayText(['a"b', "c\\d", "e,f", "NULL"])).toBe('{"a\\"b","c\\\\d","e,f","NULL"}');
  });
});

describe("settings", () => {
  it("that are lists keep their elements apart, and the empty one empty", () => {
    expect(settingValue("search_path", '"$user", public, "Odd ""one"""')).toBe("'$user', 'public', 'Odd \"one\"'");
    expect(settingValue("search_path", '""')).toBe("''");
    expect(settingValue("search_path", "")).toBe("''");
    expect(splitIdentifierList('a, "b, c" ,"d""e"')).toEqual(["a", "b, c", 'd"e']);
  });

  it("that are not lists are one text", () => {
    expect(settingValue("DateStyle", "ISO, DMY")).toBe("'ISO, DMY'");
    expect(settingName("app.settings.Some key")).toBe('app.settings."Some key"');
  });
});

describe("options", () => {
  it("keep values that hold an equals sign, and none at all", () => {
    expect(foreignOptions(["user=a=b", "Odd name=it's"])).toBe(` options ("user" 'a=b', "Odd name" 'it''s')`);
    expect(foreignOptions([])).toBe("");
    expect(foreignOptions(null)).toBe("");
  });

  it("of storage quote all but numbers", () => {
    expect(storageOptions(["fillfactor=70", "n_distinct=-0.5", "check_option=local"], "toast.")).toEqual([
      "toast.fillfactor = 70",
      "toast.n_distinct = '-0.5'",
      "toast.check_option = 'local'",
    ]);
  });
});
