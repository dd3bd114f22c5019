import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readBackupMap } from "../../src/shared/rows/ownership/map_file.ts";

const page = readFileSync(new URL("../../docs/backup-map.md", import.meta.url), "utf8");

describe("backup.map.json", () => {
  it("is read as its page shows it", () => {
    const examples = [...page.matchAll(/```json\n([^]*?)```/g)].map((match) => match[1] ?? "");
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) expect(() => readBackupMap(example)).not.toThrow();
    expect(readBackupMap(examples[0] ?? "")).toMatchObject({
      version: 1,
      users: [{ table: { schema: "public", name: "events" }, column: "user_id" }, {}],
    });
  });

  it("has a page that names everything it can hold", () => {
    for (
      const word of [
        "version",
        "share",
        "keys",
        "columns",
        "to",
        "follow",
        "users",
        "column",
        "tables",
        "rows",
        "owned",
        "shared",
        "never",
      ]
    ) {
      expect(page, word).toContain(`\`${word}\``);
    }
  });

  it("takes quoted names, and leaves out what is not said", () => {
    expect(readBackupMap('{"version": 1, "users": [{"table": "app.\\"Odd, Name\\"", "column": "By"}]}')).toEqual({
      version: 1,
      keys: [],
      users: [{ table: { schema: "app", name: "Odd, Name" }, column: "By" }],
      tables: [],
    });
  });

  for (
    const [what, text, place] of [
      ["no JSON", "{", "it is no JSON"],
      ["another version", '{"version": 2}', "version: "],
      ["a word that it does not know", '{"version": 1, "tabels": []}', "the document: "],
      [
        "a name without its schema",
        '{"version": 1, "users": [{"table": "events", "column": "a"}]}',
        "users[0].table: ",
      ],
      [
        "capitals without quotes",
        '{"version": 1, "users": [{"table": "public.Events", "column": "a"}]}',
        "users[0].table: ",
      ],
      [
        "a key without columns",
        '{"version": 1, "keys": [{"table": "a.b", "columns": [], "follow": true}]}',
        "keys[0].columns: ",
      ],
      ["a share above one", '{"version": 1, "tables": [{"table": "a.b", "share": 50}]}', "tables[0].share: "],
      ["another word for rows", '{"version": 1, "tables": [{"table": "a.b", "rows": "mine"}]}', "tables[0].rows: "],
    ] as const
  ) {
    it(`with ${what} is refused at that place`, () => {
      expect(() => readBackupMap(text)).toThrowError(
        expect.objectContaining({
          code: "payload_invalid",
          message: expect.stringContaining(`backup.map.json: ${place}`),
        }),
      );
    });
  }
});
