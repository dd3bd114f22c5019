import { describe, expect, it } from "vitest";
import type { Grant } from "../../src/shared/schema/inventory.ts";
import { accessStatements, grantOn } from "../../src/shared/schema/privileges.ts";

const grant = (grantee: string | null, privilege: string, rest: Partial<Grant> = {}): Grant => ({
  grantor: "owner",
  grantee,
  privilege,
  grantable: false,
  ...rest,
});
const base = [grant(null, "EXECUTE"), grant("owner", "EXECUTE")];
const text = grantOn("routine s.f()");

describe("an access list", () => {
  it("that is the default says nothing", () => {
    expect(accessStatements({ owner: "owner", actual: null, base, column: null }, text)).toEqual([]);
    expect(accessStatements({ owner: "owner", actual: base, base, column: null }, text)).toEqual([]);
  });

  it("that lost what everybody has by default takes it back", () => {
    const actual = [grant("owner", "EXECUTE")];
    expect(accessStatements({ owner: "owner", actual, base, column: null }, text)).toEqual([
      "revoke execute on routine s.f() from public",
    ]);
  });

  it("that is empty takes everything back, from the owner too", () => {
    expect(accessStatements({ owner: "owner", actual: [], base, column: null }, text)).toEqual([
      "revoke execute on routine s.f() from public",
      'revoke execute on routine s.f() from "owner"'.replaceAll('"', ""),
    ]);
  });

  it("keeps its order, its grant options, and who granted", () => {
    const actual = [
      grant("owner", "SELECT"),
      grant("b role", "SELECT", { grantable: true }),
      grant("b role", "INSERT"),
      grant("a", "SELECT"),
      grant("c", "SELECT", { grantor: "b role" }),
    ];
    expect(
      accessStatements(
        { owner: "owner", actual, base: [grant("owner", "SELECT")], column: null },
        grantOn("table s.t"),
      ),
    ).toEqual([
      'grant insert on table s.t to "b role"',
      'grant select on table s.t to "b role" with grant option',
      "grant select on table s.t to a",
      'set role "b role"',
      "grant select on table s.t to c",
      "reset role",
    ]);
  });

  it("of a column names the column with each privilege", () => {
    const actual = [grant("a", "SELECT"), grant("a", "UPDATE")];
    expect(accessStatements({ owner: "owner", actual, base: [], column: "Odd col" }, grantOn("table s.t"))).toEqual([
      'grant select ("Odd col"), update ("Odd col") on table s.t to a',
    ]);
  });
});
